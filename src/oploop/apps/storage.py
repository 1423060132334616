"""Files wherever fsspec finds them: a folder, s3://, gs://, sftp://. Listing, marks that change with a file, reading, writing,
errors in words.

    store = Store("s3://acme/drop", "url")                  `url`: the key of the block that names it
    files = store.files(matching("in/**/*.csv"))            what is there
    with store.opened(files[0]) as source: ...              its bytes
    store.put("out/1.csv", data)                            a file, whole or not at all

Which of the files were read before: `seen`; what is in them: `jsonlines`, `formats`. Everything here blocks; apps call it from threads.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import fsspec

from oploop.apps.policy import LostAnswer
from oploop.errors import FixConfig, OploopError, RetryLater

#: What to install for a filesystem that oploop does not bring.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "sftp": "sftp", "ssh": "sftp"}
#: Files up to so many bytes are fetched in one call.
WHOLE_UP_TO = 8 * 2**20
#: Filesystems in which a file may be seen half written, and those of them that are this machine's.
_IN_PARTS, _LOCAL = {"file", "local", "sftp", "ssh"}, {"file", "local"}


@dataclass(frozen=True, slots=True)
class File:
    """One file as listed. `name` is relative to the store's root; `mark` changes when the file does; `modified` is in
    seconds since 1970."""

    path: str
    name: str
    size: int
    mark: str
    modified: float | None = None

    @property
    def folder(self) -> str:
        """Its folder below the root; "" for the root itself."""
        return self.name.rpartition("/")[0]


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

    def files(self, wanted: Callable[[str], bool] = bool) -> list[File]:
        """All files whose name is wanted, by name; FixConfig when there is no such folder, or it is closed to us."""
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
        names = {path: path.removeprefix(self.root).strip("/") for path in listed}
        made = [_file(path, name, listed[path]) for path, name in names.items() if wanted(name)]
        return sorted(made, key=lambda f: f.name)

    @contextmanager
    def opened(self, file: File) -> Iterator[BinaryIO]:
        """A file's bytes, of a small one fetched in one call. FileNotFoundError where it is not there though it was listed, FixConfig
        where it is closed to us, RetryLater where it cannot be read for now."""
        try:
            source = self._source(file)
        except (FileNotFoundError, OploopError):
            raise
        except PermissionError as e:
            mend = "check the rights, or move the file"
            raise FixConfig(f"{self._key}: {file.name} at {self.shown} may not be read ({e})", mend=mend) from e
        except Exception as e:  # each filesystem has errors of its own
            raise self._unreadable(file, e) from e
        try:
            with source:
                yield source
        except FileNotFoundError:
            raise
        except OSError as e:
            raise self._unreadable(file, e) from e

    def _source(self, file: File) -> Any:
        fs = self.open()
        if file.size <= WHOLE_UP_TO:
            return io.BytesIO(fs.cat_file(file.path))
        return fs.open(file.path, "rb", block_size=WHOLE_UP_TO)

    def _unreadable(self, file: File, e: Exception) -> RetryLater:
        return RetryLater(f"cannot read {file.name} at {self.shown}: {e}", mend="run again later")

    def put(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole or not at all: stores of objects take it in one put, elsewhere it is written under a
        hidden name and renamed. FixConfig where it may not be written, LostAnswer where nobody knows whether it is there."""
        try:
            root = self.root
        except Exception as e:  # nothing is written yet
            raise self.failure(e, "write to") from e
        try:
            self._put(f"{root}/{name}", data)
        except PermissionError as e:
            raise FixConfig(f"{self._key}: {self.shown} may not be written ({e})", mend="check the rights") from None
        except Exception as e:  # each filesystem has errors of its own
            if _of_credentials(e):  # which are looked for before anything is sent
                raise self.failure(e, "write to") from e
            raise LostAnswer(f"writing {name} at {self.shown}: {type(e).__name__}: {e}") from e

    def _put(self, path: str, data: bytes) -> None:
        fs = self.open()
        kinds = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
        if not kinds & _IN_PARTS:
            fs.pipe_file(path, data)
            return
        folder, _, last = path.rpartition("/")
        fs.makedirs(folder, exist_ok=True)
        hidden = f"{folder}/.{last}.part"
        with fs.open(hidden, "wb") as target:
            target.write(data)
            if kinds & _LOCAL:
                target.flush()
                os.fsync(target.fileno())
        if kinds & _LOCAL:
            os.replace(hidden, path)
        else:
            fs.mv(hidden, path)

    def failure(self, e: Exception, doing: str = "list") -> OploopError:
        """A filesystem's error as ours, named by its remedy. `doing`: what could not be done."""
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
            return RetryLater(f"{key}: cannot {doing} {self.shown}: {e}", mend="run again later")
        mend = f"check {key}"
        if _of_credentials(e):
            mend = "set options, or the credentials where the storage's own tools look for them"
        return FixConfig(f"{key}: cannot {doing} {self.shown}: {type(e).__name__}: {e}", mend=mend)


def _of_credentials(e: Exception) -> bool:
    return "Credential" in type(e).__name__


def _file(path: str, name: str, info: Mapping[str, Any]) -> File:
    size = int(info.get("size") or 0)
    stamp, modified = stamps(info)
    return File(path, name, size, fingerprint(name, size, stamp), modified)


def matching(glob: str) -> Callable[[str], bool]:
    """Whether a file's name fits a pattern, of which * and ? stay within a folder and ** does not. Hidden files do not, nor those
    that someone is writing."""
    ways = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    fits = re.compile("".join(ways.get(p, re.escape(p)) for p in re.split(r"(\*\*/|\*\*|\*|\?)", glob))).fullmatch
    return lambda name: fits(name) is not None and not any(p.startswith((".", "_")) for p in name.split("/"))


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
