"""Lists of an API: their pages one after the other, as rows, and single records by their ids.

pages = listed(ask, "books", {"limit": 100}, "after", "paging.next")      where the next page begins stands in each answer
pages = paged(ask, "books", {}, ["total"], following)                     or is told by what stands there
whole(stream, pages, options.exclude)                                     of a list that is read whole each time
fetched(stream, ids, 100, show)                                           App.fetch, so many ids a call
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa

from oploop.apps.arrow import Of, empty_table, records_in_turns
from oploop.apps.base import micros
from oploop.apps.documents import at
from oploop.apps.jsonrows import Records, records_in
from oploop.apps.origin import bare
from oploop.apps.paging import ahead, at_once, meanwhile
from oploop.apps.policy import Answer
from oploop.errors import FixData, RetryLater
from oploop.records import Batch, Stream
from oploop.runtime import Runtime

T = TypeVar("T")
#: Asks for what these parameters name.
Ask = Callable[[Mapping[str, Any]], Awaitable[Answer]]
#: What is asked for the next page beside what was asked for the last one, by its answer; None: that was the last.
Following = Callable[[Answer, Mapping[str, Any], Records], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Page:
    """Records as they stand in an answer, when it was asked for, and as of when it shows them (microseconds since 1970): by the
    app's clock where it tells."""

    records: Sequence[dict[str, Any]]
    began: datetime
    at: int

    @classmethod
    def of(cls, answer: Answer, records: Sequence[dict[str, Any]], began: datetime) -> Page:
        return cls(records, began, answer.date_micros() or micros(began))

    def in_turns(
        self, stream: Stream, exclude: Iterable[str] = (), deleted: Sequence[bool] | Of | None = None
    ) -> Generator[None, None, pa.Table]:
        """The records as rows of a stream, known as of the answer, whenever they changed; see `paging.meanwhile`."""
        return records_in_turns(
            stream, self.records, versions=self.at, extracted_at=self.began, deleted=deleted, exclude=exclude
        )

    table = at_once(in_turns)


async def paged(
    ask: Ask, runtime: Runtime, name: str, asked: Mapping[str, Any], members: Iterable[str], following: Following
) -> AsyncGenerator[Page]:
    """The pages of a list: `name` is what it is called in the answers; what is asked for the next page, `following` tells by these
    other members of an answer. FixData where there is no list."""
    while True:
        began = runtime.now()
        answer = await ask(asked)
        told, records = records_in(answer, name, *members)
        if records is None:
            where = bare(answer.request.url)
            raise FixData(f"the answer of {where} has no list of {name}", mend="check base_url")
        yield Page.of(answer, records, began)
        further = following(answer, told, records)
        if further is None:
            return
        asked = {**asked, **further}


def listed(
    ask: Ask, runtime: Runtime, name: str, asked: Mapping[str, Any], param: str, after: str, more: str | None = None
) -> AsyncGenerator[Page]:
    """The pages of a list where each says where the next begins: `param` asks for the page that begins where an answer says
    it at `after` (a dotted path). After the last page nothing stands there, or, where it is given, at `more`; RetryLater where there
    is more and no way to it.
    """
    last = asked.get(param)

    def following(answer: Answer, told: Mapping[str, Any], records: Records) -> Mapping[str, Any] | None:
        nonlocal last
        place = at(told, after)
        if more is not None and not at(told, more):
            return None
        if place in (None, "", last):
            if more is None:
                return None
            where = bare(answer.request.url)  # not the end: what is not shown would count as gone
            raise RetryLater(f"{where} says that there are more {name}, and not where", mend="run again later")
        last = place
        return {param: place}

    members = dict.fromkeys(p.split(".")[0] for p in (after, more) if p is not None)
    return paged(ask, runtime, name, asked, members, following)


async def whole(
    stream: Stream,
    pages: AsyncGenerator[Page],
    exclude: Iterable[str] = (),
    deleted: Callable[[pa.Table], pa.Array] | None = None,
) -> AsyncGenerator[Batch]:
    """A stream that each read shows whole. `deleted`: which rows say themselves that they are gone, by their columns."""
    async with ahead(pages) as found:
        async for page in found:
            yield Batch(stream.name, await meanwhile(page.in_turns(stream, exclude, deleted)))
    yield Batch(stream.name, empty_table(stream, exclude), {}, complete=True)


async def fetched(
    stream: Stream, ids: Iterable[str], size: int, show: Callable[[Sequence[str]], Awaitable[pa.Table]]
) -> Batch:
    """See App.fetch. `show` gives the rows of so many ids at the most."""
    tables = [await show(part) for part in in_parts(list(dict.fromkeys(ids)), size)]
    return Batch(stream.name, pa.concat_tables([empty_table(stream), *tables], promote_options="default"))


async def each(ids: Iterable[str], at_once: int, show: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """What `show` gives of each id, for an API that shows one record a call; so many calls are under way at once."""
    slots = asyncio.Semaphore(at_once)

    async def one(remote_id: str) -> T:
        async with slots:
            return await show(remote_id)

    wanted = list(dict.fromkeys(ids))
    return dict(zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True))


def in_parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in parts of so many at the most."""
    return (items[i : i + size] for i in range(0, len(items), size))


__all__ = ["Ask", "Following", "Page", "each", "fetched", "in_parts", "listed", "paged", "whole"]
