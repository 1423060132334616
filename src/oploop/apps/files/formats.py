"""Rows out of files and into them, in Arrow. Everything blocks.

CSV has no types, so what the user does not declare is text; a file of JSON lines tells types by its values, Parquet by itself. A value
that is not of its declared type is NULL in its column and whole in `_raw`.
"""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from oploop.apps.arrow import JSON_MARK
from oploop.apps.files.config import StreamSpec
from oploop.errors import FixData
from oploop.records import ColumnType

BLOCK = 8 * 2**20  #: bytes of a CSV file that are read at once
HEAD = 256 * 1024  #: bytes within which the first line of a CSV file ends
ROWS = 20_000  #: rows of a batch

_SQL_TYPES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "VARCHAR",
    ColumnType.INTEGER: "BIGINT",
    ColumnType.NUMBER: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.TIMESTAMP: "TIMESTAMPTZ",
    ColumnType.DATE: "DATE",
}
_LOCAL = threading.local()


def read_tables(source: Any, spec: StreamSpec, name: str) -> Iterator[pa.Table]:
    """The rows of a CSV or Parquet file in the file's own columns; FixData, with the file, when it is none."""
    try:
        yield from (_csv(source, spec) if spec.made_of == "csv" else _parquet(source))
    except (pa.ArrowInvalid, UnicodeDecodeError) as e:
        raise FixData(
            f"{name} is no {spec.made_of} file: {' '.join(str(e).split())[:200]}", mend="mend or move it"
        ) from e


def _csv(source: Any, spec: StreamSpec) -> Iterator[pa.Table]:
    from pyarrow import csv

    names = _header(source.read(HEAD), spec)
    if not names:
        return
    source.seek(0)
    reader = csv.open_csv(
        source,
        csv.ReadOptions(block_size=BLOCK, encoding=spec.encoding, column_names=names, skip_rows=1),
        csv.ParseOptions(delimiter=spec.delimiter, newlines_in_values=True),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])


def _header(head: bytes, spec: StreamSpec) -> list[str]:
    """The names in a CSV file's first line; one that stands there twice, or not at all, gets a number."""
    import csv

    encoding = "utf-8-sig" if spec.encoding == "utf-8" else spec.encoding
    text = io.StringIO(head.decode(encoding, errors="replace"), newline="")
    names: list[str] = []
    for name in next(csv.reader(text, delimiter=spec.delimiter), []):
        wanted, number = name or f"column{len(names) + 1}", 2
        while wanted in names:
            wanted, number = f"{name}__{number}", number + 1
        names.append(wanted)
    return names


def _parquet(source: Any) -> Iterator[pa.Table]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(source).iter_batches(batch_size=ROWS):
        yield pa.Table.from_batches([batch])


def read_lines(source: Any, name: str, encoding: str) -> Iterator[list[dict[str, Any]]]:
    """The records of a file of JSON lines, some thousands at a time; FixData, with the line, when one is no object."""
    records: list[dict[str, Any]] = []
    for number, line in enumerate(source, 1):
        text = line.strip()
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if not text:
            continue
        try:
            record = orjson.loads(text if encoding == "utf-8" else text.decode(encoding))
        except (orjson.JSONDecodeError, UnicodeDecodeError):
            record = None
        if not isinstance(record, dict):
            raise FixData(f"{name}:{number} is no JSON object", mend="mend or move the file")
        records.append(record)
        if len(records) >= ROWS:
            yield records
            records = []
    if records:
        yield records


