"""Tables as the database's own catalog describes them, asked when they are first named: streams and objects.

A table is named with its schema (`public.accounts`); without one it is of the configured schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from oploop.apps import named, tables
from oploop.apps.postgres.kinds import Kind, PgType, as_text, kind_of, quote
from oploop.apps.postgres.server import Server
from oploop.errors import FixConfig
from oploop.records import (
    Canonical,
    Column,
    Condition,
    Field,
    Object,
    Op,
    Operation,
    Replay,
    Stream,
)

STEPS_KEPT = 30 * 86400.0  #: seconds for which the ids of delivered steps are kept
STEPS = "oploop.oploop_steps"  #: where the ids of delivered steps are kept, in the target database
BATCH = 50_000
IN_FLIGHT = 2

_TABLES = """
SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname <> 'oploop'
AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%' AND has_schema_privilege(n.oid, 'USAGE')
AND has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE') ORDER BY n.nspname <> %s, 1, 2
"""

_TABLE = """
SELECT c.oid::int8, c.relkind::text, c.relhasrules, obj_description(c.oid, 'pg_class'),
  has_table_privilege(c.oid, 'DELETE'),
  has_database_privilege(current_database(), 'CREATE') OR COALESCE(has_table_privilege(to_regclass(%s), 'INSERT, SELECT'), false)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# A domain is followed to its base type, step by step; what it adds on the way (NOT NULL, a default) counts.
_COLUMNS = """
WITH RECURSIVE typed AS (
  SELECT a.attnum, a.atttypid AS typid, a.atttypmod AS typmod, a.attnotnull AS required, a.atthasdef AS filled
  FROM pg_attribute a WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT d.attnum, t.typbasetype, t.typtypmod, d.required OR t.typnotnull, d.filled OR t.typdefault IS NOT NULL
  FROM typed d JOIN pg_type t ON t.oid = d.typid WHERE t.typtype = 'd'
)
SELECT a.attname, t.typname, t.typtype::text, t.typcategory::text, d.typmod, format_type(t.oid, -1),
  d.required, d.filled, a.attidentity = 'a' OR a.attgenerated <> '' AS made, a.attidentity <> '' AS numbered,
  (SELECT array_agg(e.enumlabel ORDER BY e.enumsortorder)::text[] FROM pg_enum e WHERE e.enumtypid = t.oid),
  col_description(%(oid)s, a.attnum),
  has_column_privilege(%(oid)s, a.attnum, 'SELECT'),
  has_column_privilege(%(oid)s, a.attnum, 'INSERT') OR has_column_privilege(%(oid)s, a.attnum, 'UPDATE')
FROM pg_attribute a JOIN typed d ON d.attnum = a.attnum JOIN pg_type t ON t.oid = d.typid
WHERE a.attrelid = %(oid)s AND t.typtype <> 'd' ORDER BY a.attnum
"""

# Indexes that keep columns unique for all rows: neither partial ones nor ones over expressions.
_UNIQUE = """
SELECT i.indisprimary, i.indimmediate, (
  SELECT array_agg(a.attname ORDER BY k.place)::text[] FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts)
FROM pg_index i WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""


@dataclass(frozen=True, slots=True)
class PgColumn:
    """A column. `raw` is its name in the raw table, where names that differ only by case cannot stand side by side."""

    name: str
    raw: str
    type: PgType
    kind: Kind
    required: bool  #: NOT NULL
    filled: bool  #: has a default, or a number of its own
    made: bool  #: computed by the database, or numbered always: never written
    enum: tuple[str, ...] | None
    comment: str | None
    readable: bool
    writable: bool

    @property
    def sql(self) -> str:
        return quote(self.name)


@dataclass(frozen=True)
class Table:
    """A table as the catalog has it. `key`: the columns that identify a row; `unique`: all sets that do, with whether
    `ON CONFLICT` can go by them."""

    schema: str
    name: str
    oid: int
    relkind: str
    comment: str | None
    columns: tuple[PgColumn, ...]
    key: tuple[str, ...]
    unique: Mapping[frozenset[str], bool]
    removable: bool
    keeps_steps: bool
    cursor: str | None
    ruled: bool = False  #: has rewrite rules, which `COPY` does not heed

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        return f"{quote(self.schema)}.{quote(self.name)}"

    @cached_property
    def by_name(self) -> Mapping[str, PgColumn]:
        return {c.name: c for c in self.columns}

    @property
    def key_columns(self) -> list[PgColumn]:
        return [self.by_name[k] for k in self.key]

    @property
    def has_xmin(self) -> bool:
        """Whether rows carry the transaction that wrote them (views and foreign tables do not show it)."""
        return self.relkind in ("r", "p", "m")

    @cached_property
    def id_column(self) -> str:
        return tables.id_column(self.key, self.columns)

    def id_sql(self, alias: str) -> str:
        """The row's id as text, over a table alias."""
        texts = [c.kind.read.format(f"{alias}.{c.sql}") for c in self.key_columns]
        return f"({texts[0]})::text" if len(texts) == 1 else f"jsonb_build_array({', '.join(texts)})::text"


#: What is written to: no view, and no table of another server.
WRITTEN = ("r", "p")


