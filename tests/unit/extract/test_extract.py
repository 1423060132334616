"""Extracting with the real loader: streams side by side, cursors, deletes, failures."""

import asyncio
import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.extract import StreamProgress, StreamResult, StreamStatus, extract, load_fetched, stream_states
from oploop.extract.inbox import Inbox
from oploop.records import Batch, Cursor, ReadOptions
from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from tests.unit.extract.listed import CHARGES, LISTED, START, Clock, ListedApp, Page, always
from tests.unit.extract.listed import batch as batched
from tests.warehouses import warehouse

__all__ = ["warehouse"]


@dataclasses.dataclass
class Setup:
    clock: Clock
    warehouse: Warehouse

    async def __call__(self, *requests: Any, **options: Any) -> list[StreamResult]:
        return await extract(requests, self.warehouse, self.clock.runtime(), **options)

    def live(self, table: str = "raw_shop.charges") -> list[str]:
        return [i for (i,) in self.warehouse.rows(f"SELECT id FROM {table} ORDER BY id")]


@pytest.fixture
def do(warehouse: Warehouse) -> Setup:
    for schema in {t.split(".")[0] for t in warehouse.tables()}:
        warehouse.execute(f'DROP SCHEMA "{schema}" CASCADE')
    return Setup(Clock(), warehouse)


def page(*ids: str, cursor: Cursor | None = None, complete: bool = False, **fields: Any) -> Page:
    return Page([{"id": i, **fields} for i in ids], cursor, complete)


async def test_streams_of_several_apps_are_read_side_by_side(do: Setup) -> None:
    meeting = asyncio.Barrier(3)

    class Meeting(ListedApp):
        async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
            await asyncio.wait_for(meeting.wait(), 5)  # only passes when all three are here
            async for batch in super().read(stream, cursor, options):
                yield batch

    shop = Meeting(
        do.clock, {"charges": always(page("a", complete=True)), "organizations": always(page(complete=True))}
    )
    other = Meeting(do.clock, {"charges": always(page("b", "c", complete=True))}, name="o-ther")
    shop.notes.append("two files were cut short")
    seen: list[StreamProgress] = []
    results = await do(shop.request(), shop.request("organizations"), other.request(), progress=seen.append)
    assert [(r.app, r.stream, r.rows, r.status) for r in results] == [
        ("shop", "charges", 1, StreamStatus.OK),
        ("shop", "organizations", 0, StreamStatus.OK),
        ("o-ther", "charges", 2, StreamStatus.OK),
    ]
    assert [r.notes for r in results] == [["two files were cut short"], [], []]
    assert do.live() == ["a"]
    assert do.live('"raw_o-ther".charges') == ["b", "c"]
    assert StreamProgress("o-ther", "charges", 2, 2, True) in seen
    assert not any(t.startswith("oploop_staging") for t in do.warehouse.tables())


async def test_a_later_read_goes_on_from_the_cursor_and_full_begins_anew(do: Setup) -> None:
    app = ListedApp(do.clock, {"charges": always(page("a", cursor={"at": 1}, complete=True))})
    await do(app.request())
    await do(app.request())
    await do(app.request(full=True))
    assert app.asked == [None, {"at": 1}, None]


async def test_a_turn_with_nothing_new_loads_nothing(do: Setup) -> None:
    again = page("a", "b", cursor={"at": 1}, complete=True, amount=1)
    app = ListedApp(do.clock, {"charges": lambda cursor: [again if cursor is None else
                                                         dataclasses.replace(again, cursor={"at": 2})]})  # fmt: skip
    [first] = await do(app.request())
    assert (first.rows, first.read) == (2, 2)
    [second] = await do(app.request())
    assert (second.status, second.rows, second.read, second.deleted) == (StreamStatus.OK, 0, 2, 0)
    state = stream_states(do.warehouse)["shop", "charges"]
    assert state.cursor == {"at": 2}
    assert state.complete_began == second.read_began
    [(oldest,)] = do.warehouse.rows('SELECT min("_extracted_at") FROM raw_shop.charges')
    assert second.read_began is not None
    assert oldest > second.read_began


async def test_what_a_complete_read_does_not_show_is_gone(do: Setup) -> None:
    scripts = {"organizations": always(page("a", "b", "c", complete=True))}
    app = ListedApp(do.clock, scripts)
    await do(app.request("organizations"))
    scripts["organizations"] = always(page("a"), page("d", complete=True))
    do.clock.tick(60)
    [result] = await do(app.request("organizations"))
    assert (result.rows, result.deleted) == (1, 2)
    assert do.live("raw_shop.organizations") == ["a", "d"]
    gone = do.warehouse.rows('SELECT DISTINCT "_version" FROM raw_shop.organizations__all WHERE "_deleted"')
    assert result.read_began is not None
    assert gone == [(round(result.read_began.timestamp() * 1e6),)]


