"""A new app's block put into `oploop.yml`, and its secrets into `.env`, without touching what stands there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place
from oploop.project.config import FILE, AppBlock, Budget
from oploop.project.secrets import Variables
from oploop.project.yaml import Block, parse_yaml

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./@:-]*")
_APPS = re.compile(r"apps:\s*(\{\s*\}|null|~)?\s*(#.*)?")


@dataclass(frozen=True, slots=True)
class NewApp:
    """An app to be added. `settings`: its keys as they are to stand in the file, secrets as `${VAR}`."""

    name: str
    type: str
    settings: Mapping[str, Any]
    read: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Its block, without indentation."""
        body = [f"type: {self.type}"] if self.type != self.name else []
        body += [f"{key}: {_scalar(value)}" for key, value in self.settings.items()]
        body += [f"read: [{', '.join(map(_scalar, self.read))}]"] if self.read else []
        return [f"{self.name}:", *(f"  {line}" for line in body)] if body else [f"{self.name}: {{}}"]

    def block(self, root: Path, secrets: Mapping[str, str]) -> AppBlock:
        """As the project's reader would give it; `secrets` are variables that no file holds yet."""
        options = parse_yaml(
            "\n".join(f"{k}: {_scalar(v)}" for k, v in self.settings.items()) or "{}", f"app {self.name}"
        )
        variables = Variables(root, {**os.environ, **secrets})
        place = Place(f"app {self.name}")
        for key in options:
            options.places[key] = Place(f"{self.name}.{key}")
        return AppBlock(self.name, self.type, options, {}, Budget(), place, root, variables)


def _scalar(value: Any) -> str:
    text = str(value)
    if isinstance(value, (bool, int, float, dict, list)):  # maps and lists on one line, as JSON, which YAML reads
        return json.dumps(value, ensure_ascii=False)
    safe = _PLAIN.fullmatch(text) and not text.endswith(":") and isinstance(parse_yaml(f"a: {text}", FILE)["a"], str)
    return text if safe or re.fullmatch(r"\$\{\w+\}", text) else json.dumps(text, ensure_ascii=False)


def with_app(text: str, app: NewApp) -> str:
    """The text of `oploop.yml` with the app's block as the first of its apps; all else stays byte by byte.

    FixConfig when there is an app of that name, or when `apps` is written so that nothing can be put into it.
    """
    before = parse_yaml(text, FILE)
    if app.name in (before.get("apps") or {}):
        place = before["apps"].places[app.name] if isinstance(before["apps"], Block) else None
        raise FixConfig(f"there is an app {app.name!r} already", mend="choose another name with --as", place=place)
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(end)
    at = next((i for i, line in enumerate(lines) if _APPS.fullmatch(line)), None)
    if at is None and "apps" in before:
        shown = "; ".join(line.strip() for line in app.lines())
        raise FixConfig(
            "apps is written on one line", mend=f"add the app yourself: {shown}", place=before.places["apps"]
        )
    if at is None:
        lines = [*text.rstrip(end).split(end), "", "apps:", ""]
        at = len(lines) - 2
    lines[at] = re.sub(r"^apps:\s*(\{\s*\}|null|~)", "apps:", lines[at])
    new = end.join([*lines[: at + 1], *(f"{_indent(lines[at + 1 :])}{line}" for line in app.lines()), *lines[at + 1 :]])
    _same_but_for(parse_yaml(new, FILE), before, app)
    return new


def _indent(rest: Sequence[str]) -> str:
    """How far the block's other apps are indented."""
    for line in rest:
        found = re.match(r"( *)[^\s#]", line)
        if found:
            return found.group(1) or "  "
    return "  "


def _same_but_for(after: Block, before: Block, app: NewApp) -> None:
    """A guard: writing must have added the app and changed nothing."""
    apps = dict(after["apps"])
    rest = [{k: v for k, v in block.items() if k != "apps"} for block in (before, after)]
    if apps.pop(app.name, None) is None or apps != (before.get("apps") or {}) or rest[0] != rest[1]:
        raise FixConfig(f"{FILE} is written so that no app can be added to it", mend="add the app yourself")


def add_app(root: Path, app: NewApp, secrets: Mapping[str, str]) -> list[Path]:
    """Write the app's block, and its secrets into `.env` (mode 0600); the files that were written."""
    path = root / FILE
    try:
        with path.open(encoding="utf-8", newline="") as file:  # line ends stay as they are
            old = file.read()
        new = with_app(old, app)
        written = []
        if secrets:
            written.append(_add_secrets(root / ".env", secrets))
        beside = path.with_name(f".{FILE}.{os.getpid()}")
        beside.write_text(new, encoding="utf-8", newline="")
        beside.chmod(path.stat().st_mode & 0o7777)
        os.replace(beside, path)
    except OSError as e:
        raise FixConfig(
            f"{e.filename or root} cannot be written: {e.strerror}", mend="mend the folder's rights"
        ) from None
    return [path, *written]


def _add_secrets(path: Path, secrets: Mapping[str, str]) -> Path:
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    gap = "" if not old or old.endswith("\n") else "\n"
    lines = "".join(f"{name}={_quoted(value)}\n" for name, value in secrets.items())
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as out:
        out.write(gap + lines)
    path.chmod(0o600)
    return path


def _quoted(value: str) -> str:
    """A value as the file's reader takes it back."""
    if re.fullmatch(r"[\w./:@+=-]*", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


__all__ = ["NewApp", "add_app", "with_app"]
