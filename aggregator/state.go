package aggregator

import (
	"database/sql/driver"
	"fmt"
	"slices"
)

// State is what became of a domain-day. It is stored as a number, its place in
// states.
type State string

const (
	// StateOpen: it is still counted, or waits for its turn.
	StateOpen State = "open"
	// StateLate: sessions came after its report, and wait for a supplement.
	StateLate State = "late"
	// StateReported: a report and its deliveries exist.
	StateReported State = "reported"
	// StateNoRecord: the domain asks for no reports, so nothing is owed.
	StateNoRecord State = "no-record"
	// StateNotSent: it was too old, or from before submission was on.
	StateNotSent State = "not-sent"
	// StateExpired: its TLSRPT record could not be looked up in time.
	StateExpired State = "expired"
	// StateExcluded: the settings leave the domain out.
	StateExcluded State = "excluded"
	// StateOwnReports: all its sessions may have been those of report mail, which
	// is not reported.
	StateOwnReports State = "own-reports"
)

// states gives each State its number. The order is part of the file's format.
var states = []State{StateOpen, StateLate, StateReported, StateNoRecord, StateNotSent, StateExpired, StateExcluded, StateOwnReports}

// waiting is the condition of the index domain_day_waiting: open or late.
const waiting = "state < 2"

// Ended reports whether s is a state that [Store.Plan] can end a domain-day in.
func (s State) Ended() bool { return slices.Index(states, s) >= 2 }

// keepsTallies reports whether the counts of a domain-day stay when it ends in
// s: those of a report for looking at what was sent, those not sent for looking
// at what was imported. Of a domain that asked for nothing no details are kept.
func (s State) keepsTallies() bool {
	return s == StateOpen || s == StateLate || s == StateReported || s == StateNotSent
}

// Value stores s as its number.
func (s State) Value() (driver.Value, error) { return encodeState(states, s) }

// Scan reads the number of a State.
func (s *State) Scan(src any) (err error) {
	*s, err = decodeState(states, src)
	return err
}

// DeliveryState is what became of a delivery. It is stored as a number, its
// place in deliveryStates.
type DeliveryState string

const (
	// DeliveryPending: it waits for its next attempt, or one is under way.
	DeliveryPending DeliveryState = "pending"
	// DeliverySent: the destination took it.
	DeliverySent DeliveryState = "sent"
	// DeliveryGaveUp: the destination refused it for good.
	DeliveryGaveUp DeliveryState = "gave-up"
	// DeliveryExpired: no attempt succeeded in time.
	DeliveryExpired DeliveryState = "expired"
	// DeliverySuppressed: it is not to be sent, or another rua took the report.
	DeliverySuppressed DeliveryState = "suppressed"
	// DeliveryCancelled: the operator called it off.
	DeliveryCancelled DeliveryState = "cancelled"
)

// deliveryStates gives each DeliveryState its number. The order is part of the
// file's format.
var deliveryStates = []DeliveryState{DeliveryPending, DeliverySent, DeliveryGaveUp, DeliveryExpired, DeliverySuppressed, DeliveryCancelled}

// Value stores s as its number.
func (s DeliveryState) Value() (driver.Value, error) { return encodeState(deliveryStates, s) }

// Scan reads the number of a DeliveryState.
func (s *DeliveryState) Scan(src any) (err error) {
	*s, err = decodeState(deliveryStates, src)
	return err
}

func encodeState[S ~string](all []S, s S) (driver.Value, error) {
	i := slices.Index(all, s)
	if i < 0 {
		return nil, fmt.Errorf("unknown state %q", string(s))
	}
	return int64(i), nil
}

func decodeState[S ~string](all []S, src any) (S, error) {
	i, ok := src.(int64)
	if !ok || i < 0 || i >= int64(len(all)) {
		return "", fmt.Errorf("unknown state %v", src)
	}
	return all[i], nil
}
