"""Stripe's own Python client uses the sandbox as it would use Stripe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stripe

from oploop.apps.sandbox import Fault
from oploop.apps.stripe.sandbox import StripeSandbox
from tests.apps.stripe.support import NOW, held, still_sandbox


@pytest.fixture
def sandbox() -> StripeSandbox:
    return still_sandbox()


@pytest.fixture
def client(sandbox: StripeSandbox) -> Iterator[stripe.StripeClient]:
    with sandbox.running() as url:
        yield client_of(url)


def client_of(url: str, key: str = "sk_test_oploop", retries: int = 0) -> stripe.StripeClient:
    return stripe.StripeClient(key, base_addresses={"api": url}, max_network_retries=retries)


def company(client: stripe.StripeClient) -> stripe.Customer:
    """A customer with all that a customer can have."""
    address = {"line1": "1 High St", "city": "York", "country": "GB"}
    customer = client.v1.customers.create(
        params={"name": "Zoë", "email": "z@x.example", "metadata": {"plan": "pro"}, "address": address}
    )
    product = client.v1.products.create(params={"name": "Plan"})
    price = client.v1.prices.create(
        params={"currency": "usd", "unit_amount": 900, "product": product.id, "recurring": {"interval": "month"}}
    )
    subscription = client.v1.subscriptions.create(
        params={"customer": customer.id, "items": [{"price": price.id, "quantity": 2}], "metadata": {"a": "b"}}
    )
    charge = client.v1.charges.create(params={"amount": 1999, "currency": "usd", "customer": customer.id})
    client.v1.refunds.create(params={"charge": charge.id, "amount": 500, "reason": "requested_by_customer"})
    invoice = client.v1.invoices.create(params={"customer": customer.id})
    client.v1.invoices.finalize_invoice(invoice.id or "")
    client.v1.invoices.pay(invoice.id or "")
    client.v1.products.update(product.id, params={"description": "The plan"})
    client.v1.prices.update(price.id, params={"nickname": "monthly"})
    client.v1.charges.update(charge.id, params={"description": "first", "metadata": {"n": "1"}})
    with pytest.raises(stripe.CardError):
        client.v1.charges.create(params={"amount": 5, "currency": "usd", "source": "tok_chargeDeclined"})
    client.v1.subscriptions.cancel(subscription.id)
    client.v1.charges.retrieve(charge.id, params={"expand": ["customer"]})
    for listed in ("customers", "charges", "refunds", "invoices", "products", "prices", "events"):
        list(getattr(client.v1, listed).list(params={"limit": 3}).auto_paging_iter())
    client.v1.subscriptions.list(params={"status": "all"})
    client.v1.balance.retrieve()
    return customer


def test_lists_page_by_themselves(sandbox: StripeSandbox, client: stripe.StripeClient) -> None:
    sandbox.load("customers", [{"id": f"cus_{i:03}", "created": NOW - i // 2} for i in range(251)])
    found = [customer.id for customer in client.v1.customers.list(params={"limit": 100}).auto_paging_iter()]
    assert sorted(found) == sorted(held(sandbox, "customers"))
    assert len(sandbox.log) == 3
    recent = client.v1.customers.list(params={"created": {"gte": NOW - 1}})
    assert len(recent.data) == 4


def test_a_company_is_made_changed_and_read(sandbox: StripeSandbox, client: stripe.StripeClient) -> None:
    customer = company(client)
    assert client.v1.customers.retrieve(customer.id).name == "Zoë"
    charges = client.v1.charges.list(params={"customer": customer.id}).data
    assert [(charge.amount, charge.amount_refunded, charge.refunded) for charge in charges] == [(1999, 500, False)]
    changed = client.v1.customers.update(customer.id, params={"metadata": {"plan": "", "seats": "3"}, "name": "Zoe"})
    assert changed.to_dict()["metadata"] == {"seats": "3"}
    events = [event.type for event in client.v1.events.list(params={"type": "customer.*", "limit": 100}).data]
    assert events == [
        "customer.updated",
        *[f"customer.subscription.{x}" for x in ("deleted", "created")],
        "customer.created",
    ]
    assert client.v1.customers.delete(customer.id).deleted is True
    assert getattr(client.v1.customers.retrieve(customer.id), "deleted", False) is True


def test_errors_have_the_types_of_the_client(sandbox: StripeSandbox, client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.AuthenticationError):
        client_of(sandbox.url, key="sk_test_wrong").v1.customers.list()
    with pytest.raises(stripe.InvalidRequestError) as missing:
        client.v1.customers.retrieve("cus_none")
    assert (missing.value.code, missing.value.http_status) == ("resource_missing", 404)
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.v1.customers.create(params={"nmae": "x"})  # type: ignore[typeddict-unknown-key]
    assert (unknown.value.code, unknown.value.param) == ("parameter_unknown", "nmae")
    client.v1.customers.create(params={"name": "a"}, options={"idempotency_key": "k"})
    with pytest.raises(stripe.IdempotencyError):
        client.v1.customers.create(params={"name": "b"}, options={"idempotency_key": "k"})
    sandbox.forbidden = {"/v1/charges"}
    with pytest.raises(stripe.PermissionError):
        client.v1.charges.list()
    sandbox.rate_limit = 1
    with pytest.raises(stripe.RateLimitError):
        [client.v1.customers.list() for _ in range(3)]


def test_the_clients_own_retry_makes_one_customer(sandbox: StripeSandbox) -> None:
    sandbox.faults = [Fault("POST /v1/customers", "lose")]
    with sandbox.running() as url:
        made = client_of(url, retries=2).v1.customers.create(params={"name": "once"})
    assert list(held(sandbox, "customers")) == [made.id]
    assert len(sandbox.log) == 2
