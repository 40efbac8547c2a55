-- copy: 1 where the delivery is for the operator, and not for who asked for the
-- report. handed: time when the destination or a relay took the report, also
-- where a bounce came later; NULL: never.
ALTER TABLE delivery ADD COLUMN copy INTEGER NOT NULL DEFAULT 0 CHECK (copy IN (0, 1));
ALTER TABLE delivery ADD COLUMN handed INTEGER;

UPDATE delivery SET handed = done WHERE state = 1;

CREATE INDEX delivery_handed ON delivery (host, handed) WHERE handed IS NOT NULL;
