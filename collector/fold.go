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

// place gives p its place in b, which need not have room for it.
func (b *batch) place(p *prepared) Place {
	d := b.domain(p.domainKey)
	b.setRecord(d, p.record)
	place := Place{batch: b.id, sessions: d.sessions}
	for i := range p.lines {
		l := &p.lines[i]
		r, details, folded := b.fold(d, l)
		place.folded = place.folded || folded
		n := r.success
		if l.failed {
			n = r.failure
		}
		if i == 0 {
			place.result = n
		} else {
			place.more = append(place.more, n)
		}
		for _, t := range details {
			place.more = append(place.more, b.count(d, r, t))
		}
	}
	return place
}

// fold is the row of l, and the details that it counts there. It reports whether
// either is folded: counted under its type alone.
func (b *batch) fold(d *domain, l *line) (r *row, details []schema.DetailsText, folded bool) {
	hash, policy := l.hash, l.policy
	if d.rows >= maxPolicies && d.find(hash, policy) == nil {
		policy, folded = foldPolicy(policy, d.name), true
		hash = hashOf(policy)
	}
	r, details = b.row(d, hash, policy), l.details
	if d.details+len(details) > maxDetails && slices.ContainsFunc(details, r.lacks) {
		details, folded = foldDetails(details), true
	}
	return r, details, folded
}

// foldPolicy is a policy with its type and the recipient domain alone. One that
// cannot be read stays as it is.
func foldPolicy(t schema.PolicyText, domain string) schema.PolicyText {
	p, err := t.Policy()
	if err != nil {
		return t
	}
	return schema.Policy{Type: p.Type, Domain: domain}.Text()
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
