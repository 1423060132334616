"""Writing to HubSpot: batches that are done in part, or not at all; companies; limits."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import orjson
import pytest

from oploop.apps.hubspot import HubSpotSandbox
from oploop.apps.hubspot.writer import text_of
from oploop.apps.sandbox import Fault
from oploop.apps.transport import QuotaSpent, Refused
from oploop.errors import RetryLater
from oploop.records import Op, Outcome
from tests.apps.hubspot.support import calls, contact, hasty, new_sandbox, send, step, using

OK, REJECTED, RETRY, UNKNOWN = Outcome.OK, Outcome.REJECTED, Outcome.RETRY, Outcome.UNKNOWN


def filled(**settings: Any) -> HubSpotSandbox:
    box = new_sandbox(**settings)
    box.load("contacts", [contact(n) for n in range(1, 6)])
    box.load("companies", [{"id": str(n), "properties": {"name": f"C{n}"}} for n in (31, 32)])
    return box


def held(box: HubSpotSandbox, kind: str, number: str, name: str) -> Any:
    record = box.store.get(box.store.kinds[kind], number)
    assert record is not None
    return record["properties"].get(name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "true"), (False, "false"), (5.0, "5"), (0.1, "0.1"), (12, "12"), (Decimal("1.50"), "1.50"),
        (dt.date(2019, 10, 31), "1572480000000"), (dt.datetime(2019, 10, 31, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))), "1572480000000"),
        (["a", "b"], "a;b"), ([], ""), ("it's", "it's"), (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_values_as_hubspot_writes_them(value: Any, text: str) -> None:
    assert text_of(value) == text


async def test_a_create_is_done_in_part_and_told_by_trace_ids() -> None:
    box = filled()
    async with using(box) as app:
        stages = ("closedwon", "nowhere", "closedlost", None)
        receipts = await send(
            app, step("deals", Op.CREATE, *[(None, {"dealname": f"D{s}", "dealstage": s}) for s in stages])
        )
    assert [receipts[n].outcome for n in (1, 2, 3, 4)] == [OK, REJECTED, OK, REJECTED]
    assert held(box, "deals", str(receipts[1].remote_id), "dealname") == "Dclosedwon"
    assert held(box, "deals", str(receipts[3].remote_id), "dealname") == "Dclosedlost"
    assert "INVALID_OPTION" in str(receipts[2].error)
    assert len(calls(box, "batch/create")) == 1


@pytest.mark.parametrize("multi", [frozenset({"create"}), frozenset({"create", "update", "upsert"})])
async def test_a_bad_record_in_an_upsert(multi: frozenset[str]) -> None:
    """HubSpot refuses the batch as a whole, or does it in part: both are understood, and nothing is done twice."""
    box = filled(multi_status=multi)
    made = step(
        "contacts", Op.UPSERT, *[(None, {"email": f"{n}@x.example", "plan": p}) for n, p in enumerate(("pro", "gold", "free"))], key="email"
    )  # fmt: skip
    async with using(box) as app:
        if "upsert" in multi:
            receipts = await send(app, made)
            assert [receipts[n].outcome for n in (1, 2, 3)] == [OK, REJECTED, OK]
        else:
            with pytest.raises(Refused, match="gold was not one of"):
                await app.send(made)
    assert len(box.dump("contacts")) == (7 if "upsert" in multi else 5)


async def test_an_update_of_a_record_that_is_gone_stops_no_other() -> None:
    box = filled()
    async with using(box) as app:
        receipts = await send(app, step("contacts", Op.UPDATE, *[(i, {"plan": "pro"}) for i in ("1", "777", "3")]))
        alone = await send(app, step("contacts", Op.UPDATE, ("777", {"plan": "pro"})))
    assert [receipts[n].outcome for n in (1, 2, 3)] == [OK, REJECTED, OK]
    assert "deleted or not exist" in str(receipts[2].error)
    assert alone[1].outcome is REJECTED
    assert receipts[1].version is not None


async def test_a_create_of_an_address_that_is_taken_names_the_contact() -> None:
    box = filled()
    async with using(box) as app:
        receipts = await send(app, step("contacts", Op.CREATE, (None, {"email": "C3@acme.example", "plan": "pro"})))
    assert receipts[1].outcome is REJECTED
    assert "Existing ID: 3" in str(receipts[1].error)
    assert held(box, "contacts", "3", "plan") is None


async def test_answers_that_name_no_trace_id() -> None:
    """Then results are told by id, by the unique property, or, of a whole batch of creates, by their order."""
    box = filled(multi_status=frozenset())
    fault = '{"status": "COMPLETE", "startedAt": "x", "completedAt": "x", "results": [%s]}'
    one = '{"id": "%d", "properties": {"email": "%s"}, "archived": false, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}'
    async with using(box) as app:
        told = fault % ",".join(one % (n, e) for n, e in ((9, "B@x.example"), (8, "a@x.example")))
        for call in ("upsert", "update", "create"):
            body = told if call != "update" else told.replace('"9"', '"2"').replace('"8"', '"1"')
            box.faults.append(Fault(f"batch/{call}", "status", status=200, body=body))
        pairs = [(None, {"email": e}) for e in ("a@x.example", "b@x.example")]
        upserted = await send(app, step("contacts", Op.UPSERT, *pairs, key="email"))
        updated = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro"}), ("2", {"plan": "pro"})))
        created = await send(app, step("contacts", Op.CREATE, *pairs))
    assert [upserted[n].remote_id for n in (1, 2)] == ["8", "9"]
    assert [updated[n].remote_id for n in (1, 2)] == ["1", "2"]
    assert [created[n].remote_id for n in (1, 2)] == ["9", "8"]


async def test_what_an_answer_leaves_out_is_unknown_or_tried_again() -> None:
    box = filled()
    empty = '{"status": "COMPLETE", "results": []}'
    async with using(box) as app:
        box.faults += [Fault(f"batch/{c}", "status", status=200, body=empty) for c in ("create", "update")]
        created = await send(app, step("contacts", Op.CREATE, (None, {"email": "a@x.example"})))
        updated = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro"})))
    assert (created[1].outcome, updated[1].outcome) == (UNKNOWN, RETRY)


# -- the primary company -------------------------------------------------------------------------------------------------


async def test_a_create_takes_its_company_along() -> None:
    box = filled()
    async with using(box) as app:
        deal = {"dealname": "D", "dealstage": "closedwon", "associations.company": "32"}
        receipts = await send(app, step("deals", Op.CREATE, (None, deal)))
    assert held(box, "deals", str(receipts[1].remote_id), "hs_primary_associated_company") == "32"
    assert not calls(box, "/crm/v4/")


async def test_an_update_makes_the_company_by_one_more_call() -> None:
    box = filled()
    box.load("contacts_to_companies", [{"from_id": "1", "to_id": "31"}])
    async with using(box) as app:
        changes = [
            ("1", {"associations.company": "32"}),
            ("2", {"plan": "pro", "associations.company": "31"}),
            ("3", {"plan": "free"}),
        ]
        receipts = await send(app, step("contacts", Op.UPDATE, *changes))
    assert [receipts[n].outcome for n in (1, 2, 3)] == [OK] * 3
    assert [held(box, "contacts", i, "associatedcompanyid") for i in ("1", "2", "3")] == ["32", "31", None]
    assert {r["to_id"] for r in box.dump("contacts_to_companies") if r["from_id"] == "1"} == {"31", "32"}
    [update], [linked] = calls(box, "batch/update"), calls(box, "/crm/v4/")
    assert [i["id"] for i in orjson.loads(update.body)["inputs"]] == ["2", "3"]  # of 1 there was nothing to update
    assert len(orjson.loads(linked.body)["inputs"]) == 2
    assert receipts[1].version is not None


async def test_a_company_that_is_not_there_is_that_records_fault_alone() -> None:
    box = filled()
    async with using(box) as app:
        changes = [(i, {"plan": "pro", "associations.company": c}) for i, c in (("1", "31"), ("2", "999"), ("3", "32"))]
        receipts = await send(app, step("contacts", Op.UPDATE, *changes))
    assert [receipts[n].outcome for n in (1, 2, 3)] == [OK, REJECTED, OK]
    assert "associations.company" in str(receipts[2].error)
    assert held(box, "contacts", "3", "associatedcompanyid") == "32"


async def test_when_the_company_cannot_be_set_now_the_record_is_tried_again() -> None:
    box = filled()
    async with using(box) as app:
        box.faults.append(Fault("/crm/v4/", "status", status=503, times=20))
        receipts = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro", "associations.company": "31"})))
        assert receipts[1].outcome is RETRY
        box.faults.clear()
        receipts = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro", "associations.company": "31"})))
    assert receipts[1].outcome is OK
    assert held(box, "contacts", "1", "associatedcompanyid") == "31"


# -- pairs ---------------------------------------------------------------------------------------------------------------


async def test_pairs_are_made_and_taken_away_each_with_its_own_reason() -> None:
    box = filled()
    pair = {"from_id": "1", "to_id": "31"}
    async with using(box) as app:
        made = step("contacts_to_companies", Op.UPSERT, (None, pair), (None, {"from_id": "1", "to_id": "999"}))
        receipts = await send(app, made)
        assert [receipts[n].outcome for n in (1, 2)] == [OK, REJECTED]
        assert "999" in str(receipts[2].error)
        assert receipts[1].remote_id == "1:31"
        for _ in range(2):
            gone = await send(app, step("contacts_to_companies", Op.REMOVE, ("1:31", {})))
            assert gone[1].outcome is OK
    assert box.dump("contacts_to_companies") == []


async def test_members_of_several_lists_in_one_step() -> None:
    box = filled()
    box.load("lists", [{}, {}, {"processingType": "DYNAMIC"}])
    wanted = [("1", "1"), ("2", "2"), ("1", "3"), ("1", "999"), ("3", "1"), ("8", "1")]
    async with using(box) as app:
        made = step("list_memberships", Op.UPSERT, *[(None, {"list_id": a, "record_id": b}) for a, b in wanted])
        receipts = await send(app, made)
    assert [receipts[n].outcome for n in range(1, 7)] == [OK, OK, OK, REJECTED, REJECTED, REJECTED]
    assert "DYNAMIC" in str(receipts[5].error)
    assert [(m["list_id"], m["record_id"]) for m in box.dump("list_memberships")] == [
        ("1", "1"),
        ("1", "3"),
        ("2", "2"),
    ]


# -- limits --------------------------------------------------------------------------------------------------------------


async def test_a_spent_day_ends_the_run_until_the_accounts_midnight() -> None:
    box = filled(daily_limit=3)
    async with using(box) as app:
        await app.check()
        await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro"})))
        left = app.client.transport.budget.day_left() if app.client.transport.budget is not None else None
        assert left is not None
        assert (left.limit, left.remaining) == (3, 0)
        with pytest.raises(QuotaSpent) as spent:
            await app.send(step("contacts", Op.UPDATE, ("2", {"plan": "pro"})))
    assert spent.value.after is not None
    assert 0 < spent.value.after <= 25 * 3600
    assert held(box, "contacts", "2", "plan") is None


async def test_the_day_ends_at_midnight_of_the_accounts_zone() -> None:
    box = filled()
    async with using(box) as app:
        await app.check()
        now = dt.datetime(2026, 7, 1, 22, 0, tzinfo=dt.UTC)  # 18:00 in New York
        object.__setattr__(app.client.policy._runtime, "now", lambda: now)
        assert app.client.policy.until_midnight() == 6 * 3600 + 1


@pytest.mark.parametrize(("policy", "seconds"), [("TEN_SECONDLY_ROLLING", 10.0), ("SECONDLY", 1.0)])
async def test_a_short_limit_is_waited_for(policy: str, seconds: float) -> None:
    box, waits, runtime = filled(), [], hasty()
    sleep = runtime.sleep

    async def noted(wait: float) -> None:
        waits.append(wait)
        await sleep(0)

    object.__setattr__(runtime, "sleep", noted)
    body = orjson.dumps({"status": "error", "policyName": policy, "message": "limit"}).decode()
    async with using(box, runtime) as app:
        box.faults.append(Fault("batch/update", "status", status=429, body=body))
        receipts = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro"})))
    assert receipts[1].outcome is OK
    assert seconds in waits


@pytest.mark.parametrize("status", [423, 477, 524])
async def test_passing_refusals_are_tried_again(status: int) -> None:
    box = filled()
    async with using(box) as app:
        box.faults.append(Fault("batch/update", "status", status=status, body="{}", times=2))
        receipts = await send(app, step("contacts", Op.UPDATE, ("1", {"plan": "pro"})))
        assert receipts[1].outcome is OK
        box.faults.append(Fault("batch/create", "status", status=423, body="{}", times=99))
        with pytest.raises(RetryLater):  # a locked record was not touched
            await app.send(step("contacts", Op.CREATE, (None, {"email": "a@x.example"})))
