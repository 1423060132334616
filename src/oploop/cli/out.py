"""What a command says: results on stdout, notes and errors on stderr, JSON when asked, colours on terminals only."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import click

from oploop.errors import RetryLater

OK, BAD, NOTE = "✓", "✗", "·"


class Out:
    """Where a command writes. In JSON mode lines are dropped and `data` is printed; in text mode the reverse."""

    def __init__(self, *, json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.json, self.quiet, self.debug = json, quiet, debug
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self.colour = sys.stdout.isatty() and not plain

    def line(self, text: str = "") -> None:
        """A line of the result."""
        if not self.json:
            self._write(sys.stdout, text.rstrip() + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Several lines of the result."""
        for text in texts:
            self.line(text)

    def data(self, value: Any) -> None:
        """The whole result as JSON; values that JSON does not know (dates, decimals) as text."""
        if self.json:
            import orjson

            options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
            self._write(sys.stdout, orjson.dumps(value, default=str, option=options).decode() + "\n")

    def note(self, text: str) -> None:
        """Something beside the result; not said with --quiet."""
        if not self.quiet:
            self._write(sys.stderr, text + "\n")

    def error(self, text: str) -> None:
        """Why the command failed."""
        self._write(sys.stderr, text + "\n")

    def style(self, text: str, **how: Any) -> str:
        """Text in a colour, where there are colours."""
        return click.style(text, **how) if self.colour else text

    def dim(self, text: str) -> str:
        return self.style(text, dim=True)

    def bold(self, text: str) -> str:
        return self.style(text, bold=True)

    def mark(self, ok: bool | None) -> str:
        """✓, ✗, or a dot for what is neither."""
        if ok is None:
            return self.style(NOTE, fg="yellow")
        return self.style(OK, fg="green") if ok else self.style(BAD, fg="red")

    def _write(self, stream: TextIO, text: str) -> None:
        """A reader that has gone away must not stop what a command does: what is sent must still be journalled."""
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            quiet_pipe(stream)
        except OSError as e:
            quiet_pipe(stream)
            raise RetryLater(f"the output cannot be written: {(e.strerror or str(e)).lower()}") from None


def quiet_pipe(stream: TextIO, *, only_if_broken: bool = False) -> None:
    """Send the rest of a stream nowhere, so that Python does not complain at its end."""
    if only_if_broken:
        try:
            stream.flush()
            return
        except BrokenPipeError:
            pass
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stream without a file
        return


def width(text: str) -> int:
    """Columns that a text takes on a terminal, without its colours."""
    plain = click.unstyle(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """A text with blanks up to a width."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks


def cut(text: str, columns: int) -> str:
    """A text shortened to a width, with … where something is missing."""
    if width(text) <= columns:
        return text
    kept = text[:columns]
    while width(kept) > columns - 1:
        kept = kept[:-1]
    return kept + "…"


def columns(
    rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), right: Sequence[int] = (), indent: int = 0, gap: int = 2
) -> list[str]:
    """Rows as aligned lines; `right`: the columns that are aligned to the right."""
    every = [list(head), *map(list, rows)] if head else [list(r) for r in rows]
    if not every:
        return []
    count = max(len(r) for r in every)
    widths = [max((width(r[i]) for r in every if i < len(r)), default=0) for i in range(count)]
    out = []
    for row in every:
        cells = [pad(cell, widths[i], right=i in right) for i, cell in enumerate(row)]
        out.append((" " * indent + (" " * gap).join(cells)).rstrip())
    return out
