"""The loop on 30,000 real sales lines: into the Stripe sandbox through its API, modelled, and back into Zendesk."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import duckdb
import pytest

from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.loop import Options, run
from oploop.project import load_project
from oploop.report import RunReport
from oploop.runtime import Runtime
from oploop.workspace import Workspace

SALES = Path(__file__).parents[2] / "../shared/data/online_retail_sample.csv"
HERE = Path(__file__).parent / "real_sales"
STRIPE_KEY, ZENDESK_TOKEN = "sk_test_oploop", "zd_test_oploop"

pytestmark = pytest.mark.skipif(not SALES.exists(), reason=f"needs ../shared/data/{SALES.name}, which is not here")


class Sales:
    """The file as a shop would have it: invoices per customer, in pence, and what the descriptions say."""

    def __init__(self, path: Path) -> None:
        totals: dict[str, Decimal] = defaultdict(Decimal)
        self.customer_of: dict[str, str] = {}
        self.first_line: dict[str, str] = {}
        with path.open(encoding="latin-1", newline="") as f:
            for line in csv.DictReader(f):
                number = line["InvoiceNo"]
                totals[number] += Decimal(line["Quantity"]) * Decimal(line["UnitPrice"])
                self.customer_of[number] = line["CustomerID"]
                self.first_line.setdefault(number, line["Description"])
        self.invoices = {n: int(t * 100) for n, t in totals.items() if t > 0}
        self.cancelled = {n: int(-t * 100) for n, t in totals.items() if t < 0}
        assert all(t * 100 == int(t * 100) for t in totals.values()), "a total with a part of a penny"
        self.customers = sorted({c for c in self.customer_of.values() if c})

    def spend(self) -> dict[str, int]:
        """Pence per customer, by the file alone; '' for lines without a customer."""
        spend = dict.fromkeys(["", *self.customers], 0)
        for number, pence in self.invoices.items():
            spend[self.customer_of[number]] += pence
        for number, pence in self.cancelled.items():
            spend[self.customer_of[number]] -= pence
        return spend


class Shop:
    """Enters the sales into the Stripe sandbox as the shop's own software would, through the API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session
        self._slots = asyncio.Semaphore(32)

    async def post(self, path: str, form: dict[str, Any]) -> dict[str, Any]:
        body = urlencode(form).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {STRIPE_KEY}"}
        async with self._slots, self._session.post(f"{self._url}/v1/{path}", data=body, headers=headers) as r:
            answer: dict[str, Any] = await r.json()
            assert r.status == 200, answer
            return answer

    async def enter(self, sales: Sales) -> dict[str, str]:
        """Customers, a charge for each invoice, refunds and credits for cancellations; Stripe's id of each customer."""
        made = await asyncio.gather(
            *(self.post("customers", {"name": f"Customer {c}", "metadata[number]": c}) for c in sales.customers)
        )
        ids = {c: m["id"] for c, m in zip(sales.customers, made, strict=True)}
        numbers = list(sales.invoices)
        charges = await asyncio.gather(*(self.post("charges", self._charge(sales, n, ids)) for n in numbers))
        left: dict[str, list[list[Any]]] = defaultdict(list)
        for number, charge in zip(numbers, charges, strict=True):
            left[sales.customer_of[number]].append([charge["id"], sales.invoices[number]])
        refunds, credit = self._settle(sales, left)
        await asyncio.gather(*(self.post("refunds", {"charge": c, "amount": pence}) for c, pence in refunds))
        await asyncio.gather(*(self.post(f"customers/{ids[c]}", {"balance": -pence}) for c, pence in credit.items()))
        return ids

    @staticmethod
    def _charge(sales: Sales, number: str, ids: dict[str, str]) -> dict[str, Any]:
        form = {
            "amount": sales.invoices[number],
            "currency": "gbp",
            "source": "tok_visa",
            "description": f"{number}: {sales.first_line[number]}",
        }
        customer = sales.customer_of[number]
        return form | ({"customer": ids[customer]} if customer else {})

    @staticmethod
    def _settle(sales: Sales, left: dict[str, list[list[Any]]]) -> tuple[list[tuple[str, int]], dict[str, int]]:
        """Each cancellation is refunded on the customer's charges as far as they reach; the rest is credit."""
        refunds: list[tuple[str, int]] = []
        credit: dict[str, int] = defaultdict(int)
        for number, pence in sales.cancelled.items():
            customer = sales.customer_of[number]
            for charge in left[customer]:
                part = min(pence, charge[1])
                if part:
                    refunds.append((charge[0], part))
                    charge[1] -= part
                    pence -= part
            if pence:
                credit[customer] += pence
        return refunds, credit


