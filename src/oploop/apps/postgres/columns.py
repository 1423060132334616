"""Changes that come as Arrow columns, as the CSV that `COPY` takes: no Python value is made of any.

CSV as Arrow writes it says all that is needed: a text is always quoted, NULL is an empty field without quotes. Where rows
would have to be told apart (a column with a default that some do not send, lists for an array), there is no short way.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from oploop.apps.columns import Columns
from oploop.apps.postgres.catalog import PgColumn, Table
from oploop.apps.postgres.staging import Group, comparable, ways
from oploop.apps.postgres.statements import Shape
from oploop.records import ColumnType, Op

#: The Arrow types that each type of a staging column takes as they are.
_AS_IS = {
    "int8": pa.types.is_int64,
    "float8": pa.types.is_float64,
    "bool": pa.types.is_boolean,
    "date": pa.types.is_date32,
    "timestamptz": lambda kind: pa.types.is_timestamp(kind) and kind.tz is not None,
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
}


def group_of(table: Table, op: Op, changes: Columns, *, conditional: bool = False) -> Group | None:
    """The changes as one group; None where they must be looked at one by one."""
    rows, remote = changes.rows, changes.rows.column("__remote")
    if op is Op.REMOVE:
        return None
    if op is Op.UPDATE:
        if remote.null_count or len(table.key) != 1:
            return None
        staged = {"k0": remote}
        find: tuple[PgColumn, ...] = (table.by_name[table.key[0]],)
    else:
        if remote.null_count < len(remote) or any(n not in table.by_name for n, _ in changes.chunk.keys):
            return None
        find = tuple(table.by_name[n] for n, _ in changes.chunk.keys)
        if op is Op.UPSERT and frozenset(c.name for c in find) not in table.arbiters:
            return None
        staged = {f"k{i}": rows.column(column) for i, (_, column) in enumerate(changes.chunk.keys)}
    values = _values(table, op, changes)
    if values is None or not values:
        return None
    partial = frozenset(v.name for v, _, mask in values if mask is not None)
    read = dict(changes.chunk.guards) if conditional else {}
    guards = comparable(table, (v.name for v, _, _ in values if v.name in read))
    if any(g.kind.column is ColumnType.JSON for g in guards):
        return None
    shape = Shape(table, op, find, tuple(v for v, _, _ in values), *ways(op, partial), guards)
    staged |= {f"c{i}": column for i, (_, column, _) in enumerate(values)}
    staged |= {f"m{i}": mask for i, (v, _, mask) in enumerate(values) if v.name in shape.partial and mask is not None}
    staged |= {f"g{i}": rows.column(read[g.name]) for i, g in enumerate(guards)}
    return _written(shape, changes, {"n": rows.column("__number"), **staged})


def _values(table: Table, op: Op, changes: Columns) -> list[tuple[PgColumn, pa.Array, pa.Array | None]] | None:
    """(column, its values, which of them are sent unless all are) of the fields that any change sends."""
    rows = changes.rows
    found: list[tuple[PgColumn, pa.Array, pa.Array | None]] = []
    made = op is not Op.UPDATE
    sent = [(name, w, None) for name, w in changes.chunk.keys] if made else []
    for name, w, c in [*sent, *changes.chunk.fields]:
        mask = rows.column(c) if c is not None else None
        if mask is not None and not mask.true_count:
            continue
        column, values = table.by_name.get(name), rows.column(w)
        if column is None or not column.writable or column.kind.array or any(v.name == name for v, _, _ in found):
            return None
        if mask is not None and mask.true_count == len(mask):
            mask = None
        if mask is not None and made:
            values = pc.if_else(mask, values, pa.scalar(None, values.type))
            cleared = values.null_count > len(mask) - mask.true_count
            if column.filled or cleared:  # "not sent" must not look like "cleared", and a default is to have its way
                return None
        found.append((column, values, mask))
    return found


def _written(shape: Shape, changes: Columns, staged: dict[str, pa.Array]) -> Group | None:
    """The group with its columns; None where one does not have the type in which it is staged."""
    arrays = []
    for name, kind in shape.stage_columns():
        array = staged[name]
        if kind == "text" and pa.types.is_int64(array.type):
            array = array.cast(pa.string())
        if not _AS_IS[kind](array.type) or (kind == "text" and _unsafe(array)):
            return None
        arrays.append(array)
    names = [n for n, _ in shape.stage_columns()]
    return Group(shape, changes, [], columns=pa.RecordBatch.from_arrays(arrays, names))


def csv_of(group: Group, *, straight: bool) -> bytes:
    """The rows of a group that has columns, as CSV: as they are staged, or, `straight`, only the values. Made once."""
    assert group.columns is not None
    if straight not in group.texts:
        rows = group.columns
        if straight:
            rows = rows.select([f"c{i}" for i in range(len(group.shape.values))])
        sink = io.BytesIO()
        csv.write_csv(rows, sink, csv.WriteOptions(include_header=False, quoting_style="needed"))
        group.texts[straight] = sink.getvalue()
    return group.texts[straight]


def _unsafe(texts: pa.Array) -> bool:
    """Whether a text holds U+0000, which is a fault of its row, or what servers before 18 take for the end of the data."""
    return any(pc.any(pc.match_substring(texts, pattern)).as_py() for pattern in ("\0", "\\."))
