"""Whatever happens in the account, and whenever it is read, the raw tables come to hold what Stripe holds."""

from __future__ import annotations

from random import Random

import pytest

from oploop.apps.stripe import reader
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.records import ReadOptions
from tests.apps.stripe.support import RawTable, app_of, held, read, still_sandbox
from tests.apps.stripe.test_reader import DAY, customers


def churn(sandbox: StripeSandbox, rng: Random) -> None:
    """One thing that happens in the account."""
    books = sandbox.books
    people = [row["id"] for row in books.shelves["customers"]]
    charges = [row for row in books.shelves["charges"] if row["amount_refunded"] < row["amount"]]
    alive = [row["id"] for row in books.shelves["subscriptions"] if row["status"] != "canceled"]
    match rng.randrange(9):
        case 0:
            books.create("customers", {"name": f"Ω {rng.random()}", "metadata": {"a": "1", "b": None}})
        case 1 if people:
            books.update("customers", rng.choice(people), {"metadata": {"n": str(rng.random())}})
        case 2 if len(people) > 3:
            books.delete("customers", rng.choice(people))
        case 3 | 4 if people:
            books.create(
                "charges", {"amount": rng.randrange(1, 999), "currency": "usd", "customer": rng.choice(people)}
            )
        case 5 if charges:
            charge = rng.choice(charges)
            books.create(
                "refunds",
                {"charge": charge["id"], "amount": rng.randint(1, charge["amount"] - charge["amount_refunded"])},
            )
        case 6 if people:
            books.create("subscriptions", {"customer": rng.choice(people), "items": [{"price": "price_1"}]})
        case 7 if alive:
            books.delete("subscriptions", rng.choice(alive))
        case 8 if people:
            invoice = books.create("invoices", {"customer": rng.choice(people)})
            if rng.random() < 0.3:
                books.delete("invoices", invoice["id"])


@pytest.mark.parametrize("seed", range(6))
async def test_the_raw_tables_come_to_hold_what_stripe_holds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "PAGES_A_BATCH", 1)
    monkeypatch.setattr(reader, "MAX_EVENTS", 100)
    rng = Random(seed)
    sandbox = still_sandbox()
    sandbox.load("customers", customers(250, apart=rng.choice([0, 1, 60])))
    sandbox.load("products", [{"id": "prod_1", "name": "Plan"}])
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "licensed"}
    sandbox.load(
        "prices", [{"id": "price_1", "product": "prod_1", "currency": "usd", "unit_amount": 1, "recurring": recurring}]
    )
    tables = {kind: RawTable() for kind in ("customers", "charges", "refunds", "subscriptions", "invoices")}
    with sandbox.running() as url:
        async with app_of(url) as app:
            for _ in range(25):
                if rng.random() < 0.1:
                    sandbox.account_version = rng.choice(["2019-03-14", "2022-11-15"])
                for _ in range(rng.randrange(30)):
                    sandbox.advance(rng.choice([0, 0, 0, 1, 5, 40, 3600]))
                    churn(sandbox, rng)
                if rng.random() < 0.05:
                    sandbox.advance(35 * DAY)
                kind = rng.choice(list(tables))
                table = tables[kind]
                async for batch in app.read(kind, table.cursor, ReadOptions()):
                    table.load(batch)
                    churn(sandbox, rng)  # also while it is read
                    if rng.random() < 0.2:
                        break  # a crash: what was loaded stays, with its cursor
            for kind, table in tables.items():
                await read(app, kind, table)
                assert table.live() == held(sandbox, kind), kind
