-- Addresses that reports could not be mailed to for good. A row without a pause
-- that is in force is one that is watched.
CREATE TABLE suppression (
	address TEXT NOT NULL PRIMARY KEY,                     -- addr-spec, as schema.ParseAddress gives it
	failed  INTEGER,                                       -- day of the newest failure that counted; NULL: none
	pauses  INTEGER NOT NULL DEFAULT 0 CHECK (pauses >= 0), -- that failures caused, this one included
	since   INTEGER,                                       -- time when the newest pause began; NULL: there was none
	until   INTEGER,                                       -- time when it ends
	reason  TEXT NOT NULL,
	CHECK ((since IS NULL) = (until IS NULL))
) STRICT, WITHOUT ROWID;
