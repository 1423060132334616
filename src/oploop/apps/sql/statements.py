"""Changes as staged rows, and the set-based statements that deliver them.

Rows are staged in a temporary table: `n` the change's number, `k0..` what finds its row, `c0..` the values, `m0..` whether
a value is sent (only where not all rows send it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from oploop.apps.columns import Columns
from oploop.apps.sql.alike import Alike, alike, writable
from oploop.apps.sql.columns import SqlColumn
from oploop.apps.sql.tables import Table, parts_of
from oploop.records import Change, ColumnType, Op

if TYPE_CHECKING:
    from oploop.apps.sql.engine import Engine


@dataclass(frozen=True)
class Group:
    """Changes that one statement delivers. `find`: the columns by which rows are found; `values`: those that are written;
    `partial`: of them those that not every row sends; `rows`: what is staged, in the order of stage_columns; `held`: by
    number, what columns must still hold for the change to be made."""

    table: Table
    op: Op
    find: tuple[SqlColumn, ...]
    values: tuple[SqlColumn, ...]
    partial: frozenset[str]
    rows: list[tuple[Any, ...]]
    held: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def guards(self) -> list[SqlColumn]:
        """The columns that are looked at before the update."""
        names = dict.fromkeys(n for held in self.held.values() for n in held)
        return [self.table.by_name[n] for n in names if n in self.table.by_name]

    def named(self, said: str) -> str:
        """What a database said of the temporary table's columns, by the names of the table's own."""
        staged = {f"k{i}": c.name for i, c in enumerate(self.find)} | {
            f"c{i}": c.name for i, c in enumerate(self.values)
        }
        names = {n: own for n, own in staged.items() if n not in self.table.by_name}
        return re.sub(r"'([kc]\d+)'", lambda found: f"'{names.get(found[1], found[1])}'", said)

    def stage_columns(self) -> list[tuple[str, SqlColumn | str]]:
        columns: list[tuple[str, SqlColumn | str]] = [("n", "BIGINT")]
        columns += [(f"k{i}", c) for i, c in enumerate(self.find)]
        columns += [(f"c{i}", c.kind.stage) for i, c in enumerate(self.values)]
        return columns + [(f"m{i}", "INTEGER") for i, c in enumerate(self.values) if c.name in self.partial]


class Statements:
    """The statements of a group, for the staged rows for which `rows`, a condition over `s`, holds."""

    def __init__(self, engine: Engine, group: Group) -> None:
        self._engine, self._group = engine, group
        self._same = " AND ".join(f"t.{engine.quote(c.name)} = s.k{i}" for i, c in enumerate(group.find))
        self._absent = f"t.{engine.quote(group.find[0].name)} IS NULL"

    def put(self) -> str:
        """INSERT of one row into the stage, for executemany."""
        columns = self._group.stage_columns()
        marks = ", ".join([self._engine.mark] * len(columns))
        return f"INSERT INTO {self._engine.stage} ({', '.join(n for n, _ in columns)}) VALUES ({marks})"

    def missing(self, rows: str) -> str:
        """The numbers of staged rows that the table does not have."""
        return f"SELECT s.n FROM {self._joined('LEFT JOIN')} WHERE {self._absent} AND {rows}"

    def present(self, columns: Sequence[SqlColumn]) -> str:
        """(n, the columns as they are read) of staged rows that are in the table, which nobody changes from then on."""
        values = ", ".join(c.kind.read.format(f"t.{self._engine.quote(c.name)}") for c in columns)
        return f"SELECT s.n, {values} FROM {self._joined('JOIN')}{self._engine.lock}"

    def forget(self, numbers: Sequence[int]) -> str:
        """Take staged rows off the stage."""
        return f"DELETE FROM {self._engine.stage} WHERE n IN ({', '.join(map(str, numbers))})"

    def ids(self) -> str:
        """(n, the key's columns) of staged rows that are in the table."""
        keys = ", ".join(c.kind.read.format(f"t.{self._engine.quote(c.name)}") for c in self._group.table.key_columns)
        return f"SELECT s.n, {keys} FROM {self._joined('JOIN')}"

    def update(self, rows: str) -> str | None:
        """None when nothing is to be set."""
        sets = []
        find = {c.name for c in self._group.find}
        for i, c in enumerate(self._group.values):
            if c.name in find and self._group.op is Op.UPSERT:
                continue
            name, value = self._engine.quote(c.name), c.kind.write.format(f"s.c{i}")
            kept = f"CASE WHEN s.m{i} = 1 THEN {value} ELSE t.{name} END" if c.name in self._group.partial else value
            sets.append((name, kept))
        return self._engine.update(self._group.table.sql, sets, self._same, rows) if sets else None

    def insert(self, rows: str, *, absent: bool) -> str:
        """`absent`: only rows that the table does not have."""
        columns = ", ".join(self._engine.quote(c.name) for c in self._group.values)
        values = ", ".join(c.kind.write.format(f"s.c{i}") for i, c in enumerate(self._group.values))
        source = self._joined("LEFT JOIN") if absent else f"{self._engine.stage} AS s"
        where = f"{self._absent} AND {rows}" if absent else rows
        return f"INSERT INTO {self._group.table.sql} ({columns}) SELECT {values} FROM {source} WHERE {where}"

    def remove(self, rows: str) -> str:
        find = [self._engine.quote(c.name) for c in self._group.find]
        return self._engine.remove(self._group.table.sql, find, self._same, rows)

    def _joined(self, how: str) -> str:
        return f"{self._engine.stage} AS s {how} {self._group.table.sql} AS t ON {self._same}"


def conditional(groups: Sequence[Group], changes: Sequence[Change]) -> list[Group]:
    """The same, with what their rows must still hold."""
    held = {c.number: c.as_read for c in changes if c.as_read}
    return [replace(g, held={row[0]: held[row[0]] for row in g.rows if row[0] in held}) for g in groups]


def groups_of(engine: Engine, table: Table, op: Op, changes: Sequence[Change]) -> list[Group]:
    """A step's changes in as few groups as their fields allow, mostly one."""
    if isinstance(changes, Columns):
        found = _from_columns(engine, table, op, changes)
        if found is not None:
            return [found]
    return [_staged(engine, op, part) for part in alike(table, op, changes)]


def _staged(engine: Engine, op: Op, part: Alike[SqlColumn]) -> Group:
    changes, values = part.changes, part.values
    columns: list[Sequence[Any]] = [[c.number for c in changes]]
    columns += [[engine.staged(c, v) for v in keys] for c, keys in zip(part.find, part.found_by(), strict=True)]
    columns += [[engine.staged(v, c.fields.get(v.name)) for c in changes] for v in values]
    columns += [[int(v.name in c.fields) for c in changes] for v in values if v.name in part.partial]
    return Group(part.table, op, part.find, values, part.partial, list(zip(*columns, strict=True)))


def _from_columns(engine: Engine, table: Table, op: Op, changes: Columns) -> Group | None:
    """The changes as one group, column by column; None where they must be looked at one by one."""
    rows, remote = changes.rows, changes.rows.column("__remote")
    by_id = op in (Op.UPDATE, Op.REMOVE)
    if by_id and (remote.null_count or len(table.key) != 1):
        return None
    names = tuple(n for n, _ in changes.chunk.keys)
    if not by_id and (
        any(n not in table.by_name for n in names) or (op is Op.UPSERT and frozenset(names) not in table.unique)
    ):
        return None
    find = (table.by_name[table.key[0]],) if by_id else tuple(table.by_name[n] for n in names)
    if by_id:
        whole = [parts_of(table, i)[0] for i in remote.to_pylist()]
        keys = [whole]
    else:
        keys = [rows.column(column).to_pylist() for _, column in changes.chunk.keys]
    found = {} if op is Op.REMOVE else _sent(table, op, changes)
    if found is None:
        return None
    values = tuple(table.by_name[n] for n in found)
    partial = frozenset(n for n, (_, mask) in found.items() if mask is not None)
    columns: list[Sequence[Any]] = [rows.column("__number").to_pylist()]
    columns += [[engine.staged(c, v) for v in part] for c, part in zip(find, keys, strict=True)]
    columns += [_as_staged(engine, table.by_name[n], column) for n, (column, _) in found.items()]
    columns += [[int(m) for m in mask] for _, mask in found.values() if mask is not None]
    return Group(table, op, find, values, partial, list(zip(*columns, strict=True)))


def _as_staged(engine: Engine, column: SqlColumn, values: list[Any]) -> list[Any]:
    """A column of a plan as the driver takes it; JSON stands there as text already."""
    if column.kind.column is ColumnType.JSON and set(map(type, values)) <= {str, type(None)}:
        return values
    return [engine.staged(column, v) for v in values]


def _sent(table: Table, op: Op, changes: Columns) -> dict[str, tuple[list[Any], list[bool] | None]] | None:
    """By field its values, and which of them are sent unless all are; None where a default is to have its way."""
    rows = changes.rows
    found: dict[str, tuple[list[Any], list[bool] | None]] = {}
    if op in (Op.CREATE, Op.UPSERT):
        found = {n: (rows.column(column).to_pylist(), None) for n, column in changes.chunk.keys}
    for name, values, sent in changes.chunk.fields:
        mask = rows.column(sent) if sent is not None else None
        if mask is not None and not mask.true_count:
            continue
        column = writable(table, name)
        whole = mask is None or mask.true_count == len(mask)
        if name in found or (op is not Op.UPDATE and not whole and column.filled):
            return None
        found[name] = rows.column(values).to_pylist(), None if whole or mask is None else mask.to_pylist()
    if op is not Op.UPDATE:  # what a new row does not send is NULL
        found = {
            n: ([v if m else None for v, m in zip(vs, mask, strict=True)] if mask else vs, mask)
            for n, (vs, mask) in found.items()
        }
    return found
