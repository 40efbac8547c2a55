// Package policy finds out which policy a domain had for TLS with one of its MX
// hosts: DANE (RFC 7672), MTA-STS (RFC 8461), or none. An MTA's log does not say
// it, and a report without it accuses or praises the wrong party.
//
// [Finder] answers from memory and looks up in the background. What it cannot
// know for certain it calls unknown: nothing is guessed.
package policy
