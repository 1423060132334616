"""Tables as a database's own catalogue describes them, asked when they are first named: streams and objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from oploop.apps import named, tables
from oploop.errors import FixConfig
from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Condition,
    Field,
    Object,
    Op,
    Operation,
    Replay,
    Stream,
)

if TYPE_CHECKING:
    from oploop.apps.sql.engine import Engine

STEPS = "oploop_steps"  #: the table with the ids of delivered steps, in the target database

TIMES = (ColumnType.TIMESTAMP, ColumnType.DATE)


@dataclass(frozen=True, slots=True)
class Kind:
    """How values of a column travel. `read` and `write` are expressions with `{}` where the column, or the staged value,
    stands; `stage`: the type of the column in which they are staged."""

    column: ColumnType
    read: str = "{}"
    write: str = "{}"
    stage: str = ""
    canonical: Canonical = Canonical.EXACT
    max_length: int | None = None
    enum: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SqlColumn:
    """A column. `raw` is its name in the raw table, where names that differ only by case cannot stand side by side."""

    name: str
    kind: Kind
    type: str = ""  #: as the database writes it
    required: bool = False  #: NOT NULL
    filled: bool = False  #: has a default, or a number of its own
    made: bool = False  #: computed by the database: never written
    comment: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Described:
    """What an engine says of a table. `unique`: the sets of columns that identify a row, the primary key first.
    `unwritable`: why nothing can be written to it, if so."""

    columns: Sequence[SqlColumn]
    unique: Sequence[tuple[str, ...]] = ()
    primary: tuple[str, ...] = ()
    unwritable: str | None = None
    comment: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its key: the configured one, the primary key, or a unique index without NULLs; empty: none."""

    name: str
    sql: str
    columns: tuple[SqlColumn, ...]
    key: tuple[str, ...]
    unique: tuple[frozenset[str], ...]
    cursor: str | None
    unwritable: str | None = None
    comment: str = ""
    by_name: Mapping[str, SqlColumn] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {c.name: c for c in self.columns})

    @property
    def key_columns(self) -> list[SqlColumn]:
        return [self.by_name[k] for k in self.key]

    @cached_property
    def id_column(self) -> str:
        return tables.id_column(self.key, self.columns)


def id_of(values: Sequence[Any]) -> str:
    """A row's id as text: its key's value, or of several a JSON list."""
    return str(values[0]) if len(values) == 1 else orjson.dumps(list(values)).decode()


def parts_of(table: Table, remote_id: str) -> list[Any]:
    """The key's values of an id."""
    values = [remote_id] if len(table.key) == 1 else orjson.loads(remote_id)
    whole = [c.kind.column is ColumnType.INTEGER for c in table.key_columns]
    return [int(v) if w and str(v).lstrip("-").isdigit() else v for v, w in zip(values, whole, strict=True)]


class Catalog(named.Catalog[Table]):
    """The tables and views of one database."""

    def __init__(self, engine: Engine, keys: Mapping[str, Sequence[str]], cursors: Mapping[str, str]) -> None:
        super().__init__()
        self._engine, self.lacks = engine, f"{engine.place} has no table"
        self._keys = {k: tuple(v) for k, v in keys.items()}
        self._cursors = dict(cursors)

    def listed(self) -> Mapping[str, bool]:
        with self._engine.connection() as connection:
            found = self._engine.names(connection)
        return {n: real for n, real in found.items() if n != STEPS}

    def describe(self, name: str) -> Table | None:
        asked = {*self._keys.get(name, ()), self._cursors.get(name, "")}
        with self._engine.connection() as connection:
            said = self._engine.describe(connection, name, asked)
        return self._made(name, said) if said is not None else None

    def _made(self, name: str, said: Described) -> Table:
        names = [c.name for c in said.columns]
        for wanted in self._keys.get(name, ()):
            tables.expect_column("key", name, wanted, names)
        required = {c.name for c in said.columns if c.required}
        sure = next((u for u in said.unique if required.issuperset(u)), ())
        key = self._keys.get(name) or said.primary or sure
        cursor = self._cursor(name, said.columns)
        unique = tuple(dict.fromkeys(frozenset(u) for u in said.unique))
        as_read = [self._engine.as_key(c) if c.name in key else c for c in said.columns]
        columns = tuple(replace(c, raw=raw) for c, raw in zip(as_read, tables.raw_names(names), strict=True))
        sql = self._engine.quote(name)
        return Table(name, sql, columns, key, unique, cursor, said.unwritable, said.comment)

    def _cursor(self, name: str, columns: Sequence[SqlColumn]) -> str | None:
        wanted = self._cursors.get(name)
        if wanted is None:
            return None
        tables.expect_column("cursor", name, wanted, [c.name for c in columns])
        found = next(c for c in columns if c.name == wanted)
        if found.kind.column not in (*TIMES, ColumnType.INTEGER):
            raise FixConfig(
                f"cursor: {name}.{wanted} is {found.type or 'no number'}, by which nothing can be read on",
                mend="name a time or a growing number, or leave cursor out: the table is then read whole",
            )
        return wanted


def stream_of(table: Table) -> Stream:
    """What is read of a table; FixConfig when nothing identifies its rows."""
    columns = {c.raw: c.kind.column for c in table.columns}
    raws = [c.raw for c in table.key_columns]
    own = table.id_column if raws else ""
    return tables.keyed_stream(table.name, raws, columns, own, table.comment, goes_on=table.cursor is not None)


def object_of(table: Table, batch: int, in_flight: int) -> Object:
    """What is written to a table. The step's id is committed with the data, so each step may be sent again."""
    if table.unwritable is not None:
        raise FixConfig(f"{table.name} cannot be written: {table.unwritable}", mend="write to another table")
    again = Operation(batch=batch, in_flight=in_flight, replay=Replay.SAFE)
    by_key = Operation(
        batch=batch,
        in_flight=in_flight,
        replay=Replay.SAFE,
        keys=tuple(sorted({name for names in table.unique for name in names})),
    )
    operations = {Op.CREATE: again, Op.UPDATE: replace(again, condition=Condition()), Op.REMOVE: again}
    if table.unique:
        operations[Op.UPSERT] = by_key
    return Object(
        table.name,
        operations,
        stream=table.name if table.key else None,
        id_column=table.id_column,
        fields={c.name: field_of(table, c) for c in table.columns},
        lookup_batch=batch,
        description=table.comment,
        unique=table.unique,
    )


def field_of(table: Table, column: SqlColumn) -> Field:
    """A column as a field of its object."""
    keys = {name for names in table.unique for name in names} | set(table.key)
    kind = column.kind
    return Field(
        column.name,
        tables.FIELD_TYPES[kind.column],
        source=Column(column.raw) if table.key else None,
        key=column.name in keys,
        required=column.required and not column.filled and not column.made,
        read_only=column.made,
        max_length=kind.max_length,
        enum=kind.enum,
        canonical=kind.canonical if column.name in keys else Canonical.EXACT,
        nullable=not column.required,
        description=column.comment,
    )
