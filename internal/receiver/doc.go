// Package receiver is the receiving side of RFC 8460 on loopback: a DNS server,
// an HTTPS server and an SMTP server that take reports, and checks of what
// arrived. The demo command and tests send to it.
//
// It accepts less than any receiver known to exist. A report without
// [Report.Problems] is one that every receiver takes, so a sender that is held
// against it needs no second opinion. It verifies signatures with code of its
// own and shares none with the sending side but package schema.
//
// All types are safe for concurrent use.
package receiver
