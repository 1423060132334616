"""Tables as the database's own catalog describes them, asked when they are first named: streams and objects.

A table is named with its schema (`public.accounts`); without one it is of the configured schema.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oploop.apps.postgres.kinds import PgKind, PgType, as_text, kind_of, quote
from oploop.apps.postgres.server import Server
from oploop.apps.sql import tables
from oploop.apps.sql.columns import Described, SqlColumn
from oploop.apps.sql.tables import TableOf, Tables, operations_of
from oploop.records import Canonical, Object, Op, Replay, Stream

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
  has_database_privilege(current_database(), 'CREATE') OR COALESCE(has_table_privilege(to_regclass(%s), 'INSERT, SELECT'), false),
  EXISTS (SELECT 1 FROM pg_trigger g WHERE (g.tgrelid = c.oid OR g.tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid)))
    AND g.tgenabled IN ('O', 'A') AND NOT g.tgisinternal AND g.tgtype::int & 7 = 7)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

# Triggers: for each row (1), BEFORE (2) INSERT (4).
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
class PgColumn(SqlColumn):
    """A column. `of`: its type as the catalog has it."""

    kind: PgKind
    of: PgType = field(kw_only=True)

    @property
    def sql(self) -> str:
        return quote(self.name)


@dataclass(frozen=True)
class Table(TableOf[PgColumn]):
    """A table as the catalog has it. `usable`: of the sets of `unique` those that `ON CONFLICT` can go by."""

    oid: int = field(kw_only=True)
    relkind: str = field(kw_only=True)
    usable: frozenset[frozenset[str]] = field(kw_only=True)
    removable: bool = field(kw_only=True)
    keeps_steps: bool = field(kw_only=True)
    ruled: bool = field(kw_only=True, default=False)  #: has rewrite rules, which `COPY` does not heed
    reshaped: bool = field(kw_only=True, default=False)  #: has triggers that may change a new row before it is stored

    @property
    def arbiters(self) -> Collection[frozenset[str]]:
        return self.usable

    @property
    def has_xmin(self) -> bool:
        """Whether rows carry the transaction that wrote them (views and foreign tables do not show it)."""
        return self.relkind in ("r", "p", "m")

    def id_sql(self, alias: str) -> str:
        """The row's id as text, over a table alias."""
        texts = [c.kind.read.format(f"{alias}.{c.sql}") for c in self.key_columns]
        return f"({texts[0]})::text" if len(texts) == 1 else f"jsonb_build_array({', '.join(texts)})::text"


#: What is written to: no view, and no table of another server.
WRITTEN = ("r", "p")


class Catalog(Tables[Table]):
    """The tables and views of one database that the user may use; those of the configured schema come first."""

    without_cursor = "rows are then read on by xmin"

    def __init__(
        self, server: Server, schema: str, keys: Mapping[str, Sequence[str]], cursors: Mapping[str, str]
    ) -> None:
        self._server, self._schema = server, schema
        super().__init__(server.place, keys, cursors)

    def listed(self) -> Mapping[str, bool]:
        with self._server.short() as connection:
            rows = connection.execute(_TABLES, (self._schema,)).fetchall()
        return {f"{schema}.{name}": relkind in WRITTEN for schema, name, relkind in rows}

    def full(self, name: str) -> str:
        return name if "." in name else f"{self._schema}.{name}"

    def goes_on(self, column: SqlColumn) -> bool:
        return column.type in ("timestamptz", "timestamp", "date", "int2", "int4", "int8", "numeric")

    def describe(self, name: str) -> Table | None:
        with self._server.short() as connection, connection.transaction():
            connection.execute("SET LOCAL search_path = pg_catalog")  # so that types come with their schema
            return self._describe(connection, name)

    def _describe(self, connection: Any, full: str) -> Table | None:
        schema, _, name = full.partition(".")
        head = connection.execute(_TABLE, (STEPS, schema, name)).fetchone()
        if head is None:
            return None
        oid, relkind, ruled, comment, removable, keeps_steps, reshaped = head
        rows = connection.execute(_COLUMNS, {"oid": oid}).fetchall()
        indexes = connection.execute(_UNIQUE, (oid,)).fetchall()
        primary = next((tuple(names) for primary, _, names in indexes if primary), ())
        said = Described(list(map(_column, rows)), [tuple(names) for _, _, names in indexes], primary)
        columns, key, cursor = self.keyed(full, said, _as_key)
        return Table(
            full,
            f"{quote(schema)}.{quote(name)}",
            columns,
            key,
            tuple(dict.fromkeys(frozenset(names) for _, _, names in indexes)),
            cursor,
            None if relkind in WRITTEN else "it is no table of this database",
            comment or "",
            oid=oid,
            relkind=relkind,
            usable=frozenset(frozenset(names) for _, immediate, names in indexes if immediate),
            removable=removable,
            keeps_steps=keeps_steps,
            ruled=ruled,
            reshaped=reshaped,
        )


def _column(row: Sequence[Any]) -> PgColumn:
    name, *typed, required, filled, made, numbered, enum, comment, readable, granted = row
    of = PgType(*typed)
    kind = replace(kind_of(of), enum=tuple(enum), canonical=Canonical.EXACT) if enum else kind_of(of)
    return PgColumn(
        name,
        kind,
        of.name,
        required=required,
        filled=filled or numbered,
        made=made,
        comment=comment or "",
        readable=readable,
        granted=granted,
        of=of,
    )


def _as_key(column: PgColumn) -> PgColumn:
    return replace(column, kind=as_text(column.kind, column.of))


def stream_of(table: Table) -> Stream:
    """What is read of a table: rows can be read on by a cursor, or by the transactions that wrote them."""
    return tables.stream_of(table, goes_on=table.cursor is not None or table.has_xmin)


#: The server may still be at a statement whose client is dead, and commit it: so many seconds later it surely is not.
SETTLES = 60.0


def object_of(table: Table) -> Object:
    """What is written to a table. Its operations are those that the user may do there."""
    operations = operations_of(table, BATCH, IN_FLIGHT)
    # a step is known by its id; a later run sends the same rows under another one
    replay, ttl = (Replay.KEY, STEPS_KEPT) if table.keeps_steps else (Replay.LOOKUP, None)
    operations[Op.CREATE] = replace(operations[Op.CREATE], replay=replay, ttl=ttl, settle=SETTLES)
    if not table.removable:
        del operations[Op.REMOVE]
    return tables.object_of(table, operations)
