"""Batches of one stream as one Arrow table that any engine loads alike: plain types, columns named c0, c1, ... in order.

The names of an API's fields never reach the loader: quotes, dots, blanks, reserved words, names that differ in case
only are all the same to `c7`. The raw table gets the real names back when staging is merged into it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from oploop.apps.arrow import JSON_MARK
from oploop.errors import FixData
from oploop.records import DELETED, EXTRACTED_AT, META_COLUMNS, VERSION, Stream

SEQUENCE = "seq"  #: the order in which rows came, across batches


@dataclass(frozen=True, slots=True)
class Shaped:
    """`table` has columns c0, c1, ... and `seq`; `columns` has, in the same order, the raw table's name and SQL type."""

    table: pa.Table
    columns: Sequence[tuple[str, str]]

    def any_deleted(self) -> bool:
        """Whether any row says that its record is gone."""
        position = [name for name, _ in self.columns].index(DELETED)
        return bool(pc.any(self.table[f"c{position}"]).as_py())

    def once(self, stream: Stream) -> bool:
        """Whether each key comes once."""
        names = [name for name, _ in self.columns]
        keys = [f"c{names.index(k)}" for k in stream.primary_key]
        return bool(self.table.group_by(keys).aggregate([]).num_rows == self.table.num_rows)

    def only(self, sequence: pa.Array) -> Shaped:
        """The rows with these sequence numbers."""
        return Shaped(self.table.filter(pc.is_in(self.table[SEQUENCE], sequence)), self.columns)

    def without(self, sequence: pa.Array) -> Shaped:
        """The rows without these sequence numbers."""
        return Shaped(self.table.filter(pc.invert(pc.is_in(self.table[SEQUENCE], sequence))), self.columns)


