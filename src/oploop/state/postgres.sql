-- The state in a server: as in sql/*.sql, but that a lease is kept up by its holder, as a process of another machine cannot
-- be asked whether it lives.
CREATE SCHEMA IF NOT EXISTS oploop_journal;
CREATE TABLE IF NOT EXISTS oploop_journal.runs (
    run_id TEXT PRIMARY KEY, environment TEXT NOT NULL, command TEXT NOT NULL, pid BIGINT NOT NULL, started_at TEXT NOT NULL,
    finished_at TEXT, status TEXT NOT NULL DEFAULT 'running', summary TEXT
);
CREATE TABLE IF NOT EXISTS oploop_journal.deliveries (
    run_id TEXT NOT NULL, sync TEXT NOT NULL, plan_table TEXT NOT NULL, began_at TEXT NOT NULL, folded_at TEXT,
    PRIMARY KEY (run_id, sync)
);
CREATE TABLE IF NOT EXISTS oploop_journal.steps (
    run_id TEXT NOT NULL, sync TEXT NOT NULL, step_id TEXT NOT NULL, first BIGINT NOT NULL, last BIGINT NOT NULL,
    attempt BIGINT NOT NULL, op TEXT NOT NULL, began_at TEXT NOT NULL, ended_at TEXT, outcome TEXT, error TEXT, version BIGINT,
    exceptions TEXT, ids TEXT, written BIGINT GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (run_id, sync, step_id, first, last, attempt)
);
-- `owner` names a process; `beat_at`, by the server's clock, when it last said that it lives.
CREATE TABLE IF NOT EXISTS oploop_journal.leases (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, host TEXT NOT NULL, pid BIGINT NOT NULL, started TEXT NOT NULL,
    command TEXT NOT NULL, since TEXT NOT NULL, beat_at TIMESTAMPTZ NOT NULL
);
-- Access tokens, and refresh tokens that an app replaced: each value encrypted (vault.py), under a name that tells nothing.
CREATE TABLE IF NOT EXISTS oploop_journal.tokens (name TEXT PRIMARY KEY, sealed TEXT NOT NULL, kept_at TEXT NOT NULL);
-- A word that an app keeps with a call under way, by which it can be asked after a crash what became of it: a job's id.
ALTER TABLE oploop_journal.steps ADD COLUMN IF NOT EXISTS note TEXT;
-- What steps of a delivery took, by app, object, operation and kind (single | batch | job): means in which the latest count most.
CREATE TABLE IF NOT EXISTS oploop_journal.call_times (
    app TEXT NOT NULL, object TEXT NOT NULL, op TEXT NOT NULL, kind TEXT NOT NULL, seconds DOUBLE PRECISION NOT NULL,
    calls DOUBLE PRECISION NOT NULL, steps BIGINT NOT NULL, PRIMARY KEY (app, object, op, kind)
);
