"""Types of columns that nobody declared, by the JSON values that stand in them.

A column gets its type from the first values that are not NULL, and keeps it as long as the values fit; one that holds now
a number and now a text is JSON from then on. What is known is kept in the stream's cursor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from oploop.records import META_COLUMNS, ColumnType

_NUMBERS = {ColumnType.INTEGER.value, ColumnType.NUMBER.value}


class Kinds:
    """The undeclared columns of one stream. `known`: column and ColumnType, as text."""

    def __init__(self, declared: Collection[str], known: Mapping[str, str]) -> None:
        self._declared = {*declared, *META_COLUMNS}
        self.known: dict[str, str] = dict(known)

    def learn(self, records: Sequence[Mapping[str, Any]], times: Collection[str] = ()) -> dict[str, ColumnType]:
        """The types with what these records teach; `times`: fields that are instants.

        A column without any value yet has no type, and is none of them: it comes with its first value.
        """
        for name in sorted(set().union(*records) - self._declared):
            found = ColumnType.TIMESTAMP if name in times else kind_of([r.get(name) for r in records])
            if found is not None:
                self.known[name] = _both(self.known.get(name), found)
        return {name: ColumnType(kind) for name, kind in self.known.items()}

    def prune(self, records: Sequence[dict[str, Any]]) -> None:
        """Take the fields that have no type yet out of the records."""
        for record in records:
            for name in [n for n in record if n not in self.known and n not in self._declared]:
                del record[name]


def kind_of(values: Sequence[Any]) -> ColumnType | None:
    """The one type that all values have; JSON when there is none, None when all are NULL."""
    types = set(map(type, values)) - {type(None)}
    if not types:
        return None
    if types <= {int, float}:
        return ColumnType.NUMBER if float in types else ColumnType.INTEGER
    alone = {frozenset({bool}): ColumnType.BOOLEAN, frozenset({str}): ColumnType.TEXT}
    return alone.get(frozenset(types), ColumnType.JSON)


def _both(known: str | None, found: ColumnType) -> str:
    """The type that a column has from now on."""
    if known is None or known == found.value:
        return found.value
    return ColumnType.NUMBER.value if {known, found.value} <= _NUMBERS else ColumnType.JSON.value
