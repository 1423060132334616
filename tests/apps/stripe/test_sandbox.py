"""The sandbox answers as Stripe documents, to any client: strict forms, keys, pages, events."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from oploop.apps.stripe.sandbox import StripeSandbox
from tests.apps.stripe.support import NOW, held, still_sandbox

KEY = {"Authorization": "Bearer sk_test_oploop"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DAY = 86_400


class Api:
    """Bare HTTP against the sandbox."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def __call__(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        named = {**KEY, **(FORM if body is not None else {}), **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self.session.request(method, self.url + path, data=body, headers=named) as answer:
            return answer.status, await answer.json(), dict(answer.headers)


@pytest.fixture
def sandbox() -> StripeSandbox:
    return still_sandbox()


@pytest.fixture
async def api(sandbox: StripeSandbox) -> AsyncIterator[Api]:
    with sandbox.running() as url:
        async with aiohttp.ClientSession() as session:
            yield Api(session, url)


async def error(api: Api, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
    status, answer, _ = await api(method, path, body, **headers)
    return status, answer["error"]


@pytest.mark.parametrize(
    ("given", "words"),
    [("", "did not provide an API key"), ("Bearer sk_test_wrong123456", "Invalid API Key provided: sk_test_")],
)
async def test_without_the_right_key_nothing_is_told(api: Api, given: str, words: str) -> None:
    status, found = await error(api, "GET", "/v1/customers", Authorization=given)
    assert status == 401
    assert found["type"] == "invalid_request_error"
    assert words in found["message"]
    assert "wrong" not in found["message"]


async def test_the_key_may_be_a_basic_user(api: Api) -> None:
    basic = f"Basic {base64.b64encode(b'sk_test_oploop:').decode()}"
    assert (await api("GET", "/v1/balance", Authorization=basic))[0] == 200


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ("nmae=Ann", "parameter_unknown", "nmae"),
        ("address[zip]=1", "parameter_unknown", "address[zip]"),
        ("email=nobody", "email_invalid", "email"),
        ("balance=ten", "parameter_invalid_integer", "balance"),
        ("metadata=text", None, "metadata"),
        ("tax_exempt=maybe", None, "tax_exempt"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, sandbox: StripeSandbox, body: str, code: Any, param: str) -> None:
    status, found = await error(api, "POST", "/v1/customers", body)
    assert (status, found.get("code"), found["param"]) == (400, code, param)
    assert held(sandbox, "customers") == {}


async def test_an_unknown_parameter_of_a_list_is_refused_too(api: Api) -> None:
    status, found = await error(api, "GET", "/v1/customers?page=2")
    assert (status, found["code"], found["param"]) == (400, "parameter_unknown", "page")


async def test_json_bodies_are_refused(api: Api) -> None:
    status, found = await error(api, "POST", "/v1/customers", '{"name": "Ann"}', Content_Type="application/json")
    assert status == 400
    assert "x-www-form-urlencoded" in found["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/cats"), ("DELETE", "/v1/charges/ch_1"), ("GET", "/v2/x")])
async def test_an_address_that_stripe_does_not_have_is_a_404_in_its_shape(api: Api, method: str, path: str) -> None:
    status, found = await error(api, method, path)
    assert (status, found["type"]) == (404, "invalid_request_error")