class Catalog(named.Catalog[Table]):
    """The tables and views of one database that the user may use; those of the configured schema come first."""

    def __init__(
        self, server: Server, schema: str, keys: Mapping[str, Sequence[str]], cursors: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._server, self._schema, self.lacks = server, schema, f"{server.place} has no table"
        self._keys = {self.full(k): tuple(v) for k, v in keys.items()}
        self._cursors = {self.full(k): v for k, v in cursors.items()}

    def listed(self) -> Mapping[str, bool]:
        with self._server.short() as connection:
            rows = connection.execute(_TABLES, (self._schema,)).fetchall()
        return {f"{schema}.{name}": relkind in WRITTEN for schema, name, relkind in rows}

    def full(self, name: str) -> str:
        return name if "." in name else f"{self._schema}.{name}"

    def describe(self, name: str) -> Table | None:
        with self._server.short() as connection, connection.transaction():
            connection.execute("SET LOCAL search_path = pg_catalog")  # so that types come with their schema
            return self._describe(connection, name)

    def _describe(self, connection: Any, full: str) -> Table | None:
        schema, _, name = full.partition(".")
        head = connection.execute(_TABLE, (STEPS, schema, name)).fetchone()
        if head is None:
            return None
        oid, relkind, ruled, comment, removable, keeps_steps = head
        rows = connection.execute(_COLUMNS, {"oid": oid}).fetchall()
        indexes = connection.execute(_UNIQUE, (oid,)).fetchall()
        not_null = {row[0] for row in rows if row[6]}
        key = self._key(full, [r[0] for r in rows], indexes, not_null)
        columns = tuple(_columns(rows, key))
        unique: dict[frozenset[str], bool] = {}
        for _, immediate, names in indexes:
            unique[frozenset(names)] = unique.get(frozenset(names), False) or immediate
        cursor = self._cursor(full, columns)
        return Table(schema, name, oid, relkind, comment, columns, key, unique, removable, keeps_steps, cursor, ruled)

    def _key(self, full: str, columns: Sequence[str], indexes: Sequence[Any], not_null: set[str]) -> tuple[str, ...]:
        """The configured key, else the primary key, else a unique index without NULLs; empty when there is none."""
        if full in self._keys:
            for name in self._keys[full]:
                tables.expect_column("key", full, name, columns)
            return self._keys[full]
        for primary, _, names in indexes:
            if primary or not_null.issuperset(names):
                return tuple(names)
        return ()

    def _cursor(self, full: str, columns: Sequence[PgColumn]) -> str | None:
        name = self._cursors.get(full)
        if name is None:
            return None
        tables.expect_column("cursor", full, name, [c.name for c in columns])
        found = next(c for c in columns if c.name == name)
        if found.type.name not in ("timestamptz", "timestamp", "date", "int2", "int4", "int8", "numeric"):
            raise FixConfig(
                f"cursor: {full}.{name} is a {found.type.name}, by which nothing can be read on",
                mend="name a timestamp or a growing number, or leave cursor out: rows are then read on by xmin",
            )
        return name


def _columns(rows: Sequence[Any], key: Sequence[str]) -> Iterator[PgColumn]:
    for raw, row in zip(tables.raw_names(row[0] for row in rows), rows, strict=True):
        name, *typed, required, filled, made, numbered, enum, comment, see, put = row
        of = PgType(*typed)
        kind = as_text(kind_of(of), of) if name in key else kind_of(of)
        labels = tuple(enum) if enum else None
        yield PgColumn(name, raw, of, kind, required, filled or numbered, made, labels, comment, see, put and not made)


def stream_of(table: Table) -> Stream:
    """What is read of a table; FixConfig when nothing identifies its rows."""
    columns = {c.raw: c.kind.column for c in table.columns if c.readable}
    goes_on = table.cursor is not None or table.has_xmin
    raws = [c.raw for c in table.key_columns]
    own = table.id_column if raws else ""
    return tables.keyed_stream(table.label, raws, columns, own, table.comment or "", goes_on=goes_on)


#: The server may still be at a statement whose client is dead, and commit it: so many seconds later it surely is not.
SETTLES = 60.0


def object_of(table: Table) -> Object:
    """What is written to a table. Its operations are those that the user may do there."""
    if table.relkind not in WRITTEN:
        raise FixConfig(
            f"{table.label} is no table of this database, so nothing is written to it", mend="write to a table"
        )
    # a step is known by its id; a later run sends the same rows under another one
    replay, ttl = (Replay.KEY, STEPS_KEPT) if table.keeps_steps else (Replay.LOOKUP, None)
    again = Operation(batch=BATCH, in_flight=IN_FLIGHT, replay=Replay.SAFE)
    arbiters = sorted({name for names, usable in table.unique.items() if usable for name in names})
    upsert = Operation(batch=BATCH, in_flight=IN_FLIGHT, replay=Replay.SAFE, keys=tuple(arbiters))
    create = Operation(batch=BATCH, in_flight=IN_FLIGHT, replay=replay, ttl=ttl, settle=SETTLES)
    operations = {Op.CREATE: create, Op.UPDATE: replace(again, condition=Condition())}
    if arbiters:
        operations[Op.UPSERT] = upsert
    if table.removable:
        operations[Op.REMOVE] = again
    fields = {c.name: field_of(table, c) for c in table.columns}
    return Object(
        table.label,
        operations,
        stream=table.label if table.key else None,
        id_column=table.id_column,
        fields=fields,
        lookup_batch=BATCH,
        description=table.comment or "",
        unique=tuple(table.unique),
    )


def field_of(table: Table, column: PgColumn) -> Field:
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
        enum=column.enum,
        canonical=kind.canonical if column.enum is None else Canonical.EXACT,
        nullable=not column.required,
        description=column.comment or "",
    )
