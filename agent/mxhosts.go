package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// mxHosts is a sink that counts sessions with DANE under the TLSA base domain
// too, so that it gets a report of its own if it publishes a record.
//
// RFC 8460, section 3, has the record at _smtp._tls.<policy-domain>, and section
// 4.4 says that the policy domain of a tlsa policy is the TLSA base domain,
// normally the MX host. Postfix, Google and Microsoft look for the record of the
// recipient domain alone; mox looks for both. The recipient domain's report has
// the tlsa policies either way.
type mxHosts struct{ collector.SpanSink }

// WithMXHosts is sink with what Options.MXHostReports has counted in addition.
func WithMXHosts(sink collector.SpanSink) collector.SpanSink { return mxHosts{sink} }

func (m mxHosts) Record(ctx context.Context, source string, cursor []byte, counts []schema.Count) error {
	return m.SpanSink.Record(ctx, source, cursor, withMXHosts(counts))
}

func (m mxHosts) RecordSpans(ctx context.Context, source string, cursor []byte, counts []schema.Count, spans []schema.Span) error {
	return m.SpanSink.RecordSpans(ctx, source, cursor, withMXHosts(counts), spans)
}

// tlsaPrefix begins the text of each tlsa policy.
const tlsaPrefix = `{"policy-type":"tlsa"`

// withMXHosts is counts, and each with a tlsa policy of another domain once more
// under that domain. The TLSRPT record that the source saw is not that domain's.
func withMXHosts(counts []schema.Count) []schema.Count {
	all := counts[:len(counts):len(counts)]
	for _, c := range counts {
		if !strings.HasPrefix(string(c.Policy), tlsaPrefix) {
			continue
		}
		p, err := c.Policy.Policy()
		if err != nil || p.Domain == c.Domain {
			continue
		}
		c.Domain, c.Record = p.Domain, ""
		all = append(all, c)
	}
	return all
}

// sink is where a source's sessions go. What a mail server itself reports is left
// as it is: it tells only of domains that have a record, so that the counts of an
// MX host would be those of a part of its domains.
func (a *Agent) sink(source collector.Source) collector.Sink {
	if _, native := source.(collector.Native); native || !a.o.MXHostReports {
		return a.store
	}
	return mxHosts{a.store}
}

// maxSharing bounds how many records are looked up to find out whether an MX host
// has been told.
const maxSharing = 8

// toldAlready reports whether the report about an MX host would go where the
// reports about its recipient domains go, which have all it has: every session
// that was counted for it was counted for a domain whose record has the same
// destinations. Where that would take many look-ups the report is sent.
func (a *Agent) toldAlready(ctx context.Context, d aggregator.DomainDay, ruas []schema.RUA) (bool, error) {
	if !a.o.MXHostReports || d.Part > 0 {
		return false, nil
	}
	domains, theirs, err := a.store.Sharing(ctx, d, maxSharing+1)
	if err != nil || len(domains) == 0 || len(domains) > maxSharing {
		return false, err
	}
	if all, err := a.store.Sessions(ctx, d.Day, d.Domain); err != nil || all != theirs {
		return false, err
	}
	ruas = slices.Sorted(slices.Values(ruas))
	for _, domain := range domains {
		_, rec, err := a.submitter.Discover(ctx, domain)
		if err != nil || !slices.Equal(ruas, slices.Sorted(slices.Values(rec.RUA))) {
			return false, nil
		}
	}
	return true, nil
}
