"""How SQLite connects, describes its tables and types its values (sqlite.org/pragma.html, sqlite.org/datatype3.html)."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from oploop.apps.base import micros
from oploop.apps.sql.columns import STEPS, Described, Kind, SqlColumn
from oploop.apps.sql.engine import Engine
from oploop.errors import FixConfig, FixData, OploopError, RetryLater
from oploop.records import ColumnType
from oploop.runtime import Runtime

BUSY_SECONDS = 60.0  #: how long another's write is waited for
ROWID = "rowid"  #: a table's own number of its rows, as a cursor for tables in which rows are only added

#: What a value that is stored as bytes is read as, whatever its column was declared.
_READ = "CASE WHEN typeof({0}) = 'blob' THEN hex({0}) ELSE {0} END"
#: By words in a declared type, in this order; the first four are the affinities of datatype3.html, but for ours.
_KINDS: Sequence[tuple[str, Kind]] = (
    ("BOOL", Kind(ColumnType.BOOLEAN, _READ)),
    ("JSON", Kind(ColumnType.JSON, _READ)),
    ("DATETIME", Kind(ColumnType.TIMESTAMP, _READ)),
    ("TIMESTAMP", Kind(ColumnType.TIMESTAMP, _READ)),
    ("DATE", Kind(ColumnType.DATE, _READ)),
    ("INT", Kind(ColumnType.INTEGER, _READ)),
    ("CHAR", Kind(ColumnType.TEXT, _READ)),
    ("CLOB", Kind(ColumnType.TEXT, _READ)),
    ("TEXT", Kind(ColumnType.TEXT, _READ)),
    ("BLOB", Kind(ColumnType.TEXT, "hex({0})", "oploop_bytes({0})")),
    ("REAL", Kind(ColumnType.NUMBER, _READ)),
    ("FLOA", Kind(ColumnType.NUMBER, _READ)),
    ("DOUB", Kind(ColumnType.NUMBER, _READ)),
    ("NUM", Kind(ColumnType.NUMBER, _READ)),
    ("DEC", Kind(ColumnType.NUMBER, _READ)),
)


class SqliteEngine(Engine):
    """One file. One writer at a time is SQLite's own rule, so one step is under way at a time."""

    stage = "temp.oploop_stage"

    def __init__(self, app: str, path: str, runtime: Runtime) -> None:
        super().__init__(app)
        self._path, self._runtime = path, runtime

    @property
    def place(self) -> str:
        return os.path.basename(self._path)

    @property
    def base_url(self) -> str:
        return f"sqlite://{self._path}"

    def connect(self, *, stream: bool = False) -> sqlite3.Connection:
        if not os.path.isfile(self._path):
            raise FixConfig(f"database: there is no file {self._path}", mend=f"check {self.app}.database")
        uri = f"{Path(self._path).absolute().as_uri()}?mode=rw"
        if not os.access(self._path, os.W_OK):
            uri = uri.replace("mode=rw", "mode=ro")
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.create_function("oploop_bytes", 1, _bytes, deterministic=True)
        return connection

    def begin(self, connection: Any, *, write: bool) -> None:
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def clock(self, connection: Any) -> int:
        """Ours: the file is on this machine. Within a transaction, so that what it shows is not older."""
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return micros(self._runtime.now())

    def check(self, connection: Any) -> str:
        tables = len(self.names(connection))
        closed = "" if os.access(self._path, os.W_OK) else ", which may only be read"
        return f"SQLite {sqlite3.sqlite_version}, {self.place}{closed}: {tables} tables and views"

    # -- catalogue -----------------------------------------------------------------------------------------------------

    def names(self, connection: Any) -> Mapping[str, bool]:
        found = connection.execute(
            "SELECT name, type = 'table' FROM sqlite_schema WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
        )
        return {name: bool(real) for name, real in found if name != STEPS}

    def describe(self, connection: Any, name: str, asked: Collection[str]) -> Described[SqlColumn] | None:
        if name not in self.names(connection):
            return None
        real = self.names(connection)[name]
        # cid, name, type, notnull, default, place in the primary key, hidden (2, 3: computed)
        rows = connection.execute(f"PRAGMA table_xinfo({self.quote(name)})").fetchall()
        primary = tuple(r[1] for r in sorted((r for r in rows if r[5]), key=lambda r: r[5]))
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
        numbered = _numbered(rows, primary, sql)
        columns = [_column(r, r[1] == numbered) for r in rows if r[6] != 1]
        if ROWID in asked and real and _has_rowid(sql) and ROWID not in {c.name.lower() for c in columns}:
            columns.append(SqlColumn(ROWID, Kind(ColumnType.INTEGER), "INTEGER", required=True, made=True))
        unique = list(dict.fromkeys(([primary] if primary else []) + self._unique(connection, name)))
        why = None if real else "it is a view"
        return Described(columns, unique, primary, why)

    def _unique(self, connection: Any, name: str) -> list[tuple[str, ...]]:
        """The unique indexes that hold for all rows: neither partial ones nor ones over expressions."""
        found = []
        for _, index, unique, _, partial in connection.execute(f"PRAGMA index_list({self.quote(name)})").fetchall():
            columns = [r[2] for r in connection.execute(f"PRAGMA index_info({self.quote(index)})").fetchall()]
            if unique and not partial and None not in columns:
                found.append(tuple(columns))
        return found

    def quote(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    # -- statements where they differ ----------------------------------------------------------------------------------

    def make_stage(self, columns: Sequence[tuple[str, SqlColumn | str]]) -> str:
        """Columns without a type: values stay what they are, and compare by the affinity of the table's column."""
        return f"CREATE TEMP TABLE oploop_stage ({', '.join(name for name, _ in columns)})"

    def remove(self, table: str, find: Sequence[str], same: str, rows: str) -> str:
        keys = ", ".join(f"s.k{i}" for i in range(len(find)))
        left = f"({', '.join(find)})" if len(find) > 1 else find[0]
        return f"DELETE FROM {table} WHERE {left} IN (SELECT {keys} FROM {self.stage} AS s WHERE {rows})"

    def make_steps(self) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {self.steps} (step_id TEXT NOT NULL, first INTEGER NOT NULL, "
            "last INTEGER NOT NULL, at INTEGER NOT NULL, refused TEXT, PRIMARY KEY (step_id, first, last)) WITHOUT ROWID"
        )

    def tuples(self, width: int, count: int) -> str:
        listed = super().tuples(width, count)
        return f"VALUES {listed}" if width > 1 else listed

    # -- errors --------------------------------------------------------------------------------------------------------

    def is_database_error(self, e: BaseException) -> bool:
        return isinstance(e, (sqlite3.Error, OverflowError))

    def about_rows(self, e: BaseException) -> bool:
        """OverflowError: a whole number that does not fit 64 bits."""
        return isinstance(e, (sqlite3.IntegrityError, sqlite3.DataError, OverflowError))

    def is_transient(self, e: BaseException) -> bool:
        return isinstance(e, sqlite3.OperationalError) and getattr(e, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )

    def is_broken(self, e: BaseException) -> bool:
        return False  # a file does not break; what a crash cut off is rolled back by the next one who opens it

    def explain(self, e: BaseException) -> OploopError:
        said, code = self.said(e), getattr(e, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return FixConfig(f"database: {self.place} is no SQLite database", mend=f"check {self.app}.database")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
            return FixConfig(f"{self.place} may not be written: {said}", mend="check the rights of file and folder")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return RetryLater(f"{self.place} cannot do it now: {said}")
        if "Could not decode to UTF-8" in said:
            # SQLite gives no number for it; the message has the column, and the text as it stands there
            column = re.search(r"t\.\"((?:[^\"]|\"\")*)\"", said)
            named = f"column {column[1]!r}" if column else "one of its columns"
            return FixData(
                f"{self.place}: a text in {named} is not UTF-8",
                mend="mend the text, or `exclude` the column from `read`",
            )
        return FixConfig(f"{self.place} refused a statement: {said}", mend="was the table changed? run again")


def _numbered(rows: Sequence[Any], primary: tuple[str, ...], sql: str) -> str | None:
    """The column that is the rowid itself, and gets a number of its own: one declared INTEGER PRIMARY KEY."""
    kinds = {r[1]: (r[2] or "").upper() for r in rows}
    whole = len(primary) == 1 and kinds[primary[0]] == "INTEGER" and _has_rowid(sql)
    return primary[0] if whole else None


def _has_rowid(sql: str) -> bool:
    return "WITHOUT ROWID" not in " ".join(sql.upper().rpartition(")")[2].split())


def _column(row: Sequence[Any], numbered: bool) -> SqlColumn:
    _, name, declared, not_null, default, _place, hidden = row
    return SqlColumn(
        name,
        kind_of(declared or ""),
        declared or "",
        required=bool(not_null) or numbered,
        filled=default is not None or numbered,
        made=hidden in (2, 3),
    )


def kind_of(declared: str) -> Kind:
    """How values of a declared type travel; what is not declared is text, as it may be anything."""
    upper = declared.upper()
    for word, kind in _KINDS:
        if word in upper:
            length = re.search(r"CHAR\w*\s*\((\d+)\)", upper)
            if kind.column is ColumnType.TEXT and length is not None and word == "CHAR":
                return Kind(kind.column, kind.read, max_length=int(length[1]))
            return kind
    return Kind(
        ColumnType.TEXT, _READ, rewritten=bool(upper)
    )  # of an unknown type it makes numbers of what looks like one


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
