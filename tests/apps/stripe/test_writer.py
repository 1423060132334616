"""Writing customers: one call a change, under a key that names the intent; each record's outcome is its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.stripe import StripeApp
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.errors import FixConfig
from oploop.records import Change, Op, Outcome, Receipt
from tests.apps.stripe.support import NOW, app_of, calls, column, held, step, still_sandbox, update


@pytest.fixture
def sandbox() -> StripeSandbox:
    made = still_sandbox()
    made.load(
        "customers",
        [
            {"id": f"cus_{i}", "name": f"n{i}", "metadata": {"plan": "free", "seats": "3"}, "created": NOW}
            for i in range(5)
        ],
    )
    return made


async def send(app: StripeApp, op: Op, *changes: Change, id: str = "01STEP") -> list[Receipt]:
    return sorted(await app.send(step(op, *changes, id=id)), key=lambda receipt: receipt.number)


async def test_an_update_sets_only_what_it_names(sandbox: StripeSandbox) -> None:
    change = update(
        1, "cus_1", description="score 82 → “gold” 金 & more=1", metadata__plan="pro", metadata__reason="überfällig"
    )
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.UPDATE, change)
    assert receipt == Receipt(1, Outcome.OK, "cus_1", None, NOW * 1_000_000)
    row = held(sandbox, "customers")["cus_1"]
    assert row["description"] == "score 82 → “gold” 金 & more=1"
    assert row["metadata"] == {"plan": "pro", "seats": "3", "reason": "überfällig"}
    assert row["name"] == "n1"
    assert sandbox.log[-1].headers["Idempotency-Key"] == "01STEP:1"


async def test_null_unsets_a_field_and_a_metadata_key(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url) as app:
            await send(app, Op.UPDATE, update(1, "cus_1", name=None, metadata__plan=None, metadata__absent=None))
    row = held(sandbox, "customers")["cus_1"]
    assert row["name"] is None
    assert row["metadata"] == {"seats": "3"}


async def test_a_create_sends_key_and_fields_and_says_the_new_id(sandbox: StripeSandbox) -> None:
    change = Change(
        4, Op.CREATE, {"metadata.account_id": "A-1"}, {"name": "Zoë", "phone": None, "email": "z@x.example"}
    )
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.CREATE, change)
            (again,) = await send(app, Op.CREATE, change)
    rows = held(sandbox, "customers")
    assert len(rows) == 6, "the same intent twice makes one customer"
    assert receipt.remote_id == again.remote_id
    row = rows[receipt.remote_id or ""]
    assert (row["name"], row["email"], row["metadata"]) == ("Zoë", "z@x.example", {"account_id": "A-1"})


async def test_an_equal_change_of_a_later_step_is_a_new_one(sandbox: StripeSandbox) -> None:
    change = Change(1, Op.CREATE, {"email": "same@x.example"}, {})
    with sandbox.running() as url:
        async with app_of(url) as app:
            for step_id in ("01A", "01B"):
                await send(app, Op.CREATE, change, id=step_id)
    assert len(held(sandbox, "customers")) == 7


@pytest.mark.parametrize(
    ("customer", "fields", "words"),
    [
        ("cus_1", {"email": "not an address"}, "Invalid email address"),
        ("cus_1", {"metadata__plan": "x" * 501}, "501 characters"),
        ("cus_1", {f"metadata__{'k' * 41}": "x"}, "41 characters"),
        ("cus_1", {"nickname": "x"}, "unknown parameter: nickname"),
        ("cus_none", {"name": "x"}, "No such customer"),
    ],
)
async def test_a_refused_record_says_why_and_holds_up_no_other(
    sandbox: StripeSandbox, customer: str, fields: dict[str, Any], words: str
) -> None:
    changes = [update(0, "cus_0", name="good"), update(1, customer, **fields), update(2, "cus_2", name="good")]
    with sandbox.running() as url:
        async with app_of(url) as app:
            receipts = await send(app, Op.UPDATE, *changes)
    assert [receipt.outcome for receipt in receipts] == [Outcome.OK, Outcome.REJECTED, Outcome.OK]
    assert words in (receipts[1].error or "")
    rows = held(sandbox, "customers")
    assert (rows["cus_0"]["name"], rows["cus_1"]["name"], rows["cus_2"]["name"]) == ("good", "n1", "good")


async def test_a_create_keyed_by_stripes_own_id_is_refused_before_anything_is_sent(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.CREATE, Change(1, Op.CREATE, {"id": "cus_9"}, {"name": "x"}))
    assert receipt.outcome is Outcome.REJECTED
    assert calls(sandbox, "POST") == []


@pytest.mark.parametrize("action", ["lose", "cut"])
async def test_a_lost_answer_is_asked_for_again_under_the_same_key(sandbox: StripeSandbox, action: str) -> None:
    sandbox.faults = [Fault("POST /v1/customers", action, times=2)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.CREATE, Change(1, Op.CREATE, {"email": "a@x.example"}, {"name": "one"}))
    assert receipt.outcome is Outcome.OK
    assert len(held(sandbox, "customers")) == 6
    assert {entry.headers["Idempotency-Key"] for entry in sandbox.log if entry.method == "POST"} == {"01STEP:1"}


async def test_an_answer_that_stays_lost_is_unknown_and_a_replay_of_the_step_mends_it(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST /v1/customers", "lose", times=6)]
    change = Change(1, Op.CREATE, {"email": "a@x.example"}, {})
    with sandbox.running() as url:
        async with app_of(url) as app:
            (first,) = await send(app, Op.CREATE, change)
            (second,) = await send(app, Op.CREATE, change)
    assert (first.outcome, second.outcome) == (Outcome.UNKNOWN, Outcome.OK)
    assert len(held(sandbox, "customers")) == 6


@pytest.mark.parametrize("action", ["truncate", "html", "empty"])
async def test_an_answer_that_cannot_be_read_is_unknown(sandbox: StripeSandbox, action: str) -> None:
    sandbox.faults = [Fault("POST /v1/customers", action)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.UPDATE, update(1, "cus_1", name="x"))
            (again,) = await send(app, Op.UPDATE, update(1, "cus_1", name="x"))
    assert (receipt.outcome, again.outcome) == (Outcome.UNKNOWN, Outcome.OK)


@pytest.mark.parametrize("op", [Op.CREATE, Op.UPDATE, Op.REMOVE])
async def test_an_answer_that_names_no_customer_is_unknown(sandbox: StripeSandbox, op: Op) -> None:
    """As that of something between, which did nothing."""
    sandbox.faults = [Fault("^(POST|DELETE) /v1/customers", "status", status=200, body="{}")]
    before = held(sandbox, "customers")
    made = Change(1, op, {"metadata.account_id": "A-1"}, {} if op is Op.REMOVE else {"name": "Bo"})
    change = made if op is Op.CREATE else Change(1, op, {"id": "cus_1"}, made.fields, "cus_1")
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, op, change)
            (again,) = await send(app, op, change)
    assert (receipt.outcome, again.outcome) == (Outcome.UNKNOWN, Outcome.OK)
    assert ("holds no id" in (receipt.error or ""), before != held(sandbox, "customers")) == (True, True)


async def test_a_failure_that_stripe_saved_does_not_keep_an_update_from_arriving(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST /v1/customers/cus_1", "status", status=500, body='{"error":{"type":"api_error"}}')]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.UPDATE, update(1, "cus_1", name="arrived"))
    assert receipt.outcome is Outcome.OK
    assert held(sandbox, "customers")["cus_1"]["name"] == "arrived"
    keys = [entry.headers["Idempotency-Key"] for entry in sandbox.log]
    assert keys == ["01STEP:1", "01STEP:1", "01STEP:1:again"]


async def test_a_failure_that_stripe_saved_leaves_a_create_unknown(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST /v1/customers", "status", status=500, body='{"error":{"type":"api_error"}}')]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.CREATE, Change(1, Op.CREATE, {"email": "a@x.example"}, {}))
    assert receipt.outcome is Outcome.UNKNOWN, "it may have been made: a second key could make a second one"
    assert len(sandbox.log) == 2


@pytest.mark.parametrize("status", [409, 429])
async def test_a_conflict_or_a_full_line_did_nothing_and_is_tried_again(sandbox: StripeSandbox, status: int) -> None:
    sandbox.faults = [Fault("POST /v1/customers", "status", status=status, times=2)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.UPDATE, update(1, "cus_1", name="x"))
            sandbox.faults = [Fault("POST /v1/customers", "status", status=status, times=99)]
            (later,) = await send(app, Op.UPDATE, update(2, "cus_1", name="y"))
    assert (receipt.outcome, later.outcome) == (Outcome.OK, Outcome.RETRY)
    assert held(sandbox, "customers")["cus_1"]["name"] == "x"


async def test_a_full_line_after_a_lost_answer_leaves_it_unknown(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST", "lose"), Fault("POST", "status", status=429, times=99)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.CREATE, Change(1, Op.CREATE, {"email": "a@x.example"}, {}))
    assert receipt.outcome is Outcome.UNKNOWN, "the first try did it"


async def test_two_at_once_under_one_key_make_one_customer(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST /v1/customers", "delay", seconds=0.2)]
    change = Change(1, Op.CREATE, {"email": "a@x.example"}, {})
    with sandbox.running() as url:
        async with app_of(url, real=True) as app:
            both = await asyncio.gather(send(app, Op.CREATE, change), send(app, Op.CREATE, change))
    assert 409 in [entry.status for entry in sandbox.log]
    assert len(held(sandbox, "customers")) == 6
    assert len({receipt.remote_id for receipts in both for receipt in receipts}) == 1


async def test_fetch_shows_present_deleted_and_unknown_records(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.UPDATE, update(1, "cus_1", name="now"))
            sandbox.books.delete("customers", "cus_2")
            batch = await app.fetch("customers", ["cus_1", "cus_2", "cus_none", "cus_1"])
            empty = await app.fetch("customers", [])
    assert column(batch, "id") == ["cus_1", "cus_2", "cus_none"]
    assert column(batch, "_deleted") == [False, True, True]
    assert column(batch, "name") == ["now", None, None]
    assert "deleted" not in batch.table.schema.names
    assert all(version > (receipt.version or 0) for version in column(batch, "_version")), "later than the write"
    assert empty.table.num_rows == 0


async def test_a_fetch_never_hides_a_change_that_came_after_it(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url) as app:
            batch = await app.fetch("customers", ["cus_1"])
            sandbox.books.update("customers", "cus_1", {"name": "later, in the same second"})
    assert column(batch, "_version")[0] <= sandbox.dump("events")[-1]["created"] * 1_000_000 + 1


async def test_check_says_whose_account_it_is(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url) as app:
            account = await app.check()
    assert account.name == "acct_1OploopSandbox00"
    assert account.line == "oploop sandbox (acct_1OploopSandbox00), test mode"


async def test_a_wrong_key_is_named_and_not_shown(sandbox: StripeSandbox) -> None:
    with sandbox.running() as url:
        async with app_of(url, api_key="sk_test_wrong_one_1234567890") as app:
            with pytest.raises(FixConfig, match="api_key") as failed:
                await app.check()
            with pytest.raises(FixConfig, match="api_key"):
                await send(app, Op.UPDATE, update(1, "cus_1", name="x"))
    assert "7890" not in str(failed.value)
    assert "wrong" not in str(failed.value)
    assert "Invalid API Key" in str(failed.value)


async def test_a_restricted_key_that_may_not_see_the_account_still_checks(sandbox: StripeSandbox) -> None:
    sandbox.forbidden = {"/v1/account"}
    with sandbox.running() as url:
        async with app_of(url) as app:
            assert "restricted" in (await app.check()).line
            sandbox.forbidden = {"/v1/"}
            with pytest.raises(FixConfig, match="api_key"):
                await app.check()


@pytest.mark.parametrize("key", ["pk_test_123", "", " sk_test_1", "sk_test_ü"])
def test_a_key_that_cannot_be_right_is_refused_before_any_call(key: str) -> None:
    from pydantic import ValidationError

    from oploop.apps.stripe import StripeConfig

    with pytest.raises(ValidationError):
        StripeConfig(api_key=key)  # type: ignore[arg-type]


async def test_a_customer_is_deleted_and_one_that_is_gone_was_wanted_gone(sandbox: StripeSandbox) -> None:
    gone = [Change(n, Op.REMOVE, {"email": "?"}, {}, i) for n, i in enumerate(("cus_1", "cus_1", "cus_none"), 1)]
    with sandbox.running() as url:
        async with app_of(url) as app:
            receipts = [(await send(app, Op.REMOVE, change))[0] for change in gone]
            (nameless,) = await send(app, Op.REMOVE, Change(4, Op.REMOVE, {"email": "?"}, {}))
    assert {(r.outcome, r.version) for r in receipts} == {(Outcome.OK, NOW * 1_000_000)}
    assert [r.remote_id for r in receipts] == ["cus_1", "cus_1", "cus_none"]
    assert (nameless.outcome, nameless.error) == (Outcome.REJECTED, "the customer's id is not known")
    assert set(held(sandbox, "customers")) == {"cus_0", "cus_2", "cus_3", "cus_4"}


async def test_a_deletion_whose_answer_is_lost_is_asked_again(sandbox: StripeSandbox) -> None:
    sandbox.faults.append(Fault("DELETE /v1/customers/cus_2$", "lose"))
    with sandbox.running() as url:
        async with app_of(url) as app:
            (receipt,) = await send(app, Op.REMOVE, Change(1, Op.REMOVE, {}, {}, "cus_2"))
    assert receipt.outcome is Outcome.OK
    assert "cus_2" not in held(sandbox, "customers")
    assert calls(sandbox, "DELETE") == ["DELETE /v1/customers/cus_2"] * 2
