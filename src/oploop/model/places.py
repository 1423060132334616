"""Where something stands in the files of models."""

from __future__ import annotations

import re
from pathlib import Path

from oploop.errors import Place


def place_of(path: Path | None, root: Path, line: int | None) -> Place | None:
    """A line of a file, which is named from the project's folder where it is inside; None without a file."""
    if path is None:
        return None
    inside = path.resolve().is_relative_to(root.resolve())
    return Place(str(path.resolve().relative_to(root.resolve()) if inside else path), line)


def line_of(path: Path | None, word: str) -> int | None:
    """The first line of a file with a word (or dotted name), quoted or not."""
    text = read(path)
    name = r"\s*\.\s*".join(rf'"?{re.escape(part)}"?' for part in word.split("."))
    found = re.search(rf"(?<!\w){name}(?!\w)", text, re.IGNORECASE)
    return text.count("\n", 0, found.start()) + 1 if found else None


def read(path: Path | None) -> str:
    """A file's text; empty where there is none to read."""
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except OSError:
        return ""
