"""The journal as deliveries write it: an intent before each call, a receipt after it, many in one durable commit.

Callers wait until their row is on disk. While one commit runs, the rows of all other callers gather for the next,
so that thousands of single calls a second cost some hundred commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

from oploop.state import JournalStep

#: Writes rows in one durable commit; the state store's `write_steps`, or the simulation's.
WriteSteps: TypeAlias = Callable[[Sequence[JournalStep]], None]


class Journal:
    """Group commit over a state store. One a run; used from one event loop."""

    def __init__(self, write: WriteSteps) -> None:
        self._write = write
        self._waiting: list[tuple[JournalStep, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def record(self, step: JournalStep) -> None:
        """Return when the step, as it now is, is on disk; raises what the disk said when it refused."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(None, self._write, [step for step, _ in group])
            except Exception as e:  # every caller of this group must know that its row is not safe
                for _, done in group:
                    if not done.done():
                        done.set_exception(e)
                continue
            for _, done in group:
                if not done.done():
                    done.set_result(None)
