"""Ranges as they are read: see a1.py, which writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CELLS = re.compile(r"([A-Za-z]{0,3})(\d*)(?::([A-Za-z]{0,3})(\d*))?")


@dataclass(frozen=True, slots=True)
class Range:
    """A rectangle; None where it is open."""

    sheet: str
    top: int | None = None
    left: int | None = None
    bottom: int | None = None
    right: int | None = None


def number(column: str) -> int | None:
    found = 0
    for letter in column.upper():
        found = found * 26 + ord(letter) - 64
    return found or None


def parse(text: str) -> Range:
    """A range's parts; ValueError when it is none."""
    quoted = re.fullmatch(r"'((?:[^']|'')*)'(?:!(.*))?", text)
    if quoted:
        sheet, rest = quoted[1].replace("''", "'"), quoted[2]
    else:
        sheet, _, rest = text.partition("!")
    if not rest:
        return Range(sheet)
    found = _CELLS.fullmatch(rest.replace("$", ""))
    if found is None:
        raise ValueError(f"{text!r} is no range")
    left, top, right, bottom = found.groups()
    one = ":" not in rest
    return Range(
        sheet,
        int(top) if top else None,
        number(left),
        int(top) if one and top else int(bottom) if bottom else None,
        number(left) if one else number(right or ""),
    )
