"""Where a project that is killed keeps its data: files in its folder, or a database of a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg


@dataclass
class Files:
    """DuckDB, with SQLite beside it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    block = {"type": "duckdb", "database": "warehouse.duckdb"}

    def write_model(self, model: Mapping[str, str]) -> None:
        """The model's table, as somebody else's tool would write it."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as db:
            db.execute("CREATE SCHEMA IF NOT EXISTS mart")
            db.execute("CREATE OR REPLACE TABLE mart.people (code VARCHAR, name VARCHAR)")
            db.execute(
                "INSERT INTO mart.people SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
                [list(model), list(model.values())],
            )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What stands in the warehouse."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as db:
            return db.execute(sql).fetchall()

    def steps(self) -> int:
        """Steps in the journal with or without a receipt."""
        path = self.folder / ".oploop" / "state.sqlite"
        if not path.exists():
            return 0
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            try:
                return int(db.execute("SELECT count(*) FROM steps").fetchone()[0])
            except sqlite3.Error:
                return 0


class Server:
    """A database of a Postgres for all: warehouse, state, leases. The folder is that of a runner which is thrown away."""

    block = {"type": "postgres", "dsn": "${WAREHOUSE_DSN}"}

    def __init__(self, dsn: str) -> None:
        self.env = {"WAREHOUSE_DSN": dsn}
        self._db = psycopg.connect(dsn, autocommit=True)

    def write_model(self, model: Mapping[str, str]) -> None:
        with self._db.transaction():
            self._db.execute("CREATE SCHEMA IF NOT EXISTS mart")
            self._db.execute("DROP TABLE IF EXISTS mart.people")
            self._db.execute("CREATE TABLE mart.people (code text, name text)")
            self._db.execute(
                "INSERT INTO mart.people SELECT * FROM unnest(%s::text[], %s::text[])",
                (list(model), list(model.values())),
            )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._db.execute(sql).fetchall()  # type: ignore[call-overload,no-any-return]

    def steps(self) -> int:
        try:
            [(count,)] = self.rows("SELECT count(*) FROM oploop_journal.steps")
        except psycopg.errors.UndefinedTable:
            return 0
        return int(count)

    def close(self) -> None:
        self._db.close()


House = Files | Server
