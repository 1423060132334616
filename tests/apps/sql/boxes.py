"""A SQLite file and a MySQL database, as the suites and tests of both fill and look at them."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import tempfile
import weakref
from abc import abstractmethod
from pathlib import Path
from typing import Any

from oploop.apps.mysql import MySqlApp
from oploop.apps.sandbox import Sandbox
from oploop.apps.sql.app import SqlApp
from oploop.apps.sqlite import SqliteApp
from oploop.runtime import Runtime
from tests.memory import in_memory
from tests.mysql import MySql

_numbers = itertools.count(1)


class Box(Sandbox):
    """A database with plain SQL; `%s` stands for a parameter."""

    title = "A database"
    app: type[SqlApp]

    @abstractmethod
    def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, in a transaction of its own."""

    @abstractmethod
    def block(self) -> dict[str, Any]:
        """The app's own keys."""

    def made(self, runtime: Runtime | None = None, **more: Any) -> SqlApp:
        return self.app("crm", self.app.Config.model_validate({**self.block(), **more}), runtime or Runtime())

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        row = f"({', '.join(['%s'] * len(records[0]))})"
        values = [v for record in records for v in record.values()]
        self.sql(f"INSERT INTO {kind} ({', '.join(records[0])}) VALUES {', '.join([row] * len(records))}", *values)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return [{"row": row} for row in self.sql(f"SELECT * FROM {kind}")]


class SqliteBox(Box):
    app = SqliteApp

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        folder = tempfile.mkdtemp(prefix="oploop-sqlite-", dir=in_memory())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "shop.db"
        sqlite3.connect(self.path).close()
        self.sql("PRAGMA user_version = 1")  # so that the file is one of SQLite's

    def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            rows = connection.execute(statement.replace("%s", "?"), params).fetchall()
            connection.commit()
            return rows
        finally:
            connection.close()

    def block(self) -> dict[str, Any]:
        return {"database": str(self.path)}


class MySqlBox(Box):
    app = MySqlApp

    def __init__(self, server: MySql, **more: Any) -> None:
        super().__init__(**more)
        self.server, self.name = server, f"t{os.getpid()}_{next(_numbers)}"
        server.made(self.name)

    def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        with self.server.admin(self.name) as connection, connection.cursor() as cursor:
            cursor.execute(statement, params or None)
            return list(cursor.fetchall())

    def block(self) -> dict[str, Any]:
        return {"dsn": self.server.dsn(self.name)}
