"""Writing: what Salesforce refuses record by record, locks, keys that match several or stand twice, jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from oploop.apps.conformance import Bench
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.sandbox import Fault
from oploop.apps.transport import LostAnswer, Refused
from oploop.errors import QuotaSpent, RetryLater, SkipRecord
from oploop.records import Change, Op, Outcome, Receipt, Step
from oploop.runtime import Runtime
from tests.apps.salesforce.conftest import Make


def step(op: Op, records: Sequence[Mapping[str, Any]], *, key: str = "Billing_Id__c", to: str = "Account") -> Step:
    """`records`: fields, with `id` for one that is there."""
    changes = []
    for n, record in enumerate(records, 1):
        fields = {k: v for k, v in record.items() if k not in ("id", key)}
        changes.append(Change(n, op, {key: record.get(key)}, fields, record.get("id")))
    return Step("s1", "test", to, op, changes)


async def send(bench: Bench, made: Step) -> list[Receipt]:
    return sorted(await bench.app.send(made), key=lambda r: r.number)


def ids(box: SalesforceSandbox, name: str = "Account") -> list[str]:
    return [r["Id"] for r in box.dump(name)]


async def test_values_go_as_salesforce_wants_them(make: Make, box: SalesforceSandbox) -> None:
    sent = {
        "Billing_Id__c": "b1",
        "Name": "Haus",
        "Last_Seen__c": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "Renewal_Date__c": date(2026, 3, 1),
        "MRR__c": Decimal("12.50"),
        "Segments__c": ["SMB", "Public"],
        "Is_Customer__c": True,
        "Description": None,
    }
    [receipt] = await send(make(), step(Op.UPSERT, [sent]))
    assert receipt.outcome is Outcome.OK
    [held] = box.dump("Account")
    assert held["Id"] == receipt.remote_id
    assert receipt.version is not None
    assert receipt.version <= datetime.fromisoformat(held["SystemModstamp"]).timestamp() * 1e6
    stored = {"Last_Seen__c": "2026-01-02T03:04:05+00:00", "Renewal_Date__c": "2026-03-01", "Segments__c": "SMB;Public"}
    assert {k: held[k] for k in sent} == {**sent, **stored}


BAD = [
    (
        {"Health__c": "Unknown"},
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST: Health: bad value for restricted picklist field: Unknown",
    ),
    ({"Name": "x" * 256}, "STRING_TOO_LONG"),
    ({"Health_Score__c": 101}, "FIELD_CUSTOM_VALIDATION_EXCEPTION: Health Score is from 0 to 100"),
    ({"ParentId": "0015g0000000zzz"}, "INVALID_CROSS_REFERENCE_KEY"),
    ({"OwnerId": "not an id"}, "MALFORMED_ID"),
    ({"Name": None}, "REQUIRED_FIELD_MISSING"),
    ({"Nix": 1}, "Account has no field 'Nix'"),
]


@pytest.mark.parametrize(("bad", "said"), BAD)
@pytest.mark.parametrize("many", [False, True])
async def test_one_bad_record_is_refused_and_the_others_are_not(
    make: Make, box: SalesforceSandbox, bad: dict[str, Any], said: str, many: bool
) -> None:
    count = 202 if many else 3
    records = [{"Billing_Id__c": f"b{i}", "Name": f"a{i}"} for i in range(count)]
    records[1] |= bad
    receipts = await send(make(), step(Op.UPSERT, records))
    assert [r.outcome for r in receipts] == [Outcome.OK, Outcome.REJECTED] + [Outcome.OK] * (count - 2)
    assert said in (receipts[1].error or "")
    assert len(box.dump("Account")) == count - 1
    assert bool(box.jobs.jobs) is many
    held = {r["Billing_Id__c"]: r["Id"] for r in box.dump("Account")}
    assert all(r.remote_id == held[f"b{r.number - 1}"] for r in receipts if r.outcome is Outcome.OK)


async def test_an_external_id_of_several_records_is_refused(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a", "Legacy_Key__c": "x"}, {"Name": "b", "Legacy_Key__c": "x"}])
    records = [{"Legacy_Key__c": "X", "Name": "c"}, {"Legacy_Key__c": "y", "Name": "d"}]
    receipts = await send(make(), step(Op.UPSERT, records, key="Legacy_Key__c"))
    assert [r.outcome for r in receipts] == [Outcome.REJECTED, Outcome.OK]
    assert (receipts[0].error or "").startswith("DUPLICATE_EXTERNAL_ID: Legacy_Key__c: more than one record found")


@pytest.mark.parametrize("count", [1, 200, 201])
async def test_a_list_of_which_each_external_id_is_of_several_records_changes_none(
    make: Make, box: SalesforceSandbox, count: int
) -> None:
    """One, a full call, and a job."""
    box.load("Account", [{"Name": "theirs", "Legacy_Key__c": f"x{i}"} for i in range(count) for _ in range(2)])
    records = [{"Legacy_Key__c": f"x{i}", "Name": "ours"} for i in range(count)]
    receipts = await send(make(), step(Op.UPSERT, records, key="Legacy_Key__c"))
    assert {r.outcome for r in receipts} == {Outcome.REJECTED}
    assert all((r.error or "").startswith("DUPLICATE_EXTERNAL_ID: ") for r in receipts)
    assert bool(box.jobs.jobs) is (count > 200)
    assert {r["Name"] for r in box.dump("Account")} == {"theirs"}
    assert len(box.dump("Account")) == 2 * count


async def test_a_key_that_stands_twice_in_a_step_goes_in_two_calls(make: Make, box: SalesforceSandbox) -> None:
    records = [{"Billing_Id__c": k, "Name": n} for k, n in (("b1", "one"), ("b2", "two"), ("B1 ", "three"))]
    receipts = await send(make(), step(Op.UPSERT, records))
    assert [r.outcome for r in receipts] == [Outcome.OK] * 3
    assert sorted(r["Name"] for r in box.dump("Account")) == ["three", "two"]


async def test_a_value_that_is_unique_is_refused_with_the_other_record(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a", "Billing_Id__c": "b1"}, {"Name": "b", "Billing_Id__c": "b2"}])
    first, second = ids(box)
    [receipt] = await send(make(), step(Op.UPDATE, [{"id": second, "Billing_Id__c": "b2", "Legacy_Key__c": "l"}]))
    assert receipt.outcome is Outcome.OK
    made = Step("s", "test", "Account", Op.UPDATE, [Change(1, Op.UPDATE, {}, {"Billing_Id__c": "B1"}, second)])
    [receipt] = await send(make(), made)
    assert receipt.outcome is Outcome.REJECTED
    assert first in (receipt.error or "")


async def test_locked_records_are_tried_again(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"a{i}", "Billing_Id__c": f"b{i}"} for i in range(3)])
    known = ids(box)
    box.locked[known[1]] = 1
    bench = make()
    made = step(Op.UPDATE, [{"id": i, "Description": "neu"} for i in known])
    receipts = await send(bench, made)
    assert [r.outcome for r in receipts] == [Outcome.OK, Outcome.RETRY, Outcome.OK]
    assert [r.outcome for r in await send(bench, made)] == [Outcome.OK] * 3


async def test_what_is_gone_is_removed_already_and_cannot_be_changed(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": "a"}, {"Name": "b"}])
    known = ids(box)
    box.org.delete("Account", known[0])
    bench = make()
    updates = await send(bench, step(Op.UPDATE, [{"id": i, "Description": "x"} for i in known]))
    assert [r.outcome for r in updates] == [Outcome.REJECTED, Outcome.OK]
    removals = await send(bench, step(Op.REMOVE, [{"id": known[0]}, {"id": known[1][:15]}]))
    assert [r.outcome for r in removals] == [Outcome.OK] * 2
    assert box.dump("Account") == []


async def test_the_days_limit_is_no_fault_of_the_records(make: Make, box: SalesforceSandbox) -> None:
    bench = make()
    assert "Account" in bench.app.objects
    box.daily = box.used
    with pytest.raises(QuotaSpent, match="REQUEST_LIMIT_EXCEEDED"):
        await send(bench, step(Op.UPSERT, [{"Billing_Id__c": "b1", "Name": "a"}]))


async def test_a_create_whose_answer_is_lost_is_not_repeated(make: Make, box: SalesforceSandbox) -> None:
    box.faults.append(Fault("POST .*composite/sobjects", "lose"))
    with pytest.raises(LostAnswer):
        await send(make(), step(Op.CREATE, [{"Subject": "a"}], key="Subject", to="Task"))
    assert len(box.dump("Task")) == 1


# -- jobs ----------------------------------------------------------------------------------------------------------------


def accounts(count: int) -> list[dict[str, Any]]:
    return [{"Billing_Id__c": f"b{i}", "Name": f'Haus "{i}",\nOst', "MRR__c": Decimal("1.50")} for i in range(count)]


@pytest.mark.parametrize("op", [Op.UPSERT, Op.CREATE])
async def test_many_records_go_as_one_job(make: Make, box: SalesforceSandbox, op: Op) -> None:
    bench = make()
    receipts = await send(bench, step(op, accounts(300)))
    held = {r["Billing_Id__c"]: r for r in box.dump("Account")}
    assert [r.remote_id for r in receipts] == [held[f"b{i}"]["Id"] for i in range(300)]
    assert held["b7"]["Name"] == 'Haus "7",\nOst'
    [job] = box.jobs.jobs.values()
    assert job.info["operation"] == ("upsert" if op is Op.UPSERT else "insert")
    known = [{"id": r.remote_id, "MRR__c": None, "Health__c": "At Risk"} for r in receipts]
    assert {r.outcome for r in await send(bench, step(Op.UPDATE, known))} == {Outcome.OK}
    assert {(r["MRR__c"], r["Health__c"]) for r in box.dump("Account")} == {(None, "At Risk")}
    assert {r.outcome for r in await send(bench, step(Op.REMOVE, known))} == {Outcome.OK}
    assert box.dump("Account") == []


async def test_one_more_than_salesforce_takes_at_once_in_a_job(make: Make, box: SalesforceSandbox) -> None:
    """It cuts jobs into batches of 10,000; the conformance suite stops at fewer."""
    receipts = await send(make(), step(Op.UPSERT, accounts(10_001)))
    assert {r.outcome for r in receipts} == {Outcome.OK}
    assert len({r.remote_id for r in receipts}) == 10_001 == len(box.dump("Account"))
    assert len(box.jobs.jobs) == 1


async def test_equal_records_of_a_job_are_told_apart_by_count(make: Make, box: SalesforceSandbox) -> None:
    receipts = await send(make(), step(Op.CREATE, [{"Name": "same"}] * 201, key="Name"))
    assert sorted(r.remote_id or "" for r in receipts) == sorted(ids(box))


async def test_a_job_that_breaks_off_leaves_the_rest_for_later(make: Make, box: SalesforceSandbox) -> None:
    box.jobs.abort_after = 100
    receipts = await send(make(), step(Op.UPSERT, accounts(300)))
    assert [r.outcome for r in receipts] == [Outcome.OK] * 100 + [Outcome.RETRY] * 200


async def test_a_job_that_did_nothing_is_refused_whole(make: Make, box: SalesforceSandbox) -> None:
    box.jobs.abort_after = 0
    with pytest.raises(Refused, match="TooManyRetries"):
        await send(make(), step(Op.UPSERT, accounts(300)))


@pytest.mark.parametrize("when", ["PATCH .*jobs/ingest", "POST .*jobs/ingest", "PUT .*batches"])
async def test_a_job_whose_answers_are_lost_is_done_once(make: Make, box: SalesforceSandbox, when: str) -> None:
    box.faults.append(Fault(when, "lose"))
    receipts = await send(make(), step(Op.CREATE, accounts(300)))
    assert {r.outcome for r in receipts} == {Outcome.OK}
    assert len(box.dump("Account")) == 300


async def test_a_job_that_cannot_be_asked_after_is_unknown(make: Make, box: SalesforceSandbox) -> None:
    box.faults.append(Fault("GET .*jobs/ingest", "status", status=500, body="[]", times=99))
    with pytest.raises(LostAnswer, match="was begun, but cannot be asked after"):
        await send(make(), step(Op.CREATE, accounts(300)))


async def test_a_job_whose_results_cannot_be_read_is_unknown(make: Make, box: SalesforceSandbox) -> None:
    body = '"sf__Id","Name"\n"' + "x" * 200_000 + '"\n'
    box.faults.append(Fault("GET .*successfulResults", "status", status=200, body=body))
    with pytest.raises(LostAnswer, match="the results of a job of Salesforce's cannot be read: field larger"):
        await send(make(), step(Op.CREATE, accounts(300)))
    box.faults.append(Fault("GET .*successfulResults", "status", status=200, body="<!doctype html>\n<p>\n"))
    others = [{**a, "Billing_Id__c": f"x{i}"} for i, a in enumerate(accounts(300))]
    receipts = await send(make(), step(Op.CREATE, others))
    assert {r.outcome for r in receipts} == {Outcome.UNKNOWN}


async def test_a_job_that_is_too_large_is_halved(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oploop.apps.salesforce.writer.MAX_JOB_BYTES", 5_000)
    with pytest.raises(SkipRecord, match="Salesforce takes 5,000"):
        await send(make(), step(Op.UPSERT, accounts(300)))


async def test_a_record_is_updated_only_while_nobody_has_changed_it(make: Make, box: SalesforceSandbox) -> None:
    box.load("Account", [{"Name": f"A {i}", "Billing_Id__c": f"b{i}"} for i in range(2)])
    first, second = ids(box)
    stamps = {r["Id"]: r["LastModifiedDate"] for r in box.dump("Account")}
    box.advance(2)
    box.org.update("Account", second, {"Name": "theirs"})
    held = [{"id": i, "Name": "ours"} for i in (first, second)]
    made = step(Op.UPDATE, held)
    changes = [replace(c, as_read={"LastModifiedDate": stamps[str(c.remote_id)]}) for c in made.changes]
    bench = make()
    for change, outcome in zip(changes, (Outcome.OK, Outcome.CHANGED), strict=True):
        (receipt,) = await bench.app.send(replace(made, changes=[change], conditional=True))
        assert receipt.outcome is outcome
    assert {r["Name"] for r in box.dump("Account")} == {"ours", "theirs"}
    bad = replace(changes[0], fields={"Name": None}, as_read={})
    (receipt,) = await bench.app.send(replace(made, changes=[bad], conditional=True))
    assert receipt.outcome is Outcome.REJECTED


async def noted(bench: Bench, made: Step, box: SalesforceSandbox) -> str:
    """Send it as a job of which nobody hears after it was begun; its id."""
    notes: list[str] = []

    async def note(text: str) -> None:
        notes.append(text)

    box.faults.append(Fault("GET .*jobs/ingest", "status", status=500, body="[]", times=6))
    with pytest.raises(LostAnswer, match="was begun, but cannot be asked after"):
        await bench.app.send(replace(made, note=note))
    return notes[0]


async def test_a_job_tells_later_what_it_did(make: Make, box: SalesforceSandbox) -> None:
    bench, made = make(), step(Op.CREATE, [*accounts(300), {"Billing_Id__c": "b7", "Name": "again"}])
    job = await noted(bench, made, box)
    receipts = await bench.app.settle("Account", Op.CREATE, job, made.changes)
    assert sorted(r.number for r in receipts) == [c.number for c in made.changes]
    held = {r["Billing_Id__c"]: r["Id"] for r in box.dump("Account")}
    told = {r.number: r for r in receipts}
    assert all(told[n].remote_id == held[f"b{n - 1}"] for n in range(1, 301) if n != 8)
    assert {told[8].outcome, told[301].outcome} == {Outcome.OK, Outcome.REJECTED}


async def test_a_job_that_is_at_work_is_not_over(make: Make, box: SalesforceSandbox) -> None:
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    bench, made = make(Runtime(sleep=sleep, monotonic=lambda: clock[0])), step(Op.CREATE, accounts(300))
    job = await noted(bench, made, box)
    box.jobs.polls = 1_000
    with pytest.raises(RetryLater, match="has not ended"):
        await bench.app.settle("Account", Op.CREATE, job, made.changes)
    assert clock[0] < 300


async def test_a_job_of_long_ago_is_over(make: Make, box: SalesforceSandbox) -> None:
    bench, made = make(), step(Op.CREATE, accounts(300))
    job = await noted(bench, made, box)
    box.jobs.jobs.clear()
    receipts = await bench.app.settle("Account", Op.CREATE, job, made.changes)
    assert [r.outcome for r in receipts] == [Outcome.UNKNOWN] * 300


async def test_a_job_of_which_nobody_tells_whether_it_was_begun_may_have_been(
    make: Make, box: SalesforceSandbox
) -> None:
    box.faults.append(Fault("PATCH .*jobs/ingest", "lose"))
    box.faults.append(Fault("GET .*jobs/ingest", "status", status=503, body="[]", times=99))
    with pytest.raises(LostAnswer, match="does not tell whether"):
        await send(make(), step(Op.CREATE, accounts(300)))
