"""Events by day, late ones too; profiles by pages; the limits of an hour."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from oploop.apps import jsonlines
from oploop.apps.arrow import table_from_records
from oploop.apps.jsonvalues import parsed
from oploop.apps.mixpanel import MixpanelConfig, streams
from oploop.apps.mixpanel.client import Client
from oploop.apps.mixpanel.sandbox import MixpanelSandbox
from oploop.apps.paging import at_once
from oploop.apps.sandbox import Fault
from oploop.errors import RetryLater
from oploop.records import ReadOptions
from oploop.runtime import Runtime
from tests.apps.mixpanel.support import bench, rows, short

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def at(days: float) -> datetime:
    """So many days before NOW."""
    return NOW - timedelta(days=days)


def still() -> Runtime:
    return Runtime(now=lambda: NOW, sleep=short)


def event(number: int, days: float, **more: Any) -> dict[str, Any]:
    return {"event": "Paid", "time": at(days), "$insert_id": f"e{number}", "distinct_id": "u1", **more}


def exports(box: MixpanelSandbox) -> list[dict[str, str]]:
    found = [dict(e.query) for e in box.log if e.path == "/api/2.0/export"]
    box.log.clear()
    return found


async def test_a_late_event_is_found_as_long_as_the_window_reaches_back() -> None:
    async with bench(still()) as (box, app):
        box.load("events", [event(1, 9), event(2, 0.1)])
        found, cursor = await rows(app, "events", since=at(10))
        assert [r["$insert_id"] for r in found] == ["e1", "e2"]
        assert cursor["until"] == "2026-06-15"
        box.load("events", [event(3, 4), event(4, 8)])  # they happened before, and come now
        exports(box)
        found, _ = await rows(app, "events", cursor, since=at(10))
        assert sorted(r["$insert_id"] for r in found) == ["e2", "e3"]
        assert exports(box)[0]["from_date"] == "2026-06-10"
        found, _ = await rows(app, "events", None, since=at(10))
        assert len(found) == 4


async def test_an_event_that_is_exported_twice_is_one_row() -> None:
    async with bench(still()) as (box, app):
        box.load("events", [event(1, 1), event(1, 1, distinct_id="canonical")])
        found, _ = await rows(app, "events", since=at(3))
        assert len(found) == 2
        assert len({tuple(r[k] for k in streams.EVENTS.primary_key) for r in found}) == 1


async def test_days_are_taken_together_where_there_is_little_and_apart_where_there_is_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "LIMIT", 100)
    monkeypatch.setattr(streams, "FEW", 25)
    async with bench(still()) as (box, app):
        busy = [event(day * 1000 + n, day) for day in range(10) for n in range(60)]
        box.load("events", busy)
        found, cursor = await rows(app, "events", since=at(400))
        assert len(found) == len(busy)
        asked = exports(box)
        assert len(asked) <= 30
        assert asked[0] == {
            "project_id": "3187769",
            "from_date": "2025-05-11",
            "to_date": "2025-05-11",
            "time_in_ms": "true",
        }
        assert all(a.get("limit") == "100" for a in asked if a["from_date"] != a["to_date"])
        assert cursor["span"] == 1
        await rows(app, "events", cursor, since=at(400))
        assert len(exports(box)) == 6, "what was learned of the days' size is kept"


async def test_times_of_an_old_project_are_by_its_own_clock() -> None:
    zone = "America/New_York"
    async with bench(still(), {"timezone": zone}, timezone=zone) as (box, app):
        instants = [datetime(2026, 6, 15, 2, 30, 0, 250_000, tzinfo=UTC), datetime(2026, 6, 15, 6, tzinfo=UTC)]
        box.load("events", [{**event(n, 0), "time": t} for n, t in enumerate(instants)])
        found, cursor = await rows(app, "events", since=at(3))
        assert [r["time"] for r in found] == instants
        assert orjson.loads(found[1]["_raw"])["properties"]["time"] == 1781488800000, (
            "as it came: 2 o'clock in New York"
        )
        assert cursor["until"] == "2026-06-15"
        assert exports(box)[0]["from_date"] == "2026-06-12"


async def test_an_event_without_an_insert_id_is_the_same_row_each_time() -> None:
    async with bench(still()) as (box, app):
        box.load("events", [{"event": "Old", "time": at(1), "distinct_id": "u1", "n": n} for n in range(2)])
        first, _ = await rows(app, "events", since=at(3))
        again, _ = await rows(app, "events", since=at(3))
        ids = [r["$insert_id"] for r in first]
        assert len(set(ids)) == 2
        assert [r["$insert_id"] for r in again] == ids
        assert "$insert_id" not in orjson.loads(first[0]["properties"])


async def test_excluded_properties_leave_the_raw_record_too() -> None:
    async with bench(still()) as (box, app):
        box.load("events", [event(1, 1, **{"$city": "Bonn", "plan": "pro"})])
        box.load("profiles", [{"$distinct_id": "u1", "$properties": {"$email": "a@acme.example", "plan": "pro"}}])
        [row] = (await rows(app, "events", since=at(3), exclude=frozenset({"$city", "distinct_id"})))[0]
        assert "Bonn" not in row["_raw"] + row["properties"]
        assert "distinct_id" not in row
        assert "u1" not in row["_raw"]
        [row] = (await rows(app, "profiles", exclude=frozenset({"$email"})))[0]
        assert "acme" not in row["_raw"] + row["$properties"]


async def test_an_export_that_is_cut_off_is_no_export() -> None:
    async with bench(still()) as (box, app):
        box.load("events", [event(n, 1) for n in range(9)])
        box.faults.append(Fault("GET /api/2.0/export", "truncate", times=99))
        with pytest.raises(RetryLater, match="in the middle of a line"):
            await rows(app, "events", since=at(3))


async def test_the_limit_of_an_hour_is_kept_to() -> None:
    """Sixty queries go out at once; the next waits until the hour is over."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        box.advance(seconds)
        await asyncio.sleep(0)

    runtime = Runtime(monotonic=lambda: now, sleep=sleep)
    async with bench(runtime, {"queries_per_hour": 60}, per_hour=60) as (box, app):
        for _ in range(62):
            await app.fetch("profiles", ["u1"])
        assert 3600 <= now < 3700
        assert {e.status for e in box.log} == {200}


