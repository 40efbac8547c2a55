-- What the pages of the dashboard are read by. Both indexes hold few rows: the
-- domains that failed on a closed day, and the deliveries that ended unsent.

CREATE INDEX domain_day_failing ON domain_day (day, failure) WHERE failure > 0;
CREATE INDEX delivery_unsent ON delivery (state) WHERE state > 1;
