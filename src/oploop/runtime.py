"""What a run takes from the world outside: clock, sleep, ids, chance, threads.

`loop` makes one Runtime and hands it to everything, so that a whole run can be simulated and replayed
from a seed. No other module may call `time`, `datetime.now`, `asyncio.sleep`, `random` or a ULID maker.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def _new_id() -> str:
    from ulid import ULID

    return str(ULID())


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Clock (aware UTC datetimes), monotonic seconds, async sleep (seconds), new ids (ULIDs: sortable by time)."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    new_id: Callable[[], str] = _new_id
    random: random.Random = field(default_factory=random.Random)
