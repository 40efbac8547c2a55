package collector

import (
	"slices"

	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// Bounds on the keys of one domain on one day within a batch. Whoever makes each
// session different from all others would otherwise fill it, and crowd out the
// sessions with others. A report has room for far fewer: the store folds, too, by
// the day.
const (
	maxPolicies = 256
	maxDetails  = 1024
)

// crowdKey is what a bound on keys is for.
type crowdKey struct {
	day    schema.Day
	domain string
}

// crowd is how many keys of a batch are of one domain.
type crowd struct{ policies, details int }

func (b *batch) crowd(k key) *crowd {
	at := crowdKey{k.day, k.domain}
	c := b.crowds[at]
	if c == nil {
		c = new(crowd)
		b.crowds[at] = c
	}
	return c
}

// place gives l its row and the details that it counts there. It reports whether
// either is folded: counted under its type alone.
func (b *batch) place(l *line) (folded bool) {
	crowd, k := b.crowd(l.key), l.key
	if crowd.policies >= maxPolicies && b.rows[k] == nil {
		k.policy, folded = foldPolicy(k), true
	}
	before := b.keys
	l.row = b.row(k)
	crowd.policies += b.keys - before
	l.counted = l.details
	if crowd.details+len(l.details) > maxDetails && !b.knowsAllDetails(k, l.details) {
		l.counted, folded = foldDetails(l.details), true
	}
	before = b.keys
	for _, d := range l.counted {
		b.addDetails(l.row, d)
	}
	crowd.details += b.keys - before
	return folded
}

func (b *batch) knowsAllDetails(k key, details []schema.DetailsText) bool {
	return !slices.ContainsFunc(details, func(d schema.DetailsText) bool { return !b.knowsDetails(k, d) })
}

// foldPolicy is the policy of k with its type and the domain alone. One that cannot
// be read stays as it is.
func foldPolicy(k key) schema.PolicyText {
	p, err := k.policy.Policy()
	if err != nil {
		return k.policy
	}
	return schema.Policy{Type: p.Type, Domain: k.domain}.Text()
}

// foldDetails is details with their result types alone, each once.
func foldDetails(details []schema.DetailsText) (folded []schema.DetailsText) {
	for _, d := range details {
		if f, err := d.FailureDetails(); err == nil {
			d = schema.FailureDetails{ResultType: f.ResultType}.Text()
		}
		if !slices.Contains(folded, d) {
			folded = append(folded, d)
		}
	}
	return folded
}
