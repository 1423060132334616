"""`oploop apps new`: the folder of an app's package, laid out from the templates beside this file."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from oploop.apps.registry import known_types
from oploop.errors import FixConfig

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST = 60


def lay_out(name: str, into: Path) -> tuple[Path, list[Path]]:
    """Write a package for an app of this name into a new folder `oploop-NAME`; the folder and its files."""
    if not _NAME.fullmatch(name) or name.endswith("_") or "__" in name:
        raise FixConfig(f"{name!r} is no name for an app", mend="use small letters, digits and _: my_crm")
    if len(name) > _LONGEST:
        raise FixConfig(f"an app's name has at most {_LONGEST} letters", mend="choose a shorter one")
    if name in ("new", "oploop") or name in known_types():
        raise FixConfig(f"an app cannot be called {name!r}: that is taken", mend="choose another name")
    root = into / f"oploop-{name.replace('_', '-')}"
    if root.exists() and any(root.iterdir()):
        raise FixConfig(f"{root} is there already, and not empty", mend="choose another name or folder")
    words = {
        "%name%": name,
        "%dashed%": name.replace("_", "-"),
        "%Class%": "".join(w.capitalize() for w in name.split("_")),
        "%Title%": " ".join(w.capitalize() for w in name.split("_")),
    }
    made = []
    for path, text in _templates(files(__name__).joinpath("app"), Path()):
        target = root / _renamed(path, name)
        for word, value in words.items():
            text = text.replace(word, value)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        made.append(target)
    return root, made


def _templates(folder: Traversable, at: Path) -> list[tuple[Path, str]]:
    """All templates below a folder, by path, with their text."""
    found: list[tuple[Path, str]] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _templates(entry, at / entry.name)
        elif entry.name.endswith(".txt"):
            found.append((at / entry.name.removesuffix(".txt"), entry.read_text(encoding="utf-8")))
    return found


def _renamed(path: Path, name: str) -> Path:
    parts = [f"oploop_{name}" if p == "package" else p.replace("test_package", f"test_{name}") for p in path.parts]
    return Path(*parts)
