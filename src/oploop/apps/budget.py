"""The rate budget of an account: how many calls it may make, shared by all that speak to it.

All syncs and readers of a process share it through their transport; all processes of the user through a file of the
account in a private folder of the machine (`purse.py`).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from pathlib import Path

from oploop.apps.meter import METER
from oploop.apps.purse import Day, Purse, SharedPurse
from oploop.errors import QuotaSpent
from oploop.runtime import Runtime

#: A window is taken to last longer by this share of itself, at most so many seconds: calls overtake each other on their way.
MARGIN = 0.02
MAX_MARGIN = 0.25
#: Up to so many calls a second a shared budget is asked for each.
SINGLY_UP_TO = 1000
#: A call's allowance that was taken beforehand, with others, is used within this share of a window, or not at all.
LIFE = 0.01
#: What an app told of its day's quota holds a delivery back for so many seconds; then it is asked anew by calling.
DAY_FRESH = 900.0
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Quota:
    """What an answer's headers say of the account's limit: `remaining` calls for the next `reset` seconds."""

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class DayQuota:
    """What an answer's headers say of the account's calls of a day: `remaining` of `limit`, for the next `reset` seconds
    if it says so (else for a day at the most)."""

    limit: int
    remaining: int
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class DayLeft:
    """What is left of the account's calls of a day, as of `at` (seconds since 1970), and how many are kept for others."""

    limit: int
    remaining: int
    kept: int
    at: float

    @property
    def ours(self) -> int:
        """Calls that oploop may still make."""
        return max(0, self.remaining - self.kept)


class Budget:
    """How many calls an account may make: `calls` in any window of `window` seconds.

    It paces by a sliding window, so a burst up to the window's allowance goes out at once, and adapts: to what the app's
    headers say, or, where they say nothing, to its refusals (down at once, up again slowly).
    """

    def __init__(self, runtime: Runtime, *, calls: int, window: float = 1.0, share: float = 1.0) -> None:
        self._runtime = runtime
        self.share = share
        self.calls = max(1, int(calls * share))
        self.window = window
        self._margin = min(MARGIN * window, MAX_MARGIN)
        self._purse: Purse | SharedPurse = Purse()
        self._folder: Path | None = None
        self._account = ""
        self.keep_daily = 0.0  #: the share of the day's calls that is left to others
        self._told = False  #: the app's headers tell the limit
        self._in_hand, self._in_hand_until, self._chunk = 0, 0.0, 1
        self._beside: dict[str, Budget] = {}
        self._lock = asyncio.Lock()

    def keep_to(self, share: float) -> None:
        """Use only this share of the account's limit; the rest is for others."""
        self.calls = max(1, int(self.calls / self.share * share))
        self.share = share

    def share_through(self, folder: Path, account: str) -> None:
        """Share it with all processes that name the same account in this folder. `account` is a file's name."""
        try:
            self._purse = SharedPurse(folder / account)
        except OSError:  # each process for itself then: the app's own limit still holds all
            return
        self._folder, self._account = folder, account

    def beside(self, name: str, *, calls: int, window: float) -> Budget:
        """A further limit of the same account, as `name`, shared by whoever shares this one, and made when it is first asked for."""
        if name not in self._beside:
            budget = self._beside[name] = Budget(self._runtime, calls=calls, window=window, share=self.share)
            if self._folder is not None:
                budget.share_through(self._folder, f"{self._account}.{name.replace(' ', '-')}")
        return self._beside[name]

    def close(self) -> None:
        """Let go of the file, if it is shared. Safe to call twice; a later call opens it anew."""
        if isinstance(self._purse, SharedPurse):
            self._purse.close()
        for budget in self._beside.values():
            budget.close()

    async def take(self) -> None:
        """Wait until one more call is within the budget, and count it. Interrupted when the run is to stop meanwhile."""
        meter = METER.get()
        came = self._runtime.monotonic() if meter is not None else 0.0
        async with self._lock:  # first come, first served
            while (wait := self._take()) > 0:
                await self._runtime.pause(wait)
        if meter is not None:
            meter.waited += self._runtime.monotonic() - came

    def _take(self) -> float:
        """Count one call; else the seconds after which to ask again.

        Calls that follow each other quickly are counted some at a time, so that a shared budget is asked seldom.
        """
        now, life = self._runtime.monotonic(), LIFE * self.window
        if self._in_hand and now <= self._in_hand_until:
            self._in_hand -= 1
            return 0.0
        most = max(1, int(self.calls / self.window / SINGLY_UP_TO)) if self._folder is not None else 1
        self._chunk = min(most, self._chunk * 2) if now <= self._in_hand_until else 1
        granted, wait = self._purse.take(now, self.calls, self.window, self._margin, self._chunk, life)
        if granted:
            self._in_hand, self._in_hand_until = granted - 1, now + life
        return wait

    def pause(self, seconds: float) -> None:
        """Let nobody call for so long: the app said so."""
        self._in_hand = 0
        self._purse.pause(self._runtime.monotonic() + seconds)

    def refused(self, seconds: float) -> None:
        """The app refused a call for the rate, and wants nobody to call for so long.

        Where it never tells its limit, that was more than it takes: the rate goes down, and up again bit by bit.
        """
        self.pause(seconds)
        if not self._told:
            self._purse.cut(self._runtime.monotonic(), self.window)

    def learn(self, quota: Quota, under_way: int = 0) -> None:
        """Take over the limit that the app tells, and wait for its reset when others have used it up.

        `under_way`: calls whose answers have not come yet, which will use some of what remains.
        """
        if quota.limit is not None and quota.limit > 0:
            self.calls = max(1, int(quota.limit * self.share))
            self._told = True
        if quota.remaining is not None and quota.reset is not None and quota.remaining <= under_way:
            self.pause(quota.reset)

    def learn_day(self, day: DayQuota, under_way: int = 0) -> None:
        """Take over what the app tells of the day's calls; `under_way`: calls that it may not have counted yet."""
        now = self._runtime.now().timestamp()
        until = now + (day.reset if day.reset is not None else DAY)
        self._purse.tell_day(Day(day.limit, max(0, day.remaining - under_way), now, until))

    def day_left(self) -> DayLeft | None:
        """What is left of the day's calls, less those made since the app told it; None where it is not known any more."""
        day = self._purse.day_told()
        if day is None or self._runtime.now().timestamp() >= day.until:
            return None
        return DayLeft(day.limit, day.remaining, math.ceil(day.limit * self.keep_daily), day.at)

    def refuse_beyond_day(self, calls: int) -> None:
        """QuotaSpent when so many more calls would use what is kept for others."""
        left = self.day_left() if self.keep_daily else None
        if left is None or self._runtime.now().timestamp() - left.at > DAY_FRESH or calls <= left.ours:
            return
        raise QuotaSpent(
            f"{left.remaining:,} of the day's {left.limit:,} calls are left, {left.kept:,} of them for others (keep_daily)"
        )

    def seconds_for(self, calls: int) -> float:
        """How long it takes at the least until so many calls may be made, after those made already, in seconds."""
        return self._purse.wait_for(calls, self._runtime.monotonic(), self.calls, self.window, self._margin)


def at_least(calls: int, allowed: int, window: float) -> float:
    """How long it takes until so many calls may be made, of which `allowed` may in any window, in seconds."""
    return max(0, calls - 1) // allowed * (window + min(MARGIN * window, MAX_MARGIN))
