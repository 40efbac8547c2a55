package aggregator

// The statements of a recorder, each run once a row.
var (
	// countTally changes no row where there is none.
	countTally = &statement{`UPDATE tally SET success = success + ?, failure = failure + ?
		WHERE day = ? AND domain = ? AND part = ? AND policy = ?`}

	// addTally finds NULL in the place of the policy where there is no room for
	// another, and then does nothing.
	addTally = &statement{`INSERT OR IGNORE INTO tally (day, domain, part, policy, success, failure)
		VALUES (?1, ?2, ?3, iif((SELECT count(*) FROM tally WHERE day = ?1 AND domain = ?2 AND part = ?3) < ?4, ?5, NULL), ?6, ?7)`}

	foldTally = &statement{`INSERT INTO tally (day, domain, part, policy, success, failure) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (day, domain, part, policy) DO UPDATE SET success = success + excluded.success, failure = failure + excluded.failure`}

	// countDetail and addDetail are the same for details.
	countDetail = &statement{`UPDATE tally_detail SET sessions = sessions + ?
		WHERE day = ? AND domain = ? AND part = ? AND policy = ? AND detail = ?`}

	addDetail = &statement{`INSERT OR IGNORE INTO tally_detail (day, domain, part, policy, detail, sessions)
		VALUES (?1, ?2, ?3, ?4, iif((SELECT count(*) FROM tally_detail WHERE day = ?1 AND domain = ?2 AND part = ?3) < ?5, ?6, NULL), ?7)`}

	foldDetail = &statement{`INSERT INTO tally_detail (day, domain, part, policy, detail, sessions) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (day, domain, part, policy, detail) DO UPDATE SET sessions = sessions + excluded.sessions`}

	addDomain = &statement{`INSERT INTO domain (id, used, record_seen, name, record) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`}

	keepDomain = &statement{`UPDATE domain SET used = ?1 WHERE id = ?2 AND used < ?1 - ?3`}

	addPolicy = &statement{addText("policy")}
	addWords  = &statement{addText("detail")}
)

// addText stores a text, or notes that it is still in use.
func addText(table string) string {
	return `INSERT INTO ` + table + ` (id, used, text) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET used = excluded.used WHERE used < excluded.used - ?`
}
