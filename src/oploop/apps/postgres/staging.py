"""Changes as the rows that `COPY` takes, made column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import orjson

from oploop.apps.columns import Columns
from oploop.apps.postgres.catalog import PgColumn, Table
from oploop.apps.postgres.statements import AS_JSONB, UNSURE, Shape
from oploop.errors import FixConfig
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
    if op in (Op.UPDATE, Op.REMOVE):
        parts = _by(changes, lambda c: (c.remote_id is not None, *(() if c.remote_id is not None else sorted(c.key))))
        return [_stage(_changing(table, op, part, conditional), part) for part in parts]
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
    _, some = _names(changes)
    matters = [n for n in sorted(some) if _column(table, n).filled or any(c.fields.get(n, "") is None for c in changes)]
    if not matters:
        return [list(changes)]
    return _by(changes, lambda c: tuple(n in c.fields for n in matters))


def _names(changes: Sequence[Change]) -> tuple[list[str], frozenset[str]]:
    """All fields that any of the changes sends, in order, and of them those that not all send."""
    names, every = dict.fromkeys(changes[0].fields), changes[0].fields.keys()
    some: set[str] = set()
    for change in changes:
        if change.fields.keys() != every:
            some |= change.fields.keys() ^ every
            names.update(dict.fromkeys(change.fields))
    return list(names), frozenset(some)


def _column(table: Table, name: str) -> PgColumn:
    column = table.by_name.get(name)
    if column is None or not column.writable:
        raise FixConfig(f"{table.label} has no column {name!r} that can be written", mend="run again; was it changed?")
    return column


def comparable(table: Table, names: Iterable[str]) -> tuple[PgColumn, ...]:
    """Of columns those whose value, as it was read, can be held against what stands there: no composites, no arrays whose text
    depends on settings, no `json`, whose text may be none of `jsonb`."""
    columns = (table.by_name[n] for n in dict.fromkeys(names) if n in table.by_name)
    return tuple(c for c in columns if c.kind.column is not ColumnType.JSON or c.type.name in AS_JSONB)


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


def _changing(table: Table, op: Op, changes: Sequence[Change], conditional: bool) -> Shape:
    """Updates and removals: rows found by id, or by the sync's key where no id is known."""
    find = table.key if changes[0].remote_id is not None else tuple(changes[0].key)
    columns = tuple(table.by_name[n] for n in find)
    if op is Op.REMOVE:
        return Shape(table, op, columns)
    names, partial = _names(changes)
    guards = comparable(table, (n for c in changes for n in c.as_read)) if conditional else ()
    return Shape(table, op, columns, tuple(_column(table, n) for n in names), partial, guards=guards)


def _making(table: Table, op: Op, changes: Sequence[Change]) -> Shape:
    """Creates and upserts: rows found by the sync's key, which their fields hold too."""
    unknown = [n for n in changes[0].key if n not in table.by_name]
    if unknown:  # new rows are found again by the key
        raise FixConfig(
            f"{table.label} has no column {unknown[0]!r}, which the sync's key names",
            mend="use the table's own columns as key",
        )
    find = tuple(table.by_name[n] for n in changes[0].key)
    if op is Op.UPSERT and not table.unique.get(frozenset(changes[0].key)):
        raise FixConfig(
            f"{table.label} has no unique index on {', '.join(changes[0].key)} to upsert by",
            mend="make one, or use the columns of one as the sync's key",
        )
    names, keep = _names(changes)
    return Shape(table, op, find, tuple(_column(table, n) for n in names), keep_null=keep)


def _stage(shape: Shape, changes: Sequence[Change]) -> Group:
    """Put changes into a group; those that Postgres could not even take as text are left out, with the reason."""
    columns: list[Sequence[Any]] = [[c.number for c in changes], *_finds(shape, changes)]
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


def _staged(column: PgColumn, values: list[Any]) -> list[Any]:
    """Values of one field as they are staged: of the one Python type that the staging column takes."""
    kind = column.kind
    if kind.array:
        return [None if v is None else array_literal(v) for v in values]
    if kind.column is ColumnType.JSON:
        return [None if v is None else orjson.dumps(v).decode() for v in values]
    if kind.staged == "text" and not set(map(type, values)) <= {str, type(None)}:
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
