-- oploop's own tables in the warehouse, beside those of `volumes.py`. The views are an open contract: query them, build on them.
CREATE SCHEMA IF NOT EXISTS oploop;
CREATE SCHEMA IF NOT EXISTS oploop_state;

CREATE OR REPLACE VIEW oploop.changes AS
SELECT l.run_id, l.sync, l.app, l.object, l.key, l.op, CAST(l.before AS JSON) AS before, CAST(l.after AS JSON) AS after,
    CAST(l.why AS JSON) AS why, o.status, o.error, o.attempts, o.remote_id, l.planned_at, o.sent_at, o.confirmed_at,
    o.event_at, l.release
FROM oploop.change_log l JOIN (
    SELECT run_id, sync, number, arg_max(status, seq) AS status, arg_max(error, seq) AS error, max(attempts) AS attempts,
        max(remote_id) AS remote_id, max(sent_at) AS sent_at, max(confirmed_at) AS confirmed_at, max(event_at) AS event_at
    FROM oploop.change_outcomes GROUP BY run_id, sync, number
) o ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number;

-- To which object, and by which key, a sync delivers.
CREATE TABLE IF NOT EXISTS oploop.sync_targets (
    sync VARCHAR NOT NULL, app VARCHAR NOT NULL, object VARCHAR NOT NULL, key_fields VARCHAR NOT NULL, key VARCHAR NOT NULL,
    noted_at TIMESTAMPTZ NOT NULL
);
-- Records that we removed or archived, as the app acknowledged it.
CREATE TABLE IF NOT EXISTS oploop.removed (
    app VARCHAR NOT NULL, object VARCHAR NOT NULL, remote_id VARCHAR NOT NULL, key VARCHAR, op VARCHAR NOT NULL, sync VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL, number BIGINT NOT NULL, removed_at TIMESTAMPTZ NOT NULL
);
-- Rows of append syncs that were sent, or seen when the sync began: they are never sent again. Outlives the ledger.
CREATE TABLE IF NOT EXISTS oploop.appended (
    sync VARCHAR NOT NULL, app VARCHAR NOT NULL, object VARCHAR NOT NULL, key VARCHAR NOT NULL, how VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    noted_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS oploop.append_syncs (sync VARCHAR NOT NULL, begun_at TIMESTAMPTZ NOT NULL);
-- Changes that are not sent again until something changes. `wanted` NULL: whatever the model wants; `field`: only that one.
CREATE TABLE IF NOT EXISTS oploop.parked (
    sync VARCHAR NOT NULL, app VARCHAR NOT NULL, object VARCHAR NOT NULL, key VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    wanted VARCHAR, message VARCHAR, run_id VARCHAR, noted_at TIMESTAMPTZ NOT NULL, field VARCHAR
);
ALTER TABLE oploop.parked ADD COLUMN IF NOT EXISTS field VARCHAR;
-- Jobs that an app may still be at, as nobody heard their end; `keys_table` tells their records apart. `sync`: its name in the ledger,
-- `owner`: its name now.
CREATE TABLE IF NOT EXISTS oploop.jobs (
    run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, owner VARCHAR NOT NULL, app VARCHAR NOT NULL, object VARCHAR NOT NULL,
    op VARCHAR NOT NULL, note VARCHAR NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL, keys_table VARCHAR NOT NULL,
    keys VARCHAR NOT NULL, noted_at TIMESTAMPTZ NOT NULL
);
-- Syncs that send nothing until they are resumed.
CREATE TABLE IF NOT EXISTS oploop.paused (sync VARCHAR NOT NULL, run_id VARCHAR, reason VARCHAR, since TIMESTAMPTZ NOT NULL);
-- Which run took back which.
CREATE TABLE IF NOT EXISTS oploop.undone (
    run_id VARCHAR NOT NULL, undid VARCHAR NOT NULL, sync VARCHAR NOT NULL, noted_at TIMESTAMPTZ NOT NULL
);
-- Which complete read a sync's last look at its records could go by; `depends`: a fingerprint of what else it depends on.
CREATE TABLE IF NOT EXISTS oploop.looks (
    sync VARCHAR NOT NULL, app VARCHAR NOT NULL, object VARCHAR NOT NULL, vouched TIMESTAMPTZ NOT NULL, depends VARCHAR NOT NULL
);
-- Rows that a rule kept back, at each run of their sync.
CREATE TABLE IF NOT EXISTS oploop.held_log (
    run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, key VARCHAR, reason VARCHAR NOT NULL, field VARCHAR, noted_at TIMESTAMPTZ NOT NULL, why VARCHAR
);
ALTER TABLE oploop.held_log ADD COLUMN IF NOT EXISTS why VARCHAR;
CREATE TABLE IF NOT EXISTS oploop.sync_runs (
    run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, object VARCHAR NOT NULL, status VARCHAR NOT NULL, rows BIGINT, created BIGINT,
    updated BIGINT, held BIGINT, delivered BIGINT, rejected BIGINT, unknown BIGINT, calls BIGINT, seconds DOUBLE, noted_at TIMESTAMPTZ NOT NULL,
    archived BIGINT, removed BIGINT, failed BIGINT
);
ALTER TABLE oploop.sync_runs ADD COLUMN IF NOT EXISTS archived BIGINT;
ALTER TABLE oploop.sync_runs ADD COLUMN IF NOT EXISTS removed BIGINT;
ALTER TABLE oploop.sync_runs ADD COLUMN IF NOT EXISTS failed BIGINT;
-- In how many rows of its model a field had no value, at each run of a sync that came to its end.
CREATE TABLE IF NOT EXISTS oploop.field_nulls (
    run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, field VARCHAR NOT NULL, rows BIGINT NOT NULL, nulls BIGINT NOT NULL, noted_at TIMESTAMPTZ NOT NULL
);
CREATE OR REPLACE VIEW oploop.held AS
SELECT h.* FROM oploop.held_log h JOIN (
    SELECT sync, max(run_id) AS run_id FROM oploop.sync_runs WHERE run_id NOT IN (SELECT run_id FROM oploop.undone) GROUP BY sync
) l ON l.sync = h.sync AND l.run_id = h.run_id;
CREATE TABLE IF NOT EXISTS oploop.runs (
    run_id VARCHAR NOT NULL, environment VARCHAR NOT NULL, status VARCHAR NOT NULL, started_at TIMESTAMPTZ, finished_at TIMESTAMPTZ,
    seconds DOUBLE, summary VARCHAR
);
-- Which models stand as built, and whether their checks held: syncs of a model that failed send nothing.
CREATE TABLE IF NOT EXISTS oploop.models (
    environment VARCHAR NOT NULL, model VARCHAR NOT NULL, status VARCHAR NOT NULL, message VARCHAR, run_id VARCHAR, noted_at TIMESTAMPTZ NOT NULL
);
-- Deliveries that began and are not folded yet; their plan tables stand in oploop_state.
CREATE TABLE IF NOT EXISTS oploop.deliveries (
    run_id VARCHAR NOT NULL, sync VARCHAR NOT NULL, plan_table VARCHAR NOT NULL, spec VARCHAR NOT NULL, noted_at TIMESTAMPTZ NOT NULL
);
-- Which state of models and tests in git has passed its unit tests, so that they run again only when one of them changed.
CREATE TABLE IF NOT EXISTS oploop.unit_tests (fingerprint VARCHAR NOT NULL, tests BIGINT NOT NULL, passed_at TIMESTAMPTZ NOT NULL);
