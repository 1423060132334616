"""How values, times and counts are written for people."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson

from oploop.cli.out import cut

#: What a terminal would act on instead of showing: an app's texts are other people's.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def clean(text: str) -> str:
    """A text on one line, without characters that command a terminal."""
    return _CONTROL.sub(" ", text)


def value(v: Any, columns: int = 48) -> str:
    """A field's value, at most `columns` wide."""
    match v:
        case None:
            return "empty"
        case bool():
            return "true" if v else "false"
        case datetime():
            return f"{v:%Y-%m-%d %H:%M}"
        case date():
            return v.isoformat()
        case float() | Decimal():
            return number(v)
        case list() | tuple():
            return cut(", ".join(value(x) for x in v) if v else "none", columns)
        case dict():
            return cut(clean(orjson.dumps(v, default=str).decode()), columns)
        case "":
            return '""'
        case _:
            return cut(clean(str(v)), columns)


def number(v: float | Decimal | int) -> str:
    """A number without needless digits."""
    if isinstance(v, int):
        return str(v)
    text = f"{v:.4f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def count(n: int, word: str, plural: str | None = None) -> str:
    """ "1 row", "2 rows", "1,200 rows"."""
    return f"{n:,} {word if n == 1 else plural or word + 's'}"


def ago(at: datetime, now: datetime) -> str:
    """How long ago, roughly: "just now", "4 min ago", "3 h ago", "2 days ago"."""
    seconds = (now - at).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 36 * 3600:
        return f"{round(seconds / 3600)} h ago"
    return f"{round(seconds / 86400)} days ago"


def clock(at: datetime, now: datetime) -> str:
    """A time as short as it can be said: "06:02" for today, else with the date. UTC."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"


def seconds(s: float) -> str:
    """A duration: "0.2 s", "3 min 20 s"."""
    if s < 100:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    return f"{minutes} min {rest} s"


def percent(part: int, whole: int) -> str:
    """A share with one digit where it matters."""
    if not whole:
        return "0%"
    share = 100 * part / whole
    return f"{share:.0f}%" if share >= 10 or share == 0 else f"{share:.1f}%"
