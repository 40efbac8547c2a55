-- What was counted of a row of another program's database, which may grow.
CREATE TABLE imported (
	source  TEXT NOT NULL,
	row     INTEGER NOT NULL, -- 63 bits of an HMAC of what tells the row apart
	day     INTEGER NOT NULL,
	success INTEGER NOT NULL CHECK (success >= 0), -- sessions
	failure INTEGER NOT NULL CHECK (failure >= 0), -- sessions
	PRIMARY KEY (source, row)
) STRICT, WITHOUT ROWID;

-- Parts of tally and tally_detail below 0 are there for looking, one for each
-- source that imported them. Until now all had -1, which stays one of them.