def open_tickets(ids: dict[str, str], sales: Sales) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A Zendesk user for every third customer, each with an open ticket; every tenth of those has a solved one too."""
    users, tickets = [], []
    for i, customer in enumerate(sales.customers[::3], 1):
        users.append({"id": 1000 + i, "name": f"Customer {customer}", "external_id": ids[customer], "role": "end-user"})
        tickets.append(
            {"id": i, "requester_id": 1000 + i, "status": "open", "subject": "Where is my parcel?", "priority": None}
        )
        if i % 10 == 0:
            tickets.append(
                {
                    "id": 100_000 + i,
                    "requester_id": 1000 + i,
                    "status": "solved",
                    "subject": "Thanks",
                    "priority": "low",
                }
            )
    return users, tickets


async def turn(folder: Path, env: dict[str, str]) -> RunReport:
    project = load_project(folder, env)
    async with Workspace(project, "prod", Runtime(), "test") as ws:
        return await run(ws, Options(yes=True))


def wanted(pence: int) -> str:
    return "urgent" if pence >= 100_000 else "high" if pence >= 30_000 else "normal" if pence > 0 else "low"


async def test_real_sales_rank_the_right_tickets(tmp_path: Path) -> None:
    sales = Sales(SALES)
    spend = sales.spend()
    assert sum(spend.values()) == 57_557_467  # what the data's own page says
    folder = tmp_path / "real_sales"
    shutil.copytree(HERE, folder)
    stripe, zendesk = StripeSandbox(keep_log=False), ZendeskSandbox()
    with stripe.running() as stripe_url, zendesk.running() as zendesk_url:
        async with aiohttp.ClientSession() as session:
            ids = await Shop(stripe_url, session).enter(sales)
        users, tickets = open_tickets(ids, sales)
        zendesk.load("users", users)
        zendesk.load("tickets", tickets)
        zendesk.advance(120)  # what was just loaded is older than the minute that exports withhold
        env = {
            "STRIPE_API_KEY": STRIPE_KEY,
            "STRIPE_URL": stripe_url,
            "ZENDESK_API_TOKEN": ZENDESK_TOKEN,
            "ZENDESK_URL": zendesk_url,
        }
        first = await turn(folder, env)
        assert first.status == "ok", first.as_json()

        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as con:
            found = dict(con.execute("SELECT customer_id, spend_pence FROM mart.spend").fetchall())
            names = {r[0] for r in con.execute("SELECT description FROM raw_stripe.charges").fetchall()}
        assert found == {ids[c] if c else "guest": pence for c, pence in spend.items()}
        assert names == {f"{n}: {sales.first_line[n]}" for n in sales.invoices}

        held = {t["id"]: t["priority"] for t in zendesk.dump("tickets")}
        by_id = {1000 + i: c for i, c in enumerate(sales.customers[::3], 1)}
        right = {t["id"]: wanted(spend[by_id[t["requester_id"]]]) if t["status"] == "open" else "low" for t in tickets}
        assert held == right
        assert set(held.values()) == {"urgent", "high", "normal", "low"}

        writes = [e for e in zendesk.log if e.method in ("PUT", "POST")]
        second = await turn(folder, env)
        assert second.status == "ok", second.as_json()
        assert [s.plan.changes for s in second.syncs if s.plan] == [0]
        assert [e for e in zendesk.log if e.method in ("PUT", "POST")] == writes
        assert second.verified[0].count("confirmed") == sum(
            1 for t in tickets if t["status"] == "open" and right[t["id"]]
        )
