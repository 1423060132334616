"""Both directions against the vendor's own OpenAPI document: what the app sends, and what the sandbox answers."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import stripe

from oploop.apps.sandbox import Logged
from oploop.apps.stripe.sandbox.shapes import KINDS
from oploop.records import Change, Op
from tests.apps.stripe.support import NOW, RawTable, app_of, held, read, step, still_sandbox, update
from tests.apps.stripe.test_client_library import company

SHARED = Path(__file__).parents[3] / "../shared"
RECURRING = {"interval": "month", "interval_count": 1, "usage_type": "licensed"}


@pytest.fixture(scope="module")
def contract() -> Any:
    if not SHARED.exists():
        pytest.skip("needs ../shared: specs/stripe.json and tools/oas_contract.py")
    spec = importlib.util.spec_from_file_location("oas_contract", SHARED / "tools/oas_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["oas_contract"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Contract(json.loads((SHARED / "specs/stripe.json").read_text()))


def findings(contract: Any, log: Iterable[Logged], *, requests: bool = True) -> list[Any]:
    found: list[Any] = []
    for entry in log:
        if requests:
            found += contract.check_request(entry.method, entry.path, entry.query, entry.headers, entry.body)
        found += contract.check_response(entry.method, entry.path, entry.status, entry.answer_headers, entry.answer)
    return found


async def test_all_that_the_app_sends_and_gets_is_as_the_document_says(contract: Any) -> None:
    sandbox = still_sandbox()
    sandbox.load("customers", [{"id": f"cus_{i}", "name": "n", "created": NOW - i} for i in range(120)])
    sandbox.load("products", [{"id": "prod_1", "name": "Plan"}])
    sandbox.load(
        "prices", [{"id": "price_1", "product": "prod_1", "currency": "usd", "unit_amount": 1, "recurring": RECURRING}]
    )
    sandbox.load("subscriptions", [{"customer": "cus_1", "items": [{"price": "price_1"}], "trial_end": NOW}])
    sandbox.load("invoices", [{"customer": "cus_1", "currency": "usd", "total": 5, "status": "paid"}])
    sandbox.load("charges", [{"id": "ch_1", "amount": 5, "currency": "usd", "customer": "cus_1"}])
    sandbox.load("refunds", [{"charge": "ch_1", "amount": 5, "currency": "usd"}])
    with sandbox.running() as url:
        async with app_of(url) as app:
            await app.check()
            tables = {kind: RawTable() for kind in KINDS}
            for turn in range(2):
                for kind, table in tables.items():
                    await read(app, kind, table)
                    assert table.live() == held(sandbox, kind)
                sandbox.account_version = "2019-03-14"
                for n in range(20):
                    sandbox.books.create("customers", {"name": f"new {n}"})
                sandbox.books.delete("customers", f"cus_{7 + turn}")
            await app.send(step(Op.UPDATE, update(1, "cus_1", name="ü", phone=None, metadata__a="1", metadata__b=None)))
            await app.send(step(Op.CREATE, Change(2, Op.CREATE, {"email": "a@x.example"}, {"metadata.a": "1"})))
            await app.send(step(Op.UPDATE, update(3, "cus_none", name="x"), update(4, "cus_1", email="no")))
            gone = [Change(n, Op.REMOVE, {}, {}, i) for n, i in enumerate(("cus_9", "cus_9", "cus_none"), 5)]
            await app.send(step(Op.REMOVE, *gone))
            await app.fetch("customers", ["cus_1", "cus_7", "cus_none"])
            async for _ in app.read("customers", None, _since()):
                pass
    assert findings(contract, sandbox.log) == []
    lists = {f"GET /v1/{kind}" for kind in (*KINDS, "events", "account")}
    one = {f"{method} /v1/customers/{{customer}}" for method in ("GET", "POST", "DELETE")}
    assert set(contract.hits) == lists | one | {"POST /v1/customers"}, "every call was judged"


def _since() -> Any:
    from datetime import UTC, datetime

    from oploop.records import ReadOptions

    return ReadOptions(since=datetime.fromtimestamp(NOW - 50, UTC))


def test_all_that_the_sandbox_answers_its_makers_client_is_as_the_document_says(contract: Any) -> None:
    """The requests are the client's business: it speaks a newer version of the API."""
    sandbox = still_sandbox()
    with sandbox.running() as url:
        company(stripe.StripeClient("sk_test_oploop", base_addresses={"api": url}, max_network_retries=0))
        for path in ("customers?nmae=1", "charges/ch_none", "cats"):
            with pytest.raises(stripe.StripeError):
                stripe.StripeClient("sk_test_oploop", base_addresses={"api": url}).raw_request("get", f"/v1/{path}")
    assert {entry.status for entry in sandbox.log} >= {200, 400, 402, 404}
    assert findings(contract, sandbox.log, requests=False) == []
