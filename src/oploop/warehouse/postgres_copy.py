"""Arrow tables into Postgres by COPY, and Postgres's rows as Arrow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from oploop.warehouse.base import quote

if TYPE_CHECKING:
    import psycopg

#: Rows that are written as text at once.
ROWS = 50_000


def copy_in(connection: psycopg.Connection[Any], table: str, data: pa.Table) -> None:
    """Append an Arrow table to a table with the same columns."""
    from pyarrow import csv

    names = ", ".join(quote(n) for n in data.column_names)
    options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT csv)") as copy:
        for batch in data.to_batches(max_chunksize=ROWS):
            text = io.BytesIO()
            csv.write_csv(pa.Table.from_arrays([_plain(c) for c in batch.columns], data.column_names), text, options)
            copy.write(text.getvalue())


def made(table: str, schema: pa.Schema) -> str:
    """The statement that makes a temporary table for an Arrow table."""
    columns = ", ".join(f"{quote(f.name)} {_sql_type(f.type)}" for f in schema)
    return f"CREATE TEMP TABLE {table} ({columns})"


def _plain(column: pa.Array) -> pa.Array:
    """A column that the CSV writer takes, without U+0000, which no text of Postgres holds."""
    kind = column.type
    if pt.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pt.is_null(kind):
        return column.cast(pa.string())
    if pt.is_decimal(kind):
        return column.cast(pa.string())
    if pt.is_binary(kind) or pt.is_large_binary(kind):
        return pa.array([None if v is None else "\\x" + v.hex() for v in column.to_pylist()], pa.string())
    if (pt.is_string(kind) or pt.is_large_string(kind)) and pc.any(pc.match_substring(column, "\0")).as_py():
        return pc.replace_substring(column, "\0", "\ufffd")
    return column


def _sql_type(kind: pa.DataType) -> str:
    if pt.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if pt.is_decimal(kind):
        return f"numeric({kind.precision}, {kind.scale})"
    simple = [
        (pt.is_uint64, "numeric(20, 0)"),
        (pt.is_integer, "bigint"),
        (pt.is_floating, "double precision"),
        (pt.is_boolean, "boolean"),
        (pt.is_date, "date"),
        (pt.is_time, "time"),
        (pt.is_binary, "bytea"),
    ]
    return next((sql for test, sql in simple if test(kind)), "text")


#: Arrow types by the types' numbers in Postgres; those of others are texts.
_ARROW: Mapping[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1083: pa.time64("us"),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
    17: pa.binary(),
    1009: pa.list_(pa.string()),
    1016: pa.list_(pa.int64()),
}
_NUMERIC = 1700


def arrow_of(names: Sequence[str], types: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """Rows as an Arrow table; `types` are the types' numbers in Postgres."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    arrays = [_array(values, kind) for values, kind in zip(columns, types, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def _array(values: Sequence[Any], kind: int) -> pa.Array:
    if kind == _NUMERIC:
        return pa.array(values) if any(v is not None for v in values) else pa.array(values, pa.decimal128(38, 0))
    arrow = _ARROW.get(kind, pa.string())
    if arrow == pa.string():
        values = [v if v is None or isinstance(v, str) else str(v) for v in values]
    return pa.array(values, arrow)


def slices(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most `rows`."""
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)
