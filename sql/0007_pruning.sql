-- How far the old rows of a lane have left Postgres: `entries` and `audit_events` hold nothing below pruned_size, the
-- archive holds all of it, read back and verified before each step. pruned_hash and pruned_ts_us are the chain hash and
-- the time of the last row that left: where the chain of those that are left begins. What tells a repetition (event_ids,
-- producer_events), findings and the projection are never pruned.
ALTER TABLE lane_progress
    ADD COLUMN pruned_size  bigint NOT NULL DEFAULT 0,
    ADD COLUMN pruned_hash  text   NOT NULL DEFAULT '',
    ADD COLUMN pruned_ts_us bigint NOT NULL DEFAULT 0,
    ADD COLUMN pruned_at    timestamptz;
