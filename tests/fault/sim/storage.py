"""Storage that can die at any write: the real engines and stores behind doors that count, refuse and take back.

A crash comes at a numbered point. From that moment on nothing is written any more, whoever asks, so that no `finally:` can help; the
open transaction is rolled back, and what had not reached the disk is gone.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa

from oploop.runtime import Runtime
from oploop.state import StateStore
from oploop.state.postgres import Connect, PostgresStore
from oploop.warehouse.base import SqlError
from oploop.warehouse.duckdb import DuckDBWarehouse
from oploop.warehouse.postgres import PostgresWarehouse

_READS = re.compile(
    r"\s*(SELECT|WITH|DESCRIBE|CREATE (OR REPLACE )?TEMP|RESET|SET|DROP TABLE IF EXISTS temp)", re.IGNORECASE
)


#: A statement that makes or drops one table.
_MADE = re.compile(
    r"(CREATE (?P<temporary>OR REPLACE TEMP )?TABLE (IF NOT EXISTS )?|DROP TABLE (IF EXISTS )?)(?P<name>[^\s;]+)( |$)"
)
_ROWS = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
_SETS = re.compile(r"(SET|RESET) ")


class Crash(BaseException):
    """The process is no more."""


class Points:
    """All moments of a turn at which it may die, counted; and the moments at which the disk refuses."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.count = 0
        self.crash_at: int | None = None
        self.refuse: range = range(0)
        self.refuse_what = ""
        self.dead = False
        self.on_death: list[Callable[[], None]] = []
        self.names: list[str] = []  #: of those that were reached
        self.happened: Counter[str] = Counter()  #: deaths by place, and refusals
        self._note = note

    def begin(self) -> None:
        """A new process."""
        self.count, self.crash_at, self.refuse, self.dead = 0, None, range(0), False
        self.on_death, self.names = [], []

    def reach(self, name: str) -> None:
        """Come to a point, and perhaps die there."""
        self.alive()
        self.count += 1
        self.names.append(name)
        if self.count == self.crash_at:
            self._note(f"CRASH at point {self.count}: {name}")
            self.happened[f"dies {_place(name)}"] += 1
            self.die()
            raise Crash(name)

    def die(self) -> None:
        self.dead = True
        for act in self.on_death:
            act()

    def alive(self) -> None:
        """A dead process does nothing."""
        if self.dead:
            raise Crash("dead already")

    def refuses(self, what: str) -> bool:
        """Whether the disk under the `warehouse` or the `state` refuses a write now."""
        if what == self.refuse_what and self.count in self.refuse:
            self._note(f"the disk refuses: {what}")
            self.happened[f"the disk refuses: {what}"] += 1
            return True
        return False


def _place(name: str) -> str:
    """What kind of moment a point is."""
    when, _, what = name.partition(" ")
    if what.startswith(("a ", "the ")):
        return name
    return f"{when} a call" if what.startswith(("GET ", "POST ")) else f"{when} a statement"