def shape(stream: Stream, tables: Sequence[pa.Table], known: Iterable[str], kept: Callable[[str], str] = str) -> Shaped:
    """Put the tables of consecutive batches together. `known`: the raw table's columns, whose spelling rules; `kept`:
    a name as the warehouse keeps it.

    Raises FixData when a table lacks the stream's key or one of oploop's own columns, or has rows without a key.
    """
    spellings = list(known)
    alike = [list(group) for _, group in itertools.groupby(tables, key=lambda t: t.schema)]
    groups = _agreed([_plain(_named(pa.concat_tables(group), spellings)) for group in alike])
    try:
        whole = pa.concat_tables(groups, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
        raise FixData(f"records of {stream.name} come in types that disagree: {e}", mend="mend the app") from e
    _check(stream, whole)
    columns = [(kept(field.name), _sql_type(field)) for field in whole.schema]
    numbered = whole.rename_columns([f"c{i}" for i in range(len(columns))])
    return Shaped(numbered.append_column(SEQUENCE, pa.array(range(whole.num_rows), pa.int64())), columns)


def _named(table: pa.Table, spellings: list[str]) -> pa.Table:
    """Give each column the name that it has, or will have, in the raw table; adds new ones to `spellings`.

    SQL does not tell ID from id. The name that came first keeps it, the other becomes `ID__2`. A field of the API that
    is called like a column of ours gives way likewise.
    """
    split = table.num_columns - len(META_COLUMNS)
    names = table.column_names
    if tuple(names[split:]) != META_COLUMNS:
        raise FixData(f"a batch does not end with the columns {', '.join(META_COLUMNS)}", mend="mend the app")
    taken = {name.lower() for name in META_COLUMNS}
    renamed: dict[int, str] = {}
    for i in sorted(range(split), key=lambda i: names[i] not in spellings):  # exact spellings choose first
        name, number = names[i] or "_", 2
        wanted = name
        while wanted.lower() in taken or (wanted not in spellings and wanted.lower() in {s.lower() for s in spellings}):
            wanted, number = f"{name}__{number}", number + 1
        taken.add(wanted.lower())
        renamed[i] = wanted
        if wanted not in spellings:
            spellings.append(wanted)
    return table.rename_columns([renamed[i] for i in range(split)] + list(META_COLUMNS))


def _plain(table: pa.Table) -> pa.Table:
    """Types that every loader knows: nested ones become JSON text, dictionaries and views are resolved."""
    fields, columns = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = field.type
        if pt.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pt.is_null(kind):
            column, field = column.cast(pa.string()), pa.field(field.name, pa.string(), metadata=JSON_MARK)
        elif pt.is_nested(kind):
            texts = [None if v is None else orjson.dumps(v, default=str).decode() for v in column.to_pylist()]
            column, field = (
                pa.chunked_array([texts], pa.string()),
                pa.field(field.name, pa.string(), metadata=JSON_MARK),
            )
        elif pt.is_large_string(kind) or pt.is_string_view(kind):
            column = column.cast(pa.string())
        elif pt.is_integer(kind) and kind != pa.uint64():
            column = column.cast(pa.int64())
        elif pt.is_floating(kind):
            column = column.cast(pa.float64())
        fields.append(pa.field(field.name, column.type, metadata=field.metadata))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _agreed(groups: list[pa.Table]) -> list[pa.Table]:
    """The same tables, with a column that is text in one and something else in another as text, or as JSON, in all.

    So does the raw table when a type changes from one read to the next (see raw.evolve).
    """
    if len(groups) < 2:
        return groups
    forms: dict[str, set[str]] = {}
    for table in groups:
        for field, column in zip(table.schema, table.columns, strict=True):
            if column.null_count < len(column):  # a column of nothing but NULLs has any type
                forms.setdefault(field.name, set()).add(_sql_type(field))
    common = {
        n: "JSON" if "JSON" in f else "VARCHAR" for n, f in forms.items() if len(f) > 1 and f & {"JSON", "VARCHAR"}
    }
    common |= {n: next(iter(f)) for n, f in forms.items() if len(f) == 1 and f <= {"JSON", "VARCHAR"}}
    return [_as_texts(table, common) for table in groups]


def _as_texts(table: pa.Table, wanted: Mapping[str, str]) -> pa.Table:
    """A table with the columns that are `wanted` so as VARCHAR or JSON."""
    for i, field in enumerate(table.schema):
        kind = wanted.get(field.name)
        if kind is None or kind == _sql_type(field):
            continue
        column = table.column(i)
        if column.null_count == len(column):
            column = pa.nulls(len(column), pa.string())
        elif kind == "VARCHAR":
            column = column.cast(pa.string())
        else:
            texts = [None if v is None else orjson.dumps(v, default=str).decode() for v in column.to_pylist()]
            column = pa.array(texts, pa.string())
        table = table.set_column(
            i, pa.field(field.name, pa.string(), metadata=JSON_MARK if kind == "JSON" else None), column
        )
    return table


def _check(stream: Stream, table: pa.Table) -> None:
    for name in stream.primary_key:
        if name not in table.column_names:
            raise FixData(f"records of {stream.name} come without their key {name!r}", mend="mend the app")
        if nulls := table[name].null_count:
            raise FixData(f"{nulls} records of {stream.name} have no {name!r}, which is their key", mend="mend the app")
    for name in (EXTRACTED_AT, VERSION, DELETED):
        if table[name].null_count:
            raise FixData(f"records of {stream.name} come without {name}", mend="mend the app")


def _sql_type(field: pa.Field) -> str:
    """The raw table's type for a column, in DuckDB's words."""
    kind = field.type
    if pt.is_string(kind):
        return "JSON" if (field.metadata or {}).get(b"oploop") == b"json" else "VARCHAR"
    if pt.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if kind.tz else "TIMESTAMP"
    if pt.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    simple = [
        (pt.is_uint64, "UBIGINT"),
        (pt.is_integer, "BIGINT"),
        (pt.is_floating, "DOUBLE"),
        (pt.is_boolean, "BOOLEAN"),
        (pt.is_date, "DATE"),
        (pt.is_time, "TIME"),
    ]
    return next((sql for test, sql in simple if test(kind)), "BLOB")
