package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/internal/dsn"
	"github.com/tlsrpt-agent/tlsrpt-agent/submitter"
)

// returnPath is where bounces of report mail go.
func (a *Agent) returnPath() submitter.ReturnPath {
	r := submitter.ReturnPath{Address: a.o.From}
	if a.submitter != nil {
		r.Delimiter = a.submitter.BounceDelimiter
	}
	return r
}

// TakesBounces reports whether address is one that bounces of report mail come
// to: the sender, with or without the name of a delivery, or the contact.
func (a *Agent) TakesBounces(address string) bool {
	_, ours := a.returnPath().Read(address)
	return ours || a.o.Contact != "" && strings.EqualFold(address, a.o.Contact)
}

// Bounced takes in a message that came to such an address, as it is in the mail.
// A bounce (RFC 3464) of a report that was sent ends its delivery as given up,
// and the next rua gets the report where it is sent to one after the other. An
// address that does not exist, on two days, is suppressed. A message that is no
// bounce, or one that nobody can have got for a delivery of ours, changes nothing.
//
// After nil the message has done what it can. An error means that it could not be
// read, or the store not be used: bring it again.
func (a *Agent) Bounced(ctx context.Context, to string, message io.Reader) error {
	var n dsn.Notification
	err := guarded(func() (err error) {
		n, err = dsn.Parse(message)
		return err
	})
	if errors.Is(err, dsn.ErrNotDSN) {
		a.log.Info("mail that is no bounce", "to", to)
		return nil
	}
	if err != nil {
		return err
	}
	d, err := a.bouncedDelivery(ctx, to, n)
	if errors.Is(err, aggregator.ErrNoDelivery) {
		a.log.Info("bounce of no delivery of ours", "to", to, "envelope-id", n.EnvelopeID)
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range n.Recipients {
		if r.Failed() && r.Is(d.RUA.Address()) {
			return a.bounce(ctx, d, r)
		}
	}
	a.log.Info("notification of no failure", "id", d.ID, "rua", d.RUA, "action", n.Recipients[0].Action)
	return nil
}

// bouncedDelivery is the delivery that a bounce names: by the address it came to,
// by the ENVID, or by the address it was sent to before somebody forwarded it.
func (a *Agent) bouncedDelivery(ctx context.Context, to string, n dsn.Notification) (aggregator.Delivery, error) {
	path := a.returnPath()
	cameTo, _ := path.Read(to)
	sentTo, _ := path.Read(n.To)
	for _, token := range []string{cameTo, n.EnvelopeID, sentTo} {
		d, err := a.store.DeliveryOf(ctx, token)
		if !errors.Is(err, aggregator.ErrNoDelivery) {
			return d, err
		}
	}
	return aggregator.Delivery{}, aggregator.ErrNoDelivery
}

// bounce ends d because of what r says.
func (a *Agent) bounce(ctx context.Context, d aggregator.Delivery, r dsn.Recipient) error {
	now := time.Now()
	oldest, err := a.oldest(ctx, now)
	if err != nil {
		return err
	}
	why := &submitter.Error{RUA: d.RUA, Err: fmt.Errorf("bounced with status %s", r.Status), Reply: r.Reason}
	b := aggregator.Bounce{
		ID: d.ID, Reason: why.Error(), At: now, Oldest: oldest,
		NoRecipient: r.Status.NoSuchRecipient() || r.Status.MailboxDisabled(),
	}
	err = a.storeBounce(ctx, b)
	if errors.Is(err, aggregator.ErrDone) || errors.Is(err, aggregator.ErrNoDelivery) {
		a.log.Info("bounce that changes nothing", "id", d.ID, "rua", d.RUA, "state", d.State)
		return nil
	}
	if err == nil {
		a.log.Warn("delivery bounced", "id", d.ID, "domain", d.Domain, "day", d.Day, "rua", d.RUA, "error", b.Reason)
	}
	return err
}

// storeBounce waits a moment for the outcome of an attempt to be stored: a relay
// on the same host is faster.
func (a *Agent) storeBounce(ctx context.Context, b aggregator.Bounce) error {
	const tries, wait = 20, 5 * settling
	err := a.store.Bounce(ctx, b)
	for i := 1; i < tries && errors.Is(err, aggregator.ErrUnderWay); i++ {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		err = a.store.Bounce(ctx, b)
	}
	return err
}
