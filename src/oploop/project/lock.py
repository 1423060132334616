"""`fields.lock`: custom fields' titles resolved to the app's stable ids. Committed, so that a rename changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from oploop.errors import FixConfig
from oploop.project.values import a_map, text
from oploop.project.yaml import read_yaml

FILE = "fields.lock"
_HEAD = "# Written by oploop: custom fields by title, resolved to the app's own ids. Commit this file.\n"


def read_fields_lock(root: Path) -> dict[str, dict[str, str]]:
    """Stable ids by title, by `app.object`; empty without the file. FixConfig when the file is broken."""
    path = root / FILE
    if not path.exists():
        return {}
    if not _meaningful(path):
        return {}
    block = read_yaml(path, FILE)
    found = {}
    for name, inner in block.items():
        titles = a_map(inner, block.places[name], name)
        found[name] = {t: text(i, titles.places[t], f"{name}.{t}") for t, i in titles.items()}
    return found


def _meaningful(path: Path) -> bool:
    """Whether anything but comments stands in the file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return True  # read_yaml says what is wrong
    return any(s and not s.startswith(b"#") for s in (line.strip() for line in lines))


def write_fields_lock(root: Path, mapping: Mapping[str, Mapping[str, str]]) -> None:
    """Write the file, sorted, by renaming a whole new one into its place. FixConfig when the folder refuses it."""
    lines = [_HEAD]
    for name in sorted(mapping):
        if mapping[name]:
            lines.append(f"{_quoted(name)}:\n")
            lines += [f"  {_quoted(t)}: {_quoted(mapping[name][t])}\n" for t in sorted(mapping[name])]
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


def _quoted(value: str) -> str:
    """A text in double quotes, in which YAML takes it back as it was."""
    return '"' + "".join(_escaped(c) for c in value) + '"'


def _escaped(char: str) -> str:
    if char == "\x00" or "\ud800" <= char <= "\udfff":
        return "\N{REPLACEMENT CHARACTER}"  # such a title cannot be written in a sync either
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"
