"""Reading: full, resumed from any cursor, incremental; what the exports withhold, mark and repeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.apps.zendesk.streams import Reader
from oploop.errors import FixConfig, FixData, RetryLater
from oploop.records import Batch, Cursor, Deletes, ReadOptions
from tests.apps.zendesk.conftest import TEXT_ID, VirtualClock, make_app

ALL = ReadOptions()


async def read(
    app: ZendeskApp, stream: str, cursor: Cursor | None = None, page: int = 1000, options: ReadOptions = ALL
) -> list[Batch]:
    """All batches of one read."""
    return [batch async for batch in Reader(app.client, page).read(stream, cursor, options)]


def rows(batches: list[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.table.to_pylist()]


def ids(batches: list[Batch]) -> list[int]:
    return [row["id"] for row in rows(batches)]


async def test_a_full_read_brings_every_record_once_with_types(app: ZendeskApp) -> None:
    batches = await read(app, "tickets", page=100)
    assert [len(b.table) for b in batches] == [100, 100, 100]
    assert [b.complete for b in batches] == [False, False, True]
    assert sorted(ids(batches)) == list(range(1, 301))
    first = rows(batches)[0]
    assert first["subject"] == "Drücker brennt 0 🔥"
    assert first["updated_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    assert first["_version"] == first["generated_timestamp"] * 1_000_000
    assert orjson.loads(first["custom_fields"])[0] == {"id": TEXT_ID, "value": None}
    assert first["_deleted"] is False
    assert "fields" not in first
    assert "fields" in orjson.loads(first["_raw"])
    users = await read(app, "users")
    assert len(rows(users)) == 40
    assert rows(users)[0]["_version"] == int(rows(users)[0]["updated_at"].timestamp()) * 1_000_000


async def test_reading_again_from_any_yielded_cursor_loses_nothing(app: ZendeskApp) -> None:
    for stream, page in (("tickets", 70), ("users", 9), ("organizations", 12)):
        batches = await read(app, stream, page=page)
        for n, batch in enumerate(batches):
            assert batch.cursor is not None
            again = await read(app, stream, orjson.loads(orjson.dumps(batch.cursor)), page=page)
            assert set(ids(batches[: n + 1])) | set(ids(again)) == set(ids(batches))
            assert again[-1].complete


async def test_a_later_read_brings_only_what_changed(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    cursor = (await read(app, "tickets"))[-1].cursor
    quiet = await read(app, "tickets", cursor)
    assert (ids(quiet), quiet[-1].complete, quiet[-1].cursor) == ([], True, cursor)
    sandbox.store.update("tickets", 7, {"priority": "urgent"})
    sandbox.store.update("tickets", 9, {"status": "solved"})
    sandbox.advance(61)
    later = await read(app, "tickets", cursor)
    assert {r["id"]: (r["priority"], r["status"]) for r in rows(later)} == {
        7: ("urgent", "open"),
        9: ("normal", "solved"),
    }
    assert ids(await read(app, "tickets", later[-1].cursor)) == []


async def test_the_last_minute_is_withheld_and_then_comes(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    cursor = (await read(app, "tickets"))[-1].cursor
    sandbox.store.update("tickets", 7, {"priority": "low"})
    sandbox.advance(57)
    withheld = await read(app, "tickets", cursor)
    assert ids(withheld) == []
    sandbox.advance(5)
    assert ids(await read(app, "tickets", withheld[-1].cursor)) == [7]
    assert app.streams["tickets"].lag == 60


async def test_a_system_update_moves_the_version_alone(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    first = await read(app, "tickets")
    before = {r["id"]: r for r in rows(first)}
    sandbox.system_update([3])
    sandbox.advance(120)
    (after,) = rows(await read(app, "tickets", first[-1].cursor))
    assert after["id"] == 3
    assert after["updated_at"] == before[3]["updated_at"]
    assert after["_version"] > before[3]["_version"]


async def test_deleted_records_are_marked(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    cursors = {s: (await read(app, s))[-1].cursor for s in ("tickets", "users", "organizations")}
    sandbox.store.delete("tickets", 5)
    sandbox.store.delete("users", 510)
    sandbox.store.delete("organizations", 55)
    sandbox.advance(90)
    seen = {s: {r["id"]: r["_deleted"] for r in rows(await read(app, s, c))} for s, c in cursors.items()}
    assert seen["tickets"] == {5: True}
    assert seen["users"] == {510: True}
    assert seen["organizations"][55] is True
    assert sum(seen["organizations"].values()) == 1


async def test_time_based_pages_repeat_the_boundary_and_end(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.load(
        "organizations",
        [{"id": 100 + i, "name": f"N{i}", "updated_at": f"2026-02-01T00:00:{i // 2:02}Z"} for i in range(20)],
    )
    batches = await read(app, "organizations", page=5)
    got = ids(batches)
    assert set(got) == {*range(50, 62), *range(100, 120)}
    assert len(got) > len(set(got)), "each page begins with the last second of the one before"
    assert batches[-1].complete


async def test_more_organizations_in_one_second_than_a_page_holds(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.reset()
    sandbox.load(
        "organizations", [{"id": i, "name": f"N{i}", "updated_at": "2026-02-01T00:00:00Z"} for i in range(1, 131)]
    )
    sandbox.load("organizations", [{"id": 200, "name": "after", "updated_at": "2026-02-01T00:00:01Z"}])
    batches = await read(app, "organizations", page=10)
    assert set(ids(batches)) == {*range(1, 131), 200}
    assert batches[-1].complete
    assert batches[-1].cursor == {"start_time": int(datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC).timestamp())}


async def test_an_empty_account_keeps_its_place(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.reset()
    for stream in ("tickets", "users", "organizations"):
        (batch,) = await read(app, stream)
        assert (len(batch.table), batch.complete, batch.cursor) == (0, True, {"start_time": 0})


async def test_a_last_page_without_a_cursor_keeps_the_one_before(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    cursor = (await read(app, "tickets"))[-1].cursor
    empty = orjson.dumps({"tickets": [], "after_cursor": None, "end_of_stream": True}).decode()
    sandbox.faults.append(Fault("GET /api/v2/incremental", "status", status=200, body=empty))
    (batch,) = await read(app, "tickets", cursor)
    assert (batch.cursor, batch.complete) == (cursor, True)


async def test_since_is_kept_and_never_too_recent(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    since = ReadOptions(since=datetime(2026, 1, 1, 4, 0, tzinfo=UTC))
    assert min(ids(await read(app, "tickets", options=since))) == 241
    now = ReadOptions(since=datetime.now(UTC) + timedelta(seconds=3))
    assert ids(await read(app, "tickets", options=now)) == []


async def test_excluded_fields_leave_columns_and_raw_with_their_twins(app: ZendeskApp) -> None:
    options = ReadOptions(exclude=frozenset({"custom_fields", "subject"}))
    row = rows(await read(app, "tickets", options=options))[0]
    raw = orjson.loads(row["_raw"])
    for name in ("custom_fields", "fields", "subject", "raw_subject"):
        assert name not in row
        assert name not in raw


async def test_unknown_fields_become_json_columns(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.load("tickets", [{"id": 400, "subject": "x", "encoded_id": "AB-1"}])
    assert {r["id"]: r["encoded_id"] for r in rows(await read(app, "tickets"))}[400] == '"AB-1"'


async def test_ticket_fields_come_whole_each_time(app: ZendeskApp) -> None:
    batches = await read(app, "ticket_fields")
    assert batches[-1].complete
    assert {"Priority reason", "Status"} <= {r["title"] for r in rows(batches)}
    again = await read(app, "ticket_fields", batches[-1].cursor)
    assert len(rows(again)) == len(rows(batches))


async def test_fetch_shows_the_present_and_what_is_gone(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.store.update("tickets", 7, {"priority": "urgent"})
    sandbox.store.delete("tickets", 8)
    wanted = [str(n) for n in range(1, 251)] + ["99999"]
    before = int(datetime.now(UTC).timestamp()) * 1_000_000
    await app.check()  # tells the app's clock
    table = (await app.fetch("tickets", wanted)).table
    found = {r["id"]: r for r in table.to_pylist()}
    assert len(found) == 251
    assert found[7]["priority"] == "urgent"
    assert {n for n, r in found.items() if r["_deleted"]} == {8, 99999}
    assert all(r["_version"] >= before for r in found.values())
    assert sum(e.path.endswith("show_many") for e in sandbox.log) == 3
    assert len((await app.fetch("users", [])).table) == 0
    sandbox.store.delete("users", 501)
    users = (await app.fetch("users", ["501", "502"])).table.to_pylist()
    assert {r["id"]: r["_deleted"] for r in users} == {501: True, 502: False}


async def test_a_stuck_export_is_no_endless_loop(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    stuck = orjson.dumps({"tickets": [], "after_cursor": None, "end_of_stream": False}).decode()
    sandbox.faults.append(Fault("GET /api/v2/incremental", "status", status=200, body=stuck))
    with pytest.raises(RetryLater, match="does not move on"):
        await read(app, "tickets")


async def test_a_kept_cursor_that_zendesk_refuses_names_the_mend(app: ZendeskApp) -> None:
    with pytest.raises(FixData, match=r"place up to which tickets were read: InvalidValue.* — .*--full"):
        await read(app, "tickets", {"after": "no cursor"})


async def test_a_cut_or_limited_page_is_asked_for_again(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.faults += [
        Fault("incremental/tickets", "cut", skip=1),
        Fault("incremental/tickets", "status", status=503, headers={"Retry-After": "0"}),
        Fault("incremental/tickets", "status", status=429, headers={"Retry-After": "0"}, skip=1),
    ]
    assert sorted(ids(await read(app, "tickets", page=100))) == list(range(1, 301))


async def test_html_and_truncated_answers_name_the_address(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    for action in ("html", "truncate", "empty"):
        sandbox.faults.append(Fault("incremental/tickets", action))
        with pytest.raises(FixConfig, match="base_url"):
            await read(app, "tickets")


async def test_exports_keep_their_own_limit_and_a_burst_of_ten_is_free() -> None:
    clock = VirtualClock()
    box = ZendeskSandbox(runtime=clock.runtime(), export_limit=10)
    box.load("tickets", [{"subject": str(i)} for i in range(25)])
    with box.running() as url:
        app = make_app(url, clock.runtime())
        assert len(ids(await read(app, "tickets", page=3))) == 25
        assert clock.slept == 0
        assert len(ids(await read(app, "tickets", page=3))) == 25
        assert 20 <= clock.slept <= 121
        await app.aclose()
    assert all(e.status == 200 for e in box.log)


def test_metrics_of_archived_tickets_are_not_gone() -> None:
    """The list leaves them out, as the vendor's document says."""
    metrics = ZendeskApp.streams["ticket_metrics"]
    assert (metrics.deletes, metrics.incremental) == (Deletes.NEVER, False)