async def test_pages_run_from_the_newest_and_both_ways(api: Api, sandbox: StripeSandbox) -> None:
    sandbox.load("customers", [{"id": f"cus_{i:02}", "created": NOW - 100 + i // 3} for i in range(25)])
    everything = [f"cus_{i:02}" for i in reversed(range(25))]
    _, first, _ = await api("GET", "/v1/customers?limit=10")
    assert [row["id"] for row in first["data"]] == everything[:10]
    assert first["has_more"] is True
    _, second, _ = await api("GET", "/v1/customers?limit=15&starting_after=cus_15")
    assert [row["id"] for row in second["data"]] == everything[10:]
    assert second["has_more"] is False
    _, back, _ = await api("GET", "/v1/customers?limit=10&ending_before=cus_05")
    assert [row["id"] for row in back["data"]] == everything[9:19]
    assert back["has_more"] is True
    _, few, _ = await api("GET", "/v1/customers")
    assert len(few["data"]) == 10, "ten, if not said otherwise"


@pytest.mark.parametrize("limit", ["0", "101", "x"])
async def test_a_page_has_1_to_100(api: Api, limit: str) -> None:
    assert (await error(api, "GET", f"/v1/customers?limit={limit}"))[0] == 400


async def test_a_page_after_an_unknown_record_is_refused(api: Api) -> None:
    status, found = await error(api, "GET", "/v1/customers?starting_after=cus_none")
    assert (status, found["code"], found["param"]) == (400, "resource_missing", "starting_after")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("created[gte]=110&created[lt]=120", ["cus_11"]),
        ("created[gt]=110&created[lte]=120", ["cus_12", "cus_11"]),
        ("created=110", ["cus_10"]),
        ("email=c12@x.example", ["cus_12"]),
    ],
)
async def test_lists_are_filtered(api: Api, sandbox: StripeSandbox, query: str, ids: list[str]) -> None:
    rows = [{"id": f"cus_{i}", "created": t, "email": f"c{i}@x.example"} for i, t in ((10, 110), (11, 115), (12, 120))]
    sandbox.load("customers", rows)
    _, found, _ = await api("GET", f"/v1/customers?{query}")
    wanted = ids if "gte" not in query else ["cus_11", "cus_10"]
    assert [row["id"] for row in found["data"]] == wanted


async def test_a_charge_settles_at_once_and_a_refund_changes_it(api: Api, sandbox: StripeSandbox) -> None:
    _, charge, _ = await api("POST", "/v1/charges", "amount=1000&currency=GBP&source=tok_visa&metadata[order]=7")
    assert (charge["status"], charge["paid"], charge["currency"], charge["created"]) == ("succeeded", True, "gbp", NOW)
    _, refund, _ = await api("POST", "/v1/refunds", f"charge={charge['id']}&amount=400")
    assert (refund["amount"], refund["currency"], refund["charge"]) == (400, "gbp", charge["id"])
    row = held(sandbox, "charges")[charge["id"]]
    assert (row["amount_refunded"], row["refunded"]) == (400, False)
    status, found = await error(api, "POST", "/v1/refunds", f"charge={charge['id']}&amount=601")
    assert (status, found["param"]) == (400, "amount")
    await api("POST", "/v1/refunds", f"charge={charge['id']}")
    assert held(sandbox, "charges")[charge["id"]]["refunded"] is True
    status, found = await error(api, "POST", "/v1/refunds", f"charge={charge['id']}")
    assert (status, found["code"]) == (400, "charge_already_refunded")
    told = [event["type"] for event in sandbox.dump("events")]
    assert told == ["charge.succeeded", *["charge.refunded", "refund.created"] * 2]


async def test_a_card_that_is_declined_leaves_a_failed_charge(api: Api, sandbox: StripeSandbox) -> None:
    status, found = await error(api, "POST", "/v1/charges", "amount=1000&currency=usd&source=tok_chargeDeclined")
    assert (status, found["type"], found["code"]) == (402, "card_error", "card_declined")
    row = held(sandbox, "charges")[found["charge"]]
    assert (row["status"], row["paid"], row["amount_captured"]) == ("failed", False, 0)
    assert [event["type"] for event in sandbox.dump("events")] == ["charge.failed"]


async def test_metadata_merges_and_empty_text_unsets(api: Api) -> None:
    _, customer, _ = await api("POST", "/v1/customers", "metadata[a]=1&metadata[b]=2")
    path = f"/v1/customers/{customer['id']}"
    _, changed, _ = await api("POST", path, "metadata[b]=&metadata[c]=3&name=%E9%87%91")
    assert (changed["metadata"], changed["name"]) == ({"a": "1", "c": "3"}, "金")
    _, cleared, _ = await api("POST", path, "metadata=&name=")
    assert (cleared["metadata"], cleared["name"]) == ({}, None)


async def test_an_event_has_the_record_and_what_it_was(api: Api, sandbox: StripeSandbox) -> None:
    _, customer, _ = await api("POST", "/v1/customers", "name=Ann&metadata[a]=1")
    path = f"/v1/customers/{customer['id']}"
    await api("POST", path, "name=Anne&metadata[a]=2", Idempotency_Key="why")
    await api("POST", path, "name=Anne")  # changes nothing: no event
    await api("DELETE", path)
    created, updated, deleted = sandbox.dump("events")
    assert [created["type"], updated["type"], deleted["type"]] == [
        f"customer.{x}" for x in ("created", "updated", "deleted")
    ]
    assert updated["data"]["previous_attributes"] == {"name": "Ann", "metadata": {"a": "1"}}
    assert updated["data"]["object"]["name"] == "Anne"
    assert updated["request"]["idempotency_key"] == "why"
    _, gone, _ = await api("GET", path)
    assert gone == {"id": customer["id"], "object": "customer", "deleted": True}
    assert (await error(api, "POST", path, "name=x"))[0] == 404


async def test_events_are_filtered_by_type_and_kept_30_days(api: Api, sandbox: StripeSandbox) -> None:
    await api("POST", "/v1/customers", "name=Ann")
    await api("POST", "/v1/charges", "amount=100&currency=usd&source=tok_visa")
    for query, n in [
        ("type=customer.*", 1),
        ("type=charge.succeeded", 1),
        ("types[]=customer.created&types[]=charge.succeeded", 2),
        ("types[0]=customer.updated", 0),
        (f"created[gt]={NOW}", 0),
        (f"created[gte]={NOW}", 2),
    ]:
        _, found, _ = await api("GET", f"/v1/events?{query}")
        assert len(found["data"]) == n, query
    assert (await api("GET", "/v1/events?type=a&types[]=b"))[0] == 400
    assert (await api("GET", "/v1/events?" + "&".join(f"types[]=t{i}" for i in range(21))))[0] == 400
    event = sandbox.dump("events")[0]["id"]
    assert (await api("GET", f"/v1/events/{event}"))[0] == 200
    sandbox.advance(30 * DAY + 1)
    _, found, _ = await api("GET", "/v1/events")
    assert found["data"] == []
    assert (await api("GET", f"/v1/events/{event}"))[0] == 404


async def test_the_same_key_is_answered_the_same(api: Api, sandbox: StripeSandbox) -> None:
    _, first, headers = await api("POST", "/v1/customers", "name=Ann&email=a@x.example", Idempotency_Key="k1")
    assert "Idempotent-Replayed" not in headers
    _, second, headers = await api("POST", "/v1/customers", "email=a@x.example&name=Ann", Idempotency_Key="k1")
    assert second == first
    assert headers["Idempotent-Replayed"] == "true"
    status, found = await error(api, "POST", "/v1/customers", "name=Other", Idempotency_Key="k1")
    assert (status, found["type"]) == (400, "idempotency_error")
    status, found = await error(api, "POST", "/v1/products", "name=Ann&email=a@x.example", Idempotency_Key="k1")
    assert (status, found["type"]) == (400, "idempotency_error")
    sandbox.advance(DAY)
    _, later, _ = await api("POST", "/v1/customers", "name=Ann&email=a@x.example", Idempotency_Key="k1")
    assert later["id"] != first["id"], "pruned after a day"


async def test_what_failed_validation_is_not_saved_under_its_key_but_a_500_is(api: Api, sandbox: StripeSandbox) -> None:
    from oploop.apps.sandbox import Fault

    assert (await api("POST", "/v1/customers", "nmae=Ann", Idempotency_Key="k1"))[0] == 400
    assert (await api("POST", "/v1/customers", "name=Ann", Idempotency_Key="k1"))[0] == 200
    sandbox.faults = [Fault("POST", "status", status=500, body='{"error":{"type":"api_error"}}')]
    for _ in range(2):
        assert (await api("POST", "/v1/customers", "name=Ben", Idempotency_Key="k2"))[0] == 500
    assert len(held(sandbox, "customers")) == 1
    assert (await api("POST", "/v1/customers", "name=Ben", Idempotency_Key="k3"))[0] == 200
    assert (await error(api, "POST", "/v1/customers", "name=C", Idempotency_Key="k" * 256))[0] == 400


async def test_the_rate_limit_tells_its_reason(api: Api, sandbox: StripeSandbox) -> None:
    sandbox.rate_limit = 3
    answers = [await api("GET", "/v1/balance") for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 200, 429]
    _, body, headers = answers[-1]
    assert body["error"]["code"] == "rate_limit"
    assert headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert "Retry-After" not in headers


async def test_ids_are_expanded_on_wish(api: Api, sandbox: StripeSandbox) -> None:
    sandbox.load("customers", [{"id": "cus_1", "name": "Ann"}])
    sandbox.load("charges", [{"id": "ch_1", "amount": 5, "currency": "usd", "customer": "cus_1"}])
    _, charge, _ = await api("GET", "/v1/charges/ch_1?expand[]=customer&expand[]=refunds")
    assert charge["customer"]["name"] == "Ann"
    assert charge["refunds"]["data"] == []
    _, found, _ = await api("GET", "/v1/charges?expand[]=data.customer")
    assert found["data"][0]["customer"]["name"] == "Ann"
    assert (await api("GET", "/v1/charges/ch_1?expand[]=amount"))[0] == 400


async def test_a_subscription_from_its_beginning_to_its_end(api: Api, sandbox: StripeSandbox) -> None:
    _, customer, _ = await api("POST", "/v1/customers", "name=Ann")
    body = "currency=usd&unit_amount=900&recurring[interval]=month&product_data[name]=Plan"
    _, price, _ = await api("POST", "/v1/prices", body)
    _, dear, _ = await api("POST", "/v1/prices", body.replace("900", "1900"))
    asked = f"customer={customer['id']}&items[0][price]={price['id']}&items[0][quantity]=2&trial_period_days=7"
    _, made, _ = await api("POST", "/v1/subscriptions", asked)
    assert (made["status"], made["trial_end"]) == ("trialing", NOW + 7 * DAY)
    path, item = f"/v1/subscriptions/{made['id']}", made["items"]["data"][0]
    _, changed, _ = await api("POST", path, f"items[0][id]={item['id']}&items[0][price]={dear['id']}")
    assert changed["items"]["data"][0]["price"]["unit_amount"] == 1900
    assert changed["items"]["data"][0]["quantity"] == 2
    _, ending, _ = await api("POST", path, "cancel_at_period_end=true")
    assert ending["cancel_at"] == ending["current_period_end"]
    _, ended, _ = await api("DELETE", path)
    assert (ended["status"], ended["ended_at"]) == ("canceled", NOW)
    _, alive, _ = await api("GET", "/v1/subscriptions")
    _, every, _ = await api("GET", f"/v1/subscriptions?status=all&price={dear['id']}")
    assert (len(alive["data"]), len(every["data"])) == (0, 1)
    assert (await api("DELETE", path))[0] == 404


async def test_an_invoice_from_draft_to_paid(api: Api, sandbox: StripeSandbox) -> None:
    sandbox.load("customers", [{"id": "cus_1", "email": "a@x.example"}])
    _, draft, _ = await api("POST", "/v1/invoices", "customer=cus_1&days_until_due=30&collection_method=send_invoice")
    assert (draft["status"], draft["due_date"], draft["customer_email"]) == ("draft", NOW + 30 * DAY, "a@x.example")
    path = f"/v1/invoices/{draft['id']}"
    assert (await api("POST", f"{path}/pay", ""))[0] == 400
    assert (await api("POST", f"{path}/finalize", ""))[1]["status"] == "open"
    assert (await api("DELETE", path))[0] == 400, "only drafts can be deleted"
    _, paid, _ = await api("POST", f"{path}/pay", "")
    assert (paid["status"], paid["paid"], paid["status_transitions"]["paid_at"]) == ("paid", True, NOW)
    _, other, _ = await api("POST", "/v1/invoices", "customer=cus_1")
    assert (await api("DELETE", f"/v1/invoices/{other['id']}"))[1]["deleted"] is True


def test_loading_completes_records_and_emits_only_on_wish() -> None:
    sandbox = still_sandbox()
    sandbox.load("charges", [{"id": "ch_1", "amount": 5, "currency": "usd", "amount_refunded": 5}])
    assert sandbox.dump("events") == []
    row = held(sandbox, "charges")["ch_1"]
    assert (row["refunded"], row["amount_captured"], row["created"]) == (True, 5, NOW)
    sandbox.load(
        "charges+events",
        [{"id": "ch_1", "amount": 6, "currency": "usd"}, {"id": "ch_2", "amount": 6, "currency": "usd"}],
    )
    assert [event["type"] for event in sandbox.dump("events")] == ["charge.updated", "charge.succeeded"]
    sandbox.reset()
    assert sandbox.dump("charges") == sandbox.dump("events") == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"charges": [{"amout": 5}]}', "no field 'amout'"),
        ('{"charges": [{"currency": "usd"}]}', "needs 'amount'"),
        ('{"subscriptions": [{"customer": "cus_1", "items": [{"price": "price_none"}]}]}', "No such price"),
        ('{"cats": [{}]}', "no cats"),
    ],
)
async def test_a_record_that_cannot_be_is_not_loaded(api: Api, sandbox: StripeSandbox, body: str, words: str) -> None:
    async with api.session.post(f"{api.url}/_sandbox/load", data=body) as answer:
        assert answer.status == 400
        assert words in (await answer.json())["error"]
    assert sandbox.dump("charges") == []


def test_a_page_is_the_same_whether_records_came_at_once_or_one_by_one() -> None:
    rows = [{"id": f"cus_{i}", "created": NOW - (i * 7) % 13} for i in range(40)]
    one, other = still_sandbox(), still_sandbox()
    one.load("customers", rows)
    for row in rows:
        other.load("customers", [row])
    one.load("customers", [{"id": "cus_5", "created": NOW - 100}])  # moved by its time
    other.load("customers", [{"id": "cus_5", "created": NOW - 100}])
    assert one.dump("customers") == other.dump("customers")
    assert one.dump("customers")[0]["id"] == "cus_5"


def test_the_default_config_opens_the_default_sandbox() -> None:
    config = StripeSandbox.default_config("http://127.0.0.1:1")
    assert config["base_url"] == "http://127.0.0.1:1"
    assert config["api_key"] == StripeSandbox().api_key
