package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// World is all that a report needs to arrive: DNS, HTTPS and SMTP.
type World struct {
	Zone  *Zone
	HTTPS *HTTPS
	SMTP  *SMTP
	hosts []string
	close func() error
}

// Options says what a World is like. The zero value is useful.
type Options struct {
	// Hosts are the names of the HTTPS server. Nil means reports.example.org,
	// reports.example.net and reports.example.com.
	Hosts []string

	// SMTP says what the SMTP server offers.
	SMTP SMTPOptions
}

// Start starts all servers. The zone leads the names of the HTTPS server to
// 127.0.0.1.
func Start(o Options) (*World, error) {
	w := &World{hosts: slices.Clone(o.Hosts)}
	if len(w.hosts) == 0 {
		w.hosts = []string{"reports.example.org", "reports.example.net", "reports.example.com"}
	}
	w.close = sync.OnceValue(w.shutdown)
	if err := w.start(o.SMTP); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	for _, host := range w.hosts {
		w.Zone.SetAddr(host, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return w, nil
}

func (w *World) start(o SMTPOptions) error {
	ca, err := NewCA()
	if err != nil {
		return err
	}
	if w.Zone, err = StartZone(); err != nil {
		return err
	}
	if w.HTTPS, err = StartHTTPS(ca, w.hosts...); err != nil {
		return err
	}
	w.SMTP, err = StartSMTP(o)
	return err
}

// Close stops all servers. Only the first call does anything.
func (w *World) Close() error { return w.close() }

func (w *World) shutdown() error {
	var errs []error
	if w.SMTP != nil {
		errs = append(errs, w.SMTP.Close())
	}
	if w.HTTPS != nil {
		errs = append(errs, w.HTTPS.Close())
	}
	if w.Zone != nil {
		errs = append(errs, w.Zone.Close())
	}
	return errors.Join(errs...)
}

// URL is the address of path, which begins with a slash, at the first host of
// the HTTPS server.
func (w *World) URL(path string) string { return w.HTTPS.URL(w.hosts[0], path) }

// Publish makes record the TLSRPT record of domain, and "" takes it away.
func (w *World) Publish(domain, record string) {
	name := "_smtp._tls." + domain
	if record == "" {
		w.Zone.SetTXT(name)
		return
	}
	w.Zone.SetTXT(name, record)
}

// Reports is every report that was accepted, as it was read, in the order of
// arrival. One that arrived twice, because the sender did not hear the answer or
// because the domain has two destinations, is there twice.
func (w *World) Reports() []Report { return w.check(w.HTTPS.Received(), w.SMTP.Received()) }

// Wait is like Reports, as soon as n were accepted or ctx ended.
func (w *World) Wait(ctx context.Context, n int) ([]Report, error) {
	for {
		posts, morePosts := w.HTTPS.posts.watch()
		mails, moreMails := w.SMTP.mails.watch()
		if accepted := countAccepted(posts, mails); accepted >= n {
			return w.check(posts, mails), nil
		} else if ctx.Err() != nil {
			return w.check(posts, mails), fmt.Errorf("receiver: %d of %d reports arrived: %w", accepted, n, context.Cause(ctx))
		}
		select {
		case <-morePosts:
		case <-moreMails:
		case <-ctx.Done():
		}
	}
}

func countAccepted(posts []Post, mails []Mail) (n int) {
	for i := range posts {
		if posts[i].Accepted() {
			n++
		}
	}
	for i := range mails {
		if mails[i].Accepted() {
			n++
		}
	}
	return n
}

func (w *World) check(posts []Post, mails []Mail) (reports []Report) {
	for _, p := range posts {
		if p.Accepted() {
			reports = append(reports, CheckPost(p, w.Zone.LookupTXT))
		}
	}
	for _, m := range mails {
		if m.Accepted() {
			reports = append(reports, CheckMail(m, w.Zone.LookupTXT))
		}
	}
	slices.SortStableFunc(reports, func(a, b Report) int { return a.Time.Compare(b.Time) })
	sameID(reports)
	return reports
}

// sameID finds different reports with one report-id: receivers drop the second.
func sameID(reports []Report) {
	first := map[string][]byte{}
	for i := range reports {
		r := &reports[i]
		if seen, ok := first[r.ReportID]; !ok {
			first[r.ReportID] = r.JSON
		} else if r.ReportID != "" && !bytes.Equal(seen, r.JSON) {
			r.problem("report-id %q is that of another report", r.ReportID)
		}
	}
}
