package aggregator

import (
	"database/sql"
	"hash/maphash"
	"time"
)

// recordFresh is how long a TLSRPT record that has not changed is not written
// again. A record counts for two days, see the agent, so an hour is exact enough.
const recordFresh = time.Hour

// noteRecord stores the TLSRPT record that came with c, if it is news.
func (r *recorder) noteRecord(c *sighting) error {
	if c.Record == "" {
		return nil
	}
	seen := r.seen(c)
	if r.store.records.fresh(c.domain, c.Record, seen) {
		return nil
	}
	return storeRecord(r.Tx, c.domain, c.Record, seen)
}

// seen is when the record of c was seen, at the latest: a log of long ago says
// nothing about now.
func (r *recorder) seen(c *sighting) int64 {
	return min(r.now.Unix(), c.Day.End().Unix())
}

// storeRecord stores the TLSRPT record of a domain, unless a newer one is known
// or the same was seen within the hour.
func storeRecord(tx *sql.Tx, domain int64, record string, seen int64) error {
	_, err := tx.Exec(`UPDATE domain SET record = ?1, record_seen = ?2
		WHERE id = ?3 AND record_seen <= ?2 AND (record <> ?1 OR record_seen <= ?2 - ?4)`,
		pack(record), seen, domain, int64(recordFresh/time.Second))
	return err
}

// maxRecordMarks bounds what is remembered about records, in domains.
const maxRecordMarks = 1 << 17

// recordMarks remembers which records this process stored within the hour, so
// that the steady state asks nothing about them. It only saves work: what it has
// forgotten is stored again. The zero value is empty.
type recordMarks struct {
	seed       maphash.Seed
	young, old map[int64]recordMark // by domain; old is dropped when young is full
}

type recordMark struct {
	text uint64 // hash
	seen int64  // time
}

// fresh reports whether record is known to be stored for domain, and takes note
// of it.
func (m *recordMarks) fresh(domain int64, record string, seen int64) bool {
	if m.young == nil {
		m.forget()
	}
	text := maphash.String(m.seed, record)
	mark, ok := m.young[domain]
	if !ok {
		mark, ok = m.old[domain]
	}
	if ok && mark.text == text && seen < mark.seen+int64(recordFresh/time.Second) {
		return true
	}
	if len(m.young) >= maxRecordMarks/2 {
		m.old, m.young = m.young, map[int64]recordMark{}
	}
	m.young[domain] = recordMark{text, seen}
	return false
}

// forget drops everything.
func (m *recordMarks) forget() {
	*m = recordMarks{seed: maphash.MakeSeed(), young: map[int64]recordMark{}}
}
