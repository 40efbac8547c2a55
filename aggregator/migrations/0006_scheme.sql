-- Deliveries by HTTPS and by mail are claimed apart: those of one kind, however
-- many wait, must not be walked through to find the other.

ALTER TABLE delivery ADD COLUMN scheme TEXT NOT NULL AS (substr(rua, 1, instr(rua, ':') - 1)) VIRTUAL;

DROP INDEX delivery_waiting;
DROP INDEX delivery_next;
CREATE INDEX delivery_waiting ON delivery (scheme, host, next) WHERE state = 0;
CREATE INDEX delivery_next ON delivery (scheme, next) WHERE state = 0;
