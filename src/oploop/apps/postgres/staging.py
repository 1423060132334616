"""Changes as the CSV that `COPY` takes: column by column into Arrow, which writes it without the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from oploop.apps.arrow import TIMESTAMP
from oploop.apps.postgres.catalog import PgColumn, Table
from oploop.apps.postgres.statements import Shape
from oploop.errors import FixConfig
from oploop.records import Change, ColumnType, Op

_STAGED: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "int8": pa.int64(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "timestamptz": TIMESTAMP,
    "date": pa.date32(),
}
ZERO = "a text holds the character U+0000, which Postgres cannot"


@dataclass(slots=True)
class Group:
    """Changes that one statement delivers, as `COPY` takes them. `bad`: those that cannot even be staged, and why."""

    shape: Shape
    changes: Sequence[Change]
    csv: bytes = b""
    bad: dict[int, str] = field(default_factory=dict)

    @property
    def numbers(self) -> list[int]:
        return sorted(c.number for c in self.changes)


def groups_of(table: Table, op: Op, changes: Sequence[Change]) -> list[Group]:
    """A step's changes in as few groups as their fields allow, mostly one."""
    if op in (Op.UPDATE, Op.REMOVE):
        parts = _by(changes, lambda c: (c.remote_id is not None, *(() if c.remote_id is not None else sorted(c.key))))
        return [_stage(_changing(table, op, part), part) for part in parts]
    grouped: list[Group] = []
    for part in _by(changes, lambda c: tuple(sorted(c.key))):
        grouped += [_stage(_making(table, op, same), same) for same in _alike(table, part)]
    return grouped


def _by(changes: Sequence[Change], form: Callable[[Change], Any]) -> list[list[Change]]:
    found: dict[Any, list[Change]] = {}
    for change in changes:
        found.setdefault(form(change), []).append(change)
    return list(found.values())


def _alike(table: Table, changes: Sequence[Change]) -> list[list[Change]]:
    """New rows by what they do not send, as far as that matters: a column with a default of its own gets that, and
    where another row clears a column, "not sent" must not look like "cleared"."""
    names = _names(changes)
    matters = [
        n for n in names if _column(table, n).filled or any(n in c.fields and c.fields[n] is None for c in changes)
    ]
    if not matters or all(len(c.fields) == len(names) for c in changes):
        return [list(changes)]
    return _by(changes, lambda c: tuple(n in c.fields for n in matters))


def _names(changes: Sequence[Change]) -> list[str]:
    """All fields that any of the changes sends, in order."""
    names: dict[str, None] = {}
    for change in changes:
        if change.fields.keys() - names.keys():
            names.update(dict.fromkeys(change.fields))
    return list(names)


def _column(table: Table, name: str) -> PgColumn:
    column = table.by_name.get(name)
    if column is None or not column.writable:
        raise FixConfig(f"{table.label} has no column {name!r} that can be written", mend="run again; was it changed?")
    return column


def _changing(table: Table, op: Op, changes: Sequence[Change]) -> Shape:
    """Updates and removals: rows found by id, or by the sync's key where no id is known."""
    find = table.key if changes[0].remote_id is not None else tuple(changes[0].key)
    columns = tuple(table.by_name[n] for n in find)
    if op is Op.REMOVE:
        return Shape(table, op, columns)
    names = _names(changes)
    partial = frozenset(n for n in names if any(n not in c.fields for c in changes))
    return Shape(table, op, columns, tuple(_column(table, n) for n in names), partial)


def _making(table: Table, op: Op, changes: Sequence[Change]) -> Shape:
    """Creates and upserts: rows found by the sync's key, which their fields hold too."""
    find = tuple(table.by_name[n] for n in changes[0].key)
    if op is Op.UPSERT and not table.unique.get(frozenset(changes[0].key)):
        raise FixConfig(
            f"{table.label} has no unique index on {', '.join(changes[0].key)} to upsert by",
            mend="make one, or use the columns of one as the sync's key",
        )
    names = _names(changes)
    keep = frozenset(n for n in names if any(n not in c.fields for c in changes))
    return Shape(table, op, find, tuple(_column(table, n) for n in names), keep_null=keep)


def _stage(shape: Shape, changes: Sequence[Change]) -> Group:
    """Put changes into a group; those that Postgres could not even take as text are left out, with the reason."""
    columns = {"n": pa.array([c.number for c in changes], pa.int64())}
    for i, texts in enumerate(_finds(shape, changes)):
        columns[f"k{i}"] = pa.array(texts, pa.string())
    for i, v in enumerate(shape.values):
        values = [c.fields.get(v.name) for c in changes]
        columns[f"c{i}"] = _array(v, values)
    for i, v in enumerate(shape.values):
        if v.name in shape.partial:
            columns[f"m{i}"] = pa.array([v.name in c.fields for c in changes], pa.bool_())
    table = pa.table(columns)
    group = Group(shape, changes)
    zero = _with_zero(table)
    if zero is not None:
        group.bad = dict.fromkeys(table["n"].filter(zero).to_pylist(), ZERO)
        table = table.filter(pc.invert(zero))
        group.changes = [c for c in changes if c.number not in group.bad]
    sink = pa.BufferOutputStream()
    pcsv.write_csv(table, sink, pcsv.WriteOptions(include_header=False))
    group.csv = sink.getvalue().to_pybytes()
    return group


def _finds(shape: Shape, changes: Sequence[Change]) -> Iterator[list[str | None]]:
    """The texts that find the changes' rows, column by column."""
    if shape.op in (Op.UPDATE, Op.REMOVE) and changes[0].remote_id is not None:
        if len(shape.find) == 1:
            yield [c.remote_id for c in changes]
        else:
            parts = [orjson.loads(c.remote_id or "[]") for c in changes]
            for i in range(len(shape.find)):
                yield [text_of(p[i]) for p in parts]
        return
    for column in shape.find:
        yield [text_of(c.key.get(column.name)) for c in changes]


def _array(column: PgColumn, values: list[Any]) -> pa.Array:
    """Values of one field in the type in which they are staged."""
    kind = column.kind
    if kind.array:
        return pa.array([None if v is None else array_literal(v) for v in values], pa.string())
    if kind.column is ColumnType.JSON:
        return pa.array([None if v is None else orjson.dumps(v).decode() for v in values], pa.string())
    wanted = _STAGED[kind.staged]
    try:
        return pa.array(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError):
        if wanted != pa.string():
            raise
        return pa.array([text_of(v) for v in values], pa.string())


def text_of(value: Any) -> str | None:
    """A value as Postgres reads it."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case date() | datetime():
            return value.isoformat()
        case list() | dict():
            return orjson.dumps(value).decode()
        case _:
            return str(value)


def array_literal(value: Any) -> str:
    """A list as an array's text: {1,"a b",NULL,{...}}; what is no list as its only element."""
    items = value if isinstance(value, list) else [value]
    return "{" + ",".join(_element(v) for v in items) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return array_literal(value)
    text = text_of(value) or ""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _with_zero(table: pa.Table) -> pa.ChunkedArray | None:
    """Which rows hold the character that Postgres cannot; None when none does, as is usual."""
    found = None
    for column in table.columns:
        if pa.types.is_string(column.type):
            has = pc.fill_null(pc.match_substring(column, "\0"), False)
            if pc.any(has).as_py():
                found = has if found is None else pc.or_(found, has)
    return found
