"""The state's SQLite file: opened, copied where it can only be read, brought up to date; and what its refusals ask for."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from oploop.errors import FixConfig, OploopError, RetryLater

MEND = "restore it, or move it away"
ROOM = "make room on its disk, then run again"
RIGHTS = "give yourself the right to read and write it and its folder"
#: What SQLite's refusals mean, by their kind (sqlite.org/rescode.html); of any other the file itself is not what it must be.
_REFUSALS: Mapping[int, tuple[type[OploopError], str]] = {
    sqlite3.SQLITE_FULL: (RetryLater, ROOM),
    sqlite3.SQLITE_IOERR: (RetryLater, ROOM),  # also of the file that a mere reader keeps beside it
    sqlite3.SQLITE_BUSY: (RetryLater, "another process keeps it busy: run again"),
    sqlite3.SQLITE_READONLY: (FixConfig, RIGHTS),
    sqlite3.SQLITE_CANTOPEN: (FixConfig, RIGHTS),
}


def make_private(folder: Path) -> None:
    """Make the state folder, readable by its owner only: plans and journal hold people's data."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as e:
        message = f"cannot make the state folder {folder}: {e.strerror}"
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetryLater(message, mend=ROOM) from None
        mend = "move the file of that name away" if isinstance(e, FileExistsError) else "check its permissions"
        raise FixConfig(message, mend=mend) from None


def to_read(path: Path) -> sqlite3.Connection:
    """A connection that may read only; an empty database where there is no file yet. FixConfig, or RetryLater, when it is refused."""
    try:
        empty = not path.exists() or (path.is_file() and path.stat().st_size == 0)
    except OSError as e:
        raise FixConfig(f"the state file {path} cannot be read: {e.strerror}", mend=RIGHTS) from None
    if empty:
        db = sqlite3.connect(":memory:", check_same_thread=False)
        migrate(db)
        return db
    try:
        return open_sqlite(path, f"file:{path}?mode=ro")
    except FixConfig:
        if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
            raise
        return _copied(path)


def to_write(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on the disk, with today's schema. FixConfig, or RetryLater, when it is refused."""
    db = open_sqlite(path, str(path))
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an intent must survive a power cut
        migrate(db)
    except sqlite3.Error as e:
        db.close()
        raise refused(path, "opened", e) from None
    return db


def open_sqlite(path: Path, target: str) -> sqlite3.Connection:
    """Open a SQLite file (autocommit; explicit transactions); FixConfig when it is none."""
    try:
        db = sqlite3.connect(
            target, uri=target.startswith("file:"), check_same_thread=False, isolation_level=None, timeout=30
        )
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as e:
        raise refused(path, "opened", e) from None
    return db


def _copied(path: Path) -> sqlite3.Connection:
    """What a SQLite file holds, in memory: where its folder may not be written SQLite cannot read it, as it keeps a file of its own
    beside one that has a log."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / path.name
        try:
            for part in (path, path.with_name(path.name + "-wal")):
                if part.exists():
                    there.with_name(part.name).write_bytes(part.read_bytes())
        except OSError as e:
            raise FixConfig(f"the state file {path} cannot be read: {e.strerror}", mend=RIGHTS) from None
        own, db = open_sqlite(path, str(there)), sqlite3.connect(":memory:", check_same_thread=False)
        own.backup(db)
        own.close()
    return db


def refused(path: Path, what: str, error: sqlite3.Error) -> OploopError:
    """What a refusal asks for. Where the disk is full, or a right is missing, the file is as good as ever, and nobody may be told to
    move it away: deliveries that are not in the ledger yet stand in it."""
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    error_type, mend = _REFUSALS.get(kind, (FixConfig, MEND))
    return error_type(f"the state file {path} cannot be {what}: {error}", mend=mend)


def migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date: the files of `sql/` in order, each once (`user_version` counts them)."""
    files = _scripts()
    done = db.execute("PRAGMA user_version").fetchone()[0]
    if done > len(files):
        raise FixConfig("the state was written by a newer oploop", mend="upgrade oploop")
    for number, file in enumerate(files, 1):
        if number > done:
            _apply(db, number, file.read_text())


def is_older(db: sqlite3.Connection) -> bool:
    """Whether an older oploop wrote the file."""
    done: int = db.execute("PRAGMA user_version").fetchone()[0]
    return done < len(_scripts())


def _scripts() -> list[Traversable]:
    """The files of `sql/`, in order."""
    folder = resources.files("oploop.state").joinpath("sql")
    return sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)


def _apply(db: sqlite3.Connection, number: int, script: str) -> None:
    """Run one file, all or nothing, unless another process has done it meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] < number:
            statement = ""
            for line in script.splitlines(keepends=True):  # executescript would commit, and let go of the lock
                statement += line
                if sqlite3.complete_statement(statement):
                    db.execute(statement)
                    statement = ""
            db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
