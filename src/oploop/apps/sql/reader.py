"""Reading a table in one transaction: whole, or from a cursor column on, with deletes found by comparing keys.

Where a table has a `cursor` column, a read asks for rows from the newest value on that was seen, less an overlap for what
was committed late, and then lists all keys: what is not among them is gone, and a key that nobody knows makes the next read
a whole one. The cursor: {"fingerprint": text, "value": text|int|null, "relisted": true}. `fingerprint` names what must be
the same for it to mean anything: the database, the columns, what is excluded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing
from datetime import datetime
from hashlib import blake2b
from typing import Any

import orjson
import pyarrow as pa

from oploop.apps.arrow import convert, empty_table, table_from_records
from oploop.apps.blocking import in_a_thread
from oploop.apps.sql.columns import TIMES, SqlColumn
from oploop.apps.sql.engine import Engine
from oploop.apps.sql.tables import Table, id_of, parts_of, stream_of
from oploop.errors import FixConfig
from oploop.records import Batch, ColumnType, Cursor, ReadOptions
from oploop.runtime import Runtime

ROWS = 10_000  #: rows of a batch
FETCHED = 500  #: ids of one query


class TableReader:
    """Reads tables of one database."""

    def __init__(self, engine: Engine, runtime: Runtime, overlap: float) -> None:
        self._engine, self._runtime, self._overlap = engine, runtime, overlap

    async def read(self, table: Table, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. Memory holds a batch or two; a read that is cut off begins anew."""
        _check(table, options)
        reading = _Reading(self._engine, table, options, self._runtime.now(), self._overlap)
        self._engine.calls += 1
        async with aclosing(in_a_thread(reading.batches(cursor), "sql")) as batches:
            async for batch in batches:
                yield batch

    async def fetch(self, table: Table, ids: Sequence[str]) -> Batch:
        """See App.fetch: those that are gone come as deleted rows."""
        reading = _Reading(self._engine, table, ReadOptions(), self._runtime.now(), self._overlap)
        self._engine.calls += 1
        return Batch(table.name, await asyncio.to_thread(reading.fetched, sorted(set(ids))), complete=True)


def _check(table: Table, options: ReadOptions) -> None:
    hidden = [c.raw for c in table.key_columns if c.raw in options.exclude]
    if hidden:
        raise FixConfig(f"{table.name}: {hidden[0]} identifies a row, so it cannot be excluded")
    if options.since is not None and (table.cursor is None or table.by_name[table.cursor].kind.column not in TIMES):
        raise FixConfig(
            f"{table.name} has no cursor column that tells the time, so `since` has no meaning",
            mend=f"name one: `cursor: {{{table.name}: updated_at}}`",
        )


