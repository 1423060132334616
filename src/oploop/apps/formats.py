"""Rows out of files and into them, in Arrow: CSV, JSON lines, Parquet. Everything blocks.

    tables_of(source, "csv", name)        tables in the file's own columns, some megabytes at a time
    records_of(source, name)              the same of JSON lines, as records: what they become, a stream tells (`arrow`, `kinds`)
    typed(table, columns)                 a table's columns as they are declared, and its rows as JSON for `_raw`
    table_of(step.changes, fields)        a step's changes as a table
    written(table, "parquet")             a table as a file's bytes
    csv_of(names, rows)                   texts as CSV, for an API that takes it

CSV has no types, so what nobody declares is text; a file of JSON lines tells types by its values, Parquet by itself. A value
that is not of its declared type is NULL in its column and whole in `_raw`.
"""

from __future__ import annotations

import csv
import gzip
import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import ARROW_TYPES, JSON_MARK
from oploop.apps.columns import Columns
from oploop.apps.jsonlines import Torn, pieces, unpacked
from oploop.errors import FixData
from oploop.records import Change, ColumnType, FieldType

Format = Literal["csv", "jsonl", "parquet"]
_ENDINGS: dict[str, Format] = {
    "csv": "csv", "tsv": "csv", "txt": "csv", "json": "jsonl", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet",
}  # fmt: skip
#: Endings of the names of packed files.
PACKED = (".gz", ".bz2", ".xz")

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
_NESTED = (FieldType.LIST, FieldType.JSON)
_FIELD_TYPES: Mapping[FieldType, pa.DataType] = {
    kind: pa.string() if kind in _NESTED else ARROW_TYPES[ColumnType(kind.value)] for kind in FieldType
}
_LOCAL = threading.local()


def format_of(name: str) -> Format | None:
    """The format that a file's name, or a pattern of names, tells."""
    name = name.rstrip("*")
    for ending in PACKED:
        name = name.removesuffix(ending)
    name = name.rstrip("*.")
    return _ENDINGS.get(name.rpartition(".")[2].lower()) if "." in name else None


