"""The state store. Reading is apart from writing: the planner, `status` and the console get a StateReader only."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import orjson

from oploop.errors import RetryLater
from oploop.records import CallKind, CallTime, Op, Outcome
from oploop.runtime import Runtime
from oploop.state import sqlite

#: Rows of the journal that one statement writes (SQLite takes 32,766 values).
ROWS_AT_ONCE = 500
#: Rows of the journal that are read at once.
PAGE = 2_000
#: The outcome, in the journal, of an intent whose call was never made.
WITHDRAWN = "withdrawn"
STATE_FILE = "state.sqlite"
#: How much of what is known of call times a later step takes the place of.
FORGET = 0.1
CallTimes: TypeAlias = Mapping[tuple[Op, CallKind], CallTime]
NOTHING: CallTimes = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. Times are aware UTC datetimes; `summary` is what `-o json` printed."""

    run_id: str
    environment: str
    command: str
    pid: int
    started_at: datetime
    finished_at: datetime | None
    status: str
    summary: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A sync's delivery whose plan table stands in the warehouse until it is folded."""

    run_id: str
    sync: str
    plan_table: str
    began_at: datetime


@dataclass(slots=True)
class JournalStep:
    """One API call: its intent, and, once answered, its receipt. Changes `first`..`last` of the plan, inclusive."""

    run_id: str
    sync: str
    step_id: str
    first: int
    last: int
    attempt: int
    op: Op
    began_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    error: str | None = None
    version: int | None = None
    exceptions: list[tuple[int, str, str | None]] = field(default_factory=list)
    ids: list[tuple[int, str]] = field(default_factory=list)
    note: str | None = None  #: what the app keeps with it, to ask by after a crash
    withdrawn: bool = False  #: the delivery ended before the call was made
    ids_from: str | None = None  #: instead of `ids`: the key field whose value is the id of each new record


class Steps:
    """A delivery's steps as `StateReader.steps` has them, read in pages each time that they are gone through.

    `page`: the rows after a place, and their places.
    """

    def __init__(self, page: Callable[[int], Sequence[tuple[Any, ...]]]) -> None:
        self._page = page

    def __iter__(self) -> Iterator[JournalStep]:
        after = 0
        while rows := self._page(after):
            yield from (_step(r) for r in rows if r[9] != WITHDRAWN)
            after = rows[-1][-1]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds something: a process, what it was started as, since when. `where`: "on HOST, " for another machine's."""

    name: str
    pid: int
    command: str
    since: datetime
    where: str = ""

    def __str__(self) -> str:
        return f"{self.command} ({self.where}pid {self.pid}) since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class StateReader:
    """Reads the state; never changes it. A missing file reads as empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / STATE_FILE
        self._lock = threading.Lock()
        self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        return sqlite.to_read(self.path)

    def close(self) -> None:
        self._db.close()

    def _all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._db.execute(sql, params).fetchall()
        except sqlite3.DatabaseError as e:
            if str(e).startswith("no such table") and self._older():
                return []
            raise sqlite.refused(self.path, "read", e) from None

    def _older(self) -> bool:
        """Whether an older oploop wrote the file, which has no table yet of what came since."""
        with self._lock:
            return sqlite.is_older(self._db)

    def runs(self, limit: int = 20) -> list[RunRow]:
        """The newest runs first."""
        return [
            run_row(r, alive=_alive(r[3]))
            for r in self._all("SELECT * FROM runs ORDER BY run_id DESC LIMIT ?", (limit,))
        ]

    def run(self, run_id: str) -> RunRow | None:
        """A run by its id or the beginning of it."""
        rows = self._all("SELECT * FROM runs WHERE run_id LIKE ? ORDER BY run_id DESC LIMIT 1", (run_id + "%",))
        return run_row(rows[0], alive=_alive(rows[0][3])) if rows else None

    def open_deliveries(self) -> list[Delivery]:
        """Deliveries that were begun and not folded: of a run that is under way, or that died."""
        rows = self._all(
            "SELECT run_id, sync, plan_table, began_at FROM deliveries WHERE folded_at IS NULL ORDER BY began_at"
        )
        return [Delivery(r[0], r[1], r[2], datetime.fromisoformat(r[3])) for r in rows]

    def steps(self, run_id: str, sync: str) -> list[JournalStep]:
        """A delivery's journal, in the order in which the steps began; without those that were withdrawn."""
        return self._steps("SELECT * FROM steps WHERE run_id = ? AND sync = ? ORDER BY rowid", (run_id, sync))

    def journal(self, run_id: str, sync: str) -> Steps:
        """The same, in pages."""
        return Steps(lambda after: self._page(run_id, sync, after))

    def _page(self, run_id: str, sync: str, after: int) -> list[tuple[Any, ...]]:
        """Rows of a delivery's journal after a place in it, and at their ends their places."""
        return self._all(  # the signs keep it from sorting all of the journal for each page
            "SELECT *, rowid FROM steps WHERE rowid > ? AND +run_id = ? AND +sync = ? ORDER BY rowid LIMIT ?",
            (after, run_id, sync, PAGE),
        )

    def _steps(self, sql: str, params: Sequence[Any]) -> list[JournalStep]:
        return [_step(r) for r in self._all(sql, params) if r[9] != WITHDRAWN]

    def lease(self, name: str) -> Lease | None:
        """Who holds `name`; None when nobody, or a process that is no more."""
        rows = self._all("SELECT name, pid, started, command, since FROM leases WHERE name = ?", (name,))
        if not rows or process_start(rows[0][1]) != rows[0][2]:
            return None
        return Lease(rows[0][0], rows[0][1], rows[0][3], datetime.fromisoformat(rows[0][4]))

    def call_times(self, app: str, object_name: str) -> dict[tuple[Op, CallKind], CallTime]:
        """What steps of deliveries to an object took, by operation and kind."""
        rows = self._all(
            "SELECT op, kind, seconds, calls, steps FROM call_times WHERE app = ? AND object = ?", (app, object_name)
        )
        return {(Op(op), CallKind(kind)): CallTime(*means) for op, kind, *means in rows}

    def token(self, name: str) -> str | None:
        """What is kept under a name, encrypted."""
        rows = self._all("SELECT sealed FROM tokens WHERE name = ?", (name,))
        return rows[0][0] if rows else None


