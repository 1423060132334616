"""The kinds of values that the project's files hold, each read with its place and a mend.

A reader is a function of (value, place, name of the key) that returns the typed value or raises FixConfig.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.project.yaml import Block, Items, kind

Read = Callable[[Any, Place, str], Any]
E = TypeVar("E", bound=StrEnum)

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SHARE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?%")


def take(block: Block, keys: Mapping[str, Read], what: str) -> dict[str, Any]:
    """A block's values by key, each read by its reader; FixConfig for an unknown key, with the nearest right one."""
    taken = {}
    for key, value in block.items():
        place = block.places[key]
        if key not in keys:
            raise FixConfig(f"unknown key {key!r} in {what}", mend=did_you_mean(key, keys), place=place)
        taken[key] = keys[key](value, place, key)
    return taken


def require(block: Block, what: str, *keys: str) -> None:
    """FixConfig for the first of `keys` that the block does not have."""
    for key in keys:
        if key not in block:
            raise FixConfig(f"{what} has no {key!r}", mend=f"add `{key}: ...`", place=block.place)


def a_map(value: Any, place: Place, name: str) -> Block:
    """A map; nothing at all counts as an empty one."""
    if value is None:
        return Block(place)
    if not isinstance(value, Block):
        raise FixConfig(
            f"{name} holds {kind(value)} where a map belongs",
            mend=f"write `{name}:` and below it `key: value` lines",
            place=place,
        )
    return value


def text(value: Any, place: Place, name: str) -> str:
    """A text that is not empty. Numbers and truth values must be quoted, since YAML has lost how they were written."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, (bool, int, float)):
        raise FixConfig(f"{name} is {kind(value)} where text belongs", mend="quote this", place=place)
    if isinstance(value, (dict, list)):
        raise FixConfig(
            f"{name} holds {kind(value)} where text belongs",
            mend=f"write `{name}: text` (in quotes if it holds : or {{)",
            place=place,
        )
    raise FixConfig(f"{name} is empty", mend="give it a value, or remove the line", place=place)


def texts(value: Any, place: Place, name: str) -> tuple[str, ...]:
    """A list of texts; one text alone counts as a list of one."""
    if isinstance(value, str):
        return (text(value, place, name),)
    if not isinstance(value, Items):
        raise FixConfig(f"{name} holds {kind(value)} where a list belongs", mend=f"write `{name}: [a, b]`", place=place)
    return tuple(_word(v, p, name) for v, p in zip(value, value.places, strict=True))


def _word(value: Any, place: Place, name: str) -> str:
    if isinstance(value, Block):
        raise FixConfig(
            f"an item of {name} holds a map where text belongs",
            mend="quote this (it holds a colon and a space)",
            place=place,
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value, place, f"an item of {name}")


def flag(value: Any, place: Place, name: str) -> bool:
    """true or false. Words that older YAML took for them are named."""
    if isinstance(value, bool):
        return value
    mend = "write true or false"
    if isinstance(value, str) and value.lower() in ("yes", "on", "no", "off", "y", "n"):
        mend = f"write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'} (in YAML 1.2 {value!r} is a word)"
    raise FixConfig(f"{name} is neither true nor false", mend=mend, place=place)


def whole(value: Any, place: Place, name: str) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise FixConfig(f"{name} must be a whole number, 0 or more", mend=f"write `{name}: 100`", place=place)


def duration(value: Any, place: Place, name: str) -> float:
    """A time span in seconds, more than 0: 90s, 30m, 1h, 1h30m, 2d, 1w."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        seconds = sum(float(n) * _UNITS[u] for n, u in _PART.findall(value))
        if seconds > 0:
            return seconds
        raise FixConfig(f"{name} must be more than 0", mend="leave it out, or give it some time", place=place)
    raise FixConfig(
        f"{name} must be a time span", mend=f"write it with a unit, like `{name}: 1h` (s, m, h, d, w)", place=place
    )


def share(value: Any, place: Place, name: str) -> float:
    """A share as a percentage: 20% is 0.2. Between 0% and 100%."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    part = float(found.group(1)) / 100 if found else -1.0
    if 0 <= part <= 1:
        return part
    raise FixConfig(f"{name} must be a percentage, 0% to 100%", mend=f"write `{name}: 20%`", place=place)


def moment(value: Any, place: Place, name: str) -> datetime:
    """A date or time in ISO 8601; UTC when it names no zone. Returned aware, in UTC."""
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.strip())
            return (found.replace(tzinfo=UTC) if found.tzinfo is None else found).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise FixConfig(
        f"{name} is no date", mend=f"write `{name}: 2025-01-31` or `{name}: 2025-01-31T12:30:00Z`", place=place
    )


def choice(kinds: type[E]) -> Callable[[Any, Place, str], E]:
    """A reader of one word out of an enum's."""

    def read(value: Any, place: Place, name: str) -> E:
        words = [str(k) for k in kinds]
        if isinstance(value, str) and value in words:
            return kinds(value)
        shown = value if isinstance(value, str) else kind(value)
        mend = did_you_mean(value, words) if isinstance(value, str) else f"use one of {', '.join(words)}"
        raise FixConfig(
            f"{name} cannot be {shown!r}" if isinstance(value, str) else f"{name} cannot be {shown}",
            mend=mend,
            place=place,
        )

    read.words = tuple(str(k) for k in kinds)  # type: ignore[attr-defined]  # for the files' schema
    return read
