// Package submitter brings a report to those who asked for it: it finds the
// TLSRPT record of a domain, packs a report for sending, signs it, and makes one
// attempt to deliver it, by HTTPS or by mail (RFC 8460, section 5).
//
// A [Parcel] is made once and stored; every attempt sends the same bytes. What
// to do after a failed attempt, and when, is the caller's business: [IsTemporary]
// and [Error] say what the attempt has shown.
//
// Destinations, replies and certificates are the work of strangers. Nothing
// that they send is taken at more than a bounded length, nor put into a message
// or a log unless it is printable ASCII.
package submitter
