"""Streams that another tool loads into the warehouse: read from its tables there, in place of the app's API.

The table's rows go the way of any read (by version, deletes marked, cursor and rows in one transaction), so diff,
verify and undo work on them as on what oploop reads itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from oploop.apps.base import App
from oploop.errors import FixConfig, did_you_mean
from oploop.project import TableBlock
from oploop.records import DELETED, EXTRACTED_AT, RAW, VERSION, Batch, ColumnType, Cursor, Deletes, ReadOptions, Stream
from oploop.runtime import Runtime
from oploop.warehouse.base import SqlError, Warehouse, quote, quote_table

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows a batch.
PAGE = 100_000
#: Other tools load side by side, so a row may come later than one that was changed after it: so many µs are read again.
OVERLAP = 3_600_000_000

#: SQL types by column type, in the dialect that the warehouse translates from.
_CASTS: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "VARCHAR",
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.TIMESTAMP: "TIMESTAMPTZ",
    ColumnType.UNIX: "TIMESTAMPTZ",
    ColumnType.UNIX_MS: "TIMESTAMPTZ",
    ColumnType.DATE: "DATE",
    ColumnType.JSON: "VARCHAR",
}


def as_loaded(stream: Stream, block: TableBlock) -> Stream:
    """The stream as its table shows it: later than the app by the block's lag, deletes marked or told by absence."""
    deletes = Deletes.MARKED if block.deleted is not None else Deletes.ABSENCE
    return Stream(
        stream.name,
        stream.primary_key,
        stream.columns,
        incremental=block.deleted is not None,
        deletes=deletes if stream.deletes is not Deletes.NEVER else Deletes.NEVER,
        lag=max(stream.lag, block.lag),
        description=stream.description,
    )


class LoadedStreams(Mapping[str, Stream]):
    """An app's streams, of which some are loaded by another tool. Looks at the app's own only when asked."""

    def __init__(self, streams: Mapping[str, Stream], tables: Mapping[str, TableBlock]) -> None:
        self.own, self._tables = streams, tables

    def __getitem__(self, name: str) -> Stream:
        stream = self.own[name]
        return as_loaded(stream, self._tables[name]) if name in self._tables else stream

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)


def columns_of(stream: Stream, block: TableBlock, warehouse: Warehouse) -> dict[str, str]:
    """The stream's columns that the table has: the stream's name to the table's.

    Other tools write `Health_Score__c` as `health_score_c`: names are the same if only case and underscores differ;
    `columns` in the block says what else is the same. FixConfig without the table, its key or its version.
    """
    there = warehouse.columns(block.table)
    if not there:
        others = [t for t in warehouse.tables() if not t.startswith(("oploop", "raw_", "sqlmesh"))]
        mend = did_you_mean(block.table, others)
        raise FixConfig(f"there is no table {block.table!r} in the warehouse", mend=mend, place=block.place)
    for own in (block.version, block.deleted):
        if own is not None:
            _named(block, there, own)
    plain: dict[str, list[str]] = {}
    for name in there:
        plain.setdefault(_plain(name), []).append(name)
    found = {}
    for name in stream.columns:
        if name in block.columns:
            found[name] = _named(block, there, block.columns[name])
        elif name in there:
            found[name] = name
        elif len(plain.get(_plain(name), [])) == 1:
            found[name] = plain[_plain(name)][0]
    for name in stream.primary_key:
        found[name] = _named(block, there, block.key) if len(stream.primary_key) == 1 else _there(block, found, name)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(block: TableBlock, there: Mapping[str, str], name: str) -> str:
    if name in there:
        return name
    raise FixConfig(f"{block.table} has no column {name!r}", mend=did_you_mean(name, there), place=block.place)


def _there(block: TableBlock, found: Mapping[str, str], name: str) -> str:
    if name not in found:
        mend = f"add `columns: {{{name}: ...}}`"
        raise FixConfig(f"{block.table} has no column for {name!r} of the key", mend=mend, place=block.place)
    return found[name]


