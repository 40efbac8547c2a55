// Package dsn reads delivery status notifications (RFC 3464, RFC 6533), and what
// qmail and older versions of Exim send instead. All in them is from strangers:
// what is read is bounded, and no more is believed than that it was said.
package dsn
