"""Reading a table: in one snapshot, in Arrow batches, what was written since the last read and which rows are gone.

A read is one REPEATABLE READ transaction, so that what it shows was all true at one moment. It goes on

- by `xmin`, the transaction that wrote a row: everything from the oldest transaction on that was still open at the last
  read's snapshot, so nothing that was committed later is lost; or
- by a cursor column, with an overlap for what was committed late.

Rows that were deleted leave no trace. A digest of all keys tells whether any can be gone; only then, and when rows came by
key that no read had shown (those that a delivery of ours made), all keys are listed. The cursor:

    {"fingerprint": text, "xmin": int, "digest": [rows, sum], "value": text|null, "relisted": bool}

`fingerprint` names what must be the same for a cursor to mean anything: the cluster, the table and its partitions, the
columns, what is excluded. `relisted`: this read has seen all live rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import ARROW_TYPES, column_field, empty_table, with_meta
from oploop.apps.base import micros
from oploop.apps.postgres.catalog import PgColumn, Table, stream_of
from oploop.apps.postgres.kinds import literal, quote
from oploop.apps.postgres.server import SETTINGS, Server, one_line
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.records import Batch, ColumnType, Cursor, ReadOptions
from oploop.runtime import Runtime

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi

T = TypeVar("T")

#: Bytes of a batch, as a hint to the driver: some ten thousand rows.
BATCH_BYTES = 4_000_000
#: What the hash of a changed row's key is called.
HASH = "hash"
#: From so many rows on a table's keys take long enough to be counted that what has come is merged meanwhile.
MANY = 200_000
#: Overlap of a cursor that counts rather than tells the time.
COUNTED_OVERLAP = 10_000
#: So many transactions on, the 32 bits of an xmin may mean another one: then all is read.
XID_HORIZON = 2_000_000_000

_SNAPSHOT = """
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8, pg_snapshot_xmin(pg_current_snapshot())::text::int8,
  pg_snapshot_xmax(pg_current_snapshot())::text::int8, (SELECT system_identifier::text FROM pg_control_system()),
  (SELECT string_agg(relid::oid::text, ',' ORDER BY relid) FROM pg_partition_tree({oid}))
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The moment that a read shows: the server's clock, the oldest open transaction, the next one to come."""

    at: int
    xmin: int
    xmax: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Digest:
    """How many keys there are, and the sum of their hashes, which does not depend on the order."""

    rows: int
    sum: int

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.sum + other.sum)

    def kept(self) -> list[Any]:
        """As a cursor keeps it: the sum has more digits than a number of JSON."""
        return [self.rows, str(self.sum)]

    @staticmethod
    def of(kept: Sequence[Any]) -> Digest:
        return Digest(int(kept[0]), int(kept[1]))