async def test_what_was_seen_within_the_lag_need_not_be_shown_yet(do: Setup) -> None:
    app = ListedApp(do.clock, {"organizations": always(page("a", "b", complete=True))})
    await do(app.request("organizations"))
    app.scripts = {"organizations": always(page("a", complete=True))}
    app.streams = {"organizations": dataclasses.replace(LISTED, lag=60.0)}
    do.clock.tick(50)
    [result] = await do(app.request("organizations"))
    assert (result.deleted, do.live("raw_shop.organizations")) == (0, ["a", "b"])
    do.clock.tick(61)
    [result] = await do(app.request("organizations"))
    assert (result.deleted, do.live("raw_shop.organizations")) == (1, ["a"])


async def test_when_the_clock_was_set_back_no_earlier_read_vouches_for_what_comes(do: Setup) -> None:
    app = ListedApp(
        do.clock,
        {
            "charges": always(page("a", cursor={"at": 1}), RetryLater("busy")),
            "organizations": always(page(complete=True)),
        },
    )
    await do(app.request(), app.request("organizations"))
    assert stream_states(do.warehouse)["shop", "charges"].cursor == {"at": 1}
    do.warehouse.execute("DROP SCHEMA raw_shop CASCADE")  # by a person, who wants to read anew
    app.scripts = {"charges": always(page("a", complete=True)), "organizations": always(RetryLater("busy"))}
    await do(app.request())
    now = do.clock.tick(-3600)
    app.scripts = {"charges": always(RetryLater("busy"))}
    await do(app.request())
    states = stream_states(do.warehouse)
    for name in ("charges", "organizations"):
        state = states["shop", name]
        assert (state.complete_began, state.reading, state.cursor) == (None, False, None), name
    [(seen,)] = do.warehouse.rows("SELECT max(_extracted_at) FROM raw_shop.charges")
    assert seen <= now
    app.scripts = {"charges": always(page("b", complete=True)), "organizations": always(page("c", complete=True))}
    await do(app.request(), app.request("organizations"))
    assert (do.live(), do.live("raw_shop.organizations")) == (["a", "b"], ["c"])


async def test_an_incomplete_read_proves_no_absence_until_it_was_resumed_to_its_end(do: Setup) -> None:
    def scripted(cursor: Cursor | None) -> list[Page | BaseException]:
        if cursor is None:
            return [page("a", "b", cursor={"at": 1}), RetryLater("busy")]
        return [page("c", complete=True)]

    scripts = {"organizations": always(page("a", "b", "c", "d", complete=True))}
    app = ListedApp(do.clock, scripts)
    await do(app.request("organizations"))
    do.clock.tick(60)
    scripts["organizations"] = scripted
    [failed] = await do(app.request("organizations"))
    assert failed.status is StreamStatus.FAILED
    assert isinstance(failed.error, RetryLater)
    assert do.live("raw_shop.organizations") == ["a", "b", "c", "d"]
    do.clock.tick(60)
    [resumed] = await do(app.request("organizations"))
    assert resumed.read_began == failed.read_began
    assert app.asked == [None, None, {"at": 1}]
    assert resumed.deleted == 1
    assert do.live("raw_shop.organizations") == ["a", "b", "c"]


async def test_a_listing_anew_proves_absence_from_its_own_begin(do: Setup) -> None:
    app = ListedApp(do.clock, scripts := {"charges": always(page("a", "b", cursor={"at": 1}, complete=True))})
    await do(app.request())
    do.clock.tick(60)
    scripts["charges"] = always(page("b", cursor={"at": 2}), RetryLater("busy"))
    await do(app.request())
    do.clock.tick(60)
    scripts["charges"] = always(page("c", cursor={"relist": True}), RetryLater("busy"))
    await do(app.request())
    do.clock.tick(60)
    scripts["charges"] = always(page("d", cursor={"relisted": True}, complete=True))
    [result] = await do(app.request())
    assert do.live() == ["c", "d"]  # b was seen after the unfinished read began, but not by the listing
    assert result.deleted == 2


async def test_one_streams_failure_does_not_stop_the_others(do: Setup) -> None:
    app = ListedApp(
        do.clock,
        {
            "charges": always(page("a", cursor={"at": 1}), FixConfig("wrong api_token")),
            "organizations": always(page("o", complete=True)),
        },
    )
    defect = ListedApp(do.clock, {"charges": always(ZeroDivisionError("ouch"))}, name="defect")
    lazy = ListedApp(do.clock, {"charges": always(page("x"))}, name="lazy")
    bad = ListedApp(
        do.clock, {"charges": always(Page([{"id": None}], {"at": 9}), page("y", complete=True))}, name="bad"
    )
    results = await do(app.request(), app.request("organizations"), defect.request(), lazy.request(), bad.request())
    assert [r.status for r in results] == ["failed", "ok", "failed", "failed", "failed"]
    said = [str(r.error) for r in results]
    assert said[0] == "wrong api_token"
    assert "ZeroDivisionError: ouch" in said[2]
    assert isinstance(results[2].error, OploopError)
    assert "ended before it had caught up" in said[3]
    assert "no 'id'" in said[4]
    assert do.live() == ["a"]
    assert do.live("raw_bad.charges") == []
    states = stream_states(do.warehouse)
    assert states["shop", "charges"].cursor == {"at": 1}
    assert ("bad", "charges") not in states


