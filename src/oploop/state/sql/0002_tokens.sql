-- Access tokens, and refresh tokens that an app replaced: each value encrypted (vault.py), under a name that tells nothing.
CREATE TABLE tokens (
    name    TEXT PRIMARY KEY,
    sealed  TEXT NOT NULL,
    kept_at TEXT NOT NULL
);