def typed(table: pa.Table, columns: Mapping[str, ColumnType], exclude: frozenset[str]) -> tuple[pa.Table, pa.Array]:
    """(a file's columns as they are declared, the whole rows as JSON), less what is excluded."""
    names = [n for n in table.column_names if n not in exclude]
    shown = table.select(names).rename_columns([f"c{i}" for i in range(len(names))])
    fields = dict(zip(names, shown.schema, strict=True))
    kinds = {n: columns[n] for n in names if n in columns}
    values = [_expression(f"c{i}", fields[n].type, kinds.get(n)) for i, n in enumerate(names)]
    pairs = ", ".join(f"{_literal(n)}, c{i}" for i, n in enumerate(names))
    connection = _connection()
    connection.register("given", shown)
    try:
        sql = f"SELECT {', '.join([*values, ''])} json_object({pairs})::VARCHAR FROM given"
        found = connection.execute(sql).to_arrow_table()
    finally:
        connection.unregister("given")
    json = [n for n in names if kinds.get(n) is ColumnType.JSON or pa.types.is_nested(fields[n].type)]
    marked = [
        pa.field(n, field.type, metadata=JSON_MARK if n in json else None)
        for n, field in zip(names, found.schema, strict=False)
    ]
    raw = found.column(found.num_columns - 1)
    return pa.Table.from_arrays(found.columns[:-1], schema=pa.schema(marked)), raw.combine_chunks()


def _expression(column: str, has: pa.DataType, kind: ColumnType | None) -> str:
    if kind is None:
        return f"to_json({column})::VARCHAR" if pa.types.is_nested(has) else column
    match kind:
        case ColumnType.UNIX:
            return _known_day(f"TRY(to_timestamp(TRY_CAST({column} AS DOUBLE)))")
        case ColumnType.UNIX_MS:
            return _known_day(f"TRY(to_timestamp(TRY_CAST({column} AS DOUBLE) / 1000))")
        case ColumnType.TIMESTAMP | ColumnType.DATE:
            return _known_day(f"TRY_CAST({column} AS {_SQL_TYPES[kind]})")
        case ColumnType.NUMBER if pa.types.is_string(has) or pa.types.is_large_string(has):
            number = f"TRY_CAST({column} AS DOUBLE)"  # 1e400 would be infinity
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        case ColumnType.JSON:
            text = pa.types.is_string(has) or pa.types.is_large_string(has)
            return f"TRY_CAST({column} AS JSON)::VARCHAR" if text else f"to_json({column})::VARCHAR"
        case ColumnType.TEXT if pa.types.is_nested(has):
            return f"to_json({column})::VARCHAR"
        case _:
            return f"TRY_CAST({column} AS {_SQL_TYPES[kind]})"


def _known_day(value: str) -> str:
    """A time or a day of those that people, and most warehouses, have; others (infinity, the year 20000) are none."""
    return f"CASE WHEN year({value}) BETWEEN 1 AND 9999 THEN {value} END"


def _connection() -> Any:
    """An engine of this thread's own, in memory: it casts what fits and writes JSON, column by column."""
    if not hasattr(_LOCAL, "connection"):
        import duckdb

        _LOCAL.connection = duckdb.connect(config={"threads": 1})
        _LOCAL.connection.execute("SET TimeZone = 'UTC'")
    return _LOCAL.connection


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def written(table: pa.Table, made_of: str, *, packed: bool, nested: Sequence[str]) -> bytes:
    """A table as a file's bytes. `nested`: columns that hold JSON."""
    sink = io.BytesIO()
    if made_of == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, sink)
        return sink.getvalue()
    if made_of == "csv":
        from pyarrow import csv

        csv.write_csv(table, sink, csv.WriteOptions(quoting_style="needed"))
    else:
        sink.write(_lines(table, nested))
    # without the time and the name, so that a step that is sent again writes the same bytes
    return gzip.compress(sink.getvalue(), mtime=0) if packed else sink.getvalue()


def _lines(table: pa.Table, nested: Sequence[str]) -> bytes:
    """JSON lines, made column by column."""
    shown = table.rename_columns([f"c{i}" for i in range(table.num_columns)])
    pairs = ", ".join(
        f"{_literal(n)}, {f'TRY_CAST(c{i} AS JSON)' if n in nested else _as_json(f'c{i}', field.type)}"
        for i, (n, field) in enumerate(zip(table.column_names, table.schema, strict=True))
    )
    connection = _connection()
    connection.register("given", shown)
    try:
        lines = connection.execute(f"SELECT json_object({pairs})::VARCHAR FROM given").to_arrow_table().column(0)
    finally:
        connection.unregister("given")
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode()


def _as_json(column: str, kind: pa.DataType) -> str:
    """Times as ISO 8601 with a zone."""
    if pa.types.is_timestamp(kind):
        return f"strftime({column} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    return column
