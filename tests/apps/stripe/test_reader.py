"""Reading Stripe: what the raw tables hold equals what Stripe holds, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.stripe import reader
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.stripe.sandbox.shapes import KINDS
from oploop.errors import FixConfig, RetryLater
from oploop.records import ReadOptions
from tests.apps.stripe.support import NOW, Clock, RawTable, app_of, calls, column, held, read, still_sandbox

DAY = 86_400


def customers(n: int, start: int = NOW - 90 * DAY, apart: int = 60) -> list[dict[str, Any]]:
    return [
        {"id": f"cus_{i:05}", "name": f"Customer {i}", "email": f"c{i}@x.example", "created": start + i * apart}
        for i in range(n)
    ]


async def test_a_first_read_brings_every_record_with_typed_columns() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(1234))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            last = await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")
    assert table.seen == 1234, "no record comes twice"
    assert len(calls(sandbox, "GET /v1/customers")) == 13, "100 a page, and not one page more"
    row = table.rows["cus_00001"]
    assert row["created"] == datetime.fromtimestamp(NOW - 90 * DAY + 60, UTC)
    assert row["balance"] == 0
    assert row["metadata"] == "{}"
    assert row["email"] == "c1@x.example"
    assert last.table.schema.names[-4:] == ["_raw", "_extracted_at", "_version", "_deleted"]


async def test_an_empty_account_reads_as_one_complete_batch_without_rows() -> None:
    with still_sandbox().running() as url:
        async with app_of(url) as app:
            for kind in KINDS:
                table = RawTable()
                last = await read(app, kind, table)
                assert last.table.num_rows == 0
                assert table.cursor is not None


async def test_a_first_read_broken_off_goes_on_in_the_middle() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(2500))
    with sandbox.running() as url:
        table = RawTable()
        async with app_of(url) as app:
            async for batch in app.read("customers", None, ReadOptions()):
                table.load(batch)
                break
        seen = table.seen
        assert 0 < seen < 2500
        sandbox.advance(100)
        sandbox.books.update("customers", "cus_02499", {"name": "changed meanwhile"})
        async with app_of(url) as app:
            await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")
    assert table.seen == 2500 + 1, "pages that were read are not read again; the change came by an event"


async def test_a_list_goes_on_by_time_when_the_record_it_stopped_at_was_deleted() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(1500, apart=0))  # all in one second, the worst case
    with sandbox.running() as url:
        table = RawTable()
        async with app_of(url) as app:
            async for batch in app.read("customers", None, ReadOptions()):
                table.load(batch)
                break
            assert table.cursor is not None
            sandbox.books.delete("customers", table.cursor["list"]["after"])
            await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")
    assert len(table.gone()) == 1


async def test_what_is_made_and_changed_while_paging_arrives_in_the_same_read() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(2500))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            n = 0
            async for batch in app.read("customers", None, ReadOptions()):
                table.load(batch)
                if not batch.complete:
                    sandbox.advance(1)
                    sandbox.books.create("customers", {"name": f"new {n}"})
                    sandbox.books.update("customers", "cus_02499", {"name": f"read already {n}"})
                    sandbox.books.update("customers", "cus_00000", {"name": f"not read yet {n}"})
                    n += 1
    assert n > 1
    assert table.live() == held(sandbox, "customers")


async def test_later_reads_bring_updates_and_deletes_by_events_only() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(300))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.advance(3600)
            sandbox.books.update("customers", "cus_00007", {"name": "Ünï ✓", "metadata": {"plan": "pro"}})
            sandbox.books.delete("customers", "cus_00008")
            sandbox.log.clear()
            last = await read(app, "customers", table)
            again = await read(app, "customers", table)
    assert column(last, "id") == ["cus_00007", "cus_00008"]
    assert column(last, "_deleted") == [False, True]
    assert table.live() == held(sandbox, "customers")
    assert again.table.num_rows == 0, "what was read is not read again"
    assert calls(sandbox, "GET") == ["GET /v1/events"] * 2


async def test_an_ended_subscription_stays_with_its_status() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(3))
    sandbox.load("products", [{"id": "prod_1", "name": "Plan", "created": NOW}])
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "licensed"}
    price = {"id": "price_1", "product": "prod_1", "currency": "usd", "unit_amount": 900, "recurring": recurring}
    sandbox.load("prices", [price])
    subscription = {"customer": "cus_00001", "items": [{"price": "price_1", "quantity": 3}], "created": NOW - DAY}
    sandbox.load("subscriptions", [{"id": f"sub_{i}", **subscription} for i in range(3)])
    sandbox.load("subscriptions", [{"id": "sub_old", **subscription, "status": "canceled", "ended_at": NOW}])
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "subscriptions", table)
            assert "sub_old" in table.live(), "ended ones are listed too"
            sandbox.books.delete("subscriptions", "sub_1")
            sandbox.books.delete("customers", "cus_00001")  # ends the other two
            await read(app, "subscriptions", table)
    assert {row["status"] for row in table.live().values()} == {"canceled"}
    assert table.gone() == set()
    assert table.live() == held(sandbox, "subscriptions")


async def test_of_several_changes_in_one_second_the_last_wins() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(5))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            for n in range(5):  # the clock stands still: reads and changes share one second
                sandbox.books.update("customers", "cus_00001", {"name": f"first {n}"})
                sandbox.books.update("customers", "cus_00002", {"name": f"second {n}"})
                await read(app, "customers", table)
                assert table.live() == held(sandbox, "customers")


async def test_versions_count_the_events_of_a_second_from_the_oldest() -> None:
    sandbox = still_sandbox()
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.advance(50)
            for n in range(3):
                sandbox.books.create("customers", {"name": f"n{n}"})
            last = await read(app, "customers", table)
    assert column(last, "name") == ["n0", "n1", "n2"]
    assert column(last, "_version") == [(NOW + 50) * 1_000_000 + place for place in (1, 2, 3)]


async def test_an_event_that_is_listed_late_is_still_applied_and_in_order() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(2))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.advance(100)
            sandbox.books.update("customers", "cus_00000", {"name": "early"})
            sandbox.books.update("customers", "cus_00001", {"name": "listed late"})
            late = sandbox.dump("events")[-1]
            sandbox.books.events.remove(late["id"])
            sandbox.advance(8)
            await read(app, "customers", table)
            assert table.live()["cus_00001"]["name"] == "Customer 1"
            sandbox.books.events.put(late)
            await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")


async def test_after_more_than_thirty_days_everything_is_listed_again_and_what_is_missing_is_gone() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(150))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.books.update("customers", "cus_00003", {"name": "changed in the gap"})
            sandbox.books.delete("customers", "cus_00004")
            sandbox.books.create("customers", {"name": "made in the gap"})
            sandbox.advance(31 * DAY)
            last = await read(app, "customers", table)
            assert last.cursor is not None
            assert last.cursor["relisted"] is True
            assert table.live() == held(sandbox, "customers")
            assert table.gone() == {"cus_00004"}
            sandbox.books.delete("customers", "cus_00005")
            later = await read(app, "customers", table)
    assert later.cursor is not None
    assert "relisted" not in later.cursor, "said once"
    assert table.gone() == {"cus_00004", "cus_00005"}


@pytest.mark.parametrize(("days", "lists"), [(28.9, 0), (29.1, 1)])
async def test_the_gap_begins_a_day_before_stripe_forgets(days: float, lists: int) -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(5))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.log.clear()
            sandbox.advance(days * DAY)
            await read(app, "customers", table)
    assert len(calls(sandbox, "GET /v1/customers")) == lists


async def test_a_list_resumed_after_the_gap_begins_anew_and_says_so() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(2500))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            async for batch in app.read("customers", None, ReadOptions()):
                table.load(batch)
                break
            sandbox.books.delete("customers", "cus_02400")  # read already; its event will be forgotten
            sandbox.advance(40 * DAY)
            last = await read(app, "customers", table)
    assert last.cursor is not None
    assert last.cursor["relisted"] is True
    assert table.live() == held(sandbox, "customers")


@pytest.mark.parametrize("crashing", [True, False])
async def test_many_events_are_read_in_windows_each_ending_at_a_safe_place(
    crashing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_EVENTS", 200)
    sandbox = still_sandbox()
    sandbox.load("customers", customers(1500))
    rng = Random(1)
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            for n in rng.sample(range(1500), 1500):  # each once, so that any that is skipped shows
                sandbox.advance(rng.choice([0, 0, 0, 1, 1, 2]))
                sandbox.books.update("customers", f"cus_{n:05}", {"name": f"changed {n}"})
            windows = 0
            complete = False
            while not complete:
                async for batch in app.read("customers", table.cursor, ReadOptions()):
                    table.load(batch)
                    complete = batch.complete
                    windows += 1
                    if crashing:
                        break
    assert windows > 3
    assert table.live() == held(sandbox, "customers")


async def test_events_in_another_version_of_the_api_are_read_anew_once_a_record() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(30))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table)
            sandbox.account_version = "2019-03-14"
            sandbox.advance(60)
            for n in range(4):
                sandbox.books.update("customers", "cus_00001", {"name": f"n{n}"})
                sandbox.books.update("customers", "cus_00002", {"name": f"n{n}"})
            sandbox.books.delete("customers", "cus_00002")
            sandbox.log.clear()
            await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")
    assert "account_balance" not in table.rows["cus_00001"], "a field of the old version does not come in"
    assert calls(sandbox, "GET /v1/customers") == ["GET /v1/customers/cus_00001"]


async def test_many_new_records_in_another_version_are_listed_not_fetched_one_by_one() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(10))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "charges", table)
            sandbox.account_version = "2019-03-14"
            sandbox.advance(60)
            for n in range(250):
                sandbox.books.create("charges", {"amount": 100 + n, "currency": "usd", "customer": "cus_00001"})
            sandbox.log.clear()
            await read(app, "charges", table)
    assert table.live() == held(sandbox, "charges")
    assert len(calls(sandbox, "GET /v1/charges")) == 3


async def test_a_dispute_is_seen_on_its_charge() -> None:
    sandbox = still_sandbox()
    sandbox.load("charges", [{"id": "ch_1", "amount": 500, "currency": "usd", "created": NOW - DAY}])
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "charges", table)
            sandbox.advance(10)
            sandbox.load(
                "charges", [{"id": "ch_1", "amount": 500, "currency": "usd", "created": NOW - DAY, "disputed": True}]
            )
            dispute = {"id": "dp_1", "object": "dispute", "charge": "ch_1"}
            sandbox.books.events.put(
                {
                    "id": "evt_dispute",
                    "object": "event",
                    "api_version": "2022-11-15",
                    "created": NOW + 10,
                    "data": {"object": dispute},
                    "livemode": False,
                    "pending_webhooks": 0,
                    "request": None,
                    "type": "charge.dispute.created",
                }
            )
            await read(app, "charges", table)
    assert table.rows["ch_1"]["disputed"] is True
    assert set(table.rows) == {"ch_1"}


async def test_since_leaves_out_what_is_older_also_from_events() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", [{"id": "cus_old", "created": NOW - 100}, {"id": "cus_new", "created": NOW - 50}])
    since = datetime.fromtimestamp(NOW - 50, UTC)
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            await read(app, "customers", table, since=since)
            assert set(table.live()) == {"cus_new"}
            sandbox.advance(5)
            sandbox.books.update("customers", "cus_old", {"name": "changed"})
            sandbox.books.update("customers", "cus_new", {"name": "changed"})
            await read(app, "customers", table, since=since)
            assert set(table.rows) == {"cus_new"}
            await read(app, "customers", table)  # the wish for less is taken back
            assert table.live() == held(sandbox, "customers")


async def test_excluded_fields_are_nowhere() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(3))
    with sandbox.running() as url:
        async with app_of(url) as app:
            table = RawTable()
            options: dict[str, Any] = {"exclude": frozenset({"email", "name"})}
            await read(app, "customers", table, **options)
            sandbox.books.update("customers", "cus_00001", {"phone": "123"})
            await read(app, "customers", table, **options)
    for row in table.rows.values():
        assert not {"email", "name"} & row.keys()
        assert "@x.example" not in row["_raw"]


async def test_too_many_calls_and_broken_answers_are_tried_again_and_nothing_is_lost() -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(1000))
    limited = {"Stripe-Rate-Limited-Reason": "endpoint-rate"}
    body = '{"error":{"type":"invalid_request_error","code":"rate_limit","message":"slow down"}}'
    sandbox.faults = [
        Fault("GET /v1/customers", "status", status=429, headers=limited, body=body, skip=2, times=2),
        Fault("GET /v1/customers", "cut", skip=4),
        Fault("GET /v1/customers", "lose", skip=6),
        Fault("GET /v1/events", "status", status=503),
    ]
    clock = Clock()
    with sandbox.running() as url:
        async with app_of(url, clock=clock) as app:
            table = RawTable()
            await read(app, "customers", table)
    assert table.live() == held(sandbox, "customers")
    assert table.seen == 1000
    assert len(calls(sandbox, "GET /v1/customers")) == 10 + 4, "each that failed once more"
    assert len([waited for waited in clock.slept if waited > 0]) >= 3, "after a refusal it waits"


async def test_the_rate_limit_of_the_sandbox_is_kept_to_within_the_budget() -> None:
    sandbox = StripeSandbox(rate_limit=20)
    sandbox.load("customers", customers(3500))
    with sandbox.running() as url:
        async with app_of(url, real=True, rate_limit=19) as app:
            table = RawTable()
            await read(app, "customers", table)
    assert len(table.rows) == 3500
    assert [entry.status for entry in sandbox.log if entry.status == 429] == []


@pytest.mark.parametrize("status", [429, 500])
async def test_stripes_own_hint_not_to_retry_wins(status: int) -> None:
    sandbox = still_sandbox()
    sandbox.faults = [Fault("GET /v1/customers", "status", status=status, headers={"Stripe-Should-Retry": "false"})]
    with sandbox.running() as url:
        async with app_of(url) as app:
            with pytest.raises(RetryLater):
                await read(app, "customers", RawTable())
    assert len(calls(sandbox, "GET /v1/customers")) == 1


async def test_stripes_own_hint_to_retry_wins() -> None:
    sandbox = still_sandbox()
    sandbox.faults = [Fault("GET /v1/customers", "status", status=400, headers={"Stripe-Should-Retry": "true"})]
    with sandbox.running() as url:
        async with app_of(url) as app:
            await read(app, "customers", RawTable())
    assert len(calls(sandbox, "GET /v1/customers")) == 2


@pytest.mark.parametrize("action", ["html", "empty", "truncate"])
async def test_an_answer_that_is_not_the_api_is_one_line(action: str) -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", customers(3))
    sandbox.faults = [Fault("GET /v1/", action, times=100)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            with pytest.raises(FixConfig, match="base_url") as failed:
                await read(app, "customers", RawTable())
            with pytest.raises(FixConfig, match="base_url"):
                await app.check()
    assert "\n" not in str(failed.value)
