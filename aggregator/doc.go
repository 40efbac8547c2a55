// Package aggregator is the store: what was counted, what is to be reported,
// and what became of each delivery. All SQL of the product is here.
//
// A session is counted under its day, domain and policy. [Store.Release] closes
// days that are over; each of their domains then comes due at a time of its
// own. [Store.Plan] ends a domain-day, with a report and its deliveries or with
// the reason why there is none. [Store.Claim] and [Store.Settle] carry out the
// deliveries.
//
// Sessions that are recorded after their day was closed are never counted twice
// and never lost. A domain-day that still waits takes them in. One that was
// reported becomes late: they are its next part, a supplement that waits for the
// next Release. One that ended without a report, because nothing was owed, adds
// them to its totals.
//
// Every exported method is one transaction, or one per page where it walks
// through many rows; no transaction is open while a callback runs. Several
// processes may use one store at once. Times have whole seconds: a fraction is
// dropped. All methods are safe for concurrent use.
package aggregator
