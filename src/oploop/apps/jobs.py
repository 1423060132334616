"""Work that an app goes on with by itself, asked after until it has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from oploop.runtime import Runtime

#: By which two questions after a job are further apart than the two before them.
SLOWER = 1.6


async def ended(
    ask: Callable[[], Awaitable[Mapping[str, Any]]],
    has_ended: Callable[[Mapping[str, Any]], bool],
    runtime: Runtime,
    *,
    waits: tuple[float, float],
    patience: float,
    told: Mapping[str, Any] | None = None,
) -> Mapping[str, Any] | None:
    """What a job tells of itself when it has ended; None when it has not for `patience` seconds.

    `told`: what it said when it was begun; `waits`: seconds between the first and between the last two questions.
    """
    wait, began = waits[0], runtime.monotonic()
    while told is None or not has_ended(told):
        if told is not None:
            if runtime.monotonic() - began > patience:
                return None
            await runtime.sleep(wait)
            wait = min(waits[1], wait * SLOWER)
        told = await ask()
    return told


__all__ = ["ended"]