async def test_a_profile_that_a_query_does_not_show_yet_is_not_known_of_yet() -> None:
    async with bench(profile_lag=30) as (box, app):
        before = int(box.now().timestamp() * 1e6)
        box.store.put("", "u1", {"plan": "pro"})
        assert (await rows(app, "profiles"))[0] == []
        box.advance(31)
        [row] = (await app.fetch("profiles", ["u1"])).table.to_pylist()
        assert row["_version"] < before + 31e6 - streams.PROFILE_LAG * 1e6 + 2e6


def test_a_region_has_hosts_of_its_own() -> None:
    block = {"project_id": 1, "service_account": "a", "secret": "s"}
    assert MixpanelConfig(**block).hosts() == (
        "https://api.mixpanel.com", "https://data.mixpanel.com", "https://mixpanel.com"
    )  # fmt: skip
    assert MixpanelConfig(**block, residency="eu").hosts() == (
        "https://api-eu.mixpanel.com", "https://data-eu.mixpanel.com", "https://eu.mixpanel.com"
    )  # fmt: skip
    assert MixpanelConfig(**block, residency="in").hosts()[1] == "https://data-in.mixpanel.com"
    with pytest.raises(ValidationError, match="no time zone"):
        MixpanelConfig(**block, timezone="Berlin/Europe")


