"""Tables as a database's own catalogue describes them, asked when they are first named: streams and objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

import orjson

from oploop.apps import named, tables
from oploop.apps.sql.columns import STEPS, TIMES, C, Described, SqlColumn
from oploop.apps.sql.engine import Engine
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


@dataclass(frozen=True)
class TableOf(Generic[C]):
    """A table with its key: the configured one, the primary key, or a unique index without NULLs; empty: none."""

    name: str
    sql: str
    columns: tuple[C, ...]
    key: tuple[str, ...]
    unique: tuple[frozenset[str], ...]
    cursor: str | None
    unwritable: str | None = None
    comment: str = ""
    by_name: Mapping[str, C] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {c.name: c for c in self.columns})

    @property
    def key_columns(self) -> list[C]:
        return [self.by_name[k] for k in self.key]

    @cached_property
    def id_column(self) -> str:
        return tables.id_column(self.key, self.columns)

    @property
    def arbiters(self) -> Collection[frozenset[str]]:
        """The sets of `unique` by which the database can tell whether a row is there, in an upsert."""
        return self.unique


Table: TypeAlias = TableOf[SqlColumn]
T = TypeVar("T", bound=TableOf[Any])


def id_of(values: Sequence[Any]) -> str:
    """A row's id as text: its key's value, or of several a JSON list."""
    return str(values[0]) if len(values) == 1 else orjson.dumps(list(values)).decode()


def parts_of(table: TableOf[Any], remote_id: str) -> list[Any]:
    """The key's values of an id."""
    values = [remote_id] if len(table.key) == 1 else orjson.loads(remote_id)
    whole = [c.kind.column is ColumnType.INTEGER for c in table.key_columns]
    return [int(v) if w and str(v).lstrip("-").isdigit() else v for v, w in zip(values, whole, strict=True)]


class Tables(named.Catalog[T]):
    """The tables and views of one database. `keys`, `cursors`: what the block says of them, by their names."""

    #: What becomes of a table without a cursor.
    without_cursor = "the table is then read whole"

    def __init__(self, place: str, keys: Mapping[str, Sequence[str]], cursors: Mapping[str, str]) -> None:
        super().__init__()
        self.lacks = f"{place} has no table"
        self._keys = {self.full(k): tuple(v) for k, v in keys.items()}
        self._cursors = {self.full(k): v for k, v in cursors.items()}

    def keyed(
        self, name: str, said: Described[C], as_key: Callable[[C], C]
    ) -> tuple[tuple[C, ...], tuple[str, ...], str | None]:
        """A table's columns with their names in the raw table, its key, and its cursor. `as_key`: a column of a key."""
        names = [c.name for c in said.columns]
        for wanted in self._keys.get(name, ()):
            tables.expect_column("key", name, wanted, names)
        required = {c.name for c in said.columns if c.required}
        sure = next((u for u in said.unique if required.issuperset(u)), ())
        key = self._keys.get(name) or said.primary or sure
        as_read = [as_key(c) if c.name in key else c for c in said.columns]
        columns = tuple(replace(c, raw=raw) for c, raw in zip(as_read, tables.raw_names(names), strict=True))
        return columns, key, self._cursor(name, said.columns)

    def _cursor(self, name: str, columns: Sequence[SqlColumn]) -> str | None:
        wanted = self._cursors.get(name)
        if wanted is None:
            return None
        tables.expect_column("cursor", name, wanted, [c.name for c in columns])
        found = next(c for c in columns if c.name == wanted)
        if not self.goes_on(found):
            kind = f"a {found.type}" if found.type else "no number"
            raise FixConfig(
                f"cursor: {name}.{wanted} is {kind}, by which nothing can be read on",
                mend=f"name a time or a growing number, or leave cursor out: {self.without_cursor}",
            )
        return wanted

    def goes_on(self, column: SqlColumn) -> bool:
        """Whether a table can be read on by a column."""
        return column.kind.column in (*TIMES, ColumnType.INTEGER)


class Catalog(Tables[Table]):
    """The tables of a database with an Engine."""

    def __init__(self, engine: Engine, keys: Mapping[str, Sequence[str]], cursors: Mapping[str, str]) -> None:
        super().__init__(engine.place, keys, cursors)
        self._engine = engine

    def listed(self) -> Mapping[str, bool]:
        with self._engine.connection() as connection:
            found = self._engine.names(connection)
        return {n: real for n, real in found.items() if n != STEPS}

    def describe(self, name: str) -> Table | None:
        asked = {*self._keys.get(name, ()), self._cursors.get(name, "")}
        with self._engine.connection() as connection:
            said = self._engine.describe(connection, name, asked)
        if said is None:
            return None
        columns, key, cursor = self.keyed(name, said, self._engine.as_key)
        unique = tuple(dict.fromkeys(frozenset(u) for u in said.unique))
        return Table(name, self._engine.quote(name), columns, key, unique, cursor, said.unwritable, said.comment)


def stream_of(table: TableOf[Any], *, goes_on: bool | None = None) -> Stream:
    """What is read of a table; FixConfig when nothing identifies its rows. `goes_on`: it can be read on without a cursor too."""
    columns = {c.raw: c.kind.column for c in table.columns if c.readable}
    raws = [c.raw for c in table.key_columns]
    own = table.id_column if raws else ""
    on = table.cursor is not None if goes_on is None else goes_on
    return tables.keyed_stream(table.name, raws, columns, own, table.comment, goes_on=on)


def operations_of(table: TableOf[Any], batch: int, in_flight: int) -> dict[Op, Operation]:
    """How a table takes rows. The step's id is committed with the data, so each step may be sent again."""
    again = Operation(batch=batch, in_flight=in_flight, replay=Replay.SAFE)
    operations = {Op.CREATE: again, Op.UPDATE: replace(again, condition=Condition()), Op.REMOVE: again}
    keys = sorted({name for names in table.arbiters for name in names})
    return operations | ({Op.UPSERT: replace(again, keys=tuple(keys))} if keys else {})


def object_of(table: TableOf[Any], operations: Mapping[Op, Operation]) -> Object:
    """What is written to a table."""
    if table.unwritable is not None:
        raise FixConfig(f"{table.name} cannot be written: {table.unwritable}", mend="write to another table")
    return Object(
        table.name,
        operations,
        stream=table.name if table.key else None,
        id_column=table.id_column,
        fields={c.name: field_of(table, c) for c in table.columns},
        lookup_batch=max(o.batch for o in operations.values()),
        description=table.comment,
        unique=table.unique,
    )


def field_of(table: TableOf[Any], column: SqlColumn) -> Field:
    """A column as a field of its object."""
    keys = {name for names in table.unique for name in names} | set(table.key)
    kind = column.kind
    return Field(
        column.name,
        tables.FIELD_TYPES[kind.column],
        source=Column(column.raw) if column.readable and table.key else None,
        key=column.name in keys,
        required=column.required and not column.filled and not column.made,
        read_only=not column.writable,
        max_length=kind.max_length,
        enum=kind.enum,
        canonical=kind.canonical if column.name in keys or kind.folded else Canonical.EXACT,
        nullable=not column.required,
        description=column.comment,
    )
