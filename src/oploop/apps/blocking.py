"""Drivers and libraries that block, called from an app that does not: each of their steps in one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


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


__all__ = ["in_a_thread"]
