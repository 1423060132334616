-- The local state: runs, the journal of deliveries, leases. One SQLite file in .oploop/, beside the warehouse,
-- because an embedded warehouse can be read by nobody else while a run holds it.

CREATE TABLE runs (
    run_id      TEXT PRIMARY KEY,
    environment TEXT NOT NULL,
    command     TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    status      TEXT NOT NULL DEFAULT 'running',  -- running | ok | failed | stopped | interrupted
    summary     TEXT                              -- the JSON that `-o json` prints
);

-- A sync's delivery within a run. `plan_table` stands in the warehouse until the delivery is folded into the ledger.
CREATE TABLE deliveries (
    run_id      TEXT NOT NULL,
    sync        TEXT NOT NULL,
    plan_table  TEXT NOT NULL,
    began_at    TEXT NOT NULL,
    folded_at   TEXT,
    PRIMARY KEY (run_id, sync)
);

-- The journal: one row for each API call's intent, written before it; receipt columns are set after it.
-- Its changes are those of the plan table numbered first..last (inclusive). `exceptions` has only what is not
-- plainly acknowledged: [[number, outcome, error], ...]; `ids` the new records' ids: [[number, remote_id], ...].
CREATE TABLE steps (
    run_id      TEXT NOT NULL,
    sync        TEXT NOT NULL,
    step_id     TEXT NOT NULL,
    first       INTEGER NOT NULL,
    last        INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    op          TEXT NOT NULL,
    began_at    TEXT NOT NULL,
    ended_at    TEXT,
    outcome     TEXT,          -- ok | rejected | retry | unknown, for all that `exceptions` does not name
    error       TEXT,
    version     INTEGER,       -- the app's clock at the acknowledgement, microseconds since 1970
    exceptions  TEXT,
    ids         TEXT,
    PRIMARY KEY (run_id, sync, step_id, first, last, attempt)
);

-- Who holds what: the warehouse file, a sync's delivery. A lease of a dead process is void.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY,
    pid        INTEGER NOT NULL,
    started    TEXT NOT NULL,  -- when the process started, so that a reused pid is not taken for the holder
    command    TEXT NOT NULL,
    since      TEXT NOT NULL
);
