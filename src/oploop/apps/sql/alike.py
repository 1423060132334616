"""Changes that one statement can deliver, told apart from those that take another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from oploop.apps.sql.columns import C, SqlColumn
from oploop.apps.sql.tables import TableOf, parts_of
from oploop.errors import FixConfig
from oploop.records import Change, Op

V = TypeVar("V", bound=SqlColumn)


@dataclass(frozen=True)
class Alike(Generic[C]):
    """Changes that find their rows in the same way. `find`: the columns by which they do; `by_id`: these are the table's key, and
    the changes know their row's id; `values`: the columns that are written, `partial`: of them those that not every change sends."""

    table: TableOf[C]
    changes: Sequence[Change]
    find: tuple[C, ...]
    by_id: bool
    values: tuple[C, ...]
    partial: frozenset[str]

    def found_by(self) -> list[list[Any]]:
        """What finds the rows, column by column."""
        if self.by_id:
            parts = (parts_of(self.table, c.remote_id or "") for c in self.changes)
            return [list(column) for column in zip(*parts, strict=True)]
        return [[c.key.get(column.name) for c in self.changes] for column in self.find]


def alike(table: TableOf[C], op: Op, changes: Sequence[Change], *, null_is_unsent: bool = False) -> list[Alike[C]]:
    """A step's changes in as few groups as their fields allow, mostly one. `null_is_unsent`: a value that is not sent is staged as
    NULL, so that a row that clears the column cannot stand beside it."""
    if op in (Op.UPDATE, Op.REMOVE):
        parts = _by(changes, lambda c: (c.remote_id is not None, *(() if c.remote_id is not None else sorted(c.key))))
        return [_changing(table, op, part) for part in parts]
    found: list[Alike[C]] = []
    for part in _by(changes, lambda c: tuple(sorted(c.key))):
        found += [_making(table, op, same) for same in _by_defaults(table, part, null_is_unsent)]
    return found


def _by(changes: Sequence[Change], form: Callable[[Change], Any]) -> list[list[Change]]:
    found: dict[Any, list[Change]] = {}
    for change in changes:
        found.setdefault(form(change), []).append(change)
    return list(found.values())


def _by_defaults(table: TableOf[C], changes: Sequence[Change], null_is_unsent: bool) -> list[list[Change]]:
    """New rows by what they do not send, as far as that matters: a column with a default of its own gets that."""

    def clears(name: str) -> bool:
        return null_is_unsent and any(c.fields.get(name, "") is None for c in changes)

    some = sorted(names_of(changes)[1])
    matters = [n for n in some if writable(table, n).filled or clears(n)]
    return _by(changes, lambda c: tuple(n in c.fields for n in matters)) if matters else [list(changes)]


def names_of(changes: Sequence[Change]) -> tuple[list[str], frozenset[str]]:
    """All fields that any of the changes sends, in order, and of them those that not all send."""
    names, every = dict.fromkeys(changes[0].fields), changes[0].fields.keys()
    some: set[str] = set()
    for change in changes:
        if change.fields.keys() != every:
            some |= change.fields.keys() ^ every
            names.update(dict.fromkeys(change.fields))
    return list(names), frozenset(some)


def writable(table: TableOf[V], name: str) -> V:
    """A column that a change writes."""
    column = table.by_name.get(name)
    if column is None or not column.writable:
        raise FixConfig(f"{table.name} has no column {name!r} that can be written", mend="run again; was it changed?")
    return column


def _changing(table: TableOf[C], op: Op, changes: Sequence[Change]) -> Alike[C]:
    """Updates and removals: rows found by id, or by the sync's key where no id is known."""
    by_id = changes[0].remote_id is not None
    find = tuple(table.by_name[n] for n in (table.key if by_id else changes[0].key))
    names, partial = ([], frozenset[str]()) if op is Op.REMOVE else names_of(changes)
    return Alike(table, changes, find, by_id, tuple(writable(table, n) for n in names), partial)


def _making(table: TableOf[C], op: Op, changes: Sequence[Change]) -> Alike[C]:
    """Creates and upserts: rows found by the sync's key, which their fields hold too."""
    key = tuple(changes[0].key)
    unknown = [n for n in key if n not in table.by_name]
    if unknown:  # new rows are found again by the key
        raise FixConfig(
            f"{table.name} has no column {unknown[0]!r}, which the sync's key names",
            mend="use the table's own columns as key",
        )
    if op is Op.UPSERT and frozenset(key) not in table.arbiters:
        raise FixConfig(
            f"{table.name} has no unique index on {', '.join(key)} to upsert by",
            mend="make one, or use the columns of one as the sync's key",
        )
    names, partial = names_of(changes)
    find = tuple(table.by_name[n] for n in key)
    return Alike(table, changes, find, False, tuple(writable(table, n) for n in names), partial)


__all__ = ["Alike", "alike", "names_of", "writable"]