class _Reading:
    """One read, or one fetch. Everything blocks."""

    def __init__(self, engine: Engine, table: Table, options: ReadOptions, began: datetime, overlap: float) -> None:
        self._engine, self._table, self._options, self._began, self._overlap = engine, table, options, began, overlap
        self._stream = stream_of(table)
        self._columns = [c for c in table.columns if c.raw not in options.exclude]
        self._at = 0

    def batches(self, cursor: Cursor | None) -> Generator[Batch]:
        """The read's batches in order; the last is complete."""
        name, fingerprint = self._table.name, self._fingerprint()
        with self._engine.connection(stream=True) as connection:
            self._begin(connection)
            value = cursor["value"] if cursor is not None and cursor.get("fingerprint") == fingerprint else None
            newest = self._newest(connection) if self._table.cursor is not None else None
            for rows in self._select(connection, self._columns, *self._where(value)):
                yield Batch(name, self._rows(rows, self._columns))
            if value is not None:
                keys = self._table.key_columns
                for rows in self._select(connection, keys, *self._where(None)):
                    yield Batch(name, self._rows(rows, keys), keys_only=True)
        nothing = empty_table(self._stream, self._options.exclude)
        yield Batch(name, nothing, {"fingerprint": fingerprint, "value": newest, "relisted": True}, complete=True)

    def fetched(self, ids: Sequence[str]) -> pa.Table:
        """The rows with these ids, and deleted rows for ids that are none."""
        key = self._table.key_columns
        names = ", ".join(self._sql(c) for c in key)
        tables, seen = [empty_table(self._stream)], set[str]()
        with self._engine.connection() as connection:
            self._begin(connection)
            for start in range(0, len(ids), FETCHED):
                parts = [parts_of(self._table, i) for i in ids[start : start + FETCHED]]
                left = f"({names})" if len(key) > 1 else names
                where = f" WHERE {left} IN ({self._engine.tuples(len(key), len(parts))})"
                params = [self._engine.staged(c, v) for p in parts for c, v in zip(key, p, strict=True)]
                for rows in self._select(connection, self._columns, where, params):
                    tables.append(self._rows(rows, self._columns))
                    seen.update(map(str, tables[-1][self._table.id_column].to_pylist()))
        gone = [tuple(parts_of(self._table, i)) for i in ids if i not in seen]
        tables.append(self._rows(gone, key, deleted=True))
        return pa.concat_tables(tables, promote_options="default")

    def _begin(self, connection: Any) -> None:
        self._engine.begin(connection, write=False)
        self._at = self._engine.clock(connection)

    def _fingerprint(self) -> str:
        said = [self._engine.base_url, self._table.key, self._table.cursor, sorted(self._options.exclude)]
        said += [[c.name, c.type] for c in self._table.columns]
        return blake2b(orjson.dumps(said), digest_size=12).hexdigest()

    def _sql(self, column: SqlColumn) -> str:
        return f"t.{self._engine.quote(column.name)}"

    def _where(self, value: Any) -> tuple[str, list[Any]]:
        """The condition of rows that may be news since `value`, and of those that are read at all; its parameters."""
        if self._table.cursor is None:
            return "", []
        column = self._table.by_name[self._table.cursor]
        conditions, params = [], list[Any]()
        if self._options.since is not None:
            conditions.append(f"{self._sql(column)} >= {self._engine.mark}")
            params.append(self._engine.time_text(self._options.since))
        if value is not None:
            conditions.append(f"({self._sql(column)} >= {self._engine.mark} OR {self._sql(column)} IS NULL)")
            params.append(self._earlier(column, value))
        return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), params

    def _earlier(self, column: SqlColumn, value: Any) -> Any:
        if isinstance(value, str):
            return self._engine.back(value, self._overlap)
        return value - (self._engine.counted_overlap if column.kind.column is ColumnType.INTEGER else self._overlap)

    def _newest(self, connection: Any) -> Any:
        with closing(connection.cursor()) as cursor:
            column = self._sql(self._table.by_name[self._table.cursor or ""])
            cursor.execute(f"SELECT max({column}) FROM {self._table.sql} AS t", ())
            found = cursor.fetchone()[0]
        return found if found is None or isinstance(found, (int, float)) else str(found)

    def _select(
        self, connection: Any, columns: Sequence[SqlColumn], where: str, params: Sequence[Any]
    ) -> Iterator[list[tuple[Any, ...]]]:
        values = ", ".join(c.kind.read.format(self._sql(c)) for c in columns)
        with closing(connection.cursor()) as cursor:
            cursor.execute(f"SELECT {values} FROM {self._table.sql} AS t{where}", tuple(params))
            while rows := cursor.fetchmany(ROWS):
                yield list(rows)

    def _rows(
        self, rows: Sequence[tuple[Any, ...]], columns: Sequence[SqlColumn], *, deleted: bool = False
    ) -> pa.Table:
        """Rows in the stream's columns and oploop's own."""
        odd = {i: _READ[c.kind.column] for i, c in enumerate(columns) if c.kind.column in _READ}
        if odd and rows:
            parts: list[Sequence[Any]] = list(zip(*rows, strict=True))
            rows = list(zip(*(list(map(odd[i], p)) if i in odd else p for i, p in enumerate(parts)), strict=True))
        names = [c.raw for c in columns]
        records = [dict(zip(names, row, strict=True)) for row in rows]
        if len(self._table.key) > 1:
            at = [c.raw for c in self._table.key_columns]
            for record in records:
                record[self._table.id_column] = id_of([record[n] for n in at])
        return table_from_records(
            self._stream,
            records,
            versions=self._at,
            extracted_at=self._began,
            deleted=[deleted] * len(records),
            exclude=self._options.exclude,
        )


def as_read(table: Table, rows: Sequence[tuple[Any, ...]], columns: Sequence[SqlColumn]) -> dict[str, list[Any]]:
    """Values as a read brings them, by the column's name."""
    kinds = stream_of(table).columns
    found = {}
    for i, c in enumerate(columns):
        values = [row[i] for row in rows]
        values = list(map(_READ[c.kind.column], values)) if c.kind.column in _READ else values
        found[c.name] = convert(values, kinds[c.raw]).to_pylist()
    return found


def _boolean(value: Any) -> Any:
    return bool(value) if value in (0, 1) and value is not None else value


def _parsed(value: Any) -> Any:
    try:
        return orjson.loads(value) if isinstance(value, (str, bytes)) else value
    except orjson.JSONDecodeError:
        return value


#: How values become what they stand for, where the database has no type for it.
_READ: dict[ColumnType, Callable[[Any], Any]] = {ColumnType.BOOLEAN: _boolean, ColumnType.JSON: _parsed}
