"""Which log files a stream has read: its cursor, exact and bounded.

A folder is one of

    named    each file that was read, by its mark (11 characters). The newest days of a source, where files still come
    closed   [how many, digest of all marks, newest modification]. Older days, once all their files are read

Late files are found in closed folders too: the digest no longer fits. If the files modified since are taken away and
it fits again, only those are read; otherwise (a file changed or went) the folder is read again as a whole, which does
no harm, as events collapse by `messageId`. So a file is read once, again only if it changed, and the cursor grows by
about 60 bytes a day and source.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from oploop.apps.segment.logs import LogFile
from oploop.records import Cursor

NAMED_DAYS = 7  #: so many of each source's newest days stay named
MAX_NAMED = 2000  #: a folder with more files is closed however new it is

_DAY = 86400


class Position:
    """A stream's cursor against what is listed now."""

    def __init__(self, cursor: Cursor | None, files: Iterable[LogFile], since: datetime | None) -> None:
        state: dict[str, Any] = cursor or {}
        self._since = since
        self._present: dict[str, list[LogFile]] = defaultdict(list)
        for file in files:
            self._present[file.folder].append(file)
        self._marks = {folder: {f.mark for f in files} for folder, files in self._present.items()}
        named, closed = state.get("named", {}), state.get("closed", {})
        self._named = {f: set(marks) & self._marks[f] for f, marks in named.items() if f in self._present}
        self._closed = {f: tuple(entry) for f, entry in closed.items() if f in self._present}
        self._forget_what_since_cut(state.get("since"))
        self._kept_named = self._newest()

    def _forget_what_since_cut(self, before: str | None) -> None:
        """`since` was moved back: the folders of which only a part was kept are read again."""
        if before is None:
            return
        cut = datetime.fromisoformat(before).timestamp()
        if self._since is not None and self._since.timestamp() >= cut:
            return
        for folder, files in self._present.items():
            day = files[0].day
            if day is None or day <= cut < day + _DAY:
                self._named.pop(folder, None)
                self._closed.pop(folder, None)

    def _newest(self) -> set[str]:
        days: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for folder, files in self._present.items():
            if files[0].day is not None:
                days[files[0].source].append((files[0].day, folder))
        dated = {folder for found in days.values() for _, folder in found}
        newest = {folder for found in days.values() for _, folder in sorted(found)[-NAMED_DAYS:]}
        return newest | (self._present.keys() - dated)

    def todo(self) -> list[LogFile]:
        """The files to read, in the order in which they were listed."""
        todo: list[LogFile] = []
        for folder, files in self._present.items():
            day = files[0].day
            if self._since is not None and day is not None and day + _DAY <= self._since.timestamp():
                continue
            if folder in self._closed:
                self._reopen_if_changed(folder)
            if folder not in self._closed:
                known = self._named.setdefault(folder, set())
                todo += [f for f in files if f.mark not in known]
        return todo

    def _reopen_if_changed(self, folder: str) -> None:
        count, digest, newest = self._closed[folder]
        marks = self._marks[folder]
        if (count, digest) == (len(marks), digest_of(marks)):
            return
        late = {
            f.mark
            for f in self._present[folder]
            if newest is not None and f.modified is not None and f.modified > newest
        }
        rest = marks - late
        del self._closed[folder]
        self._named[folder] = rest if (count, digest) == (len(rest), digest_of(rest)) else set()

    def add(self, file: LogFile) -> None:
        """The file has been read to its end."""
        self._named.setdefault(file.folder, set()).add(file.mark)
        self._close_if_done(file.folder)

    def settle(self) -> None:
        """Close the folders that are read and no longer new."""
        for folder in list(self._named):
            self._close_if_done(folder)

    def _close_if_done(self, folder: str) -> None:
        marks = self._named[folder]
        stays_named = folder in self._kept_named and len(marks) <= MAX_NAMED
        if stays_named or not marks or marks != self._marks[folder]:
            return
        times = [f.modified for f in self._present[folder]]
        newest = max((t for t in times if t is not None), default=None) if None not in times else None
        self._closed[folder] = (len(marks), digest_of(marks), newest)
        del self._named[folder]

    def cursor(self) -> Cursor:
        """The position as it is stored."""
        return {
            "since": self._since.isoformat() if self._since else None,
            "named": {folder: sorted(marks) for folder, marks in sorted(self._named.items()) if marks},
            "closed": {folder: list(entry) for folder, entry in sorted(self._closed.items())},
        }


def digest_of(marks: Iterable[str]) -> str:
    """One short text for a set of marks."""
    return hashlib.blake2b(" ".join(sorted(marks)).encode(), digest_size=12).hexdigest()
