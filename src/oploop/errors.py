"""The errors of oploop, named by their remedy.

    OploopError
    ├── FixConfig     the user's files, credentials or command line are wrong     exit 2
    ├── FixData       the data in the warehouse or an app is not what it must be  exit 1
    ├── RetryLater    nothing is wrong, but it cannot be done now                 exit 1
    │   └── QuotaSpent    nor in this run: the account's quota is used up
    ├── SkipRecord    one record cannot be delivered; the others can              exit 1
    └── StopRun       going on would do harm; a person must look                  exit 1

Each message is one line that says what is wrong, where (file and line) and how to mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the user's files something stands. Lines and columns count from 1."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else self.file


class OploopError(Exception):
    """Base of all errors that oploop raises on purpose; anything else is a defect."""

    exit_code = 1

    def __init__(self, message: str, *, mend: str | None = None, place: Place | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        how = f" — {self.mend}" if self.mend else ""
        return f"{where}{self.message}{how}".replace("\n", " ")

    def at(self, place: Place | None) -> OploopError:
        """The same error with a place, unless it has one already."""
        if self.place is None:
            self.place = place
        return self


class FixConfig(OploopError):
    """A mistake in the user's files, credentials or command line; nothing was changed."""

    exit_code = 2


class FixData(OploopError):
    """Data is not what it must be (a wrong type, a table that vanished); mend the data, then run again."""


class RetryLater(OploopError):
    """It cannot be done now but can later; `after` is in seconds where the other side said so."""

    def __init__(
        self, message: str, *, after: float | None = None, mend: str | None = None, place: Place | None = None
    ) -> None:
        super().__init__(message, mend=mend, place=place)
        self.after = after


class QuotaSpent(RetryLater):
    """The account's quota is used up for so long that it is no use to wait; what is left is for a later run."""


class SkipRecord(OploopError):
    """One record is refused; the others go on."""


class StopRun(OploopError):
    """Going on would do harm; nothing more is sent until a person has looked."""


#: How many right words are listed where none is like the wrong one.
LISTED = 30


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, for "did you mean ..."; None when none is near."""
    choices = list(known)
    lowered = {c.lower(): c for c in choices}
    twisted = [c for c in lowered if sorted(c) == sorted(word.lower())]  # "modle" is model, not mode
    hits = twisted or difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.55)
    return lowered[hits[0]] if hits else None


def _looks(word: str) -> str:
    """A word as it looks: letters with marks are one character, or two."""
    if word.isascii():
        return word
    from unicodedata import normalize

    return normalize("NFC", word)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A mend for an unknown word: the nearest right one, or the list of all, as far as it fits on a screen."""
    choices = sorted(known)
    near = nearest(word, choices)
    if near is not None and _looks(near) == _looks(word):
        return f"there is {near!r}, which looks the same: copy it from the app, as its letters are encoded otherwise"
    if near is not None:
        return f"did you mean {near!r}?"
    if not choices:
        return "there are none"
    shown, more = ", ".join(choices[:LISTED]), len(choices) - LISTED
    return f"known: {shown}" + (f", … and {more} more" if more > 0 else "")