async def test_the_next_export_is_on_its_way_while_rows_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FEW", 0)  # a day an export
    async with bench(still()) as (box, app):
        box.load("events", [event(day * 1_000 + n, day) for day in range(1, 6) for n in range(3 * jsonlines.TURN)])
        reading = app.read("events", None, ReadOptions(since=at(5)))
        assert (await anext(reading)).table.num_rows == 3 * jsonlines.TURN
        await asyncio.sleep(0.3)
        assert len(exports(box)) == 2, "one is ahead, and no more"
        await reading.aclose()  # type: ignore[attr-defined]


async def test_a_read_of_nothing_keeps_its_place() -> None:
    async with bench(still()) as (box, app):
        _, cursor = await rows(app, "events", {"until": "2026-06-15", "span": 8}, since=NOW + timedelta(days=3))
        assert cursor == {"until": "2026-06-15", "span": 8}
        assert exports(box) == []


def app_reader() -> streams.Reader:
    config = MixpanelConfig(**MixpanelSandbox.default_config("http://127.0.0.1:9"))
    return streams.Reader(Client(config, still()), {}, {})


SCALARS = st.sampled_from(
    [None, True, 0, 1, 2**70, 1.5, -0.0, "x", 'é\x00"\\/', "", [1, {"a": "é"}], {"z": {"y": None}}]
)
NAMES = st.sampled_from(["a", "b", "plan", "distinct_id", "mp_processing_time_ms", "$insert_id"])
EXCLUDED = st.sampled_from([(), ("plan",), ("properties",), ("distinct_id", "a")])


@given(st.lists(st.tuples(st.dictionaries(NAMES, SCALARS), st.booleans()), min_size=1, max_size=4), EXCLUDED)
def test_rows_are_what_whole_records_become(found: list[tuple[dict[str, Any], bool]], exclude: tuple[str, ...]) -> None:
    events = [({"event": "Paid", "properties": {**p, "time": 1}}, ascii) for p, ascii in found]
    lines = [json.dumps(e, ensure_ascii=ascii, separators=(",", ":")).encode() for e, ascii in events]
    rows = at_once(app_reader()._event_table)(lines, NOW, exclude)
    lifted = [streams._lifted(parsed(line), exclude) for line in lines]
    for record, line in zip(lifted, lines, strict=True):
        record["properties"] = {k: v for k, v in parsed(line)["properties"].items() if k not in exclude}
    versions = [version_of(r) for r in lifted]
    more: dict[str, Any] = {"extracted_at": NOW, "exclude": exclude, "raw": None if exclude else lines}
    assert rows.equals(table_from_records(streams.EVENTS, lifted, versions=versions, **more))


def version_of(record: dict[str, Any]) -> int:
    """When Mixpanel took an event in, or when it happened, where those are times."""
    for at in (record["mp_processing_time_ms"], record["time"]):
        if type(at) in (int, float) and at and abs(at) < 2**53:
            return round(at * 1000)
    return 0


def test_an_event_that_was_taken_in_at_0_is_as_old_as_it_says() -> None:
    line = b'{"event":"Paid","properties":{"time":1700000000000,"$insert_id":"e","mp_processing_time_ms":0}}'
    [row] = at_once(app_reader()._event_table)([line], NOW, ()).to_pylist()
    assert row["_version"] == 1_700_000_000_000_000


async def test_a_number_that_no_double_holds_stops_no_read() -> None:
    reader = app_reader()
    lines = [
        b'{"event":"Paid","properties":{"time":1,"$insert_id":"e%d","n":%s}}' % (n, b"9" * 30 if n else b"1e400")
        for n in range(2)
    ]
    [first, second] = at_once(reader._event_table)(lines, NOW, ()).to_pylist()
    assert (first["$insert_id"], second["$insert_id"]) == ("e0", "e1")
    assert b'"n":1e400' in first["_raw"].encode()
    assert f'"n":{"9" * 30}' in second["properties"]
    [bare] = at_once(reader._event_table)(
        [b'{"event":"Paid","properties":{"time":1,"n":%s}}' % (b"9" * 30)], NOW, ()
    ).to_pylist()
    assert bare["$insert_id"].startswith("oploop-")