class StateStore(StateReader):
    """Reads and writes the state. Each method commits before it returns; commits reach the disk (synchronous=FULL)."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        sqlite.make_private(folder)
        super().__init__(folder)

    def _connect(self) -> sqlite3.Connection:
        return sqlite.to_write(self.path)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; RetryLater when the disk refuses, FixConfig when the file is damaged."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as e:
                if self._db.in_transaction:  # also when the commit itself failed; some errors have rolled back already
                    self._db.execute("ROLLBACK")
                if isinstance(e, sqlite3.DatabaseError):
                    raise sqlite.refused(self.path, "written", e) from e
                raise

    def begin_run(self, run_id: str, environment: str, command: str) -> None:
        """Note that a run began; runs of dead processes that never finished become `interrupted`."""
        now = self._runtime.now().isoformat()
        with self._writing() as db:
            for other, pid in db.execute("SELECT run_id, pid FROM runs WHERE status = 'running'").fetchall():
                if not _alive(pid):
                    db.execute("UPDATE runs SET status = 'interrupted' WHERE run_id = ?", (other,))
            db.execute(
                "INSERT INTO runs (run_id, environment, command, pid, started_at) VALUES (?, ?, ?, ?, ?)",
                (run_id, environment, command, os.getpid(), now),
            )

    def end_run(self, run_id: str, status: str, summary: dict[str, Any]) -> None:
        """Note how a run ended."""
        with self._writing() as db:
            db.execute(
                "UPDATE runs SET status = ?, finished_at = ?, summary = ? WHERE run_id = ?",
                (status, self._runtime.now().isoformat(), orjson.dumps(summary).decode(), run_id),
            )

    def forget_run(self, run_id: str) -> None:
        """Take back that a run began."""
        with self._writing() as db:
            db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def begin_delivery(self, run_id: str, sync: str, plan_table: str) -> None:
        """Note that the changes in `plan_table` are about to be sent; those of an earlier one of the run are folded."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO deliveries (run_id, sync, plan_table, began_at) VALUES (?, ?, ?, ?) ON CONFLICT (run_id, sync) "
                "DO UPDATE SET plan_table = excluded.plan_table, began_at = excluded.began_at, folded_at = NULL",
                (run_id, sync, plan_table, self._runtime.now().isoformat()),
            )

    def end_delivery(
        self, run_id: str, sync: str, app_object: tuple[str, str] = ("", ""), took: CallTimes = NOTHING
    ) -> None:
        """Note that a delivery stands in the ledger, and what its steps took; its journal may go."""
        known = self.call_times(*app_object) if took else {}
        with self._writing() as db:
            db.execute(
                "UPDATE deliveries SET folded_at = ? WHERE run_id = ? AND sync = ?",
                (self._runtime.now().isoformat(), run_id, sync),
            )
            db.execute("DELETE FROM steps WHERE run_id = ? AND sync = ?", (run_id, sync))
            for (op, kind), new in took.items():
                mean = blended(known.get((op, kind)), new)
                db.execute(
                    "INSERT INTO call_times VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (app, object, op, kind) DO UPDATE SET "
                    "seconds = excluded.seconds, calls = excluded.calls, steps = excluded.steps",
                    (*app_object, op.value, kind.value, mean.seconds, mean.calls, mean.steps),
                )

    def write_steps(self, steps: Iterable[JournalStep]) -> None:
        """Write intents and receipts, all in one commit."""
        rows = [step_row(s) for s in steps]
        with self._writing() as db:
            for start in range(0, len(rows), ROWS_AT_ONCE):  # one statement, as the interpreter is asked for at each
                some = rows[start : start + ROWS_AT_ONCE]
                values = ", ".join([f"({', '.join('?' * 15)})"] * len(some))
                db.execute(f"INSERT OR REPLACE INTO steps VALUES {values}", [v for row in some for v in row])

    def take_lease(self, name: str, command: str) -> None:
        """Hold `name` for this process; RetryLater that says who holds it already."""
        with self._writing() as db:
            row = db.execute("SELECT pid, started, command, since FROM leases WHERE name = ?", (name,)).fetchone()
            if row is not None and row[0] != os.getpid() and process_start(row[0]) == row[1]:
                holder = Lease(name, row[0], row[2], datetime.fromisoformat(row[3]))
                raise RetryLater(f"{name} is held by {holder}", mend="wait for it, or use --wait")
            db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                (name, os.getpid(), process_start(os.getpid()), command, self._runtime.now().isoformat()),
            )

    def keep_token(self, name: str, sealed: str) -> None:
        """Keep an encrypted value in place of what was there."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO tokens (name, sealed, kept_at) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, kept_at = excluded.kept_at",
                (name, sealed, self._runtime.now().isoformat()),
            )

    def drop_lease(self, name: str) -> None:
        """Give up `name`, if this process holds it."""
        with self._writing() as db:
            db.execute("DELETE FROM leases WHERE name = ? AND pid = ?", (name, os.getpid()))


def blended(known: CallTime | None, new: CallTime) -> CallTime:
    """Means with those of later steps: each step weighs as much as `FORGET` of all before it."""
    if known is None:
        return new
    weight = max(1 - (1 - FORGET) ** new.steps, new.steps / (known.steps + new.steps))
    seconds = known.seconds + weight * (new.seconds - known.seconds)
    return CallTime(seconds, known.calls + weight * (new.calls - known.calls), known.steps + new.steps)


def _alive(pid: int) -> bool:
    return process_start(pid) != ""


def process_start(pid: int) -> str:
    """A text that differs between two processes with the same pid; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rsplit(b")", 1)[1].split()
            return "" if fields[0] in b"ZX" else fields[19].decode()  # a zombie holds nothing any more
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return ""
    except OSError:
        return ""
    try:  # no /proc (macOS): the pid alone must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "?"


