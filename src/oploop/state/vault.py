"""What apps keep from run to run and nobody may read: tokens, encrypted in the state.

The key is OPLOOP_STATE_KEY, of the environment or `.env`; without it, one of our own in `.oploop/state.key`, which only its
owner can read. State in a server outlives the runner and its folder, so there the variable should be set.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from oploop.errors import FixConfig, RetryLater
from oploop.state.sqlite import make_private
from oploop.state.store import StateStore

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_VARIABLE = "OPLOOP_STATE_KEY"
KEY_FILE = "state.key"
_MEND = "make one with: openssl rand -base64 32"


class StateVault:
    """A `runtime.Vault` in the state store, opened at the first use; also where the rest of the state is only read, since a
    token that was replaced and not kept is lost for good."""

    def __init__(self, open_store: Callable[[], StateStore], folder: Path, key: Callable[[], str | None]) -> None:
        self._open_store, self._folder, self._key = open_store, folder, key
        self._store: StateStore | None = None
        self._locks: MultiFernet | None = None
        self._claimed: set[str] = set()

    def get(self, name: str) -> str | None:
        """What was put there; None if nothing was, or if it was encrypted with another key."""
        from cryptography.fernet import InvalidToken

        sealed = self._opened().token(name)
        if sealed is None:
            return None
        try:
            kept = orjson.loads(self._cipher().decrypt(sealed))
        except InvalidToken:
            return None
        return kept["value"] if kept["name"] == name else None  # a value that was moved to another name is none

    def put(self, name: str, value: str) -> None:
        """Keep a value; it is on disk when this returns."""
        sealed = self._cipher().encrypt(orjson.dumps({"name": name, "value": value}))
        self._opened().keep_token(name, sealed.decode())

    def claim(self, name: str, command: str) -> bool:
        """Hold a name for this process until `release`; False when somebody else does."""
        if name in self._claimed:
            return False
        try:
            self._opened().take_lease(f"token:{name}", command)
        except RetryLater as e:
            if isinstance(e.__cause__, Exception):  # the state cannot be written at all
                raise
            return False
        self._claimed.add(name)
        return True

    def release(self, name: str) -> None:
        self._claimed.discard(name)
        self._opened().drop_lease(f"token:{name}")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _opened(self) -> StateStore:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _cipher(self) -> MultiFernet:
        if self._locks is None:
            from cryptography.fernet import Fernet, MultiFernet

            told = self._key()
            texts = (
                (told.split() or [""]) if told else [_own_key(self._folder)]
            )  # blanks alone are no key, as elsewhere
            where = KEY_VARIABLE if told else str(self._folder / KEY_FILE)
            self._locks = MultiFernet([Fernet(_key_of(t, where)) for t in texts])
        return self._locks


def _key_of(text: str, where: str) -> bytes:
    """32 bytes in base64, with either alphabet; of several the first encrypts, and all decrypt."""
    try:
        key = base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_"))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise FixConfig(f"{where} is no key of 32 bytes in base64", mend=_MEND)
    return base64.urlsafe_b64encode(key)


def _own_key(folder: Path) -> str:
    """The key in the state folder, made at the first use."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _make_key(folder, path)
        if path.stat().st_mode & 0o077:
            raise FixConfig(f"others can read {path}", mend=f"chmod 600 {path}, or set {KEY_VARIABLE}")
        return path.read_text("ascii", "replace").strip()
    except OSError as e:
        raise FixConfig(
            f"the key {path} cannot be had: {e.strerror}", mend=f"check its permissions, or set {KEY_VARIABLE}"
        ) from None


def _make_key(folder: Path, path: Path) -> None:
    from cryptography.fernet import Fernet

    make_private(folder)
    made = folder / f"{KEY_FILE}.{os.getpid()}"
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(Fernet.generate_key() + b"\n")
        f.flush()
        os.fsync(f.fileno())
    try:
        os.link(made, path)  # whole, or not at all; of two processes one wins
    except FileExistsError:
        pass
    finally:
        made.unlink()
