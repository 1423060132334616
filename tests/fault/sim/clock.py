"""Time that passes only when nothing else can happen, and an event loop in which everything has one order.

Two runs of one seed take the same steps in the same order: sleeping jumps the clock, threads run at once where they are started,
ids are counted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from oploop.runtime import Runtime

T0 = datetime(2025, 3, 1, 12, tzinfo=UTC)


class Clock:
    """Seconds since the schedule began, as the world has them, and our own wall clock, which may jump."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.offset = 0.0  #: how far our wall clock is off
        self._ids = itertools.count(1)
        self.last_id = ""

    def now(self) -> datetime:
        """Our wall clock."""
        return T0 + timedelta(seconds=self.seconds + self.offset)

    def true_micros(self) -> int:
        """The world's clock, by which the app stamps its records."""
        return round((T0 + timedelta(seconds=self.seconds)).timestamp() * 1_000_000)

    def runtime(self, rng: random.Random) -> Runtime:
        return Runtime(
            now=self.now, monotonic=lambda: self.seconds, sleep=asyncio.sleep, new_id=self.new_id, random=rng
        )

    def new_id(self) -> str:
        self.last_id = f"R{next(self._ids):07}"
        return self.last_id


class NothingLeft(Exception):
    """Nothing is ready and no timer runs: something waits for ever."""


class _Jump:
    """A selector that waits by moving the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise NothingLeft("something waits for what never comes")
        self._clock.seconds += max(0.0, timeout)
        return []

    def close(self) -> None: ...


class SimLoop(asyncio.BaseEventLoop):
    """An event loop on a Clock, without sockets and threads."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._clock_resolution = 1e-6
        self._selector = _Jump(clock)

    def time(self) -> float:
        return self._clock.seconds

    def _process_events(self, events: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Run it here and now: a thread would make an order of its own."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except BaseException as e:
            done.set_exception(e)
        return done
