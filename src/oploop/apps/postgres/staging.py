"""Changes as the rows that `COPY` takes, made column by column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import orjson

from oploop.apps.columns import Columns
from oploop.apps.postgres.catalog import PgColumn, Table
from oploop.apps.postgres.statements import AS_JSONB, UNSURE, Shape
from oploop.apps.sql.alike import Alike, alike
from oploop.records import Change, ColumnType, Op

if TYPE_CHECKING:
    import pyarrow as pa

ZERO = "a text holds the character U+0000, which Postgres cannot"


@dataclass(slots=True)
class Group:
    """Changes that one statement delivers, as `COPY` takes them. `bad`: those that cannot even be staged, and why."""

    shape: Shape
    changes: Sequence[Change]
    rows: list[tuple[Any, ...]]
    bad: dict[int, str] = field(default_factory=dict)
    columns: pa.RecordBatch | None = None  #: the rows, where they came as columns
    texts: dict[bool, bytes] = field(default_factory=dict)  #: those as CSV (see `columns.csv_of`)

    @property
    def numbers(self) -> Sequence[int]:
        if isinstance(self.changes, Columns):
            first, last = self.changes.span
            return range(first, last + 1)
        return sorted(c.number for c in self.changes)


def groups_of(table: Table, op: Op, changes: Sequence[Change], *, conditional: bool = False) -> list[Group]:
    """A step's changes in as few groups as their fields allow, mostly one."""
    found = []
    for part in alike(table, op, changes, null_is_unsent=True):
        names = (n for c in part.changes for n in c.as_read)
        guards = comparable(table, names) if conditional and op is Op.UPDATE else ()
        found.append(_stage(Shape(table, op, part.find, part.values, *ways(op, part.partial), guards), part))
    return found


def ways(op: Op, partial: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """(`partial`, `keep_null`) of a Shape, see there."""
    return (partial, frozenset()) if op is Op.UPDATE else (frozenset(), partial)


def comparable(table: Table, names: Iterable[str]) -> tuple[PgColumn, ...]:
    """Of columns those whose value, as it was read, can be held against what stands there: no composites, no arrays whose text
    depends on settings, no `json`, whose text may be none of `jsonb`."""
    columns = (table.by_name[n] for n in dict.fromkeys(names) if n in table.by_name)
    return tuple(c for c in columns if c.kind.column is not ColumnType.JSON or c.type in AS_JSONB)


def _guard(column: PgColumn, values: list[Any]) -> list[Any]:
    """What a column must still hold, as it is staged. JSON with a fraction may have lost digits on its way: it is not held against
    anything."""
    if column.kind.column is not ColumnType.JSON:
        return _staged(column, values)
    return [None if v is None else UNSURE if _fractions(v) else orjson.dumps(v).decode() for v in values]


def _fractions(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_fractions, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float)


def _stage(shape: Shape, part: Alike[PgColumn]) -> Group:
    """Put changes into a group; those that Postgres could not even take as text are left out, with the reason."""
    changes = part.changes
    columns: list[Sequence[Any]] = [[c.number for c in changes], *_finds(part)]
    for v in shape.values:
        name = v.name
        columns.append(_staged(v, [c.fields.get(name) for c in changes]))
    columns += [[v.name in c.fields for c in changes] for v in shape.values if v.name in shape.partial]
    columns += [_guard(g, [c.as_read.get(g.name) for c in changes]) for g in shape.guards]
    bad = dict.fromkeys(sorted(set().union(*map(_with_zero, columns))), ZERO)
    rows: Iterable[tuple[Any, ...]] = zip(*columns, strict=True)
    if not bad:
        return Group(shape, changes, list(rows))
    good = [i for i in range(len(changes)) if i not in bad]
    listed = list(rows)
    return Group(
        shape, [changes[i] for i in good], [listed[i] for i in good], {changes[i].number: why for i, why in bad.items()}
    )


def _finds(part: Alike[PgColumn]) -> list[list[str | None]]:
    """The texts that find the changes' rows, column by column."""
    return [list(map(text_of, keys)) for keys in part.found_by()]


def _staged(column: PgColumn, values: list[Any]) -> list[Any]:
    """Values of one field as they are staged: of the one Python type that the staging column takes."""
    kind = column.kind
    if kind.array:
        return [None if v is None else array_literal(v) for v in values]
    if kind.column is ColumnType.JSON:
        return [None if v is None else orjson.dumps(v).decode() for v in values]
    if kind.stage == "text" and not set(map(type, values)) <= {str, type(None)}:
        return [text_of(v) for v in values]
    return values


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


def _with_zero(column: Sequence[Any]) -> set[int]:
    """The places of texts with the character that Postgres cannot hold; none, as is usual."""
    texts = [v for v in column if type(v) is str]
    if not texts or "\0" not in "".join(texts):
        return set()
    return {i for i, v in enumerate(column) if type(v) is str and "\0" in v}
