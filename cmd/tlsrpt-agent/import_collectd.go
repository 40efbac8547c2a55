package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tlsrpt-agent/tlsrpt-agent/aggregator"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/libtlsrpt"
	"github.com/tlsrpt-agent/tlsrpt-agent/collector/postfixlog"
	"github.com/tlsrpt-agent/tlsrpt-agent/schema"
)

// dropMalformed is a row of a database that cannot be read. It has its sessions'
// number nowhere, so it is counted as one.
const dropMalformed postfixlog.Drop = "malformed"

// collectd imports the databases of tlsrpt-collectd.
func (i *importer) collectd(ctx context.Context) error {
	for _, path := range i.flags.collectd {
		if err := i.oneCollectd(ctx, path); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func (i *importer) oneCollectd(ctx context.Context, path string) (err error) {
	db, err := aggregator.OpenCollectd(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	source := forLooking + ":collectd:" + db.ID
	if i.flags.report {
		if err := i.store.ForgetLooking(ctx, source); err != nil {
			return err
		}
		source = reported + ":collectd:" + db.ID
	}
	file := importedFile{Name: path}
	defer func() { i.summary.add(file) }()
	for page, err := db.Next(ctx, nil); ; page, err = db.Next(ctx, page) {
		if err != nil || len(page) == 0 {
			return err
		}
		rows, malformed := importedRows(page)
		counts, err := i.store.RecordImported(ctx, source, rows, !i.flags.report)
		if err != nil {
			return err
		}
		i.summary.count(counts)
		file.Lines += int64(len(page))
		file.Known += int64(len(rows) - len(counts))
		for _, c := range counts {
			file.Sessions += c.Success + c.Failure
		}
		if malformed > 0 {
			i.summary.Dropped[dropMalformed] += int64(malformed)
		}
	}
}

// importedRows is the rows that can be read, and how many cannot.
func importedRows(page []aggregator.CollectdRow) (rows []aggregator.Imported, malformed int) {
	for _, r := range page {
		row, err := importedRow(r)
		if err != nil {
			malformed++
			continue
		}
		rows = append(rows, row)
	}
	return rows, malformed
}

var errRow = errors.New("a row is malformed")

// importedRow reads a row. It is read as the datagrams that it was made of were.
func importedRow(r aggregator.CollectdRow) (aggregator.Imported, error) {
	if r.Day == nil || r.Domain == nil || r.Record == nil || r.Policy == nil || r.Total == nil || r.Failure == nil ||
		*r.Failure < 0 || *r.Failure > *r.Total {
		return aggregator.Imported{}, errRow
	}
	day, err := schema.ParseDay(*r.Day)
	if err != nil {
		return aggregator.Imported{}, err
	}
	s, err := decodeRow(r, "")
	if err != nil {
		return aggregator.Imported{}, err
	}
	c := schema.Count{
		Day: day, Domain: s.Domain, Record: s.Record, Policy: s.Results[0].Policy.Text(),
		Success: *r.Total - *r.Failure, Failure: *r.Failure,
	}
	details := map[schema.DetailsText]int64{}
	for _, reason := range r.Reasons {
		if reason.Reason == nil || reason.Sessions == nil || *reason.Sessions < 0 {
			continue
		}
		// A failure that cannot be read is one whose reason nobody knows.
		if s, err := decodeRow(r, *reason.Reason); err == nil && len(s.Results[0].Details) == 1 {
			details[s.Results[0].Details[0].Text()] += *reason.Sessions
		}
	}
	for text, n := range details {
		c.Details = append(c.Details, schema.DetailsCount{Details: text, Sessions: n})
	}
	key := *r.Day + "\x00" + *r.Domain + "\x00" + *r.Record + "\x00" + *r.Policy
	return aggregator.Imported{Row: key, Count: c}, nil
}

// decodeRow makes a datagram of a row again, with one failure or none.
func decodeRow(r aggregator.CollectdRow, failure string) (schema.Session, error) {
	var policy map[string]json.RawMessage
	if err := json.Unmarshal([]byte(*r.Policy), &policy); err != nil || policy == nil {
		return schema.Session{}, errRow
	}
	policy["t"], policy["f"] = json.RawMessage("0"), json.RawMessage("0")
	if failure != "" {
		if !json.Valid([]byte(failure)) {
			return schema.Session{}, errRow
		}
		policy["t"], policy["f"] = json.RawMessage("1"), json.RawMessage("1")
		policy["failure-details"] = json.RawMessage("[" + failure + "]")
	}
	datagram, err := json.Marshal(map[string]any{"d": *r.Domain, "pr": *r.Record, "policies": []any{policy}})
	if err != nil {
		return schema.Session{}, err
	}
	return libtlsrpt.Decode(datagram)
}
