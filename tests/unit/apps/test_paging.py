"""Reading ahead: in order, bounded, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from typing import Any

import pytest

from oploop.apps.paging import ahead, at_once, begun, meanwhile


class Source:
    """Pages 0, 1, ... as an API gives them; `bad`: the page in whose place an error comes."""

    def __init__(self, count: int, bad: int | None = None) -> None:
        self.count, self.bad = count, bad
        self.asked = self.given_up = 0
        self.closed = False

    async def pages(self) -> AsyncGenerator[int]:
        try:
            for page in range(self.count):
                self.asked += 1
                await asyncio.sleep(0)
                if page == self.bad:
                    raise ValueError(page)
                yield page
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.closed = True


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_all_pages_come_in_order() -> None:
    source = Source(7)
    async with ahead(source.pages()) as pages:
        assert [page async for page in pages] == list(range(7))
    assert source.closed
    assert not others()


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_no_more_pages_are_asked_for_than_may_wait(most: int) -> None:
    source = Source(20)
    async with ahead(source.pages(), most) as pages:
        await settle()
        assert source.asked == most, "asked for before anybody takes one"
        assert await anext(pages) == 0
        await settle()
        assert source.asked == 1 + most
    assert not others()


async def test_the_next_page_is_asked_for_while_one_is_used() -> None:
    source = Source(3)
    async with ahead(source.pages()) as pages:
        async for page in pages:
            await settle()
            assert source.asked >= min(3, page + 2)


def adding(numbers: list[int], seen: list[int], source: Source) -> Generator[None, None, int]:
    """The sum of numbers, each in a turn of its own; `seen`: the pages that had been asked for in each."""
    total = 0
    for number in numbers:
        total += number
        seen.append(source.asked)
        yield
    return total


async def test_pages_are_asked_for_between_the_turns_of_work() -> None:
    source, seen = Source(5), list[int]()
    async with ahead(source.pages(), 3) as pages:
        assert await anext(pages) == 0
        assert await meanwhile(adding([1, 2, 3, 4, 5, 6, 7, 8], seen, source)) == 36
    assert seen[0] < seen[-1] == 4


async def test_a_page_that_has_come_is_followed_by_the_next_request_in_the_same_turn() -> None:
    class Wired(Source):
        async def pages(self) -> AsyncGenerator[int]:
            async for page in super().pages():
                come = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(come.set_result, None)  # as a socket tells whoever reads from it
                await come
                yield page

    source, seen = Wired(50), list[int]()
    async with ahead(source.pages(), 50) as pages:
        assert await anext(pages) == 0
        await meanwhile(adding([1, 2, 3, 4, 5, 6], seen, source))
    assert seen == list(range(seen[0], seen[0] + 6))


async def test_work_without_turns_comes_to_the_same() -> None:
    seen: list[int] = []
    assert at_once(adding)([1, 2, 3], seen, Source(1)) == 6 == await meanwhile(adding([1, 2, 3], seen, Source(1)))
    with pytest.raises(TypeError):
        await meanwhile(adding(["x"], seen, Source(1)))  # type: ignore[list-item]
    assert await meanwhile(adding([], seen, Source(1))) == 0


async def test_an_error_comes_after_the_pages_before_it() -> None:
    source, seen = Source(5, bad=3), []

    async def read() -> None:
        async with ahead(source.pages()) as pages:
            async for page in pages:
                await settle()  # the error is long there
                seen.append(page)

    with pytest.raises(ValueError, match="3"):
        await read()
    assert seen == [0, 1, 2]
    assert source.asked == 4
    assert not others()


async def test_whoever_leaves_early_leaves_nothing_behind() -> None:
    source = Source(50)

    async def read() -> AsyncGenerator[int]:
        async with ahead(source.pages()) as pages:
            async for page in pages:
                yield page

    reading = read()
    assert await anext(reading) == 0
    asked = source.asked
    await reading.aclose()
    assert source.closed
    assert not others()
    await settle()
    assert source.asked == asked <= 3


async def test_a_reader_that_is_cancelled_gives_up_what_is_under_way() -> None:
    class Hanging(Source):
        async def pages(self) -> AsyncGenerator[int]:
            async for page in super().pages():
                yield page
                await asyncio.Event().wait()

    source = Hanging(5)

    async def read() -> None:
        async with ahead(source.pages()) as pages:
            async for _ in pages:
                pass

    reading = asyncio.create_task(read())
    await settle()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()
    await settle()
    assert not others()


async def test_work_is_begun_ahead_in_order_and_each_error_is_its_items_own() -> None:
    running: list[int] = []
    most = 0

    async def work(n: int) -> int:
        nonlocal most
        running.append(n)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.remove(n)
        if n == 2:
            raise ValueError("no")
        return n * 10

    found: list[Any] = []
    async for n, task in begun(range(6), work, 3):
        try:
            found.append((n, await task))
        except ValueError as e:
            found.append((n, str(e)))
    assert found == [(0, 0), (1, 10), (2, "no"), (3, 30), (4, 40), (5, 50)]
    assert most == 3


async def test_who_leaves_early_leaves_no_work_behind() -> None:
    ended: list[int] = []

    async def work(n: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(n)

    async with aclosing(begun(range(9), work, 3)) as items:
        async for _ in items:
            await asyncio.sleep(0)
            break
    assert ended == [0, 1, 2]
