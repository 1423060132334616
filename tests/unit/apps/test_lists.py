"""Lists of an API page by page, and records by their ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest

from oploop.apps.arrow import table_from_records
from oploop.apps.lists import Page, each, fetched, in_parts, listed, paged, whole
from oploop.apps.policy import Answer, Request
from oploop.errors import FixData, RetryLater
from oploop.records import ColumnType, Deletes, Stream
from oploop.runtime import Runtime

BOOKS = Stream(
    "books",
    ("id",),
    {"id": ColumnType.INTEGER, "gone": ColumnType.BOOLEAN},
    incremental=False,
    deletes=Deletes.ABSENCE,
)
RUNTIME = Runtime()
DATE = "Fri, 31 Jan 2025 12:00:00 GMT"
AT = int(datetime(2025, 1, 31, 12, tzinfo=UTC).timestamp()) * 1_000_000


class Api:
    """Answers in turn; `asked`: what it was asked with."""

    def __init__(self, *answers: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answers, self.headers = list(answers), headers if headers is not None else {"date": DATE}
        self.asked: list[dict[str, Any]] = []

    async def ask(self, params: Mapping[str, Any]) -> Answer:
        self.asked.append(dict(params))
        body = orjson.dumps(self.answers[len(self.asked) - 1])
        return Answer(200, self.headers, body, Request("GET", "http://127.0.0.1:9/books?key=secret"))


def page(*ids: int, **more: Any) -> dict[str, Any]:
    return {"books": [{"id": i, "gone": i % 2 == 0} for i in ids], **more}


async def pages_of(api: Api, after: str = "next", more: str | None = None) -> list[list[int]]:
    found = listed(api.ask, RUNTIME, "books", {"limit": 2}, "after", after, more)
    return [[r["id"] for r in p.records] async for p in found]


async def test_each_page_says_where_the_next_one_begins() -> None:
    api = Api(page(1, 2, paging={"next": {"after": 7}}), page(paging={"next": {"after": 8}}), page(3, paging={}))
    assert await pages_of(api, "paging.next.after") == [[1, 2], [], [3]]
    assert api.asked == [{"limit": 2}, {"limit": 2, "after": 7}, {"limit": 2, "after": 8}]


async def test_a_cursor_that_stays_where_it_was_ends_the_list() -> None:
    assert await pages_of(Api(page(1, next="a"), page(2, next="a"))) == [[1], [2]]
    assert await pages_of(Api(page(1, next=""))) == [[1]]


async def test_a_last_page_may_have_a_cursor_too() -> None:
    first, last = page(1, meta={"cursor": "a", "has_more": True}), page(2, meta={"cursor": "b", "has_more": False})
    assert await pages_of(Api(first, last), "meta.cursor", "meta.has_more") == [[1], [2]]


@pytest.mark.parametrize("cursor", ["a", None, ""])
async def test_a_list_that_goes_on_without_saying_where_is_not_taken_for_whole(cursor: str | None) -> None:
    first = page(1, meta={"cursor": "a", "has_more": True})
    with pytest.raises(RetryLater, match="says that there are more books, and not where") as e:
        await pages_of(Api(first, page(2, meta={"cursor": cursor, "has_more": True})), "meta.cursor", "meta.has_more")
    assert "secret" not in str(e.value)


async def test_an_answer_without_the_list_is_told_without_what_it_was_asked_with() -> None:
    with pytest.raises(FixData, match="has no list of books") as e:
        await pages_of(Api({"items": []}))
    assert "secret" not in str(e.value)


async def test_a_stream_that_is_read_whole_ends_complete() -> None:
    api = Api(page(1, 2, next="a"), page(3))
    found = listed(api.ask, RUNTIME, "books", {}, "after", "next")
    batches = [b async for b in whole(BOOKS, found, deleted=lambda rows: rows["gone"])]
    assert [b.table["id"].to_pylist() for b in batches] == [[1, 2], [3], []]
    assert [b.table["_deleted"].to_pylist() for b in batches] == [[False, True], [False], []]
    assert [b.complete for b in batches] == [False, False, True]
    assert batches[-1].cursor == {}
    assert batches[0].table["_version"].to_pylist() == [AT, AT]


async def test_without_the_apps_clock_ours_tells_as_of_when_a_page_is() -> None:
    api = Api(page(1), headers={})
    before = datetime.now(UTC)
    [found] = [p async for p in listed(api.ask, RUNTIME, "books", {}, "after", "next")]
    assert found.began >= before
    assert found.at == round(found.began.timestamp() * 1e6)


async def test_records_are_fetched_so_many_a_call_each_once() -> None:
    asked: list[list[str]] = []

    async def show(ids: Sequence[str]) -> pa.Table:
        asked.append(list(ids))
        rows: list[dict[str, Any]] = [{"id": int(i)} for i in ids]
        return table_from_records(BOOKS, rows, versions=1, extracted_at=datetime.now(UTC))

    batch = await fetched(BOOKS, ["1", "2", "1", "3"], 2, show)
    assert asked == [["1", "2"], ["3"]]
    assert batch.table["id"].to_pylist() == [1, 2, 3]
    nothing = await fetched(BOOKS, [], 2, show)
    assert nothing.table.num_rows == 0
    assert {"id", "gone", "_raw"} <= set(nothing.table.column_names)


def test_parts_and_pages() -> None:
    assert list(in_parts([1, 2, 3], 2)) == [[1, 2], [3]]
    table = Page([{"id": 1}], datetime.now(UTC), 5).table(BOOKS, exclude={"gone"})
    assert "gone" not in table.column_names


async def test_single_records_are_asked_for_some_at_once() -> None:
    under_way, most = 0, 0

    async def show(remote_id: str) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return int(remote_id)

    assert await each(map(str, [*range(9), 3]), 4, show) == {str(n): n for n in range(9)}
    assert most == 4


async def test_what_stands_in_a_page_may_tell_what_the_next_is_asked_with() -> None:
    api = Api(page(1, 2, session="s", size=2), page(3, 4, session="s", size=2), page(5, session="s", size=2))
    seen: list[tuple[int, list[int]]] = []

    def following(answer: Answer, told: Mapping[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        seen.append((answer.status, [r["id"] for r in records]))
        return {"session": told["session"], "page": len(seen)} if len(records) == told["size"] else None

    found = paged(api.ask, RUNTIME, "books", {"limit": 2}, ("session", "size"), following)
    assert [[r["id"] for r in p.records] async for p in found] == [[1, 2], [3, 4], [5]]
    assert seen == [(200, [1, 2]), (200, [3, 4]), (200, [5])]
    more = {"limit": 2, "session": "s"}
    assert api.asked == [{"limit": 2}, {**more, "page": 1}, {**more, "page": 2}]
    with pytest.raises(FixData, match="has no list of books"):
        await anext(paged(Api({"items": []}).ask, RUNTIME, "books", {}, (), lambda *_: None))
