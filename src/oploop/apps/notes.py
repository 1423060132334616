"""What an app left out of its reading and why, for people (`App.notes`): each thing once, however many streams came by it.

notes.add("2025/a.gz", "track", {"no JSON": 3})       a stream found three lines that it left out
notes.add("2025/a.gz", "", {GONE: 1})                 what is wrong with the file itself
notes.lines()                                         one line a file and reason
"""

from __future__ import annotations

from collections.abc import Mapping

#: Why a file was not read, or not to its end.
GONE, TORN = "gone", "torn"

_WHOLE = {
    GONE: "listed, and not there when it was to be read (gone since, or a link that leads nowhere); it is read once it is there",
    TORN: "damaged or cut off; what stands before that was read, and it is read again once it changes",
}


class Notes:
    """What was wrong with which file."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], int] = {}

    def add(self, file: str, by: str, trouble: Mapping[str, int]) -> None:
        """Note what `by` (a stream; "": whoever reads the file first) found in a file: reasons, and in how many lines."""
        for reason, count in trouble.items():
            self._found[(file, by, reason)] = count

    def lines(self) -> list[str]:
        """One line a file and reason."""
        sums: dict[tuple[str, str], int] = {}
        for (file, _, reason), count in sorted(self._found.items()):
            sums[(file, reason)] = sums.get((file, reason), 0) + count
        return [f"{file}: {_WHOLE.get(reason) or _left_out(reason, count)}" for (file, reason), count in sums.items()]


def _left_out(reason: str, count: int) -> str:
    return f"{count:,} line{'s' if count != 1 else ''} left out: {reason}; the others were read"


__all__ = ["GONE", "TORN", "Notes"]
