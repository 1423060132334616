"""Reading ahead: while one page is made into rows, the next one is asked for already.

    async with ahead(self._pages(...)) as pages:      # a generator that waits for the network, and does little else
        async for page in pages:
            yield Batch(..., await meanwhile(records_in_turns(...)), page.cursor)

The pages come in order, each with the place that a read goes on from after it; so a cursor never passes the rows before
it, whatever has been asked for meanwhile.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager
from functools import wraps
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from oploop.runtime import others_first

T = TypeVar("T")
V = TypeVar("V")
P = ParamSpec("P")

MOST = 2  #: pages asked for, or here, that nobody has taken yet
MOST_SMALL = 10  #: the same of pages of some 100 records, of which a batch is made together


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

    async def take() -> AsyncGenerator[T]:
        while (found := await queue.get()) is not None:
            if isinstance(found, Exception):
                raise found
            room.release()
            yield found[0]

    task, taken = asyncio.create_task(ask()), take()
    try:
        yield taken
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await taken.aclose()
        await pages.aclose()


async def begun(
    items: Iterable[T], work: Callable[[T], Coroutine[Any, Any, V]], most: int
) -> AsyncGenerator[tuple[T, Task[V]]]:
    """Each item, in order, with the work on it, which began ahead of whoever takes it: so much is under way at the most. Whoever
    awaits it meets its errors; the others go on. Whoever leaves early leaves nothing behind."""
    coming, under_way = iter(items), deque[tuple[T, Task[V]]]()
    try:
        while True:
            under_way += [(item, asyncio.create_task(work(item))) for item in islice(coming, most - len(under_way))]
            if not under_way:
                return
            yield under_way[0]
            under_way.popleft()
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)


async def meanwhile(work: Generator[None, None, T]) -> T:
    """What the work comes to. Between two turns of it pages are taken in, and more asked for: else an app would wait for
    us to end, as we have waited for it."""
    while True:
        try:
            next(work)
        except StopIteration as e:
            found: T = e.value
            return found
        await others_first()


def at_once(work: Callable[P, Generator[None, None, T]]) -> Callable[P, T]:
    """The same work without turns."""

    @wraps(work)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        turns = work(*args, **kwargs)
        while True:
            try:
                next(turns)
            except StopIteration as e:
                found: T = e.value
                return found

    return whole
