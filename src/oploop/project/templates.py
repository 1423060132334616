"""Texts with a row's values in them: `template: "{name} owes {amount}"`. `{{` and `}}` stand for single braces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from oploop.errors import FixConfig, Place
from oploop.project.values import text

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template: text as it stands, or the model's column whose value is put in."""

    text: str
    column: bool = False


def parts(template: str) -> list[Part]:
    """A template's pieces in order; ValueError, which says why, when it is none."""
    found: list[Part] = []
    for match in _PART.finditer(template):
        piece, name = match.group(), match.group(1)
        if name is not None:
            if not name.strip():
                raise ValueError("{} names no column")
            found.append(Part(name.strip(), column=True))
        elif piece in ("{", "}"):
            raise ValueError(f"a single {piece}")
        else:
            found.append(Part({"{{": "{", "}}": "}"}.get(piece, piece)))
    return found


def template(value: Any, place: Place, name: str) -> str:
    """A template in a sync's file."""
    written = text(value, place, name)
    try:
        parts(written)
    except ValueError as e:
        mend = "write columns as {column}, and {{ or }} for a brace"
        raise FixConfig(f"{name}: {e}", mend=mend, place=place) from None
    return written
