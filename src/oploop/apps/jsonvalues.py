"""JSON texts to values and back, whole numbers as they are, however long.

`orjson` makes a float of a whole number beyond 64 bits (an id would become another one), and refuses a text in which some
number is beyond a double's range.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson


def parsed(text: bytes) -> Any:
    """The value of a JSON text. A fraction beyond a double's range is None, and a whole number of more digits than Python reads
    (4,300). Raises ValueError when it is no JSON."""
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):  # what is nested deeply, orjson takes
        return _otherwise(text)


def written(value: Any) -> bytes:
    """A value as JSON text. Raises orjson.JSONEncodeError (a TypeError) when it has none, or is nested too deeply."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as e:
        if "64-bit" not in str(e):
            raise
        import msgspec

        return msgspec.json.encode(value)


def plain(value: Any, when: Callable[[datetime], str] = datetime.isoformat) -> Any:
    """A value as JSON has it; `when`: how the app writes an instant."""
    match value:
        case datetime():
            return when(value)
        case date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple() | set() | frozenset():
            return [plain(v, when) for v in value]
        case _:
            return value


def _otherwise(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as e:
        refused = e
    try:
        value = json.loads(text.decode(), parse_float=_in_range, parse_int=_whole, parse_constant=_refuse)
        written(value)  # a text with half a character in it is none
    except (ValueError, TypeError, RecursionError):
        raise refused from None
    return value


def _in_range(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # too many digits
        return None


def _refuse(word: str) -> None:
    raise ValueError(word)


__all__ = ["parsed", "plain", "written"]
