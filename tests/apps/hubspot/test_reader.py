"""Reading HubSpot: what a list, a search and an archive show, and what they do not."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import orjson
import pytest

from oploop.apps.hubspot import HubSpotSandbox
from oploop.apps.hubspot.reader import OVERLAP
from oploop.apps.sandbox import Fault
from oploop.apps.transport import Refused
from oploop.errors import FixConfig
from oploop.records import Batch, Op, ReadOptions
from oploop.runtime import Runtime
from tests.apps.hubspot.support import calls, contact, new_sandbox, read, rows, send, step, using


def filled(count: int = 3, **settings: Any) -> HubSpotSandbox:
    box = new_sandbox(**settings)
    box.load("contacts", [contact(n) for n in range(1, count + 1)])
    return box


def searches(box: HubSpotSandbox) -> list[dict[str, Any]]:
    return [orjson.loads(e.body) for e in calls(box, "contacts/search")]


async def test_properties_come_in_their_own_types() -> None:
    box = new_sandbox()
    values = {
        "spend": "12.50", "plan": "pro", "topics": "a;c", "renewal": "2026-03-01", "seen_at": "2026-03-01T10:00:00.123Z",
        "vip": "false", "score": "7", "firstname": "", "billing_id": "007",
    }  # fmt: skip
    box.load("contacts", [contact(1, **values)])
    async with using(box) as app:
        [row], _ = await read(app, "contacts")
    assert (row["spend"], row["plan"], row["topics"]) == (12.5, "pro", '["a","c"]')
    assert row["renewal"] == dt.date(2026, 3, 1)
    assert row["seen_at"] == dt.datetime(2026, 3, 1, 10, 0, 0, 123000, tzinfo=dt.UTC)
    assert (row["vip"], row["score"], row["firstname"], row["billing_id"]) == (False, 7.0, None, "007")
    assert row["hs_object_id"] == 1
    assert "hs_all_owner_ids" not in row  # HubSpot hides it
    raw = orjson.loads(row["_raw"])
    assert raw["properties"]["spend"] == "12.50"
    assert raw["id"] == "1"


async def test_a_later_read_searches_behind_the_last_id_and_never_by_page() -> None:
    box = filled(450)
    async with using(box) as app:
        _, cursor = await read(app, "contacts")
        box.advance(2 * OVERLAP)
        for n in range(1, 451):
            box.edit("contacts", str(n), jobtitle="CEO")
        box.advance(60)
        again, _ = await read(app, "contacts", cursor)
    assert {r["id"] for r in again if r["jobtitle"] == "CEO"} == {str(n) for n in range(1, 451)}
    asked = searches(box)
    assert len(asked) == 3
    assert all("after" not in s and s["limit"] == 200 for s in asked)
    assert [s["filterGroups"][0]["filters"][1]["value"] for s in asked] == ["0", "200", "400"]


async def test_a_page_that_is_short_and_says_that_there_are_more_is_no_last_one() -> None:
    """HubSpot leaves records out of a page that the token may not see."""
    box = filled(3)
    async with using(box) as app:
        _, cursor = await read(app, "contacts")
        box.advance(2 * OVERLAP)
        for n in (1, 2, 3):
            box.edit("contacts", str(n), jobtitle="CEO")
        box.advance(60)
        shown = {**contact(1, jobtitle="CEO"), "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
        body = {"total": 3, "results": [{**shown, "archived": False}], "paging": {"next": {"after": "1"}}}
        box.faults.append(Fault("contacts/search", "say", status=200, body=orjson.dumps(body).decode()))
        again, _ = await read(app, "contacts", cursor)
    assert {r["id"] for r in again if r["jobtitle"] == "CEO"} == {"1", "2", "3"}
    assert [s["filterGroups"][0]["filters"][1]["value"] for s in searches(box)] == ["0", "1"]


async def test_what_the_index_does_not_show_yet_comes_with_the_next_read() -> None:
    box = filled(index_lag=30)
    async with using(box) as app:
        _, cursor = await read(app, "contacts")
        box.advance(60)
        box.edit("contacts", "2", jobtitle="CEO")
        box.advance(10)
        soon, cursor = await read(app, "contacts", cursor)
        assert "CEO" not in {r["jobtitle"] for r in soon}
        assert rows(await app.fetch("contacts", ["2"]))["2"]["jobtitle"] == "CEO"
        box.advance(60)
        later, _ = await read(app, "contacts", cursor)
    assert "CEO" in {r["jobtitle"] for r in later}


async def test_archived_and_merged_records_are_gone() -> None:
    box = filled(5)
    contacts = box.store.kinds["contacts"]
    async with using(box) as app:
        _, cursor = await read(app, "contacts")
        box.advance(60)
        box.store.archive(contacts, "2")
        box.store.merge(contacts, "3", "4")
        box.advance(60)
        found, _ = await read(app, "contacts", cursor)
        last = {r["id"]: r for r in sorted(found, key=lambda r: r["_version"])}
        assert {i for i, r in last.items() if r["_deleted"]} == {"2", "4"}
        fetched = rows(await app.fetch("contacts", ["1", "2", "4", "5"]))
    assert {i for i, r in fetched.items() if r["_deleted"]} == {"2", "4"}
    assert not fetched["3"]["_deleted"]  # what 4 was merged into


async def test_a_new_property_is_read_of_all_records() -> None:
    box = filled(3)
    async with using(box) as app:
        _, cursor = await read(app, "contacts")
    box.load("properties.contacts", [{"name": "tier"}])
    for number in ("1", "2", "3"):
        box.store.kinds["contacts"].records[int(number)]["properties"]["tier"] = f"T{number}"
    async with using(box) as app:
        found, _ = await read(app, "contacts", cursor)
        assert {r["tier"] for r in found} == {"T1", "T2", "T3"}
        assert not searches(box)


async def test_an_excluded_property_is_not_asked_for() -> None:
    box = filled(3)
    async with using(box) as app:
        found, cursor = await read(app, "contacts", options=ReadOptions(exclude=frozenset({"email", "topics"})))
        await read(app, "contacts", cursor, ReadOptions(exclude=frozenset({"email", "topics"})))
    assert all("email" not in r and "topics" not in r and "acme.example" not in r["_raw"] for r in found)
    assert "email" not in dict(calls(box, "/crm/v3/objects/contacts")[0].query)["properties"].split(",")
    assert "email" not in searches(box)[0]["properties"]


async def test_names_that_no_address_holds_are_asked_for_in_a_body() -> None:
    box = new_sandbox()
    box.load("properties.contacts", [{"name": f"a_rather_long_name_of_a_property_{n}"} for n in range(250)])
    box.load("contacts", [contact(n, a_rather_long_name_of_a_property_7=str(n)) for n in range(1, 151)])
    box.store.archive(box.store.kinds["contacts"], "150")
    async with using(box) as app:
        found, _ = await read(app, "contacts")
    assert {(r["id"], r["a_rather_long_name_of_a_property_7"]) for r in found} == {
        (str(n), str(n)) for n in range(1, 151)
    }
    assert [r["id"] for r in found if r["_deleted"]] == ["150"]
    assert max(len(str(e.query)) for e in box.log) < 1000


async def test_a_read_goes_on_in_the_list_where_it_broke_off() -> None:
    box = filled(250)
    async with using(box) as app:
        first: Batch | None = None
        async for batch in app.read("contacts", None, ReadOptions()):
            first = batch
            break
        assert first is not None
        box.log.clear()
        found, cursor = await read(app, "contacts", first.cursor)
    assert [r["id"] for r in found] == [str(n) for n in range(101, 251)]
    assert "since" in cursor


async def test_what_was_read_before_an_error_is_there_before_it() -> None:
    box = filled(250)
    async with using(box) as app:
        whole, _ = await read(app, "contacts")
        # three pages are good, that of the archived ones is not
        box.faults.append(Fault("GET /crm/v3/objects/contacts$", "status", status=400, body="{}", skip=3))
        batches: list[Batch] = []

        async def reading() -> None:
            async for batch in app.read("contacts", None, ReadOptions()):
                batches.append(batch)  # noqa: PERF401 - what an error comes behind stays

        with pytest.raises(Refused):
            await reading()
        found = [r["id"] for b in batches for r in b.table.to_pylist()]
        assert sorted(found) == sorted(r["id"] for r in whole)
        assert batches[-1].cursor is not None
        assert "since" in batches[-1].cursor


async def test_since_bounds_the_first_read() -> None:
    box = new_sandbox()
    old = {"createdAt": "2020-01-01T00:00:00.000Z", "updatedAt": "2020-01-01T00:00:00.000Z"}
    box.load("contacts", [{**contact(1), **old}, contact(2)])
    async with using(box) as app:
        options = ReadOptions(since=dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
        found, _ = await read(app, "contacts", options=options)
    assert [r["id"] for r in found] == ["2"]


async def test_custom_objects_by_name_and_by_type_id() -> None:
    box = new_sandbox()
    box.load("cars", [{"id": "5", "properties": {"vin": "V5", "doors": "4"}}])
    type_id = box.store.kinds["cars"].type_id
    async with using(box) as app:
        for name in ("cars", type_id):
            assert name in app.streams
            await app.check()
            found, _ = await read(app, name)
            assert [(r["vin"], r["doors"]) for r in found] == [("V5", 4.0)]


async def test_a_type_that_is_not_there_is_named_with_the_nearest() -> None:
    box = new_sandbox()
    async with using(box) as app:
        assert "contcats" in app.streams  # any name may be that of a custom object: `check` tells
        with pytest.raises(FixConfig, match=r"contcats.*did you mean 'contacts'"):
            await app.check()
        assert "no such name!" not in app.streams


async def test_associations_of_many_are_read_whole() -> None:
    box = new_sandbox()
    box.load("deals", [{"id": str(n), "properties": {"dealstage": "closedwon"}} for n in range(1, 4)])
    box.load("contacts", [contact(n) for n in range(1000, 1750)])
    box.load("deals_to_contacts", [{"from_id": "2", "to_id": str(n)} for n in range(1000, 1750)])
    box.load("deals_to_contacts", [{"from_id": "3", "to_id": "1000"}])
    box.store.archive(box.store.kinds["contacts"], "1749")
    async with using(box) as app:
        found, _ = await read(app, "deals_to_contacts")
        assert {r["id"] for r in found} == {f"2:{n}" for n in range(1000, 1749)} | {"3:1000"}
        assert len(found) == 750
        there = rows(await app.fetch("deals_to_contacts", ["3:1000", "3:1001", "1:1000"]))
    assert {i: r["_deleted"] for i, r in there.items()} == {"3:1000": False, "3:1001": True, "1:1000": True}


async def test_lists_members_and_owners() -> None:
    box = filled(600)
    box.load("lists", [{"name": "VIPs"}, {"name": "All", "processingType": "DYNAMIC"}])
    box.load("list_memberships", [{"list_id": "1", "record_id": str(n)} for n in range(1, 601)])
    box.load("owners", [{"id": str(n), "email": f"o{n}@acme.example", "userId": n} for n in range(1, 151)])
    async with using(box) as app:
        assert [r["name"] for r in (await read(app, "lists"))[0]] == ["VIPs", "All"]
        assert len((await read(app, "list_memberships"))[0]) == 600
        assert {r["email"] for r in (await read(app, "owners"))[0]} == {f"o{n}@acme.example" for n in range(1, 151)}
        await send(app, step("list_memberships", Op.REMOVE, ("1:7", {})))
        there = rows(await app.fetch("list_memberships", ["1:6", "1:7", "9:1"]))
    assert {i: r["_deleted"] for i, r in there.items()} == {"1:6": False, "1:7": True, "9:1": True}


class Clock:
    """Monotonic seconds that pass when somebody sleeps, so that limits are kept to and nobody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def runtime(self) -> Runtime:
        return Runtime(monotonic=lambda: self.now, sleep=self.sleep)


async def test_more_changes_than_a_search_shows_are_all_read() -> None:
    clock = Clock()
    box = new_sandbox(keep_log=False)
    async with using(box, clock.runtime()) as app:
        _, cursor = await read(app, "companies")
        box.advance(60)
        changed = box.now().isoformat()
        box.load("companies", [{"id": str(n), "updatedAt": changed, "properties": {}} for n in range(1, 10_451)])
        found, _ = await read(app, "companies", cursor)
    assert {r["id"] for r in found} == {str(n) for n in range(1, 10_451)}
    assert len(found) == 10_450
    assert clock.now > 1010  # 53 searches, 4 a second


async def test_the_limit_that_the_headers_tell_is_kept_to() -> None:
    clock = Clock()
    runtime = clock.runtime()
    box = new_sandbox(runtime=runtime, rate_limit=50)
    async with using(box, runtime, rate_limit=1000) as app:
        for _ in range(160):
            await app.client.get("crm/v3/owners/")
    assert [e.status for e in box.log].count(429) == 0
    assert 30 <= clock.now - 1000 <= 31
