"""Which files a stream has read, of those that come into folders without end: its cursor, exact and bounded.

A folder is one of

    named    each file that was read, by its mark (11 characters). The newest days of a source, where files still come
    closed   [how many, digest of all marks, newest modification]. Older days, once all their files are read

Late files are found in closed folders too: the digest no longer fits. If the files modified since are taken away and
it fits again, only those are read; otherwise (a file changed or went) the folder is read again as a whole, which must do
no harm: for streams whose rows have keys of their own. So a file is read once, again only if it changed, and the cursor grows
by about 60 bytes a day and source. A folder whose name tells no day stays named until it has many files. A file that is listed and
cannot be opened, as a link that leads nowhere, is tried by each read, and told by the first.

    seen = Seen(cursor, store.files(...), options.since)
    for file in seen.todo():
        ...
        seen.add(file)              and then seen.cursor() may be kept
        seen.missing(file)          it is not there, though it is listed
    seen.settle()                   at the end of the read
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from oploop.apps.storage import File
from oploop.records import Cursor

NAMED_DAYS = 7  #: so many of each source's newest days stay named
MAX_NAMED = 2000  #: a folder with more files is closed however new it is

_DAY = 86400


class Seen:
    """A stream's cursor against what is listed now. `since`: days that ended before are not read."""

    def __init__(self, cursor: Cursor | None, files: Iterable[File], since: datetime | None) -> None:
        state: dict[str, Any] = cursor or {}
        self._since = since
        self._present: dict[str, list[File]] = defaultdict(list)
        for file in files:
            self._present[file.folder].append(file)
        self._marks = {folder: {f.mark for f in files} for folder, files in self._present.items()}
        named, closed = state.get("named", {}), state.get("closed", {})
        self._named = {f: set(marks) & self._marks[f] for f, marks in named.items() if f in self._present}
        self._closed = {f: tuple(entry) for f, entry in closed.items() if f in self._present}
        self._missing = {*state.get("missing", ())} & {f.mark for files in self._present.values() for f in files}
        self._forget_what_since_cut(state.get("since"))
        self._kept_named = self._newest()

    def _forget_what_since_cut(self, before: str | None) -> None:
        """`since` was moved back: the folders of which only a part was kept are read again."""
        if before is None:
            return
        cut = datetime.fromisoformat(before).timestamp()
        if self._since is not None and self._since.timestamp() >= cut:
            return
        for folder in self._present:
            day = day_of(folder)
            if day is None or day <= cut < day + _DAY:
                self._named.pop(folder, None)
                self._closed.pop(folder, None)

    def _newest(self) -> set[str]:
        days: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for folder in self._present:
            day = day_of(folder)
            if day is not None:
                days[folder.rpartition("/")[0]].append((day, folder))
        dated = {folder for found in days.values() for _, folder in found}
        newest = {folder for found in days.values() for _, folder in sorted(found)[-NAMED_DAYS:]}
        return newest | (self._present.keys() - dated)

    def todo(self) -> list[File]:
        """The files to read, those of the oldest day first."""
        todo: list[File] = []
        for folder, files in sorted(self._present.items(), key=lambda item: oldest_first(item[0])):
            day = day_of(folder)
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

    def add(self, file: File) -> None:
        """The file has been read to its end."""
        self._missing.discard(file.mark)
        self._named.setdefault(file.folder, set()).add(file.mark)
        self._close_if_done(file.folder)

    def missing(self, file: File) -> bool:
        """The file is not there, though it is listed; whether that is news."""
        news = file.mark not in self._missing
        self._missing.add(file.mark)
        return news

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
        missing = {"missing": sorted(self._missing)} if self._missing else {}
        return {
            **missing,
            "since": self._since.isoformat() if self._since else None,
            "named": {folder: sorted(marks) for folder, marks in sorted(self._named.items()) if marks},
            "closed": {folder: list(entry) for folder, entry in sorted(self._closed.items())},
        }


def digest_of(marks: Iterable[str]) -> str:
    """One short text for a set of marks."""
    return hashlib.blake2b(" ".join(sorted(marks)).encode(), digest_size=12).hexdigest()


def day_of(folder: str) -> int | None:
    """The start of the day that a folder's name tells, in seconds since 1970: from milliseconds, seconds, or 2025-01-31. None where
    it tells none."""
    last = folder.rpartition("/")[2]
    if last.isascii() and last.isdigit() and 9 <= len(last) <= 14:
        seconds = int(last) // 1000 if len(last) >= 12 else int(last)
        return seconds // 86400 * 86400
    try:
        return int(datetime.combine(date.fromisoformat(last), datetime.min.time(), UTC).timestamp())
    except ValueError:
        return None


def oldest_first(folder: str) -> tuple[bool, int, str]:
    """The order of folders: by day, those without one at the end."""
    day = day_of(folder)
    return day is None, day or 0, folder


__all__ = ["Seen", "day_of"]