async def test_a_chunk_that_one_streams_rows_spoil_is_loaded_for_the_others(do: Setup) -> None:
    """A timestamp that no engine takes: the staging of all fails, then only this stream's."""
    import pyarrow as pa

    class Strange(ListedApp):
        async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
            async for batch in super().read(stream, cursor, options):
                durations = pa.array([1] * batch.table.num_rows, pa.month_day_nano_interval())
                yield dataclasses.replace(batch, table=batch.table.add_column(0, "odd", durations))

    app = ListedApp(do.clock, {"charges": always(page("a", complete=True))})
    strange = Strange(do.clock, {"charges": always(page("b", cursor={"at": 1}, complete=True))}, name="strange")
    good, bad = await do(app.request(), strange.request())
    assert good.status is StreamStatus.OK
    assert bad.status is StreamStatus.FAILED
    assert "strange.charges" in str(bad.error)
    assert do.live() == ["a"]
    assert ("strange", "charges") not in stream_states(do.warehouse)


async def test_afterwards_the_file_is_let_go(tmp_path: Path) -> None:
    """Also of the loader's own connections: another process can open it as soon as ours has closed it."""
    file = open_warehouse(tmp_path / "w.duckdb", read_only=False, runtime=Runtime())
    do = Setup(Clock(), file)
    await do(ListedApp(do.clock, {"charges": always(page("a", complete=True))}).request())
    do.warehouse.close()
    code = (
        "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('SELECT id FROM raw_shop.charges').fetchall())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w.duckdb")]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.stdout == "[('a',)]\n", done.stderr


async def test_cancelling_ends_readers_and_loader(do: Setup) -> None:
    asked = asyncio.Event()
    closed: list[str] = []

    class Endless(ListedApp):
        async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
            try:
                asked.set()
                await asyncio.Event().wait()
                yield Batch(stream, None)
            finally:
                closed.append(stream)

    app = Endless(do.clock, {})
    task = asyncio.create_task(do(app.request(), app.request("organizations")))
    await asked.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert sorted(closed) == ["charges", "organizations"]


async def test_the_inbox_holds_no_more_than_two_chunks_and_gives_up_old_ones() -> None:
    clock = Clock()
    inbox: Inbox[int] = Inbox(clock.runtime(), chunk_rows=10, max_age=5)
    await inbox.put(1, 10)
    await inbox.put(2, 10)
    late = asyncio.create_task(inbox.put(3, 1))
    await asyncio.sleep(0)
    assert not late.done()
    assert await inbox.take() == [1, 2]
    await late
    taker = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    assert not taker.done()
    clock.tick(6)
    await inbox.put(4, 1)
    assert await taker == [3, 4]
    await inbox.put(5, 0)
    await inbox.close()
    assert await inbox.take() == [5]
    assert await inbox.take() == []
    assert clock.now > START


async def test_the_inbox_counts_bytes_too() -> None:
    inbox: Inbox[int] = Inbox(Clock().runtime(), chunk_rows=10, chunk_bytes=100)
    await inbox.put(1, 1, 60)
    taker = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    assert not taker.done()
    await inbox.put(2, 1, 60)
    assert await taker == [1, 2]


async def test_what_lies_in_the_inbox_is_taken_at_a_pause() -> None:
    inbox: Inbox[int] = Inbox(Clock().runtime(), chunk_rows=10)
    await inbox.put(1, 1)
    taker = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    assert not taker.done()
    await inbox.put(2, 0, pause=True)
    assert await taker == [1, 2]
    taker = asyncio.create_task(inbox.take())
    await inbox.put(3, 1)
    await asyncio.sleep(0)
    assert not taker.done()
    await inbox.close()
    assert await taker == [3]


async def test_what_comes_before_a_pause_is_merged_while_the_reader_goes_on(do: Setup) -> None:
    merged = asyncio.Event()

    class Slow(ListedApp):
        async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
            async for batch in super().read(stream, cursor, options):
                yield dataclasses.replace(batch, complete=False, pause=True)
                await asyncio.wait_for(merged.wait(), 5)
                yield dataclasses.replace(batch, table=batch.table.slice(0, 0))

    def note(progress: StreamProgress) -> None:
        if progress.loaded:
            merged.set()

    [result] = await do(Slow(do.clock, {"charges": always(page("a", complete=True))}).request(), progress=note)
    assert (result.rows, result.error, do.live()) == (1, None, ["a"])


async def test_a_reader_is_told_that_records_came_by_key_which_no_read_has_shown(do: Setup) -> None:
    asked: list[bool] = []

    class Told(ListedApp):
        async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
            asked.append(options.fetched)
            async for batch in super().read(stream, cursor, options):
                yield batch

    app = Told(do.clock, {"charges": always(page("a", cursor={"at": 1}, complete=True))})
    await do(app.request())
    await do(app.request())
    stream = CHARGES
    for ids in (["a"], ["b", "a"]):
        do.clock.tick()
        load_fetched(do.warehouse, "shop", stream, batched(stream, Page([{"id": i} for i in ids]), do.clock.now))
        await do(app.request())
    await do(app.request())
    assert asked == [False, False, False, True, False]
