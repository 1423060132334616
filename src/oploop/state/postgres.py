"""The state in a server that is the warehouse too, so that a runner may be thrown away after each run.

Processes of several machines share it. Who holds a lease says so again every few seconds (`BEAT`); a lease that was not kept
up for `EXPIRES` seconds is void. Whoever was stopped for longer finds that out before its next call: the journal takes
no intent from a process that lost its lease.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import resources
from typing import Any, Protocol

import psycopg

from oploop.errors import FixConfig, OploopError, RetryLater, StopRun
from oploop.runtime import Runtime
from oploop.state.store import (
    PAGE,
    JournalStep,
    Lease,
    RunRow,
    StateReader,
    StateStore,
    process_start,
    run_row,
    step_row,
)

SCHEMA = "oploop_journal"
#: Seconds after which a lease that nobody kept up is void, and between two times that its holder does.
EXPIRES, BEAT = 60.0, 10.0
_FRESH = f"beat_at > clock_timestamp() - interval '{EXPIRES:f} seconds'"
_owners: dict[int, str] = {}

Connect = Callable[[], "psycopg.Connection[Any]"]


class _Writes(Protocol):
    def execute(self, sql: str, params: Sequence[Any] = ()) -> Any: ...


class PostgresReader(StateReader):
    """Reads the state; a server without one reads as empty."""

    def __init__(self, connect: Connect, label: str) -> None:
        self._connect_again, self.label = connect, label
        self._lock = threading.Lock()
        self._session = self._connected()

    def _connected(self) -> psycopg.Connection[Any]:
        session = self._connect_again()
        session.execute("SET client_min_messages = warning")
        session.execute("SET synchronous_commit = on")  # an intent must survive a power cut
        session.execute(f"SET search_path = {SCHEMA}")
        return session

    def close(self) -> None:
        self._session.close()

    def _all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            self._mend()
            try:
                return self._session.execute(_postgres(sql), params).fetchall()
            except psycopg.errors.UndefinedTable:
                return []
            except psycopg.Error as e:
                raise self._said(e) from None

    def _mend(self) -> None:
        """A session that broke is made anew, unless in the middle of something."""
        if self._session.closed or self._session.broken:
            self._session = self._connected()

    def _said(self, e: psycopg.Error) -> OploopError:
        said = " ".join(str(e).split())[:300]
        if isinstance(e, psycopg.errors.InsufficientPrivilege):
            return FixConfig(
                f"the state in {self.label} cannot be had: {said}",
                mend="GRANT CREATE, TEMPORARY ON DATABASE to the user of warehouse.dsn",
            )
        return RetryLater(
            f"the state in {self.label} cannot be had: {said}", mend="see that its server is up, then run again"
        )

    def runs(self, limit: int = 20) -> list[RunRow]:
        return self._runs("ORDER BY run_id DESC LIMIT ?", (limit,))

    def run(self, run_id: str) -> RunRow | None:
        found = self._runs("WHERE run_id LIKE ? ORDER BY run_id DESC LIMIT 1", (run_id + "%",))
        return found[0] if found else None

    def _runs(self, rest: str, params: Sequence[Any]) -> list[RunRow]:
        rows = self._all(
            "SELECT run_id, environment, command, pid, started_at, finished_at, status, summary, "
            f"(SELECT l.host || ' ' || l.pid || ' ' || l.started FROM leases l WHERE l.name = 'run:' || run_id AND {_FRESH}) "
            f"FROM runs {rest}",
            params,
        )
        return [run_row(r[:8], alive=r[8] is not None and not _dead_here(*r[8].split(" "))) for r in rows]

    def steps(self, run_id: str, sync: str) -> list[JournalStep]:
        return self._steps(f"SELECT {_STEP} FROM steps WHERE run_id = ? AND sync = ? ORDER BY written", (run_id, sync))

    def _page(self, run_id: str, sync: str, after: int) -> list[tuple[Any, ...]]:
        return self._all(
            f"SELECT {_STEP}, written FROM steps WHERE run_id = ? AND sync = ? AND written > ? ORDER BY written LIMIT ?",
            (run_id, sync, after, PAGE),
        )

    def lease(self, name: str) -> Lease | None:
        rows = self._all(f"SELECT host, pid, started, command, since FROM leases WHERE name = ? AND {_FRESH}", (name,))
        if not rows or _dead_here(*rows[0][:3]):
            return None
        return _lease(name, rows[0])


class PostgresStore(PostgresReader, StateStore):
    """Reads and writes the state. Each method commits before it returns, and the server has it on disk then.

    `beat`: seconds between two signs of life of this process, which a thread gives as long as it holds a lease.
    """

    def __init__(self, connect: Connect, runtime: Runtime, label: str, *, beat: float = BEAT) -> None:
        self._runtime, self._beat = runtime, beat
        self._held: dict[str, str] = {}
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None
        self.owner = _owners.setdefault(os.getpid(), runtime.new_id())
        PostgresReader.__init__(self, connect, label)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _migrate(self) -> None:
        script = resources.files("oploop.state").joinpath("postgres.sql").read_text()
        with self._writing() as db:
            db.execute("SELECT pg_advisory_xact_lock(hashtext('oploop state'))")
            db.execute(script)

    def close(self) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
            self._heart = None
        super().close()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._lock:
            self._mend()
            try:
                with self._session.transaction():
                    yield _Portable(self._session)
            except psycopg.Error as e:
                raise self._said(e) from e

    # -- runs --------------------------------------------------------------------------------------------------------

    def begin_run(self, run_id: str, environment: str, command: str) -> None:
        live = {r.run_id for r in self.runs(1_000) if r.status == "running"}
        with self._writing() as db:
            db.execute(
                "UPDATE runs SET status = 'interrupted' WHERE status = 'running' AND NOT run_id = ANY(?)", (list(live),)
            )
            dead = "DELETE FROM leases WHERE name LIKE 'run:%%' AND NOT name = ANY(?)"
            db.execute(dead, ([f"run:{run_id}" for run_id in live],))
            db.execute(
                "INSERT INTO runs (run_id, environment, command, pid, started_at) VALUES (?, ?, ?, ?, ?)",
                (run_id, environment, command, os.getpid(), self._runtime.now().isoformat()),
            )
            self._hold(db, f"run:{run_id}", command)

    def end_run(self, run_id: str, status: str, summary: dict[str, Any]) -> None:
        super().end_run(run_id, status, summary)
        self.drop_lease(f"run:{run_id}")

    def forget_run(self, run_id: str) -> None:
        super().forget_run(run_id)
        self.drop_lease(f"run:{run_id}")

    # -- journal -----------------------------------------------------------------------------------------------------

    def write_steps(self, steps: Iterable[JournalStep]) -> None:
        rows = [tuple(map(_kept, step_row(s))) for s in steps]
        try:
            self._write(rows)
        except RetryLater:  # the server may have been away for a moment; the same rows may be written twice
            self._write(rows)

    def _write(self, rows: Sequence[tuple[Any, ...]]) -> None:
        names = _STEP.split(", ")
        sets = ", ".join(f"{n} = excluded.{n}" for n in names[7:])
        marks = ", ".join("?" * len(names))
        with self._writing() as db:
            self._assert_held(db)
            db.executemany(
                f"INSERT INTO steps ({_STEP}) VALUES ({marks}) ON CONFLICT (run_id, sync, step_id, first, last, attempt) "
                f"DO UPDATE SET {sets}, written = DEFAULT",
                rows,
            )

    def _assert_held(self, db: _Writes) -> None:
        """Nothing is sent by a process that was taken for dead: another may be at it. Holds the leases until the commit."""
        held = [n for n in self._held if not n.startswith("run:")]
        if not held:
            return
        found = db.execute(
            "SELECT name FROM leases WHERE name = ANY(?) AND owner = ? FOR SHARE", (held, self.owner)
        ).fetchall()
        lost = sorted(set(held) - {r[0] for r in found})
        if lost:
            raise StopRun(
                f"this process was stopped for more than {EXPIRES:g} s, and another has taken {', '.join(lost)}",
                mend="see oploop status; nothing more is sent by this run",
            )

    # -- leases ------------------------------------------------------------------------------------------------------

    def take_lease(self, name: str, command: str) -> None:
        with self._writing() as db:
            db.execute("SELECT pg_advisory_xact_lock(hashtext('oploop leases'))")
            row = db.execute(
                f"SELECT host, pid, started, command, since, owner FROM leases WHERE name = ? AND {_FRESH}", (name,)
            ).fetchone()
            if row is not None and row[5] != self.owner and not _dead_here(*row[:3]):
                raise RetryLater(f"{name} is held by {_lease(name, row)}", mend="wait for it, or use --wait")
            self._hold(db, name, command)

    def _hold(self, db: _Writes, name: str, command: str) -> None:
        db.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, clock_timestamp()) ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, "
            "host = excluded.host, pid = excluded.pid, started = excluded.started, command = excluded.command, "
            "since = excluded.since, beat_at = excluded.beat_at",
            (
                name,
                self.owner,
                _host(),
                os.getpid(),
                process_start(os.getpid()) or "?",
                command,
                self._runtime.now().isoformat(),
            ),
        )
        self._held[name] = command
        if self._heart is None:
            self._heart = threading.Thread(target=self._live, name="leases", daemon=True)
            self._heart.start()

    def drop_lease(self, name: str) -> None:
        self._held.pop(name, None)
        with self._writing() as db:
            db.execute("DELETE FROM leases WHERE name = ? AND owner = ?", (name, self.owner))

    def keep_leases(self) -> None:
        """Say that this process lives."""
        with self._writing() as db:
            db.execute("UPDATE leases SET beat_at = clock_timestamp() WHERE owner = ?", (self.owner,))

    def _live(self) -> None:
        while not self._ended.wait(self._beat):
            with contextlib.suppress(OploopError):  # tried again; what is lost is found before the next call
                self.keep_leases()


class _Portable:
    """A session that takes the statements of StateStore, written for SQLite."""

    def __init__(self, session: psycopg.Connection[Any]) -> None:
        self._session = session

    def execute(self, sql: str, params: Sequence[Any] = ()) -> Any:
        return self._session.execute(_postgres(sql), params or None)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._session.cursor() as cursor:
            cursor.executemany(_postgres(sql), rows)


_STEP = "run_id, sync, step_id, first, last, attempt, op, began_at, ended_at, outcome, error, version, exceptions, ids, note"


def _kept(value: Any) -> Any:
    """What an app said, without U+0000, which no text of Postgres holds."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _postgres(sql: str) -> Any:
    return sql.replace("?", "%s")


def _host() -> str:
    """This machine, since it was started, or this container: a process id says nothing about another."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as f:
            boot = f.read().strip() + "/" + os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = "-"
    return f"{socket.gethostname()}/{boot}".replace(" ", "_")


def _dead_here(host: str, pid: int | str, started: str) -> bool:
    """Whether a process of this machine is no more; of those of others only their signs of life tell."""
    return host == _host() and (process_start(int(pid)) or "?") != started


def _lease(name: str, row: Sequence[Any]) -> Lease:
    host, pid, _, command, since, *_ = row
    where = "" if host == _host() else f"on {host.partition('/')[0]}, "
    return Lease(name, pid, command, datetime.fromisoformat(since), where)
