"""Files wherever fsspec finds them: a folder, s3://, gs://, sftp://. Listing, marks that change with a file, errors in words.

Everything here blocks; apps call it from threads.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fsspec

from oploop.errors import FixConfig, OploopError, RetryLater

#: What to install for a filesystem that oploop does not bring.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "sftp": "sftp", "ssh": "sftp"}


@dataclass(frozen=True, slots=True)
class File:
    """One file as listed. `name` is relative to the store's root; `mark` changes when the file does; `modified` is in
    seconds since 1970."""

    path: str
    name: str
    size: int
    mark: str
    modified: float | None = None


class Store:
    """A root folder: a path, or any URL that fsspec opens. `key` is the key of the block that names it, for messages."""

    def __init__(self, url: str, key: str, options: Mapping[str, Any] | None = None) -> None:
        self.url, self._key, self._options = url, key, dict(options or {})
        self.shown = re.sub(r"//[^/@]*@", "//", url)  # no password in messages
        self._fs: Any = None
        self._root = ""

    def open(self) -> Any:
        """The filesystem."""
        if self._fs is None:
            self._fs, self._root = fsspec.url_to_fs(self.url, **self._options)
        return self._fs

    @property
    def root(self) -> str:
        """The root as the filesystem names it."""
        self.open()
        return self._root.rstrip("/")

    def found(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(path, name relative to the root, what the filesystem tells) of all files; FixConfig when there is no such folder."""
        try:
            fs = self.open()
            fs.invalidate_cache()
            listed = fs.find(self._root, detail=True)
            if not listed and not fs.exists(self._root):
                raise FileNotFoundError(self._root)
        except OploopError:
            raise
        except Exception as e:  # each filesystem has errors of its own
            raise self.failure(e) from e
        for path, info in listed.items():
            yield path, path.removeprefix(self.root).strip("/"), info

    def files(self) -> list[File]:
        """All files, by name."""
        made = []
        for path, name, info in self.found():
            size = int(info.get("size") or 0)
            stamp, modified = stamps(info)
            made.append(File(path, name, size, fingerprint(name, size, stamp), modified))
        return sorted(made, key=lambda f: f.name)

    def failure(self, e: Exception) -> OploopError:
        """A filesystem's error as ours, named by its remedy."""
        key = self._key
        if isinstance(e, FileNotFoundError):
            return FixConfig(f"{key}: there is nothing at {self.shown}", mend=f"set {key} to the folder of the files")
        if isinstance(e, PermissionError):
            return FixConfig(f"{key}: {self.shown} may not be read ({e})", mend="check the storage's credentials")
        if isinstance(e, ImportError):
            extra = EXTRAS.get(self.url.partition("://")[0])
            mend = f"pip install 'oploop[{extra}]'" if extra else "pip install it beside oploop"
            return FixConfig(f"{key}: no driver for {self.shown}: {e}", mend=mend)
        if isinstance(e, OSError):
            return RetryLater(f"{key}: cannot list {self.shown}: {e}", mend="run again later")
        credentials = "Credential" in type(e).__name__
        mend = (
            "set options, or the credentials where the storage's own tools look for them"
            if credentials
            else f"check {key}"
        )
        return FixConfig(f"{key}: cannot list {self.shown}: {type(e).__name__}: {e}", mend=mend)


def stamps(info: Mapping[str, Any]) -> tuple[str, float | None]:
    """(what changes when the file changes, when it was last modified), by the names that filesystems use."""
    times = (info.get(k) for k in ("mtime", "LastModified", "last_modified", "modified", "updated", "created"))
    modified = next((_seconds(t) for t in times if t is not None), None)
    tags = (info.get(k) for k in ("ETag", "etag", "md5Hash", "content_md5"))
    tag = next((str(t) for t in tags if t), None)
    return tag if tag is not None else repr(modified), modified


def _seconds(value: Any) -> float | None:
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    if isinstance(value, int | float):
        return float(value)
    try:
        return _seconds(datetime.fromisoformat(str(value)))
    except ValueError:
        return None


def fingerprint(name: str, size: int, stamp: str) -> str:
    """Eleven characters that name a file in a state: another size, tag or time gives others."""
    digest = hashlib.blake2b(f"{name}\0{size}\0{stamp}".encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
