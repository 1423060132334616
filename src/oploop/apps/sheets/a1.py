"""Ranges as Google writes them: `'Q3 targets'!B2:D9`. Rows count from 1, columns from 1 (A)."""

from __future__ import annotations


def letters(column: int) -> str:
    """1 is A, 27 is AA."""
    found = ""
    while column > 0:
        column, rest = divmod(column - 1, 26)
        found = chr(65 + rest) + found
    return found


def cells(sheet: str, row: int, left: int, right: int) -> str:
    """The range of some cells of one row."""
    start = f"{whole(sheet)}!{letters(left)}{row}"
    return start if right == left else f"{start}:{letters(right)}{row}"


def whole(sheet: str) -> str:
    """The range of a whole sheet: its name in quotes, which a range of cells cannot be taken for."""
    return "'" + sheet.replace("'", "''") + "'"
