-- Times are Unix seconds, days are UTC days since 1970-01-01. Ids of domain,
-- policy and detail are 63 bits of an HMAC of their text under the store's
-- secret, so that counting never has to ask for an id. REFERENCES documents:
-- enforcing it would scan tally for every policy that is deleted, so prune.go
-- keeps it instead, by the columns named "used".

CREATE TABLE meta (
	name  TEXT NOT NULL PRIMARY KEY, -- secret, submission-since, folded
	value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE source (
	name   TEXT NOT NULL PRIMARY KEY,
	cursor BLOB NOT NULL,
	saved  INTEGER NOT NULL -- time
) STRICT;

-- Stretches of logs that were counted, see schema.Span. Those of one source,
-- instance and host share no second.
CREATE TABLE counted (
	source   TEXT NOT NULL,
	instance TEXT NOT NULL,
	host     TEXT NOT NULL,    -- '': any
	start    INTEGER NOT NULL, -- time of the first line
	stop     INTEGER NOT NULL CHECK (stop >= start), -- time of the last line
	first    BLOB NOT NULL,    -- 64-bit hashes of lines of the second start
	last     BLOB NOT NULL,    -- of the second stop
	PRIMARY KEY (source, instance, host, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE domain (
	id          INTEGER PRIMARY KEY,
	used        INTEGER NOT NULL,           -- day, at most 7 older than the newest tally
	record_seen INTEGER NOT NULL DEFAULT 0, -- time
	name        TEXT NOT NULL,              -- A-labels, lower case, no final dot
	record      TEXT NOT NULL DEFAULT ''    -- newest text of its TLSRPT record
) STRICT;

CREATE TABLE policy (
	id   INTEGER PRIMARY KEY,
	used INTEGER NOT NULL, -- as in domain
	text TEXT NOT NULL     -- schema.PolicyText
) STRICT;

CREATE TABLE detail (
	id   INTEGER PRIMARY KEY,
	used INTEGER NOT NULL, -- as in domain
	text TEXT NOT NULL     -- schema.DetailsText
) STRICT;

CREATE TABLE tally (
	day     INTEGER NOT NULL,
	domain  INTEGER NOT NULL REFERENCES domain,
	part    INTEGER NOT NULL, -- 0: the report of the day, n: its n-th supplement, -1: imported for looking
	policy  INTEGER NOT NULL REFERENCES policy,
	success INTEGER NOT NULL DEFAULT 0 CHECK (success >= 0), -- sessions
	failure INTEGER NOT NULL DEFAULT 0 CHECK (failure >= 0), -- sessions
	PRIMARY KEY (day, domain, part, policy)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally_detail (
	day      INTEGER NOT NULL,
	domain   INTEGER NOT NULL REFERENCES domain,
	part     INTEGER NOT NULL,
	policy   INTEGER NOT NULL REFERENCES policy,
	detail   INTEGER NOT NULL REFERENCES detail,
	sessions INTEGER NOT NULL CHECK (sessions >= 0),
	PRIMARY KEY (day, domain, part, policy, detail)
) STRICT, WITHOUT ROWID;

-- A day has a row once it is closed: from then on sessions of it are late.
CREATE TABLE day (
	day     INTEGER PRIMARY KEY,
	closed  INTEGER NOT NULL,                                -- time
	filled  INTEGER NOT NULL DEFAULT 0 CHECK (filled IN (0, 1)), -- every domain has its domain_day
	domains INTEGER NOT NULL DEFAULT 0 CHECK (domains >= 0),
	success INTEGER NOT NULL DEFAULT 0 CHECK (success >= 0), -- sessions
	failure INTEGER NOT NULL DEFAULT 0 CHECK (failure >= 0)  -- sessions
) STRICT;

-- One row per domain of a closed day. It outlives the tallies.
CREATE TABLE domain_day (
	day     INTEGER NOT NULL REFERENCES day,
	domain  INTEGER NOT NULL REFERENCES domain,
	part    INTEGER NOT NULL DEFAULT 0 CHECK (part >= 0), -- that is counted now or was planned last
	state   INTEGER NOT NULL,           -- see states in state.go; 0 and 1 wait to be planned
	version INTEGER NOT NULL DEFAULT 0, -- times that late sessions were added
	success INTEGER NOT NULL DEFAULT 0 CHECK (success >= 0), -- sessions of all parts
	failure INTEGER NOT NULL DEFAULT 0 CHECK (failure >= 0), -- sessions of all parts
	due     INTEGER,                    -- time; NULL: waits for the next release
	failing INTEGER,                    -- time of the first look-up that failed; NULL: none
	PRIMARY KEY (day, domain)
) STRICT, WITHOUT ROWID;

CREATE INDEX domain_day_waiting ON domain_day (due, day, domain) WHERE state < 2;

CREATE TABLE report (
	id         INTEGER PRIMARY KEY,
	domain     INTEGER NOT NULL REFERENCES domain,
	day        INTEGER NOT NULL,
	part       INTEGER NOT NULL,
	date       INTEGER NOT NULL, -- time
	report_id  TEXT NOT NULL UNIQUE,
	submitter  TEXT NOT NULL,
	file_name  TEXT NOT NULL,
	sender     TEXT NOT NULL, -- From
	message_id TEXT NOT NULL,
	boundary   TEXT NOT NULL,
	text       TEXT NOT NULL, -- the part for people
	gzip       BLOB NOT NULL  -- the report
) STRICT;

CREATE UNIQUE INDEX report_domain ON report (domain, day, part);
CREATE INDEX report_day ON report (day);

-- AUTOINCREMENT: an id is shown and written into envelope senders, so it is
-- never used again.
CREATE TABLE delivery (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	report   INTEGER NOT NULL REFERENCES report,
	host     TEXT NOT NULL CHECK (host <> ''), -- of the rua
	rua      TEXT NOT NULL,
	state    INTEGER NOT NULL,           -- see deliveryStates in state.go; 0 is pending
	attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
	lease    INTEGER NOT NULL DEFAULT 0, -- of the newest claim; 0: none
	created  INTEGER NOT NULL,           -- time
	first    INTEGER,                    -- time of the first attempt
	next     INTEGER,                    -- time of the next attempt, or end of the lease; NULL: not its turn
	done     INTEGER,                    -- time
	error    TEXT NOT NULL DEFAULT ''    -- of the newest attempt that failed
) STRICT;

CREATE INDEX delivery_report ON delivery (report);
CREATE INDEX delivery_waiting ON delivery (host, next) WHERE state = 0;
CREATE INDEX delivery_next ON delivery (next) WHERE state = 0;
CREATE INDEX delivery_leased ON delivery (host, next) WHERE state = 0 AND lease <> 0;
