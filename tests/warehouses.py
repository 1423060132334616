"""The kinds of warehouses that tests run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from oploop.activate import ledger
from oploop.extract.cursors import ensure_table
from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore
from oploop.state.postgres import PostgresReader, PostgresStore
from oploop.warehouse import Warehouse, open_warehouse
from oploop.warehouse.base import quote
from tests.postgres import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    if request.param == "duckdb":
        opened = open_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", read_only=False, runtime=Runtime())
    else:
        from oploop.warehouse.postgres import open_postgres

        cluster: Cluster = request.getfixturevalue("cluster")
        opened = open_postgres(cluster.made(f"w{next(_numbers)}"), read_only=False)
    yield opened
    opened.close()


class Emptied:
    """A DuckDB that is emptied time and again: of our tables those that have rows are made anew, by their own words, and of our views
    those that show something else by now; to make them all takes five times as long."""

    def __init__(self, warehouse: Warehouse, schemas: Sequence[str]) -> None:
        self.warehouse, self.schemas = warehouse, tuple(schemas)
        self._made: dict[str, str] = {}  #: the words of our tables and views

    def empty(self) -> None:
        """Leave nothing in the schemas but our own tables and views, as `ledger.ensure` makes them."""
        w = self.warehouse
        with w.transaction():
            tables = self._found("SELECT schema_name, table_name, sql, estimated_size > 0 FROM duckdb_tables()")
            views = self._found("SELECT schema_name, view_name, sql, FALSE FROM duckdb_views()")
            ours = {name: made for schema, name, made, _ in (*tables, *views) if schema == "oploop"}
            if (
                not self._made
                or ours.keys() != self._made.keys()
                or any(made != self._made[name] for schema, name, made, _ in tables if schema == "oploop")
            ):
                self._make()
                return
            for kind, found in (("TABLE", tables), ("VIEW", views)):
                for schema, name, made, filled in found:
                    if schema == "oploop" and not filled and made == self._made[name]:
                        continue
                    w.execute(f"DROP {kind} {quote(schema)}.{quote(name)}")
                    if schema == "oploop":
                        w.execute(self._made[name])

    def _found(self, select: str) -> list[tuple[str, str, str, bool]]:
        listed = ", ".join(f"'{schema}'" for schema in self.schemas)
        return self.warehouse.rows(f"{select} WHERE NOT internal AND NOT temporary AND schema_name IN ({listed})")

    def _make(self) -> None:
        w = self.warehouse
        for schema in self.schemas:
            w.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            w.execute(f"CREATE SCHEMA {schema}")
        ledger.ensure(w)
        ensure_table(w)
        found = (
            "SELECT {0}_name, sql FROM duckdb_{0}s() WHERE NOT internal AND NOT temporary AND schema_name = 'oploop'"
        )
        self._made = dict(w.rows(found.format("table")) + w.rows(found.format("view")))


#: For tests of what only an engine that reads tables column by column does.
columnar = pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)


def state_of(warehouse: Warehouse, folder: Path, runtime: Runtime) -> tuple[StateStore, Callable[[], StateReader]]:
    """The state as it is kept with a warehouse, empty, and what opens it to another process: in a folder, or in the server."""
    if isinstance(warehouse.connection, psycopg.Connection):
        address = warehouse._address.conninfo  # type: ignore[attr-defined]
        warehouse.execute("DROP SCHEMA IF EXISTS oploop_journal CASCADE")

        def connect() -> psycopg.Connection[Any]:
            return psycopg.connect(address, autocommit=True)

        ids = replace(runtime, new_id=Runtime().new_id)  # the test's own are of its steps
        return PostgresStore(connect, ids, "the warehouse"), lambda: PostgresReader(connect, "the warehouse")
    return StateStore(folder, runtime), lambda: StateReader(folder)


@pytest.fixture(scope="session")
def database(cluster: Cluster) -> str:
    """The address of the database that the projects of this process's tests have, one after the other."""
    return cluster.made("project")


@pytest.fixture(params=["duckdb", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The address of a project's warehouse, which is empty; none: it is a file."""
    if request.param == "duckdb":
        return ""
    address: str = request.getfixturevalue("database")
    empty(address)
    return address


def empty(address: str) -> None:
    """Drop what a project left in a database, but for our functions, which each would make anew."""
    with psycopg.connect(address, autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
        )
        db.execute(
            "DO $$DECLARE s text; BEGIN FOR s IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' "
            "AND nspname NOT IN ('information_schema', 'public', 'oploop_fn') LOOP "
            "EXECUTE format('DROP SCHEMA %I CASCADE', s); END LOOP; END$$"
        )


def contents(address: str) -> dict[str, object]:
    """What stands in each table of a database, as one number each."""
    with psycopg.connect(address) as db:
        tables = db.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'"
        ).fetchall()
        ask = sql.SQL("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t")
        return {f"{s}.{t}": db.execute(ask.format(sql.Identifier(s, t))).fetchall() for s, t in tables}
