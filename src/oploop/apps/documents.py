"""What stands where in the documents that APIs send and take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any


def at(document: Any, path: str) -> Any:
    """What stands at a dotted path of a document ("data.items", "rows.0.id"); the whole for "", None where nothing stands."""
    for step in path.split(".") if path else ():
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def nested(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Values by dotted names as objects within an object, of these `names`: {"metadata.plan": "pro"} -> {"metadata": {"plan": "pro"}}.
    What stands behind the first dot is one name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        first, dot, rest = name.partition(".")
        if dot and first in names:
            found.setdefault(first, {})[rest] = value
        else:
            found[name] = value
    return found


def in_pairs(params: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str | bytes]]:
    """Parameters as an address or a form has them, nested ones with brackets: {"metadata": {"plan": "pro"}, "types": ["a"]} ->
    metadata[plan]=pro, types[]=a. None is an empty text."""
    for name, value in params:
        match value:
            case str() | bytes():
                yield name, value
            case Mapping():
                yield from in_pairs((f"{name}[{key}]", inner) for key, inner in value.items())
            case list() | tuple():
                yield from in_pairs((f"{name}[]", inner) for inner in value)
            case None | bool():
                yield name, {None: "", True: "true", False: "false"}[value]
            case _:
                yield name, str(value)


def zulu(instant: datetime, timespec: str = "seconds") -> str:
    """An instant as most APIs write and take it: 2025-01-31T12:00:00Z; `timespec`: as `datetime.isoformat` has it."""
    return instant.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


__all__ = ["at", "in_pairs", "nested", "zulu"]
