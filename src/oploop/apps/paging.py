"""Reading ahead: while one page is made into rows, the next one is asked for already.

    async with ahead(self._pages(...)) as pages:      # a generator that waits for the network, and does little else
        async for page in pages:
            yield Batch(..., table_from_records(...), page.cursor)

The pages come in order, each with the place that a read goes on from after it; so a cursor never passes the rows before
it, whatever has been asked for meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")

MOST = 2  #: pages asked for, or here, that nobody has taken yet


@asynccontextmanager
async def ahead(pages: AsyncGenerator[T], most: int = MOST) -> AsyncIterator[AsyncIterator[T]]:
    """`pages`, asked for ahead of whoever takes them, at the most `most` of them.

    An error comes in its place, after the pages before it. Whoever leaves early leaves nothing behind: what is under way
    is given up, and `pages` is closed.
    """
    room = asyncio.Semaphore(most)
    queue: asyncio.Queue[tuple[T] | Exception | None] = asyncio.Queue()

    async def ask() -> None:
        try:
            while True:
                await room.acquire()
                queue.put_nowait((await anext(pages),))
        except StopAsyncIteration:
            queue.put_nowait(None)
        except Exception as e:
            queue.put_nowait(e)

    async def take() -> AsyncIterator[T]:
        while (found := await queue.get()) is not None:
            if isinstance(found, Exception):
                raise found
            room.release()
            yield found[0]

    task = asyncio.create_task(ask())
    try:
        yield take()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await pages.aclose()
