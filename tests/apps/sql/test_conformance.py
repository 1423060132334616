"""SQLite and MySQL before the suite that every app must pass."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.mysql import MySqlApp
from oploop.apps.sandbox import Sandbox
from oploop.apps.sqlite import SqliteApp
from oploop.runtime import Runtime
from tests.apps.sql.boxes import Box, MySqlBox, SqliteBox
from tests.mysql import MySql

AT = "2026-01-01 00:00:00"


def record(i: int) -> dict[str, Any]:
    note = f"it's {i} 🌻 100% \\" if i % 3 else None
    return {"id": i + 1, "email": f"b{i}@acme.example", "note": note, "changed": AT, "score": i / 4}


def change(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, Box)
    sandbox.sql("UPDATE people SET note = 'geändert', changed = '2026-01-02 00:00:00' WHERE id = %s", key)


def delete(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, Box)
    sandbox.sql("DELETE FROM people WHERE id = %s", key)


def change_whole(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, Box)
    sandbox.sql("UPDATE stock SET n = 99 WHERE shop = %s AND sku = %s", *key)


STREAMS = [
    StreamCase("people", "people", record, None, change=change, delete=delete),
    StreamCase("stock", "stock", lambda i: {"shop": f"s{i % 7}", "sku": i, "n": i}, None, change=change_whole),
]
OBJECTS = [
    ObjectCase(
        "people",
        fields=lambda i: {"email": f"new{i}@acme.example", "note": f"neu {i} 'n' 🌻", "score": i + 0.5},
        changed=lambda i: {"note": None, "score": i},
        bad={"score": 1_000_000},
        calls=None,
        key=("email",),
    ),
    ObjectCase(
        "stock",
        fields=lambda i: {"shop": f"s{i % 7}", "sku": i, "n": i},
        changed=lambda i: {"n": -i},
        calls=None,
        key=("shop", "sku"),
    ),
]


class TestSqlite(AppSuite):
    app_class = SqliteApp
    http = False
    wrong_credentials: ClassVar = {"database": "/nowhere/at/all.db"}
    streams = STREAMS
    objects = OBJECTS

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = SqliteBox(runtime=runtime)
        box.sql(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, note TEXT, changed TIMESTAMP, "
            "score REAL CHECK (score < 1000000))"
        )
        box.sql("CREATE TABLE stock (shop TEXT, sku INTEGER, n INTEGER, PRIMARY KEY (shop, sku)) WITHOUT ROWID")
        return box

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        assert isinstance(sandbox, Box)
        return {**sandbox.block(), "cursor": {"people": "changed"}}

    def test_each_wrong_credential_is_named(self) -> None:
        """A file is no secret: the message may show it."""


class TestMySql(AppSuite):
    app_class = MySqlApp
    http = False
    streams = STREAMS
    objects = OBJECTS
    server: ClassVar[MySql]

    @pytest.fixture(autouse=True)
    def _server(self, mysql: MySql) -> None:
        type(self).server = mysql

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = MySqlBox(self.server, runtime=runtime)
        box.sql(
            "CREATE TABLE people (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(200) NOT NULL UNIQUE, note TEXT, "
            "changed DATETIME, score DOUBLE CHECK (score < 1000000))"
        )
        box.sql("CREATE TABLE stock (shop VARCHAR(20), sku INT, n INT, PRIMARY KEY (shop, sku))")
        return box

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        assert isinstance(sandbox, Box)
        return {**sandbox.block(), "cursor": {"people": "changed"}}
