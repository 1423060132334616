"""Values put into a statement's text, in place of its `?`.

The driver's own way imports pandas at the first parameter of a process, to see whether it is one of its values, and that
takes longer than most commands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from oploop.warehouse.base import literal

#: A quoted text or name, a comment, or a parameter.
_PARTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\?", re.DOTALL)


def written(sql: str, params: Sequence[Any]) -> str | None:
    """The statement with its parameters; None where one is of a type that only the driver can bring over."""
    texts = [_text(p) for p in params]
    if None in texts:
        return None
    left = iter(texts)
    return _PARTS.sub(lambda m: str(next(left)) if m[0] == "?" else m[0], sql)


def _text(value: Any) -> str | None:
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(int(value)) if -(2**127) < value < 2**127 else None
        case float():
            return f"CAST('{float(value)!r}' AS DOUBLE)" if math.isfinite(value) else f"CAST('{value}' AS DOUBLE)"
        case str():
            return _of_str(value)
        case datetime():
            kind = "TIMESTAMP" if value.tzinfo is None else "TIMESTAMPTZ"
            return f"{kind} '{value.isoformat(sep=' ')}'"
        case date():
            return f"DATE '{value.isoformat()}'"
        case _:
            return None


def _of_str(value: str) -> str:
    """A text; the parser would take U+0000 for the end of the statement."""
    if "\0" not in value:
        return literal(value)
    return "(" + " || chr(0) || ".join(literal(part) for part in value.split("\0")) + ")"