def run_row(r: tuple[Any, ...], *, alive: bool) -> RunRow:
    """A row of `runs`; one that is running and whose process is no more was interrupted."""
    finished = datetime.fromisoformat(r[5]) if r[5] else None
    status = r[6]
    if status == "running" and not alive:
        status = "interrupted"
    return RunRow(
        r[0], r[1], r[2], r[3], datetime.fromisoformat(r[4]), finished, status, orjson.loads(r[7]) if r[7] else None
    )


def step_row(s: JournalStep) -> tuple[Any, ...]:
    """A step as the columns of `steps`, in order."""
    return (
        s.run_id,
        s.sync,
        s.step_id,
        s.first,
        s.last,
        s.attempt,
        s.op.value,
        s.began_at.isoformat(),
        s.ended_at.isoformat() if s.ended_at else None,
        WITHDRAWN if s.withdrawn else s.outcome.value if s.outcome else None,
        s.error,
        s.version,
        orjson.dumps(s.exceptions).decode() if s.exceptions else None,
        orjson.dumps(s.ids_from or s.ids).decode() if s.ids_from or s.ids else None,
        s.note,
    )


def _step(r: tuple[Any, ...]) -> JournalStep:
    ids = orjson.loads(r[13]) if r[13] else []
    return JournalStep(
        run_id=r[0],
        sync=r[1],
        step_id=r[2],
        first=r[3],
        last=r[4],
        attempt=r[5],
        op=Op(r[6]),
        began_at=datetime.fromisoformat(r[7]),
        ended_at=datetime.fromisoformat(r[8]) if r[8] else None,
        outcome=Outcome(r[9]) if r[9] else None,
        error=r[10],
        version=r[11],
        exceptions=[(e[0], e[1], e[2]) for e in orjson.loads(r[12])] if r[12] else [],
        ids=[(i[0], i[1]) for i in ids] if isinstance(ids, list) else [],
        ids_from=ids if isinstance(ids, str) else None,
        note=r[14],
    )
