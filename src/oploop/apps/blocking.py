"""Drivers and libraries that block, called from an app that does not: each of their steps in one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


async def in_a_thread(items: Generator[T], name: str) -> AsyncGenerator[T]:
    """What a generator that blocks yields. All that it does, to its closing, is done in one and the same thread, since a
    connection often belongs to the thread that made it. `name`: the thread's."""
    with ThreadPoolExecutor(1, thread_name_prefix=name) as thread:
        loop = asyncio.get_running_loop()
        try:
            while (item := await loop.run_in_executor(thread, next, items, None)) is not None:
                yield item
        finally:
            await loop.run_in_executor(thread, items.close)


class Kept(Generic[K, T]):
    """What threads made, for all who ask for it: nothing is made twice at once, and the last of it is kept, within a bound, for those
    who ask a little later (streams of the same files that are read side by side). A failure is not kept."""

    def __init__(self, room: int, size: Callable[[T], int]) -> None:
        """`room`: the most that is kept, in the unit of `size`; the oldest goes first."""
        self._room, self._size = room, size
        self._tasks: dict[K, asyncio.Task[T]] = {}

    async def get(self, key: K, make: Callable[[], T]) -> T:
        """What `make` makes, in a thread, unless it is kept or being made already."""
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(make))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # whoever awaits it raises it
            self._tasks[key] = task
        try:
            made = await asyncio.shield(task)
        except Exception:
            self._tasks.pop(key, None)
            raise
        self._make_room(key)
        return made

    def _make_room(self, just_used: K) -> None:
        done = {k: t for k, t in self._tasks.items() if t.done() and not t.cancelled() and t.exception() is None}
        total = sum(self._size(t.result()) for t in done.values())
        for key, task in done.items():
            if total <= self._room:
                return
            if key != just_used:
                total -= self._size(task.result())
                del self._tasks[key]

    async def aclose(self) -> None:
        """Let go of everything."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


__all__ = ["Kept", "in_a_thread"]
