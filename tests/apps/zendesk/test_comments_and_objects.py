"""Comments on tickets, and records of custom objects: what could go wrong with each."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.errors import FixConfig
from oploop.records import Change, FieldType, JsonPath, Op, Outcome, ReadOptions, Receipt, Replay, Step
from tests.apps.zendesk.conftest import CAR

OK, REJECTED, RETRY, UNKNOWN = Outcome.OK, Outcome.REJECTED, Outcome.RETRY, Outcome.UNKNOWN
CARS = "custom_objects.car"


async def say(app: ZendeskApp, *said: tuple[int, str], **more: Any) -> dict[int, Receipt]:
    """Comments as an append delivers them, with a key of its own."""
    changes = [
        Change(n, Op.CREATE, {"event_id": f"e{n}"}, {"ticket_id": ticket, "body": body, **more})
        for n, (ticket, body) in enumerate(said, 1)
    ]
    return {r.number: r for r in await app.send(Step("01", "s", "ticket_comments", Op.CREATE, changes))}


def bodies(sandbox: ZendeskSandbox, ticket: int) -> list[str]:
    return [c["body"] for c in sandbox.store.comments.get(ticket, [])]


# -- comments ------------------------------------------------------------------------------------------------------------


async def test_a_comment_is_told_its_own_id(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    receipts = await say(app, (7, "it's 🔥"), public=False, author_id=505)
    [comment] = sandbox.store.comments[7]
    assert (comment["body"], comment["public"], comment["author_id"]) == ("it's 🔥", False, 505)
    assert receipts[1].remote_id == str(comment["id"])


async def test_a_job_has_no_ticket_twice_and_the_order_stays(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    said = [(7, "a"), (8, "a"), (9, "a"), (7, "b"), (8, "b"), (9, "b"), (7, "c")]
    receipts = await say(app, *said)
    assert [r.outcome for r in receipts.values()] == [OK] * 7
    assert (bodies(sandbox, 7), bodies(sandbox, 8), bodies(sandbox, 9)) == (["a", "b", "c"], ["a", "b"], ["a", "b"])
    jobs = [orjson.loads(e.body)["tickets"] for e in sandbox.log if e.path.endswith("update_many")]
    assert [len(j) for j in jobs] == [3, 3]


async def test_a_ticket_that_is_not_there_stops_no_other(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    for said in ([(7, "a"), (999, "a"), (8, "a")], [(9, "a"), (999, "a")]):
        receipts = await say(app, *said)
        assert [receipts[n].outcome for n in sorted(receipts)] == [REJECTED if t == 999 else OK for t, _ in said]
        assert all(r.error for r in receipts.values() if r.outcome is REJECTED)


@pytest.mark.parametrize("said", [[(7, "a")], [(7, "a"), (8, "b"), (9, "c")]])
async def test_a_lost_answer_is_unknown_and_never_sent_again(
    app: ZendeskApp, sandbox: ZendeskSandbox, said: Any
) -> None:
    assert app.objects["ticket_comments"].operations[Op.CREATE].replay is Replay.NEVER
    sandbox.faults.append(Fault("PUT /api/v2/tickets", "lose"))
    receipts = await say(app, *said)
    assert {r.outcome for r in receipts.values()} == {UNKNOWN}


async def test_what_was_said_before_a_limit_is_not_said_again(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    limit = Fault("PUT /api/v2/tickets/8", "status", status=429, headers={"Retry-After": "0"}, body="{}", times=99)
    sandbox.faults.append(limit)
    receipts = await say(app, (7, "a"), (8, "a"))
    assert [receipts[n].outcome for n in (1, 2)] == [OK, RETRY]
    assert (bodies(sandbox, 7), bodies(sandbox, 8)) == (["a"], [])


async def test_a_job_that_ends_early_leaves_comments_unknown(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.jobs.endings.append(("failed", 1))
    receipts = await say(app, (7, "a"), (8, "a"), (9, "a"))
    assert sorted(r.outcome for r in receipts.values()) == [OK, UNKNOWN, UNKNOWN]


# -- custom objects ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cars(sandbox: ZendeskSandbox) -> ZendeskSandbox:
    sandbox.load("custom_objects", [CAR])
    sandbox.load(CARS, [{"name": f"Car {n}", "external_id": f"V{n}"} for n in range(1, 4)])
    return sandbox


async def test_an_objects_own_fields_are_described(app: ZendeskApp, cars: ZendeskSandbox) -> None:
    fields = await app.describe(CARS)
    assert fields["Doors"].name == "custom_object_fields.doors"
    assert (fields["Doors"].type, fields["electric"].type) == (FieldType.INTEGER, FieldType.BOOLEAN)
    assert fields["colour"].enum == ("red", "blue")
    assert fields["colour"].source == JsonPath("custom_object_fields", ("colour",))
    assert fields["Doors"].custom
    assert {n for n, f in fields.items() if f.key} == {"id", "external_id"}


async def test_an_objects_fields_come_in_pages(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    """A hundred a page, with and without a cursor, as the document says of this list."""
    wide = [{"key": f"f{n}", "title": f"F {n}", "type": "text"} for n in range(101)]
    sandbox.load("custom_objects", [{"key": "car", "title": "Car", "fields": wide}])
    fields = await app.describe(CARS)
    assert "custom_object_fields.f100" in {f.name for f in fields.values()}


async def test_an_object_that_is_not_there_is_named(app: ZendeskApp, cars: ZendeskSandbox) -> None:
    assert CARS in app.objects
    await app.check()
    assert "custom_objects.cat" in app.streams
    with pytest.raises(FixConfig, match=r"custom_objects\.cat.*did you mean 'custom_objects\.car'"):
        await app.check()


@pytest.mark.parametrize("count", [1, 3])
async def test_records_are_made_changed_and_taken_away(app: ZendeskApp, cars: ZendeskSandbox, count: int) -> None:
    async def deliver(op: Op, *records: tuple[str | None, dict[str, Any], dict[str, Any]]) -> list[Receipt]:
        changes = [Change(n, op, key, fields, remote_id=i) for n, (i, key, fields) in enumerate(records, 1)]
        receipts = await app.send(Step("01", "s", CARS, op, changes))
        assert {r.outcome for r in receipts} == {OK}
        return sorted(receipts, key=lambda r: r.number)

    new = {"name": "Neu", "custom_object_fields.doors": 4, "custom_object_fields.electric": True}
    made = await deliver(Op.UPSERT, *[(None, {"external_id": f"N{n}"}, new) for n in range(count)])
    await deliver(Op.UPSERT, *[(None, {"external_id": f"N{n}"}, {"name": "Anders"}) for n in range(count)])
    ids = [str(r.remote_id) for r in made]
    held = {r["id"]: r for r in cars.dump(CARS)}
    assert len(held) == 3 + count
    assert held[ids[0]]["custom_object_fields"] == {"doors": 4, "colour": None, "electric": True}
    assert held[ids[0]]["name"] == "Anders"
    await deliver(Op.UPDATE, *[(i, {"id": i}, {"custom_object_fields.colour": "red"}) for i in ids])
    rows = {r["id"]: r for r in (await app.fetch(CARS, [*ids, "01NOBODY"])).table.to_pylist()}
    assert orjson.loads(rows[ids[0]]["custom_object_fields"])["colour"] == "red"
    assert [i for i, r in rows.items() if r["_deleted"]] == ["01NOBODY"]
    for _ in range(2):
        await deliver(Op.REMOVE, *[(i, {}, {}) for i in ids])
    assert len(cars.dump(CARS)) == 3


async def test_lists_are_read_page_by_page(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.load("satisfaction_ratings", [{"ticket_id": n, "score": "good"} for n in range(1, 251)])
    batches = [b async for b in app.read("satisfaction_ratings", None, ReadOptions(exclude=frozenset({"comment"})))]
    assert [b.table.num_rows for b in batches] == [100, 100, 50, 0]
    assert [b.complete for b in batches] == [False, False, False, True]
    assert "comment" not in batches[0].table.column_names
