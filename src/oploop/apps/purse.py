"""What a budget remembers: calls made in the last window, a pause, how far it was cut down.

`Purse` is the memory itself, `SharedPurse` the same in a small file that all processes of this user share. Each use
locks the file for some microseconds; the kernel lets go of the lock of a process that dies, so nothing is left behind.
A file that cannot be read (the machine went down amid a write) counts as empty: it holds no more than one window.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson

T = TypeVar("T")

#: Calls are remembered in so many slices of a window, each by its latest call.
SLICES = 250
#: A refusal cuts the rate down to this share, once a window; each window without one gives back `GROW`.
CUT = 0.9
GROW = 0.01
LEAST = 0.1
#: A file that nobody used for so many seconds is removed.
STALE = 7 * 86_400.0
MAX_BYTES = 65_536


class Day(NamedTuple):
    """What an app told of the account's calls of a day, less those made since; times are seconds since 1970."""

    limit: int
    remaining: int
    at: float  #: when it was told
    until: float  #: from then on it says nothing any more


@dataclass(slots=True)
class Purse:
    """Stamps (monotonic seconds) and counts of calls, oldest first; nobody calls before `not_before`."""

    sent: list[tuple[float, int]] = field(default_factory=list)
    not_before: float = 0.0
    factor: float = 1.0  #: to how much of the rate it was cut down at `cut_at`
    cut_at: float = 0.0
    day: Day | None = None

    def take(self, now: float, calls: int, window: float, margin: float, want: int, life: float) -> tuple[int, float]:
        """(calls granted, seconds to wait when there are none) of at most `calls` in any `window` and `margin`.

        `life`: seconds in which what is granted will be used.
        """
        gone = now - window - margin
        kept = 0
        while kept < len(self.sent) and self.sent[kept][0] <= gone:
            kept += 1
        del self.sent[:kept]
        if now < self.not_before:
            return 0, self.not_before - now
        allowed = max(1, int(calls * self.grown(now, window)))
        free = min(want, allowed - sum(map(itemgetter(1), self.sent)))
        if free <= 0:
            return 0, self.sent[0][0] - gone + 0.001
        stamp, slices = now + (life if free > 1 else 0.0), SLICES / window
        last = self.sent[-1] if self.sent else None
        if last is not None and int(last[0] * slices) == int(stamp * slices):
            self.sent[-1] = (max(last[0], stamp), last[1] + free)
        else:
            self.sent.append((stamp, free))
        if self.day is not None:
            self.day = self.day._replace(remaining=max(0, self.day.remaining - free))
        return free, 0.0

    def wait_for(self, wanted: int, now: float, calls: int, window: float, margin: float) -> float:
        """Seconds until the last of so many more calls may be made, if nobody else calls meanwhile."""
        if wanted <= 0:
            return 0.0
        lasts = window + margin
        allowed = max(1, int(calls * self.grown(now, window)))
        windows, nth = divmod(wanted - 1, allowed)  # each call goes when the one `allowed` before it is a window old
        used = [(at, n) for at, n in self.sent if at > now - lasts]
        nth -= allowed - sum(n for _, n in used)
        at = self.not_before
        for sent, n in used:
            if nth < 0:
                break
            nth -= n
            at = max(at, sent + lasts)
        return windows * lasts + max(0.0, at - now)

    def grown(self, now: float, window: float) -> float:
        """To how much of the rate it is cut down now."""
        return min(1.0, self.factor + GROW * max(0.0, now - self.cut_at) / window)

    def pause(self, until: float) -> None:
        self.not_before = max(self.not_before, until)

    def tell_day(self, day: Day) -> None:
        self.day = day

    def day_told(self) -> Day | None:
        return self.day

    def cut(self, now: float, window: float) -> None:
        """The app refused a call although we were within what we know: others use the account, or it takes less."""
        if self.factor == 1.0 or now - self.cut_at >= window:  # calls that were under way together are refused together
            self.factor, self.cut_at = max(LEAST, self.grown(now, window) * CUT), now


class SharedPurse:
    """A Purse in a file, for all processes of this user on this machine. Times are those of the machine's own clock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boot = _boot()
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def take(self, now: float, calls: int, window: float, margin: float, want: int, life: float) -> tuple[int, float]:
        return self._with(lambda p: p.take(now, calls, window, margin, want, life))

    def wait_for(self, wanted: int, now: float, calls: int, window: float, margin: float) -> float:
        return self._with(lambda p: p.wait_for(wanted, now, calls, window, margin))

    def pause(self, until: float) -> None:
        self._with(lambda p: p.pause(until))

    def cut(self, now: float, window: float) -> None:
        self._with(lambda p: p.cut(now, window))

    def tell_day(self, day: Day) -> None:
        self._with(lambda p: p.tell_day(day))

    def day_told(self) -> Day | None:
        return self._with(lambda p: p.day)

    def _with(self, do: Callable[[Purse], T]) -> T:
        import fcntl

        while True:
            if self._file < 0:
                self._file = self._open()
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                break
            self.close()  # somebody tidied it away; all go on with the new one
        try:
            purse = _read(os.pread(self._file, MAX_BYTES, 0), self._boot)
            done = do(purse)
            day = None if purse.day is None else list(purse.day)
            data = orjson.dumps([self._boot, purse.sent, purse.not_before, purse.factor, purse.cut_at, day])
            os.pwrite(self._file, data, 0)
            os.ftruncate(self._file, len(data))
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return done


def _read(data: bytes, boot: str) -> Purse:
    try:
        of_boot, sent, not_before, factor, cut_at, *more = orjson.loads(data)
        day = Day(*more[0]) if more and more[0] is not None else None
        if of_boot != boot:  # its times are of another clock; the day's are of the calendar
            return Purse(day=day)
        return Purse([(float(t), int(n)) for t, n in sent], float(not_before), float(factor), float(cut_at), day)
    except (ValueError, TypeError):
        pass
    return Purse()


def _boot() -> str:
    """Names the machine's present start, from which its clock counts; empty where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def machine_folder() -> Path | None:
    """The folder of this user's budgets on this machine, made private; None where there can be none."""
    if os.name != "posix":
        return None
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(runtime or cache) / "oploop" / "budgets"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = folder.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
            return None
        folder.chmod(0o700)
        _tidy(folder)
    except OSError:
        return None
    return folder


def _tidy(folder: Path) -> None:
    """Remove the files of accounts that nobody has called for long."""
    for path in folder.iterdir():
        if time.time() - path.lstat().st_mtime > STALE:
            path.unlink(missing_ok=True)
