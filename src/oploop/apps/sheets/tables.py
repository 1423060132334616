"""A sheet as a table: its header, its rows by their key, and cells in the types of the block.

Sources: developers.google.com/workspace/sheets/api: guides/concepts (cell), reference/rest/v4/DateTimeRenderOption (serial
numbers: days since 30 December 1899).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import compress, zip_longest
from typing import Any

from oploop.apps.declared import declared
from oploop.apps.documents import zulu
from oploop.apps.jsonvalues import plain
from oploop.apps.sheets.client import Kind, TableConfig
from oploop.errors import FixConfig
from oploop.records import Canonical, Column, ColumnType, Field, FieldType, Object, Op, Stream

SAID = declared(__package__)
MAX_CELL = 50_000  #: characters
_DAY_ZERO = datetime(1899, 12, 30, tzinfo=UTC)
_FIRST_DAY = (datetime(1, 1, 1, tzinfo=UTC) - _DAY_ZERO).days
_LAST_DAY = (datetime(9999, 12, 31, tzinfo=UTC) - _DAY_ZERO).days + 1


def stream_of(name: str, table: TableConfig) -> Stream:
    columns = {column: ColumnType(kind) for column, kind in table.columns.items()}
    said = SAID.stream("_table", name, f"the rows of {table.sheet!r}")
    return replace(said, primary_key=(table.key,), columns=columns)


def object_of(name: str, table: TableConfig) -> Object:
    said = SAID.object("_table", name, f"the rows of {table.sheet!r}, by {table.key!r}", stream=name)
    upsert = replace(said.operations[Op.UPSERT], keys=(table.key,))
    fields = {column: field_of(column, kind, key=column == table.key) for column, kind in table.columns.items()}
    return replace(said, id_column=table.key, fields=fields, operations={**said.operations, Op.UPSERT: upsert})


def field_of(column: str, kind: Kind, *, key: bool) -> Field:
    return Field(
        column,
        FieldType(kind),
        source=Column(column),
        key=key,
        required=key,
        nullable=not key,
        canonical=Canonical.TRIM if key and kind == "text" else Canonical.EXACT,
        max_length=MAX_CELL if kind == "text" else None,
    )


@dataclass
class Grid:
    """A sheet as it was read: where each column stands, and in which rows each key does (both count from 1)."""

    table: TableConfig
    rows: Sequence[Sequence[Any]]
    columns: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = self.rows[self.table.header - 1] if len(self.rows) >= self.table.header else []
        for at, name in enumerate(names, 1):
            self._named(str(name).strip(), at)
        if self.blank:
            self._all_blank()
            return
        missing = [c for c in self.table.columns if c not in self.columns]
        if missing:
            raise FixConfig(
                f"sheet {self.table.sheet!r} has no column {missing[0]!r} in row {self.table.header}",
                mend="name the sheet's columns as the block does, or the other way round",
            )

    @cached_property
    def keys(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        if not self.blank:
            for at, row in enumerate(self.rows[self.table.header :], self.table.header + 1):
                key = self.cell(row, self.table.key)
                if key is not None and text(key):
                    found.setdefault(text(key), []).append(at)
        return found

    def _named(self, name: str, at: int) -> None:
        """A column of the header. FixConfig when one of the block's stands there twice: nobody could tell which is meant."""
        if name in self.columns and name in self.table.columns:
            raise FixConfig(
                f"sheet {self.table.sheet!r} has the column {name!r} twice in row {self.table.header}",
                mend="rename one of the two",
            )
        self.columns.setdefault(name, at)

    def _all_blank(self) -> None:
        """FixConfig when the header alone is gone: its rows are still there, and no new ones may be written below them."""
        below = self.rows[self.table.header :]
        if any(cell not in (None, "") for row in below for cell in row):
            raise FixConfig(
                f"sheet {self.table.sheet!r} has rows, and no names of columns in row {self.table.header}",
                mend="write the header again, or say in which row it stands (`header`)",
            )

    @property
    def blank(self) -> bool:
        """Whether the sheet has no header yet."""
        return not any(self.columns)

    @property
    def used(self) -> int:
        """The last row that holds anything."""
        return max(len(self.rows), self.table.header)

    def cell(self, row: Sequence[Any], column: str) -> Any:
        at = self.columns[column] - 1
        return row[at] if at < len(row) else None

    def values(self, only: Collection[str] | None = None) -> dict[str, Sequence[Any]]:
        """The block's columns of the rows that have a key (one of `only`), in its types."""
        kinds, key = self.table.columns, self.table.key
        wide = list(zip_longest(*self.rows[self.table.header :]))  # empty ends of rows are left out
        none = [None] * (len(self.rows) - self.table.header)
        found = {c: wide[at - 1] if (at := self.columns.get(c, 0)) and at <= len(wide) else none for c in kinds}
        keys = _keys(found[key])
        if not all(keys) or only is not None:
            taken = [bool(k) and (only is None or k in only) for k in keys]
            found, keys = {c: list(compress(v, taken)) for c, v in found.items()}, list(compress(keys, taken))
        values = {c: _typed(v, kinds[c]) for c, v in found.items()}
        return values | {key: keys} if kinds[key] == "text" else values


def _keys(values: Sequence[Any]) -> list[str]:
    """Keys as text; an empty one is none."""
    if set(map(type, values)) == {str}:
        return list(map(str.strip, values))
    return ["" if v is None else text(v) for v in values]


#: The types of cells that are values of a kind as they stand.
_PLAIN: Mapping[Kind, frozenset[type]] = {
    "text": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
}


def _typed(values: Sequence[Any], kind: Kind) -> Sequence[Any]:
    """`typed` of a whole column."""
    if set(map(type, values)) <= _PLAIN.get(kind, frozenset()) and not (kind == "text" and "" in values):
        return values
    return [typed(v, kind) for v in values]


def text(value: Any) -> str:
    """A key as text: 12 and 12.0 are one."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def typed(value: Any, kind: Kind) -> Any:
    """A cell as an API would send it; an empty one is none."""
    if value is None or value == "":
        return None
    match kind:
        case "text":
            return text(value) if isinstance(value, bool | float) else str(value)
        case "date" | "timestamp" if isinstance(value, int | float) and not isinstance(value, bool):
            if not _FIRST_DAY <= value < _LAST_DAY:
                return value  # a number that is no day: NULL in its column, as it stands in _raw
            at = _DAY_ZERO + timedelta(days=float(value))
            return at.date().isoformat() if kind == "date" else at.isoformat(timespec="milliseconds")
        case "integer" if isinstance(value, float) and value.is_integer():
            return int(value)
        case _:
            return value


def written(value: Any) -> Any:
    """A value as a cell takes it: what is none empties the cell (a null would leave it as it is)."""
    if value is None:
        return ""
    found = plain(value, zulu)
    return found if isinstance(found, bool | int | float | str) else str(value)


def rows_as_ranges(changes: Mapping[int, Mapping[int, Any]]) -> list[tuple[int, int, list[Any]]]:
    """Cells by row and column as (row, first column, values) of cells that stand side by side."""
    found: list[tuple[int, int, list[Any]]] = []
    for row, cells in sorted(changes.items()):
        for column in sorted(cells):
            last = found[-1] if found else None
            if last is not None and last[0] == row and last[1] + len(last[2]) == column:
                last[2].append(cells[column])
            else:
                found.append((row, column, [cells[column]]))
    return found
