"""`${VAR}`: where its value comes from, and what looks like a secret that was written down."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.project.yaml import SECRET_KEY, Block, Items

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_URL = re.compile(r"://[^/@:\s]*:(?!\$\{)[^/@\s]+@")


class Variables:
    """The environment's variables, then those of the `.env` file. Never changes the process's environment."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        self._root = root
        self._env = os.environ if env is None else env
        self._file: dict[str, str] | None = None

    def get(self, name: str) -> str | None:
        """A variable's value; the environment rules over `.env`. None: not set."""
        if name in self._env:
            return self._env[name]
        if self._file is None:
            self._file = self._read()
        return self._file.get(name)

    def _read(self) -> dict[str, str]:
        path = self._root / ".env"
        if not path.is_file():
            return {}
        from dotenv.parser import parse_stream

        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as e:
            mend = "check that you may read it"
            raise FixConfig(f"cannot be read: {e.strerror}", mend=mend, place=Place(".env")) from None
        except UnicodeDecodeError:
            raise FixConfig("cannot be read as UTF-8 text", mend="save it as UTF-8", place=Place(".env")) from None
        found: dict[str, str] = {}
        for line in parse_stream(io.StringIO(text)):
            if line.error:
                at = Place(".env", line.original.line)
                raise FixConfig("the line is no NAME=value", mend="mend it, or put # before it", place=at)
            if line.key is not None:
                found[line.key] = line.value or ""  # taken as it stands: a password may hold a dollar sign
        return found

    def fill(self, text: str, place: Place | None, used: set[str] | None = None) -> str:
        """`text` with each `${VAR}` replaced by its value; `$${` stands for a plain `${`. Adds the values to `used`.

        Raises FixConfig naming the variable, with the place, when it is not set or empty.
        """

        def value(found: re.Match[str]) -> str:
            if found.group(0) == "$${":
                return "${"
            filled = self._value(found.group(1), closed=bool(found.group(2)), place=place)
            if used is not None:
                used.add(filled)
            return filled

        return _VARIABLE.sub(value, text)

    def _value(self, name: str, *, closed: bool, place: Place | None) -> str:
        if not closed or not _NAME.fullmatch(name):
            raise FixConfig(
                "${...} must hold just a variable's name", mend="write ${NAME}, or $${ for a plain ${", place=place
            )
        value = self.get(name)
        if value and _is_text(value):
            return value
        if value:
            raise FixConfig(f"environment variable {name} is no UTF-8 text", mend="set it again, as UTF-8", place=place)
        mend = f"export {name}=... or add it to .env"
        near = did_you_mean(name, self._file or ()) if value is None else ""
        if near.startswith("did you mean"):
            mend += f" ({near[:-1]}, which .env has?)"
        raise FixConfig(
            f"environment variable {name} is {'not set' if value is None else 'empty'}", mend=mend, place=place
        )


def _is_text(value: str) -> bool:
    """Whether a variable's bytes were UTF-8; Python keeps others as halves of characters."""
    return not any("\ud800" <= c <= "\udfff" for c in value)


def looks_secret(app: str, options: Mapping[str, Any]) -> list[str]:
    """Warnings for values that look like secrets and are written into the file. They never show the value."""
    found: list[str] = []

    def look(key: str, value: Any, place: Place | None) -> None:
        if isinstance(value, Block):
            for k, v in value.items():
                look(f"{key}.{k}", v, value.places[k])
        elif isinstance(value, Items):
            for v, p in zip(value, value.places, strict=True):
                look(key, v, p)
        elif (
            isinstance(value, str)
            and value
            and ((SECRET_KEY.search(key) and "${" not in value) or _SECRET_URL.search(value))
        ):
            variable = variable_name(app, key.rpartition(".")[2])
            found.append(
                f"{place}: {app}.{key} looks like a secret written into the file — put it into ${{{variable}}}"
            )

    if isinstance(options, Block):
        for k, v in options.items():
            look(k, v, options.places[k])
    return found


def variable_name(app: str, key: str) -> str:
    """The usual name of the variable for an app's key: STRIPE_API_KEY."""
    return re.sub(r"\W", "_", f"{app}_{key}").upper()
