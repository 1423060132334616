"""What a schedule's data is kept in: a DuckDB in memory with SQLite beside it, or a real Postgres for both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import duckdb
import psycopg

from oploop.activate import ledger
from oploop.extract.cursors import ensure_table
from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore
from oploop.state.postgres import PostgresReader
from oploop.storage import WAREHOUSE_LEASE
from oploop.warehouse import Warehouse
from oploop.warehouse.duckdb import DuckDBWarehouse
from oploop.warehouse.postgres import PostgresWarehouse, open_postgres
from tests.fault.sim.storage import Points, SimServerStore, SimStore, SimWarehouse
from tests.warehouses import Emptied

SCHEMAS = ("mart", "raw_crm", "oploop", "oploop_state")


class Ground(Protocol):
    """Where schedules stand, one after the other, in a process."""

    @property
    def warehouse(self) -> Warehouse: ...

    def empty(self) -> None:
        """Leave nothing of the schedule before but our own tables, without a row."""
        ...

    def lose_folder(self) -> bool:
        """Lose the project's own folder; whether the state was in it."""
        ...

    def opened(
        self, runtime: Runtime, points: Points, begins: Callable[[str], None]
    ) -> tuple[SimWarehouse, StateStore]:
        """Warehouse and state as a process of a schedule has them."""
        ...

    def bury(self, *, crashed: bool) -> None:
        """Take away what ends with a process."""
        ...

    def state(self) -> StateReader: ...

    def close(self) -> None: ...


class Files:
    """A DuckDB in memory, and SQLite in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".oploop"
        connection = duckdb.connect(":memory:")
        connection.execute("SET threads = 1")
        connection.execute("PRAGMA disable_optimizer")  # of a few rows it takes longer than it saves
        self.warehouse = DuckDBWarehouse(connection, read_only=False, label="simulated")
        self._emptied = Emptied(self.warehouse, SCHEMAS)

    def empty(self) -> None:
        self._emptied.empty()
        self.lose_folder()

    def lose_folder(self) -> bool:
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def opened(
        self, runtime: Runtime, points: Points, begins: Callable[[str], None]
    ) -> tuple[SimWarehouse, StateStore]:
        warehouse = SimWarehouse(self.warehouse, points)
        return warehouse, SimStore(self.folder, runtime, points, begins)

    def bury(self, *, crashed: bool) -> None:
        if crashed:
            for (name,) in self.warehouse.rows("SELECT table_name FROM duckdb_tables() WHERE temporary"):
                self.warehouse.execute(f'DROP TABLE temp."{name}"')
        self.warehouse._depth = 0

    def state(self) -> StateReader:
        return StateReader(self.folder)

    def close(self) -> None:
        self.warehouse.close()


class Server:
    """A database of a Postgres server: warehouse, state and leases."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.warehouse: PostgresWarehouse = open_postgres(address, read_only=False)
        self._store: SimServerStore | None = None

    def empty(self) -> None:
        found = self.warehouse.connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(%s)", ([*SCHEMAS, "oploop_journal"],)
        ).fetchall()
        ours = [f'DELETE FROM "{s}"."{t}"' for s, t in found if s in ("oploop", "oploop_journal")]
        others = [f'"{s}"."{t}"' for s, t in found if s not in ("oploop", "oploop_journal")]
        if others:
            ours.append(f"DROP TABLE {', '.join(others)} CASCADE")
        self.warehouse.connection.execute("; ".join([*ours, "CREATE SCHEMA IF NOT EXISTS mart"]))
        ledger.ensure(self.warehouse)
        ensure_table(self.warehouse)

    def lose_folder(self) -> bool:
        return False

    def opened(
        self, runtime: Runtime, points: Points, begins: Callable[[str], None]
    ) -> tuple[SimWarehouse, StateStore]:
        self._store = store = SimServerStore(
            lambda: psycopg.connect(self.address, autocommit=True), runtime, points, begins
        )
        store.take_lease(WAREHOUSE_LEASE, "sim")
        return SimWarehouse(self.warehouse, points), store

    def bury(self, *, crashed: bool) -> None:
        self.warehouse._depth = 0
        if crashed:
            self.warehouse.connection.execute("DISCARD TEMP")
        if self._store is not None:
            self._store.close()
            self._store = None
        # a dead process says no more that it lives: a minute later its leases are void
        self.warehouse.connection.execute(
            "DO $$BEGIN IF to_regclass('oploop_journal.leases') IS NOT NULL THEN "
            "UPDATE oploop_journal.leases SET beat_at = 'epoch', host = 'runner/x'; END IF; END$$"
        )

    def state(self) -> StateReader:
        return PostgresReader(lambda: psycopg.connect(self.address, autocommit=True), "the warehouse")

    def close(self) -> None:
        self.warehouse.close()