class TableReader:
    """Reads tables of one database."""

    def __init__(self, server: Server, runtime: Runtime, overlap: float) -> None:
        self._server, self._runtime, self._overlap = server, runtime, overlap

    def prepare(self) -> None:
        """Connect, for the first who reads."""
        self._server.keep(self._server.connected(), self._runtime.monotonic())

    async def read(self, table: Table, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. Memory holds a batch or two; a read that is cut off begins anew."""
        _check(table, options)
        began = self._runtime.now()
        self._server.calls += 1
        with ThreadPoolExecutor(1, thread_name_prefix="postgres") as thread:  # one driver, one thread

            async def call(work: Callable[[], T]) -> T:
                try:
                    return await asyncio.get_running_loop().run_in_executor(thread, work)
                except OploopError:
                    raise
                except Exception as e:
                    raise _explained(self._server, e) from None

            reading = _Reading(table, cursor, options, began, self._overlap)
            try:
                await call(lambda: reading.begin(self._server.arrow(self._runtime.monotonic())))
                batches = reading.batches()
                while (batch := await call(lambda: next(batches, None))) is not None:
                    yield batch
            finally:
                await call(lambda: reading.close(self._server, self._runtime.monotonic()))

    async def fetch(self, table: Table, ids: Sequence[str]) -> Batch:
        """See App.fetch: one query for all ids; those that are gone come as deleted rows."""
        began = self._runtime.now()
        self._server.calls += 1

        def work() -> pa.Table:
            reading = _Reading(table, None, ReadOptions(), began, self._overlap)
            try:
                reading.begin(self._server.arrow(self._runtime.monotonic()))
                return reading.fetched(ids)
            except OploopError:
                raise
            except Exception as e:
                raise _explained(self._server, e) from None
            finally:
                reading.close(self._server, self._runtime.monotonic())

        return Batch(table.name, await asyncio.to_thread(work), complete=True)


def _explained(server: Server, e: Exception) -> OploopError:
    import adbc_driver_manager

    if isinstance(e, adbc_driver_manager.Error):
        return server.explain(e)
    if isinstance(e, OSError):  # what the server says once rows are on their way comes through Arrow
        return RetryLater(f"{server.place} broke the read off: {one_line(e)}")
    raise e


def _check(table: Table, options: ReadOptions) -> None:
    hidden = [c.raw for c in table.key_columns if c.raw in options.exclude or not c.readable]
    if hidden:
        raise FixConfig(f"{table.name}: its key {hidden[0]!r} cannot be left out", mend="remove it from exclude")
    column = table.by_name[table.cursor] if table.cursor is not None else None
    if options.since is not None and (
        column is None or column.kind.column not in (ColumnType.TIMESTAMP, ColumnType.DATE)
    ):
        raise FixConfig(
            f"since: {table.name} has no cursor that tells the time",
            mend=f"name one: `cursor: {{{table.name}: updated_at}}`",
        )


class _Reading:
    """One read of one table. All methods run in the thread that owns the connection."""

    def __init__(
        self, table: Table, cursor: Cursor | None, options: ReadOptions, began: datetime, overlap: float
    ) -> None:
        self._table, self._cursor, self._options = table, cursor, options
        self._began, self._overlap = began, overlap
        self._connection: adbc_driver_manager.dbapi.Connection | None = None
        self._columns = [c for c in table.columns if c.readable and c.raw not in options.exclude]
        self._stream = stream_of(table)
        self._ended = False  #: all that was asked has been answered

    # -- the transaction -----------------------------------------------------------------------------------------------

    def begin(self, connection: adbc_driver_manager.dbapi.Connection) -> None:
        """Take the transaction's snapshot."""
        self._connection = connection
        for statement in SETTINGS.split(";"):
            with connection.cursor() as cursor:
                cursor.execute(statement)
        at, xmin, xmax, cluster, parts = self._row(_SNAPSHOT.format(oid=self._table.oid))
        shape = [(c.name, c.of.cast, c.of.modifier) for c in self._columns]
        since = str(self._options.since)
        same = orjson.dumps([cluster, self._table.oid, parts, shape, self._table.key, self._table.cursor, since])
        # a version is never before the read began by our own clock, by which absent records are marked
        now = max(at, micros(self._began))
        self._snapshot = Snapshot(now, xmin, xmax, blake2b(same, digest_size=16).hexdigest())

    def close(self, server: Server, now: float) -> None:
        """End the transaction; what did not come to its end takes its connection along."""
        connection, self._connection = self._connection, None
        if connection is not None and self._ended:
            server.keep(connection, now)
        elif connection is not None:
            connection.close()

    def _row(self, sql: str) -> tuple[Any, ...]:
        assert self._connection is not None
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchone() or ())

    def _arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        assert self._connection is not None
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)})
            cursor.execute(sql)
            yield from cursor.fetch_record_batch()

    # -- what is read --------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The read's batches in order; the last is complete."""
        table, stream = self._table, self._stream
        if not stream.incremental:
            for batch in self._arrow(self._select(self._base())):
                yield Batch(table.name, self._rows(batch))
            self._ended = True
            yield Batch(table.name, self._nothing(), {"relisted": True}, complete=True)
            return
        changed, new = self._changed(), Digest(0, 0)
        relisted = changed is None
        for batch in self._arrow(self._select(self._base(changed), hashed=not relisted)):
            if not relisted:
                new += _digest_of(batch.column(HASH))
            yield Batch(table.name, self._rows(batch))
        if self._cursor is not None and Digest.of(self._cursor["digest"]).rows >= MANY and not relisted and new.rows:
            yield Batch(table.name, self._nothing(), pause=True)
        total = self._digest()
        if not relisted and self._may_be_gone(total, new):
            relisted = True
            for batch in self._arrow(self._select(self._base(), keys_only=True)):
                yield Batch(table.name, self._rows(batch, keys_only=True), keys_only=True)
        cursor = {
            "fingerprint": self._snapshot.fingerprint,
            "xmin": self._snapshot.xmin,
            "digest": total.kept(),
            "value": self._last_value(),
            "relisted": relisted,
        }
        self._ended = True
        yield Batch(table.name, self._nothing(), cursor, complete=True)

    def _base(self, *conditions: str | None) -> str:
        """The rows that are read at all, those of `since` on."""
        wanted = [c for c in conditions if c is not None]
        if self._options.since is not None:
            wanted.append(
                f"t.{quote(self._table.cursor or '')} >= {literal(self._options.since.isoformat())}::timestamptz"
            )
        where = f" WHERE {' AND '.join(f'({w})' for w in wanted)}" if wanted else ""
        return f"FROM {self._table.sql} AS t{where}"

    def _changed(self) -> str | None:
        """The condition of rows that may be news since the cursor; None: all rows are."""
        cursor, snapshot = self._cursor, self._snapshot
        if cursor is None or cursor.get("fingerprint") != snapshot.fingerprint:
            return None
        if self._table.cursor is not None:
            return self._after(self._table.by_name[self._table.cursor], cursor["value"])
        if not 0 <= snapshot.xmax - cursor["xmin"] < XID_HORIZON:
            return None
        return _written_since(cursor["xmin"])

    def _after(self, column: PgColumn, value: str | None) -> str | None:
        if value is None:
            return None
        held = f"CAST({literal(value)} AS {column.of.cast})"
        if column.kind.column in (ColumnType.TIMESTAMP, ColumnType.DATE):
            held = f"{held} - interval '{self._overlap} seconds'"
        else:
            held = f"{held} - {COUNTED_OVERLAP}"
        return f"t.{column.sql} >= {held} OR t.{column.sql} IS NULL"

    def _last_value(self) -> str | None:
        if self._table.cursor is None:
            return None
        column = self._table.by_name[self._table.cursor]
        found = self._row(f"SELECT max(t.{column.sql})::text {self._base(_finite(column))}")[0]
        return None if found is None else str(found)

    def _digest(self) -> Digest:
        """The digest of all keys. It asks nothing about the changed ones, so that the server's processes may share the work: no
        process but one may ask how old a transaction is."""
        return Digest.of(self._row(f"SELECT count(*), COALESCE(sum({self._hash()}), 0)::text {self._base()}"))

    def _hash(self) -> str:
        first, *more = self._table.key_columns
        if first.kind.column is ColumnType.INTEGER and not more:  # half of the time that its text takes
            return f"hashint8extended({first.kind.read.format(f't.{first.sql}')}, 0)"
        return f"hashtextextended({self._table.id_sql('t')}, 0)"

    def _may_be_gone(self, total: Digest, new: Digest) -> bool:
        """Whether a row that is known may be there no more: the keys are neither the same as at the last read, nor the
        same and those of rows that are all new; or it is known without that any read showed it."""
        assert self._cursor is not None
        before = Digest.of(self._cursor["digest"])
        return total not in (before, before + new) or self._options.fetched

    # -- rows as Arrow -------------------------------------------------------------------------------------------------

    def _select(self, base: str, *, keys_only: bool = False, hashed: bool = False) -> str:
        columns = self._table.key_columns if keys_only else self._columns
        values = [f"{c.kind.read.format(f't.{c.sql}')} AS c{i}" for i, c in enumerate(columns)]
        if len(self._table.key) > 1:
            values.append(f"{self._table.id_sql('t')} AS id")
        if hashed:
            values.append(f"{self._hash()} AS {HASH}")
        if not keys_only:
            names = ", ".join(f"t.{c.sql}" for c in self._columns)
            values.append(f"(SELECT row_to_json(oploop_row)::text FROM (SELECT {names}) AS oploop_row) AS raw")
        return f"SELECT {', '.join(values)} {base}"

    def _rows(self, batch: pa.RecordBatch, *, keys_only: bool = False) -> pa.Table:
        """A batch in the stream's columns and oploop's own."""
        columns = self._table.key_columns if keys_only else self._columns
        found: dict[str, Any] = {c.raw: batch.column(i) for i, c in enumerate(columns)}
        if len(self._table.key) > 1:
            found[self._table.id_column] = batch.column(len(columns))
        raw = pa.nulls(batch.num_rows, pa.string()) if keys_only else batch.column(batch.num_columns - 1)
        return self._meta(found, raw, batch.num_rows)

    def _meta(self, found: Mapping[str, Any], raw: pa.Array, n: int, *, deleted: bool = False) -> pa.Table:
        kinds = {c: k for c, k in self._stream.columns.items() if c not in self._options.exclude}
        fields = [column_field(name, kind) for name, kind in kinds.items()]
        values = [
            found[name].cast(ARROW_TYPES[kind]) if name in found else pa.nulls(n, ARROW_TYPES[kind])
            for name, kind in kinds.items()
        ]
        table = pa.Table.from_arrays(values, schema=pa.schema(fields))
        return with_meta(table, raw=raw, versions=self._snapshot.at, extracted_at=self._began, deleted=deleted)

    def _nothing(self) -> pa.Table:
        return empty_table(self._stream, self._options.exclude)

    # -- by key --------------------------------------------------------------------------------------------------------

    def fetched(self, ids: Sequence[str]) -> pa.Table:
        """The rows with these ids, and deleted rows for ids that are none."""
        key = self._table.key_columns
        wanted = sorted(set(ids))  # qualified below: a bare name might be a column of the table
        if len(key) == 1:
            texts = literal(orjson.dumps(wanted).decode())
            value = key[0].kind.write.format("o.id")
            same = f"t.{key[0].sql} IN (SELECT {value} FROM jsonb_array_elements_text({texts}) AS o(id))"
        else:
            texts = literal("[" + ",".join(wanted) + "]")
            parts = ", ".join(c.kind.write.format(f"(o.id ->> {i})") for i, c in enumerate(key))
            names = ", ".join(f"t.{c.sql}" for c in key)
            same = f"({names}) IN (SELECT {parts} FROM jsonb_array_elements({texts}) AS o(id))"
        tables = [self._rows(b) for b in self._arrow(self._select(self._base(same)))]
        seen = {v for t in tables for v in t[self._table.id_column].cast(pa.string()).to_pylist()}
        gone = [i for i in wanted if i not in seen]
        self._ended = True
        return pa.concat_tables([*tables, self._gone(gone)])

    def _gone(self, ids: Sequence[str]) -> pa.Table:
        """Bare deleted rows."""
        key = self._table.key_columns
        parts = [[i] for i in ids] if len(key) == 1 else [orjson.loads(i) for i in ids]
        found: dict[str, Any] = {}
        for at, column in enumerate(key):
            values = pa.array([str(p[at]) for p in parts], pa.string())
            found[column.raw] = values.cast(ARROW_TYPES[column.kind.column])
        if len(key) > 1:
            found[self._table.id_column] = pa.array(list(ids), pa.string())
        return self._meta(found, pa.nulls(len(ids), pa.string()), len(ids), deleted=True)


def _digest_of(hashes: pa.Array) -> Digest:
    """Of the keys with these hashes, the same that the server makes of all."""
    low, high = pc.sum(pc.bit_wise_and(hashes, 0xFFFFFFFF)), pc.sum(pc.shift_right(hashes, 32))
    return Digest(len(hashes), (low.as_py() or 0) + ((high.as_py() or 0) << 32))


def _written_since(xmin: int) -> str:
    """The condition that a transaction from `xmin` on wrote a row of `t`."""
    return f"age(t.xmin) <= age('{xmin % 2**32}'::xid)"


def _finite(column: PgColumn) -> str | None:
    return f"isfinite(t.{column.sql})" if column.kind.column in (ColumnType.TIMESTAMP, ColumnType.DATE) else None