class TableReader:
    """Stands in for an app where one of its streams is read from a table. Has of an `App` what extracting uses."""

    notes: tuple[str, ...] = ()

    def __init__(self, app: App, block: TableBlock, warehouse: Warehouse, runtime: Runtime) -> None:
        self.name = app.name
        self._app, self._block, self._warehouse, self._runtime = app, block, warehouse, runtime

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. In order of version, so that each page is a safe point."""
        of = self._app.streams[stream]
        select = _Select(of, self._block, self._warehouse, options)
        last: tuple[Any, ...] | None = None
        since = (cursor or {}).get("version") if of.incremental else None
        while True:
            rows = await asyncio.to_thread(self._page, select, since, last)
            table = select.batch(rows, self._runtime)
            if rows.num_rows:
                last = tuple(rows.column(n)[-1].as_py() for n in (VERSION, *select.keys))
                cursor = {"version": table.column(VERSION)[-1].as_py()} if of.incremental else None
            complete = rows.num_rows < PAGE
            yield Batch(stream, table, cursor, complete=complete)
            if complete:
                return

    def _page(self, select: _Select, since: int | None, last: tuple[Any, ...] | None) -> pa.Table:
        try:
            return self._warehouse.query(*select.page(since, last))
        except SqlError as e:
            raise FixConfig(
                f"{self._block.table} cannot be read: {e}", mend="mend the table, or its block", place=self._block.place
            ) from None


class _Select:
    """The statement of one table's pages, and its rows as a batch."""

    def __init__(self, stream: Stream, block: TableBlock, warehouse: Warehouse, options: ReadOptions) -> None:
        found = columns_of(stream, block, warehouse)
        self.keys = tuple(f"__k{i}" for i in range(len(stream.primary_key)))
        self._stream, self._names = stream, [n for n in found if n not in options.exclude]
        self._since = options.since
        casts = [f"CAST(t.{quote(found[n])} AS {_CASTS[stream.columns[n]]}) AS {quote(n)}" for n in self._names]
        casts += [
            f"CAST(t.{quote(found[n])} AS VARCHAR) AS {k}" for n, k in zip(stream.primary_key, self.keys, strict=True)
        ]
        gone = "FALSE"
        if block.deleted is not None:
            gone = f"coalesce(CAST(t.{quote(block.deleted)} AS BOOLEAN), FALSE)"
        version = f"CAST(t.{quote(block.version)} AS TIMESTAMPTZ)"
        self._from = (
            f"SELECT {', '.join(casts)}, coalesce({version}, TIMESTAMPTZ '1970-01-01 00:00:00+00') AS {VERSION}, "
            f"{gone} AS {DELETED} FROM {quote_table(block.table)} t"
        )

    def page(self, since: int | None, last: tuple[Any, ...] | None) -> tuple[str, list[Any]]:
        """The statement of the next page, and what it is asked with."""
        tests, params = [], []
        if since is not None:
            tests.append(f"{VERSION} >= ?")
            params.append(_moment(since - OVERLAP))
        if self._since is not None:
            tests.append(f"{VERSION} >= ?")
            params.append(self._since)
        if last is not None:
            version, *key = last
            names, marks = ", ".join(self.keys), ", ".join("?" * len(key))
            tests.append(f"({VERSION} > ? OR ({VERSION} = ? AND ({names}) > ({marks})))")
            params += [version, version, *key]
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        order = ", ".join((VERSION, *self.keys))
        return f"SELECT * FROM ({self._from}) x{where} ORDER BY {order} LIMIT {PAGE}", params

    def batch(self, rows: pa.Table, runtime: Runtime) -> pa.Table:
        """A page as the raw table's columns."""
        import pyarrow as pa

        from oploop.apps.arrow import ARROW_TYPES, column_field

        kinds = self._stream.columns
        arrays = [rows.column(n).cast(ARROW_TYPES[kinds[n]]) for n in self._names]
        fields = [column_field(n, kinds[n]) for n in self._names]
        count, at = rows.num_rows, runtime.now()
        stamps = pa.array([at], pa.timestamp("us", tz="UTC")).take(pa.array([0] * count, pa.int64()))
        versions = rows.column(VERSION).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        arrays += [pa.nulls(count, pa.string()), stamps, versions, rows.column(DELETED)]
        fields += [
            column_field(RAW, ColumnType.JSON),
            pa.field(EXTRACTED_AT, stamps.type),
            pa.field(VERSION, pa.int64()),
            pa.field(DELETED, pa.bool_()),
        ]
        return pa.table(arrays, schema=pa.schema(fields))


def _moment(micros: int) -> Any:
    import pyarrow as pa

    return pa.scalar(max(micros, 0), pa.timestamp("us", tz="UTC")).as_py()


__all__ = ["LoadedStreams", "TableReader", "columns_of"]
