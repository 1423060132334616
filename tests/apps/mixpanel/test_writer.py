"""Profiles, groups and events written: what is set once, what is unset, what fails alone, what is sent twice."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from oploop.apps.mixpanel import writer
from oploop.apps.mixpanel.lookups import table_of
from oploop.apps.sandbox import Fault
from oploop.apps.transport import Refused
from oploop.errors import FixConfig
from oploop.records import Op, Outcome
from tests.apps.mixpanel.support import bench, step

AT = datetime(2026, 3, 1, 12, 30, 15, 500_000, tzinfo=UTC)


def who(number: int) -> dict[str, str]:
    return {"$distinct_id": f"u{number}"}


def paid(number: int, **more: Any) -> dict[str, Any]:
    return {"key": {"order_id": number}, "event": "Paid", "time": AT, "distinct_id": "u1", **more}


async def test_what_is_only_for_new_ones_does_not_replace_what_is_there() -> None:
    async with bench() as (box, app):
        box.load("profiles", [{"$distinct_id": "u1", "$properties": {"source": "mail", "plan": "free"}}])
        once = frozenset({"properties.source"})
        change = {"key": who(1), "$distinct_id": "u1", "properties.source": "product", "properties.plan": "pro"}
        [receipt] = await app.send(step("profiles", Op.UPSERT, change, once=once))
        assert (receipt.outcome, receipt.remote_id) == (Outcome.OK, "u1")
        assert box.dump("profiles")[0]["$properties"] == {"source": "mail", "plan": "pro"}
        sent = orjson.loads(box.log[-1].body)
        assert [set(u) - {"$token", "$distinct_id"} for u in sent] == [{"$set"}, {"$set_once"}]
        assert dict(box.log[-1].query) == {"ip": "0", "strict": "1", "verbose": "1"}


async def test_null_unsets_and_types_are_mixpanels() -> None:
    async with bench() as (box, app):
        change = {"key": who(1), "$created": AT, "properties.spend": Decimal("12.50"), "properties.n": Decimal(7)}
        await app.send(step("profiles", Op.UPSERT, change))
        assert box.dump("profiles")[0]["$properties"] == {"$created": "2026-03-01T12:30:15", "spend": 12.5, "n": 7}
        await app.send(step("profiles", Op.UPDATE, {"key": who(1), "properties.spend": None, "$created": None}))
        assert box.dump("profiles")[0]["$properties"] == {"n": 7}


async def test_a_change_of_several_updates_fails_as_one() -> None:
    async with bench() as (_, app):
        bad = {"key": who(1), "properties.wide": {str(n): n for n in range(300)}, "properties.gone": None}
        receipts = await app.send(step("profiles", Op.UPDATE, bad, {"key": who(2), "properties.a": 1}))
        assert [(r.number, r.outcome) for r in receipts] == [(1, Outcome.REJECTED), (2, Outcome.OK)]
        assert "255" in (receipts[0].error or "")


async def test_more_updates_than_a_call_takes_go_in_two_calls() -> None:
    async with bench() as (box, app):
        changes = [{"key": who(n), "properties.a": n, "properties.b": None} for n in range(1_500)]
        receipts = await app.send(step("profiles", Op.UPSERT, *changes))
        assert [len(orjson.loads(e.body)) for e in box.log] == [2_000, 1_000]
        assert {r.outcome for r in receipts} == {Outcome.OK}
        assert len(receipts) == 1_500


async def test_a_bare_zero_halves_the_call() -> None:
    async with bench() as (box, app):
        box.faults.append(Fault("POST /engage", "status", status=200, body="0"))
        with pytest.raises(Refused):
            await app.send(step("profiles", Op.UPSERT, {"key": who(1), "properties.a": 1}))
        box.faults.append(Fault("POST /engage", "status", status=200, body="perhaps"))
        [receipt] = await app.send(step("profiles", Op.UPSERT, {"key": who(1), "properties.a": 1}))
        assert receipt.outcome is Outcome.UNKNOWN


async def test_a_group_is_written_and_deleted_by_its_key() -> None:
    async with bench() as (box, app):
        await app.send(step("group_company", Op.UPSERT, {"key": {"$distinct_id": "acme"}, "properties.arr": 5}))
        sent = orjson.loads(box.log[-1].body)[0]
        assert (sent["$group_key"], sent["$group_id"]) == ("company", "acme")
        assert box.dump("profiles") == []
        [row] = (await app.fetch("group_company", ["acme"])).table.to_pylist()
        assert orjson.loads(row["$properties"]) == {"arr": 5}
        await app.send(step("group_company", Op.REMOVE, {"key": {"$distinct_id": "acme"}}))
        assert box.dump("company") == []


async def test_writing_profiles_without_a_token_says_what_is_missing() -> None:
    async with bench(config={"token": None}) as (_, app):
        with pytest.raises(FixConfig, match="token"):
            await app.send(step("profiles", Op.UPSERT, {"key": who(1), "properties.a": 1}))


async def test_an_event_sent_twice_by_whichever_run_is_one_event() -> None:
    async with bench() as (box, app):
        await app.send(step("events", Op.CREATE, paid(1), paid(2)))
        await app.send(step("events", Op.CREATE, paid(2), paid(1)))  # another step, in another order
        assert len(box.dump("raw")) == 4
        assert len(box.dump("events")) == 2
        await app.send(step("events", Op.CREATE, paid(1), sync="another"))
        assert len(box.dump("events")) == 3
        ids = {e["properties"]["$insert_id"] for e in box.dump("events")}
        assert all(len(i) == 36 for i in ids)
        assert box.dump("events")[0]["properties"]["time"] == round(AT.timestamp() * 1000)
        assert box.log[-1].headers.get("Content-Encoding") == "gzip"


async def test_an_id_of_the_models_own_is_taken() -> None:
    async with bench() as (box, app):
        [receipt] = await app.send(step("events", Op.CREATE, paid(1, **{"$insert_id": "order-1"})))
        assert receipt.remote_id == "order-1"
        assert box.dump("events")[0]["properties"]["$insert_id"] == "order-1"


async def test_the_good_events_of_a_call_are_in_and_the_bad_ones_named() -> None:
    async with bench() as (box, app):
        future = box.now() + timedelta(days=2)
        receipts = await app.send(step("events", Op.CREATE, paid(1), paid(2, time=future), paid(3, distinct_id="null")))
        assert [r.outcome for r in receipts] == [Outcome.OK, Outcome.REJECTED, Outcome.REJECTED]
        assert "properties.time" in (receipts[1].error or "")
        assert len(box.dump("events")) == 1


async def test_large_events_are_split_by_bytes_and_the_largest_refused() -> None:
    async with bench() as (box, app):
        heavy = [paid(n, **{f"properties.p{i}": "x" * 90_000 for i in range(10)}) for n in range(13)]
        giant = paid(99, **{f"properties.p{i}": "x" * 90_000 for i in range(12)})
        receipts = await app.send(step("events", Op.CREATE, *heavy, giant))
        assert len(box.log) == 2
        assert len(gzip.compress(box.log[0].body)) < len(box.log[0].body) <= writer.MAX_CALL_BYTES
        rejected = [r for r in receipts if r.outcome is Outcome.REJECTED]
        assert [r.number for r in rejected] == [14]
        assert "takes 1,000,000" in (rejected[0].error or "")
        box.faults.append(Fault("POST /import", "status", status=413, body='{"error": "too large"}'))
        with pytest.raises(Refused, match="too large"):
            await app.send(step("events", Op.CREATE, paid(1), paid(2)))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("text", "no list of objects"),
        ([1], "no list of objects"),
        ([], "rows is empty"),
        ([{"": 1}], "has no name"),
        ([{"id": "a"}, {"sku": 1, "id": None}], "row 2 has no id"),
        ([{"id": 1}, {"id": "1"}], "row 2 has another row's id, '1'"),
    ],
)
def test_rows_that_are_no_lookup_table_are_named(rows: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        table_of(rows)


def test_rows_of_different_columns_are_one_table() -> None:
    assert table_of([{"id": "a"}, {"price": 1, "id": "b\n", "art": "x"}]) == b'id,art,price\r\na,,\r\n"b\n",x,1\r\n'
