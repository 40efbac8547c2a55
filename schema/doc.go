// Package schema is RFC 8460, SMTP TLS Reporting, in Go types: the TLSRPT
// record, the policy, the session, the report, and the names that a report
// travels under.
//
// One datum walks through it in one direction. A [Session] is what an MTA saw;
// its canonical form makes equal things equal. A [Count] is how often one
// policy of one domain was seen on one [Day]. A [Report] is what a domain gets
// to read about itself. A [Record] says where to send it.
//
// The package has no state and does no input or output. All functions are safe
// for concurrent use.
package schema
