"""Columns of a table, and a table as an engine describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from oploop.records import Canonical, ColumnType

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
    folded: bool = False  #: `canonical` holds for all its values, and not only where they identify a row
    rewritten: bool = False  #: a value may read otherwise than it was sent, 007 as 7: the id of a new row is looked up


def form_of(column: ColumnType) -> Canonical:
    """What a key is compared by that is read as text, though its column has another type."""
    if column in (ColumnType.NUMBER, ColumnType.INTEGER):
        return Canonical.NUMBER
    return Canonical.MOMENT if column in TIMES else Canonical.EXACT


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
    readable: bool = True  #: the user may read it
    granted: bool = True  #: and write it

    @property
    def writable(self) -> bool:
        return self.granted and not self.made


C = TypeVar("C", bound=SqlColumn)


@dataclass(frozen=True, slots=True)
class Described(Generic[C]):
    """What an engine says of a table. `unique`: the sets of columns that identify a row, the primary key first.
    `unwritable`: why nothing can be written to it, if so."""

    columns: Sequence[C]
    unique: Sequence[tuple[str, ...]] = ()
    primary: tuple[str, ...] = ()
    unwritable: str | None = None
    comment: str = ""