def tables_of(
    source: BinaryIO, made_of: Format, name: str, *, delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[pa.Table]:
    """The rows of a CSV or Parquet file, packed or not, in the file's own columns; FixData, with the file, when it is none."""
    source = unpacked(source)
    try:
        if made_of == "csv":
            yield from csv_tables(source, delimiter=delimiter, encoding=encoding)
        else:
            yield from _parquet(source if source.seekable() else io.BytesIO(source.read()))
    except Torn:
        raise _damaged(name) from None
    except (pa.ArrowInvalid, UnicodeDecodeError) as e:
        raise FixData(f"{name} is no {made_of} file: {' '.join(str(e).split())[:200]}", mend="mend or move it") from e


def _damaged(name: str) -> FixData:
    return FixData(f"{name} is damaged or cut off", mend="mend or move it")


def csv_tables(
    source: BinaryIO,
    *,
    types: Mapping[str, pa.DataType] | None = None,
    delimiter: str = ",",
    encoding: str = "utf-8",
    quoted_nulls: bool = False,
) -> Iterator[pa.Table]:
    """The rows of a CSV text with a header, some megabytes at a time. An empty value is NULL, one in quotes only if `quoted_nulls`.
    `types`: of columns that are no text; ArrowInvalid where a value is not of its type, or a row is of other columns."""
    from pyarrow import csv as arrow_csv

    names, lines = _header(source, delimiter, encoding)
    if not lines:
        return
    reader = arrow_csv.open_csv(
        source,
        arrow_csv.ReadOptions(block_size=BLOCK, encoding=encoding, column_names=names, skip_rows=lines),
        arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        arrow_csv.ConvertOptions(
            column_types={**dict.fromkeys(names, pa.string()), **(types or {})},
            strings_can_be_null=True,
            quoted_strings_can_be_null=quoted_nulls,
            null_values=[""],
            true_values=["true"],
            false_values=["false"],
        ),
    )
    for batch in reader:
        yield pa.Table.from_batches([batch])


def _header(source: Any, delimiter: str, encoding: str) -> tuple[list[str], int]:
    """The names in the first line of a CSV file that is not blank, and how many lines end with it; 0 where nothing follows. A name
    that stands there twice, or not at all, gets a number. The file stays at its beginning. ArrowInvalid where the line is longer than HEAD."""
    if source.seekable():
        head = source.read(HEAD)
        source.seek(0)
    else:
        head = source.peek(HEAD)
    text = io.StringIO(head.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace"), newline="")
    names: list[str] = []
    reader = csv.reader(text, delimiter=delimiter)
    try:
        first = next(filter(None, reader), [])
    except csv.Error as e:  # a field of more than 128 KB
        raise pa.ArrowInvalid(f"its first line: {e}") from None
    for name in first:
        wanted, number = name or f"column{len(names) + 1}", 2
        while wanted in names:
            wanted, number = f"{name}__{number}", number + 1
        names.append(wanted)
    behind = text.read(1)
    if not behind and len(head) >= HEAD:
        raise pa.ArrowInvalid(f"its first line has more than {HEAD:,} bytes")
    return names, reader.line_num if behind else 0


def _parquet(source: Any) -> Iterator[pa.Table]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(source).iter_batches(batch_size=ROWS):
        yield pa.Table.from_batches([batch])


def records_of(source: BinaryIO, name: str, encoding: str = "utf-8") -> Iterator[list[dict[str, Any]]]:
    """The records of a file of JSON lines, packed or not, some thousands at a time; FixData, with the line, when one is no object."""
    number, records = 0, list[dict[str, Any]]()
    for piece in pieces(source):
        for line in piece.lines:
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                record = orjson.loads(line if encoding == "utf-8" else line.decode(encoding))
            except (orjson.JSONDecodeError, UnicodeDecodeError):
                record = None
            if isinstance(record, dict):
                records.append(record)
            elif line.strip():
                raise FixData(f"{name}:{number} is no JSON object", mend="mend or move the file")
            if len(records) >= ROWS:
                yield records
                records = []
        if piece.torn:
            raise _damaged(name)
    if records:
        yield records


def typed(
    table: pa.Table, columns: Mapping[str, ColumnType], exclude: frozenset[str] = frozenset()
) -> tuple[pa.Table, pa.Array]:
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


def table_of(changes: Sequence[Change], fields: Mapping[str, FieldType]) -> pa.Table:
    """A step's changes as rows of these fields, NULL where one is not sent; lists and JSON as text."""
    found = _from_columns(changes) if isinstance(changes, Columns) else _from_changes(changes, fields)
    schema = pa.schema([(name, _FIELD_TYPES[kind]) for name, kind in fields.items()])
    arrays = [found[f.name].cast(f.type) if f.name in found else pa.nulls(len(changes), f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _from_columns(changes: Columns) -> dict[str, pa.Array]:
    rows = changes.rows
    found = {name: rows.column(column) for name, column in changes.chunk.keys}
    for name, values, sent in changes.chunk.fields:
        column = rows.column(values)
        if sent is not None:
            column = pc.if_else(rows.column(sent), column, pa.scalar(None, column.type))
        found.setdefault(name, column)
    return found


def _from_changes(changes: Sequence[Change], fields: Mapping[str, FieldType]) -> dict[str, pa.Array]:
    found = {}
    for name, kind in fields.items():
        values = [c.fields.get(name, c.key.get(name)) for c in changes]
        if kind in _NESTED:
            values = [None if v is None else orjson.dumps(v).decode() for v in values]
        found[name] = pa.array(values, None if kind is FieldType.TIMESTAMP else _FIELD_TYPES[kind])
    return found


def written(
    table: pa.Table, made_of: Format, *, packed: bool = False, fields: Mapping[str, FieldType] | None = None
) -> bytes:
    """A table as a file's bytes, the same ones whenever it is written. `packed`: with gzip; `fields`: its fields' types, as for
    `table_of`."""
    sink = io.BytesIO()
    if made_of == "parquet":
        from pyarrow import parquet

        parquet.write_table(table, sink)
        return sink.getvalue()
    if made_of == "csv":
        from pyarrow import csv as arrow_csv

        arrow_csv.write_csv(table, sink, arrow_csv.WriteOptions(quoting_style="needed"))
    else:
        sink.write(_lines(table, [n for n, kind in (fields or {}).items() if kind in _NESTED]))
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


def csv_of(names: Sequence[str], rows: Iterable[Sequence[str]], end: str = "\r\n") -> bytes:
    """Texts as CSV with a header, as RFC 4180 has it. `end`: of its lines. What UTF-8 has not (half a character) is a question
    mark."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "replace")


__all__ = [
    "PACKED",
    "Format",
    "csv_of",
    "csv_tables",
    "format_of",
    "records_of",
    "table_of",
    "tables_of",
    "typed",
    "written",
]
