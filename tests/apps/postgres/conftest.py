"""A fresh database of the session's PostgreSQL for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from oploop.apps.postgres import PostgresApp, PostgresConfig
from oploop.records import Change, Cursor, Op, ReadOptions, Receipt, Step
from oploop.runtime import Runtime
from tests.postgres import USER, Cluster

_numbers = itertools.count(1)


@dataclass
class Database:
    """A database of its own, owned by the tests' user, with an app that speaks to it."""

    name: str
    cluster: Cluster
    connection: psycopg.Connection[Any]
    runtime: Runtime = field(default_factory=Runtime)

    @property
    def dsn(self) -> str:
        return self.cluster.dsn(self.name)

    def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run something as the owner; its rows."""
        cursor = self.connection.execute(statement, params or None)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def connect(self) -> psycopg.Connection[Any]:
        """Another connection of the owner, in a transaction of its own."""
        return psycopg.connect(self.dsn)

    def app(self, **config: Any) -> PostgresApp:
        return PostgresApp("crm", PostgresConfig.model_validate({"dsn": self.dsn} | config), self.runtime)


@pytest.fixture
def db(cluster: Cluster) -> Iterator[Database]:
    name = f"t{next(_numbers)}"
    with cluster.admin() as admin:
        admin.execute(f"CREATE DATABASE {name} OWNER {USER}")
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        yield Database(name, cluster, connection)


@pytest.fixture
async def crm(db: Database) -> AsyncIterator[PostgresApp]:
    app = db.app()
    yield app
    await app.aclose()


@dataclass(frozen=True)
class Read:
    """All that one read brought: rows that are news, keys that came alone, and where it got to."""

    rows: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    cursor: Cursor


async def read(app: PostgresApp, stream: str, cursor: Cursor | None = None, **options: Any) -> Read:
    rows: list[dict[str, Any]] = []
    keys: list[dict[str, Any]] = []
    last = None
    async for batch in app.read(stream, cursor, ReadOptions(**options)):
        (keys if batch.keys_only else rows).extend(batch.table.to_pylist())
        last = batch
    assert last is not None
    assert last.complete
    assert last.cursor is not None
    return Read(rows, keys, last.cursor)


async def send(app: PostgresApp, table: str, op: Op, changes: list[Change], step: str = "") -> dict[int, Receipt]:
    """Deliver changes as one step; the receipts by number."""
    receipts = await app.send(Step(step or f"step{next(_numbers)}", "test", table, op, changes))
    assert sorted(r.number for r in receipts) == sorted(c.number for c in changes)
    return {r.number: r for r in receipts}


def changes(op: Op, key: str, rows: list[dict[str, Any]], ids: list[str | None] | None = None) -> list[Change]:
    """Changes from rows, numbered from 1; updates keep the key out of what they send."""
    made = []
    for n, row in enumerate(rows, 1):
        sent = row if op in (Op.CREATE, Op.UPSERT) else {k: v for k, v in row.items() if k != key}
        made.append(Change(n, op, {key: row[key]}, sent, ids[n - 1] if ids else None))
    return made
