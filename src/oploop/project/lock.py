"""`fields.lock`: custom fields by the names that the project uses, with the app's stable ids and their types.

Committed, so that a rename in the app changes nothing, and a field that was deleted is no mistyped one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from oploop.errors import FixConfig, Place
from oploop.project.values import Read, a_map, require, take, text
from oploop.project.yaml import Block, read_yaml

FILE = "fields.lock"
_HEAD = "# Written by oploop: custom fields by the names used here, with the app's own ids. Commit this file.\n"


@dataclass(frozen=True, slots=True)
class Locked:
    """What a name in the project stood for when it was first used: the app's own `id` of the field, and its type."""

    id: str
    type: str | None = None  #: None: a file that was written by hand does not say


#: Fields by the name that the project uses, by `app.object`.
FieldsLock = dict[str, dict[str, Locked]]

_KEYS: dict[str, Read] = {"id": text, "type": text}


def read_fields_lock(root: Path) -> FieldsLock:
    """What stands in the file; empty without it. FixConfig, with the line, when it is broken."""
    path = root / FILE
    if not path.exists():
        return {}
    if not _meaningful(path):
        return {}
    block = read_yaml(path, FILE)
    found = {}
    for name, inner in block.items():
        fields = a_map(inner, block.places[name], name)
        found[name] = {
            label: _locked(value, fields.places[label], f"{name}.{label}") for label, value in fields.items()
        }
    return found


def _locked(value: object, place: Place, name: str) -> Locked:
    """One field: `{id: ..., type: ...}`, or its id alone."""
    if not isinstance(value, Block):
        return Locked(text(value, place, name))
    taken = take(value, _KEYS, name)
    require(value, name, "id")
    return Locked(taken["id"], taken.get("type"))


def _meaningful(path: Path) -> bool:
    """Whether anything but comments stands in the file."""
    if not path.is_file():
        return True  # read_yaml says what is wrong
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return True
    return any(s and not s.startswith(b"#") for s in (line.strip() for line in lines))


def write_fields_lock(root: Path, mapping: Mapping[str, Mapping[str, Locked]]) -> None:
    """Write the file, sorted, by renaming a whole new one into its place. FixConfig when the folder refuses it."""
    lines = [_HEAD]
    for name in sorted(mapping):
        if mapping[name]:
            lines.append(f"{_quoted(name)}:\n")
            lines += [f"  {_quoted(label)}: {_written(mapping[name][label])}\n" for label in sorted(mapping[name])]
    path = root / FILE
    new = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        with new.open("w", encoding="utf-8") as out:
            out.write("".join(lines))
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, path)
    except OSError as e:
        new.unlink(missing_ok=True)
        raise FixConfig(f"{FILE} cannot be written: {e.strerror}", mend="check the folder's rights") from None


def _written(entry: Locked) -> str:
    kind = f", type: {_quoted(entry.type)}" if entry.type is not None else ""
    return f"{{id: {_quoted(entry.id)}{kind}}}"


def _quoted(value: str) -> str:
    """A text in double quotes, in which YAML takes it back as it was."""
    return '"' + "".join(_escaped(c) for c in value) + '"'


def _escaped(char: str) -> str:
    if char == "\x00" or "\ud800" <= char <= "\udfff":
        return "\N{REPLACEMENT CHARACTER}"  # such a title cannot be written in a sync either
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"
