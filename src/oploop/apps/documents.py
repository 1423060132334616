"""What stands where in the documents that APIs send and take."""

from __future__ import annotations

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


def zulu(instant: datetime, timespec: str = "seconds") -> str:
    """An instant as most APIs write and take it: 2025-01-31T12:00:00Z; `timespec`: as `datetime.isoformat` has it."""
    return instant.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


__all__ = ["at", "zulu"]
