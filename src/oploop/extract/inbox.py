"""Where many readers leave batches and one loader takes them: bounded by rows and bytes, so that memory stays flat."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from oploop.runtime import Runtime

T = TypeVar("T")

CHUNK_BYTES = 64_000_000


class Inbox(Generic[T]):
    """`put` waits while too much lies there; `take` waits until there is a chunk's worth, or something grew old.

    `chunk_rows`, `chunk_bytes`: a chunk's worth, whichever comes first; twice as much may lie here. `max_age`: seconds after
    which less is worth taking, so that a slow API's cursor is stored now and then.
    """

    def __init__(
        self, runtime: Runtime, *, chunk_rows: int, chunk_bytes: int = CHUNK_BYTES, max_age: float = 15.0
    ) -> None:
        self._runtime = runtime
        self._chunk_rows, self._chunk_bytes = chunk_rows, chunk_bytes
        self._max_age = max_age
        self._items: list[T] = []
        self._chunks = 0.0  #: how many chunks' worth lies here
        self._since = 0.0
        self._closed = False
        self._pause = False
        self._changed = asyncio.Condition()

    async def put(self, item: T, rows: int, size: int = 0, *, pause: bool = False) -> None:
        """Leave an item that stands for so many rows, of so many bytes. `pause`: what lies here is worth taking, as little as it
        may be, since the next will be long in coming."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._chunks < 2)
            if not self._items:
                self._since = self._runtime.monotonic()
            self._items.append(item)
            self._pause |= pause
            self._chunks += max(rows / self._chunk_rows, size / self._chunk_bytes)
            self._changed.notify_all()

    async def close(self) -> None:
        """Nothing more will come."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def take(self) -> list[T]:
        """Everything that lies here, in the order in which it came; empty when nothing more will come."""
        async with self._changed:
            await self._changed.wait_for(self._ready)
            items, self._items, self._chunks, self._pause = self._items, [], 0.0, False
            self._changed.notify_all()
            return items

    def _ready(self) -> bool:
        old = bool(self._items) and self._runtime.monotonic() - self._since >= self._max_age
        return self._closed or self._pause or old or self._chunks >= 1 - 1e-9  # thirds make a whole
