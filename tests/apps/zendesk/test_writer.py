"""Writing: bulk jobs and single calls, failures among successes, lost answers, limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.transport import LostAnswer, Refused
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.errors import FixConfig, RetryLater
from oploop.records import Change, Op, Outcome, Receipt, Replay
from tests.apps.zendesk.conftest import SPEND_ID, TEXT_ID, TIER_ID, fill, make_app, step


def ticket(sandbox: ZendeskSandbox, number: int) -> dict[str, Any]:
    return sandbox.store.show("tickets", sandbox.store.records["tickets"][number])


def custom(sandbox: ZendeskSandbox, number: int) -> dict[int, Any]:
    return {e["id"]: e["value"] for e in ticket(sandbox, number)["custom_fields"]}


def writes(sandbox: ZendeskSandbox) -> list[str]:
    return [f"{e.method} {e.path}" for e in sandbox.log if e.method != "GET"]


def by_number(receipts: Sequence[Receipt]) -> dict[int, Receipt]:
    assert len({r.number for r in receipts}) == len(receipts)
    return {r.number: r for r in receipts}


async def test_a_hundred_updates_are_one_job_and_two_bad_ones_do_not_stop_the_others(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    changes = [(str(n), {"priority": "high", "subject": f"neu {n} ✓"}) for n in range(1, 101)]
    changes[10] = ("11", {"priority": "asap"})
    changes[90] = ("4711", {"priority": "high"})
    receipts = by_number(await app.send(step("tickets", Op.UPDATE, *changes)))
    assert len(receipts) == 100
    assert {n for n, r in receipts.items() if r.outcome is Outcome.REJECTED} == {11, 91}
    assert "asap" in (receipts[11].error or "")
    assert "NotFound" in (receipts[91].error or "")
    assert all(
        receipts[n].outcome is Outcome.OK and receipts[n].remote_id == str(n)
        for n in range(1, 101)
        if n not in (11, 91)
    )
    assert ticket(sandbox, 42)["subject"] == "neu 42 ✓"
    assert ticket(sandbox, 11)["priority"] == "normal"
    assert writes(sandbox) == ["PUT /api/v2/tickets/update_many"]
    results = next(iter(sandbox.jobs.all.values())).results or []
    assert [r.get("id") for r in results] != sorted(str(r.get("id")) for r in results), "results came in another order"


async def test_created_records_are_matched_by_index_whatever_the_order(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    changes = [(None, {"external_id": f"E-{n}", "subject": "s", "description": "d"}) for n in range(30)]
    changes[4] = (None, {"external_id": "E-4", "subject": "no comment"})
    receipts = by_number(await app.send(step("tickets", Op.CREATE, *changes)))
    assert receipts[5].outcome is Outcome.REJECTED
    assert "cannot be blank" in (receipts[5].error or "")
    for n in range(30):
        if n != 4:
            assert ticket(sandbox, int(receipts[n + 1].remote_id or 0))["external_id"] == f"E-{n}"


async def test_one_change_is_one_single_call(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    (updated,) = await app.send(
        step("tickets", Op.UPDATE, ("7", {"priority": "urgent", "due_at": datetime(2026, 5, 1, tzinfo=UTC)}))
    )
    (created,) = await app.send(step("organizations", Op.CREATE, (None, {"name": "Acme GmbH"})))
    (removed,) = await app.send(step("tickets", Op.REMOVE, ("8", {})))
    (again,) = await app.send(step("tickets", Op.REMOVE, ("8", {})))
    assert [r.outcome for r in (updated, created, removed, again)] == [Outcome.OK] * 4
    assert ticket(sandbox, 7)["due_at"] == "2026-05-01T00:00:00Z"
    assert created.remote_id == str(sandbox.store.find("organizations", "name", "acme gmbh")["id"])  # type: ignore[index]
    assert writes(sandbox) == [
        "PUT /api/v2/tickets/7",
        "POST /api/v2/organizations",
        "DELETE /api/v2/tickets/8",
        "DELETE /api/v2/tickets/8",
    ]
    now = datetime.now(UTC).timestamp() * 1_000_000
    assert all(r.version is not None and 0 <= now - r.version < 5_000_000 for r in (updated, created, removed))


async def test_a_single_refusal_is_a_receipt_with_zendesks_words(app: ZendeskApp) -> None:
    (bad,) = await app.send(step("tickets", Op.UPDATE, ("7", {"priority": "asap"})))
    assert bad.outcome is Outcome.REJECTED
    assert bad.error == "RecordInvalid: Record validation errors (Priority: asap is invalid)"
    (gone,) = await app.send(step("tickets", Op.UPDATE, ("4711", {"priority": "low"})))
    assert (gone.outcome, gone.error) == (Outcome.REJECTED, "RecordNotFound: Not found")


async def test_versions_of_a_job_are_not_later_than_its_writes(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    receipts = await app.send(step("tickets", Op.UPDATE, *[(str(n), {"priority": "low"}) for n in (1, 2, 3)]))
    for receipt in receipts:
        generated = ticket(sandbox, int(receipt.remote_id or 0))["generated_timestamp"]
        assert receipt.version is not None
        assert generated * 1_000_000 - 2_000_000 <= receipt.version <= generated * 1_000_000


async def test_custom_fields_by_title_and_id_end_in_custom_fields(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    fields = await app.describe("tickets")
    by_title, by_id = fields["Priority reason"], fields[str(SPEND_ID)]
    await app.send(step("tickets", Op.UPDATE, ("7", {by_title.name: "spent 1,200 € — gold", by_id.name: 1200})))
    assert custom(sandbox, 7) == {TEXT_ID: "spent 1,200 € — gold", TIER_ID: None, SPEND_ID: "1200"}
    sent = orjson.loads(next(e for e in sandbox.log if e.method == "PUT").body)["ticket"]
    assert sent["custom_fields"] == [{"id": TEXT_ID, "value": "spent 1,200 € — gold"}, {"id": SPEND_ID, "value": 1200}]
    await app.send(step("tickets", Op.UPDATE, ("7", {str(TIER_ID): "tier_gold"}), ("8", {by_title.name: "x"})))
    assert (custom(sandbox, 7)[TIER_ID], ticket(sandbox, 7)["tags"]) == ("tier_gold", ["tier_gold"])
    (bad,) = await app.send(step("tickets", Op.UPDATE, ("7", {by_id.name: "much"})))
    assert bad.outcome is Outcome.REJECTED


async def test_user_and_organization_fields_go_by_key(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    plan = (await app.describe("users"))["Plan"]
    revenue = (await app.describe("organizations"))["revenue"]
    await app.send(step("users", Op.UPDATE, ("501", {plan.name: "gold", "notes": "VIP"})))
    await app.send(step("organizations", Op.UPDATE, ("50", {revenue.name: Decimal("12.10")})))
    assert sandbox.store.records["users"][501]["user_fields"] == {"plan": "gold"}
    assert sandbox.store.records["organizations"][50]["organization_fields"] == {"revenue": "12.10"}


async def test_tags_are_sent_whole_and_can_be_emptied(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    await app.send(step("tickets", Op.UPDATE, ("7", {"tags": ("VIP", "at risk")}), ("8", {"tags": ["a"]})))
    assert ticket(sandbox, 7)["tags"] == ["at", "risk", "vip"]
    await app.send(step("tickets", Op.UPDATE, ("7", {"tags": None}), ("8", {"tags": []})))
    assert (ticket(sandbox, 7)["tags"], ticket(sandbox, 8)["tags"]) == ([], [])


async def test_what_zendesk_would_ignore_is_refused_before_it_is_sent(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    bad = [
        ("tickets", "7", {"priorty": "high"}, "no field 'priorty'"),
        ("tickets", "7", {"created_at": "2026-01-01"}, "cannot be written"),
        ("tickets", "7", {"description": "new"}, "first comment"),
        ("users", "501", {"email": "new@acme.example"}, "second address"),
        ("tickets", None, {"priority": "low"}, "no ticket id"),
    ]
    for obj, remote_id, fields, reason in bad:
        (receipt,) = await app.send(step(obj, Op.UPDATE, (remote_id, fields)))
        assert receipt.outcome is Outcome.REJECTED
        assert reason in (receipt.error or "")
    assert writes(sandbox) == []


async def test_users_are_upserted_by_email_or_external_id_without_mail(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    changes = [
        Change(1, Op.UPSERT, {"external_id": "c-3"}, {"name": "Renamed"}),
        Change(2, Op.UPSERT, {"email": "U4@acme.example"}, {"name": "By mail"}),
        Change(3, Op.UPSERT, {"external_id": "new-1"}, {"name": "New", "email": "new@acme.example"}),
        Change(4, Op.UPSERT, {"external_id": "new-2"}, {"name": "Bad", "email": "nonsense"}),
    ]
    made = step("users", Op.UPSERT)
    receipts = by_number(await app.send(type(made)(made.id, made.sync, "users", Op.UPSERT, changes)))
    assert [receipts[n].outcome for n in (1, 2, 3, 4)] == [Outcome.OK] * 3 + [Outcome.REJECTED]
    assert (receipts[1].remote_id, receipts[2].remote_id) == ("503", "504")
    users = sandbox.store.records["users"]
    assert (users[503]["name"], users[503]["external_id"]) == ("Renamed", "c-3")
    assert users[int(receipts[3].remote_id or 0)]["email"] == "new@acme.example"
    sent = orjson.loads(next(e for e in sandbox.log if e.method == "POST").body)["users"]
    assert all(u["skip_verify_email"] is True for u in sent)
    assert writes(sandbox) == ["POST /api/v2/users/create_or_update_many"]


async def test_organizations_are_upserted_one_by_one_and_a_name_clash_is_told(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    async def upsert(external_id: str, name: str) -> Receipt:
        (receipt,) = await app.send(
            step("organizations", Op.UPSERT, (None, {"name": name}), key={"external_id": external_id})
        )
        return receipt

    assert (await upsert("O-3", "New name")).remote_id == "53"
    assert (await upsert("O-99", "Fresh")).outcome is Outcome.OK
    clash = await upsert("O-100", "Org 4")
    assert clash.outcome is Outcome.REJECTED
    assert "has already been taken" in (clash.error or "")
    assert app.objects["organizations"].operations[Op.UPSERT].batch == 1


async def test_many_are_removed_in_one_job_and_the_gone_count_as_removed(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    receipts = await app.send(step("tickets", Op.REMOVE, ("1", {}), ("2", {}), ("4711", {})))
    assert {r.outcome for r in receipts} == {Outcome.OK}
    assert writes(sandbox) == ["DELETE /api/v2/tickets/destroy_many"]
    assert ticket(sandbox, 1)["status"] == "deleted"


async def test_without_bulk_imports_users_are_created_one_by_one() -> None:
    box = ZendeskSandbox(bulk_imports=False, job_seconds=0.01)
    fill(box)
    with box.running() as url:
        app = make_app(url)
        people = [(None, {"name": f"N{n}", "email": f"n{n}@acme.example"}) for n in range(3)]
        people[1] = (None, {"name": "Twice", "email": "u7@acme.example"})
        receipts = by_number(await app.send(step("users", Op.CREATE, *people)))
        assert [receipts[n].outcome for n in (1, 2, 3)] == [Outcome.OK, Outcome.REJECTED, Outcome.OK]
        more = [(None, {"name": "M1", "email": "m1@a.example"}), (None, {"name": "M2", "email": "m2@a.example"})]
        await app.send(step("users", Op.CREATE, *more))
        assert writes(box).count("POST /api/v2/users/create_many") == 1
        await app.aclose()


async def test_more_than_thirty_jobs_wait_for_their_turn(sandbox: ZendeskSandbox, app: ZendeskApp) -> None:
    sandbox.jobs.seconds = 0.05
    steps = [
        step("tickets", Op.UPDATE, *[(str(n), {"priority": "high"}) for n in range(k, k + 6)]) for k in range(1, 241, 6)
    ]
    receipts = [r for answer in await asyncio.gather(*(app.send(s) for s in steps)) for r in answer]
    assert len(steps) == 40
    assert {r.outcome for r in receipts} == {Outcome.OK}
    assert sandbox.jobs.peak <= 30
    assert all(e.status == 200 for e in sandbox.log)


async def test_jobs_of_others_that_fill_the_queue_are_waited_for(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    body = orjson.dumps(
        {"error": "TooManyJobs", "description": "No more than 30 jobs may be queued or running"}
    ).decode()
    soon = {"Retry-After": "0"}
    sandbox.faults.append(Fault("update_many", "status", status=429, body=body, headers=soon, times=2))
    receipts = await app.send(step("tickets", Op.UPDATE, ("1", {"priority": "high"}), ("2", {"priority": "high"})))
    assert {r.outcome for r in receipts} == {Outcome.OK}
    sandbox.faults.append(Fault("update_many", "status", status=429, body=body, headers=soon, times=99))
    with pytest.raises(RetryLater, match="TooManyJobs"):
        await app.send(step("tickets", Op.UPDATE, ("1", {"priority": "low"}), ("2", {"priority": "low"})))


@pytest.mark.parametrize("action", ["lose", "truncate"])
async def test_an_answer_that_is_lost_is_told_and_never_sent_again(
    app: ZendeskApp, sandbox: ZendeskSandbox, action: str
) -> None:
    sandbox.faults.append(Fault("POST /api/v2/tickets$", action))
    with pytest.raises(LostAnswer):
        await app.send(step("tickets", Op.CREATE, (None, {"subject": "once", "description": "d"})))
    sandbox.faults.append(Fault("create_many", action))
    new = [(None, {"subject": "many", "description": "d"})] * 3
    with pytest.raises(LostAnswer):
        await app.send(step("tickets", Op.CREATE, *new))
    assert writes(sandbox) == ["POST /api/v2/tickets", "POST /api/v2/tickets/create_many"]
    for _ in range(200):  # the job takes its time
        made = sum(t["subject"] in ("once", "many") for t in sandbox.dump("tickets"))
        if made == 4:
            break
        await asyncio.sleep(0.02)
    assert made == 4


async def test_an_accepted_job_that_cannot_be_asked_after_is_lost_not_refused(
    app: ZendeskApp, sandbox: ZendeskSandbox
) -> None:
    two = (("1", {"priority": "high"}), ("2", {"priority": "high"}))
    for fault in (
        Fault("job_statuses", "status", status=500, times=99),
        Fault("job_statuses", "html", times=1),
        Fault("job_statuses", "status", status=404, body="{}"),
        Fault("job_statuses", "status", status=401, body="{}"),
    ):
        sandbox.faults[:] = [fault]
        with pytest.raises(LostAnswer, match="accepted"):
            await app.send(step("tickets", Op.UPDATE, *two))


async def test_a_job_tells_later_what_it_did(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    """Also where the first of the changes was not given to it."""
    new: list[tuple[str | None, dict[str, Any]]] = [(None, {"subject": f"s{n}", "description": "d"}) for n in range(5)]
    new[0], new[3] = (None, {"nothing": "of the kind"}), (None, {"subject": "no comment"})
    notes: list[str] = []

    async def note(text: str) -> None:
        notes.append(text)

    made = replace(step("tickets", Op.CREATE, *new), note=note)
    sandbox.faults[:] = [Fault("job_statuses", "status", status=500, times=6)]
    with pytest.raises(LostAnswer, match="accepted"):
        await app.send(made)
    await asyncio.sleep(0.05)
    told = by_number(await app.settle("tickets", Op.CREATE, notes[0], made.changes))
    assert sorted(told) == [2, 3, 4, 5]
    assert told[4].outcome is Outcome.REJECTED
    assert [ticket(sandbox, int(told[n].remote_id or 0))["subject"] for n in (2, 3, 5)] == ["s1", "s2", "s4"]
    sandbox.jobs.clear()
    forgotten = await app.settle("tickets", Op.CREATE, notes[0], made.changes)
    assert {r.outcome for r in forgotten} == {Outcome.UNKNOWN}


async def test_a_job_that_is_killed_half_way(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.jobs.endings.append(("killed", 2))
    updates = by_number(
        await app.send(step("tickets", Op.UPDATE, *[(str(n), {"priority": "low"}) for n in range(1, 6)]))
    )
    assert [updates[n].outcome for n in range(1, 6)] == [Outcome.OK] * 2 + [Outcome.RETRY] * 3
    sandbox.jobs.endings.append(("failed", 1))
    new = [(None, {"subject": "s", "description": "d"})] * 3
    created = by_number(await app.send(step("tickets", Op.CREATE, *new)))
    assert [created[n].outcome for n in (1, 2, 3)] == [Outcome.OK] + [Outcome.UNKNOWN] * 2
    assert "failed" in (created[2].error or "")


async def test_a_failed_job_still_says_what_was_wrong_with_each(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.jobs.endings.append(("failed", 2))
    receipts = await app.send(step("tickets", Op.CREATE, (None, {"subject": "a"}), (None, {"subject": "b"})))
    assert {r.outcome for r in receipts} == {Outcome.REJECTED}


async def test_bulk_calls_that_are_refused_as_a_whole(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    many = [(str(n), {"priority": "low"}) for n in range(1, 102)]
    with pytest.raises(Refused, match="TooManyValues"):
        await app.send(step("tickets", Op.UPDATE, *many))
    sandbox.faults.append(Fault("update_many", "status", status=401, body='{"error": "Couldn\'t authenticate you"}'))
    with pytest.raises(FixConfig, match="email and api_token"):
        await app.send(step("tickets", Op.UPDATE, *many[:2]))


async def test_conflicts_and_limits_of_single_calls_are_tried_again(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    sandbox.faults += [
        Fault("PUT /api/v2/tickets/7", "status", status=409, body='{"error": "DatabaseConflict"}'),
        Fault("PUT /api/v2/tickets/7", "status", status=429, headers={"Retry-After": "0"}),
        Fault("PUT /api/v2/tickets/7", "status", status=503, headers={"Retry-After": "0"}),
    ]
    (receipt,) = await app.send(step("tickets", Op.UPDATE, ("7", {"priority": "high"})))
    assert receipt.outcome is Outcome.OK
    assert len(writes(sandbox)) == 4
    sandbox.faults.append(Fault("PUT /api/v2/tickets/7", "status", status=500))
    with pytest.raises(LostAnswer):
        await app.send(step("tickets", Op.UPDATE, ("7", {"priority": "low"})))


async def test_results_in_any_form_and_order_are_matched() -> None:
    """Answers as they were seen in the wild: without index, with `status: Failed` and `errors`, in another order."""
    from oploop.apps.zendesk.writer import job_receipts

    bodies = [(Change(n, Op.UPSERT, {}, {}), {"email": f"u{n}@a.example", "external_id": f"X{n}"}) for n in range(1, 5)]
    results: list[dict[str, Any]] = [
        {"id": 11, "external_id": "x1", "status": "Updated"},
        {"id": 12, "email": "U2@A.example", "status": "Created"},
        {"external_id": "X3", "status": "Failed", "errors": "Email: is not properly formatted"},
        {"id": 14, "index": 3},
    ]
    random.Random(3).shuffle(results)
    receipts = by_number(job_receipts(Op.UPSERT, bodies, {"status": "completed", "results": results}, 5))
    assert {n: r.remote_id for n, r in receipts.items()} == {1: "11", 2: "12", 3: None, 4: "14"}
    assert receipts[3].error == "Email: is not properly formatted"
    nameless = [{"id": 7, "status": "Created"}, {"id": 8, "status": "Created"}]
    creates = [(Change(n, Op.CREATE, {}, {}), {}) for n in (1, 2)]
    assert {r.outcome for r in job_receipts(Op.CREATE, creates, {"status": "completed", "results": nameless}, 5)} == {
        Outcome.OK
    }
    fewer = job_receipts(Op.CREATE, creates, {"status": "completed", "results": nameless[:1]}, 5)
    assert {r.outcome for r in fewer} == {Outcome.UNKNOWN}
    locked = [{"id": 1, "index": 0, "error": "DatabaseConflict", "details": "locked"}]
    update = [(Change(1, Op.UPDATE, {}, {}, "1"), {})]
    assert job_receipts(Op.UPDATE, update, {"status": "completed", "results": locked}, 5)[0].outcome is Outcome.RETRY


def test_operations_say_what_may_be_repeated() -> None:
    for obj in (o for o in ZendeskApp.objects.values() if o.stream is not None):
        assert obj.operations[Op.UPDATE].replay is Replay.SAFE
        assert obj.operations[Op.CREATE].replay is Replay.LOOKUP
        assert obj.operations[Op.UPDATE].batch == 100


def test_values_are_written_as_zendesk_reads_them() -> None:
    from oploop.apps.zendesk.writer import record_body

    fields = {
        "due_at": datetime.fromisoformat("2026-05-01T02:00:00+02:00"),
        "assignee_id": Decimal(7),
        f"custom_fields.{TEXT_ID}": date(2026, 5, 1),
        "subject": None,
    }
    assert record_body("tickets", Change(1, Op.UPDATE, {}, fields, "7")) == {
        "id": 7,
        "due_at": "2026-05-01T00:00:00Z",
        "assignee_id": 7,
        "custom_fields": [{"id": TEXT_ID, "value": "2026-05-01"}],
        "subject": None,
    }