class SimWarehouse:
    """A warehouse whose writes are points. All but writing is left to the real one."""

    def __init__(self, inner: DuckDBWarehouse | PostgresWarehouse, points: Points) -> None:
        self.inner, self.points = inner, points
        self.dialect, self.read_only, self.label = inner.dialect, False, "simulated"
        self._open = 0
        self._known: dict[str, Any] = {}  #: answers to questions asked since the last write; half of a turn's time else
        self._columns: dict[str, dict[str, str]] = {}  #: of tables asked after since one was made, changed or dropped
        points.on_death.append(self._take_back)

    def _take_back(self) -> None:
        """What stands in no committed transaction never was."""
        if self.inner._depth:
            self.points.happened["an open transaction is rolled back"] += 1
            with contextlib.suppress(Exception):
                self.inner.connection.rollback()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        self.points.alive()
        self._forget(sql)
        if _READS.match(sql):
            return self.inner.execute(sql, params)
        self.points.reach(f"before {sql[:60]}")
        self._ask_the_disk()
        done = self.inner.execute(sql, params)
        if not self._open:
            self.points.reach(f"after {sql[:60]}")
        return done

    def _forget(self, sql: str) -> None:
        """What a statement may have given another answer to. A temporary table is seen only by those who name it; what makes or drops
        a table changes the columns of no other, nor does what changes rows."""
        if _SETS.match(sql):
            return
        made = _MADE.match(sql)
        name = made["name"].rpartition(".")[2].strip('"') if made is not None else ""
        if made is None or not made["temporary"]:
            self._known.clear()
        else:
            self._known = {asked: told for asked, told in self._known.items() if name not in asked}
        if made is not None:
            self._columns = {table: told for table, told in self._columns.items() if name not in table}
        elif not _ROWS.match(sql):
            self._columns.clear()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self.points.alive()
        if self._open:
            yield
            return
        self.points.reach("before a transaction")
        self._open = 1
        try:
            with self.inner.transaction():
                yield
                self.points.reach("before a commit")
                self._ask_the_disk()
        except BaseException:
            self._columns.clear()
            raise
        finally:
            self._open = 0
            self._known.clear()
        self.points.reach("after a commit")

    def _ask_the_disk(self) -> None:
        if not self.points.refuses("warehouse"):
            return
        if self._open and self.dialect == "postgres":  # where a transaction is of no use after any error
            with contextlib.suppress(SqlError):
                self.inner.execute("SELECT CAST('a full disk' AS BIGINT)")
        raise SqlError("could not write to the file: no space left on device")

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        self.points.alive()
        return self.inner.query(sql, params)

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.points.alive()
        if params:
            return self.inner.rows(sql, params)
        if sql not in self._known:
            self._known[sql] = self.inner.rows(sql)
        return list(self._known[sql])

    def columns(self, table: str) -> dict[str, str]:
        self.points.alive()
        if table not in self._columns:
            self._columns[table] = self.inner.columns(table)
        return self._columns[table].copy()

    def register(self, name: str, table: pa.Table) -> None:
        self._known.clear()
        self._columns.pop(name, None)
        self.inner.register(name, table)

    def bulk(self, *, lasting: bool, ordered: bool = True) -> contextlib.AbstractContextManager[None]:
        """A database in memory compresses nothing, and to be told so twice a table takes it as long as a fortieth of all else."""
        return contextlib.nullcontext()

    def bounded(self, megabytes: int) -> contextlib.AbstractContextManager[None]:
        """A few rows need no bound."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """The database stays for the next process."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class SimStore(StateStore):
    """A StateStore whose commits are points. With anything less than synchronous=FULL, a crash takes them back."""

    def __init__(
        self, folder: Path, runtime: Runtime, points: Points, begins: Callable[[str], None] = lambda _: None
    ) -> None:
        self._points, self._begins = points, begins
        super().__init__(folder, runtime)
        self._synced = b""
        self._lazy = self._db.execute("PRAGMA synchronous").fetchone()[0] < 2
        if self._lazy:
            self._synced = self._db.serialize()
            points.on_death.append(lambda: self._db.deserialize(self._synced))

    def begin_run(self, run_id: str, environment: str, command: str) -> None:
        self._begins(run_id)
        super().begin_run(run_id, environment, command)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._points.reach("before a write of the state")
        with super()._writing() as db:
            if self._points.refuses("state"):
                raise sqlite3.OperationalError("disk I/O error")
            yield db
            self._points.reach("before a commit of the state")
        self._points.reach("after a commit of the state")


class SimServerStore(PostgresStore):
    """A state in a server whose commits are points; a crash takes them back unless they are synchronous. No thread says that it lives: simulated time passes in no time."""

    def __init__(
        self, connect: Connect, runtime: Runtime, points: Points, begins: Callable[[str], None] = lambda _: None
    ) -> None:
        self._points, self._begins = points, begins
        super().__init__(connect, runtime, "the simulated server", beat=1e6)
        self.owner = runtime.new_id()  # each turn is a process of its own
        if self._session.execute("SHOW synchronous_commit").fetchone() != ("on",):
            kept = {t: self._session.execute(f"SELECT * FROM {t}").fetchall() for t in ("runs", "deliveries", "steps")}
            points.on_death.append(lambda: self._as_synced(kept))

    def _as_synced(self, kept: dict[str, list[tuple[Any, ...]]]) -> None:
        """What was committed and had not reached the disk is gone."""
        if self._session.info.transaction_status:
            self._session.rollback()
        for table, rows in kept.items():
            self._session.execute(f"DELETE FROM {table}")
            for row in rows:
                marks = ", ".join(["%s"] * len(row))
                self._session.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE VALUES ({marks})", row)

    def begin_run(self, run_id: str, environment: str, command: str) -> None:
        self._begins(run_id)
        super().begin_run(run_id, environment, command)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        self._points.reach("before a write of the state")
        with super()._writing() as db:
            if self._points.refuses("state"):
                raise psycopg.errors.DiskFull("could not extend file: No space left on device")
            yield db
            self._points.reach("before a commit of the state")
        self._points.reach("after a commit of the state")
