"""Tables of a database as streams and objects: what all apps that are databases do alike with what their catalogues say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from oploop.errors import FixConfig, did_you_mean
from oploop.records import META_COLUMNS, ColumnType, Deletes, FieldType, Stream

#: The type of a field by that of the column which shows it.
FIELD_TYPES: Mapping[ColumnType, FieldType] = {
    ColumnType.TEXT: FieldType.TEXT,
    ColumnType.INTEGER: FieldType.INTEGER,
    ColumnType.NUMBER: FieldType.NUMBER,
    ColumnType.BOOLEAN: FieldType.BOOLEAN,
    ColumnType.TIMESTAMP: FieldType.TIMESTAMP,
    ColumnType.DATE: FieldType.DATE,
    ColumnType.JSON: FieldType.JSON,
}


class Described(Protocol):
    """A column: `name` is the database's, `raw` that of the raw table."""

    @property
    def name(self) -> str: ...

    @property
    def raw(self) -> str: ...


def id_column(key: Sequence[str], columns: Iterable[Described]) -> str:
    """The raw column with a row's id: the key's, or one of our own where the key has several columns."""
    raws = {c.name: c.raw for c in columns}
    if len(key) == 1:
        return raws[key[0]]
    name, taken = "_key", {r.lower() for r in raws.values()}
    while name in taken:
        name += "_"
    return name


def raw_names(names: Iterable[str]) -> Iterator[str]:
    """The columns' names in the raw table, where names that differ only by case cannot stand side by side."""
    taken = set(META_COLUMNS)
    for name in names:
        raw, number = name, 2
        while raw.lower() in taken:
            raw, number = f"{name}__{number}", number + 1
        taken.add(raw.lower())
        yield raw


def expect_column(option: str, table: str, name: str, columns: Collection[str]) -> None:
    """FixConfig, with the nearest right one, for a column that an app's option names and the table does not have."""
    if name not in columns:
        raise FixConfig(f"{option}: {table} has no column {name!r}", mend=did_you_mean(name, columns))


def keyed_stream(
    label: str, key: Sequence[str], columns: dict[str, ColumnType], id_column: str, comment: str, *, goes_on: bool
) -> Stream:
    """What is read of a table, whose raw columns `key` identify a row; FixConfig when nothing does.

    `goes_on`: rows can be read on from where the last read ended, and deleted ones are then found by their keys.
    """
    if not key:
        raise FixConfig(
            f"{label} has no primary key, so its rows cannot be told apart",
            mend=f"name the columns that identify a row: `key: {{{label}: [...]}}`",
        )
    return Stream(
        label,
        tuple(key),
        columns if id_column in columns else columns | {id_column: ColumnType.TEXT},
        incremental=goes_on,
        deletes=Deletes.MARKED if goes_on else Deletes.ABSENCE,
        description=comment,
    )
