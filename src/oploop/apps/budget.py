"""The rate budget of an account: how many calls it may make, shared by all that speak to it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from oploop.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Quota:
    """What an answer's headers say of the account's limit: `remaining` calls for the next `reset` seconds."""

    limit: int | None = None
    remaining: int | None = None
    reset: float | None = None


class Budget:
    """How many calls an account may make: `rate` a second, kept over any window of `window` seconds.

    It paces by a sliding window, so a burst up to the window's allowance goes out at once, and adapts to what the
    app's headers say: when fewer calls remain than it thinks, others use the account too, and it believes the app.
    """

    def __init__(self, runtime: Runtime, *, calls: int, window: float = 1.0, share: float = 1.0) -> None:
        self._runtime = runtime
        self.share = share
        self.calls = max(1, int(calls * share))
        self.window = window
        self._sent: deque[float] = deque()
        self._not_before = 0.0
        self._lock = asyncio.Lock()

    def keep_to(self, share: float) -> None:
        """Use only this share of the account's limit; the rest is for others."""
        self.calls = max(1, int(self.calls / self.share * share))
        self.share = share

    async def take(self) -> None:
        """Wait until one more call is within the budget, and count it. Interrupted when the run is to stop meanwhile."""
        async with self._lock:  # first come, first served
            while True:
                wait = self._wait()
                if wait <= 0:
                    break
                await self._runtime.pause(wait)
            self._sent.append(self._runtime.monotonic())

    def _wait(self) -> float:
        now = self._runtime.monotonic()
        while self._sent and self._sent[0] <= now - self.window:
            self._sent.popleft()
        if now < self._not_before:
            return self._not_before - now
        if len(self._sent) >= self.calls:
            return self._sent[0] + self.window - now + 0.001
        return 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody call for so long: the app said so."""
        self._not_before = max(self._not_before, self._runtime.monotonic() + seconds)

    def learn(self, quota: Quota) -> None:
        """Take over the limit that the app tells, and wait for its reset when nothing of our share is left."""
        if quota.limit is not None and quota.limit > 0:
            self.calls = max(1, int(quota.limit * self.share))
        if quota.remaining is not None and quota.reset is not None and quota.limit:
            others = quota.limit - self.calls
            if quota.remaining - others <= 0 and quota.remaining <= 0:
                self.pause(quota.reset)

    def seconds_for(self, calls: int) -> float:
        """How long so many calls take at the least under this budget, in seconds."""
        return max(0, calls - 1) // self.calls * self.window
