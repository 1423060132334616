"""The sandbox behaves as HubSpot documents, where the app or a user would notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from oploop.apps.hubspot import HubSpotSandbox
from tests.apps.hubspot.support import contact, new_sandbox

AUTH = {"Authorization": "Bearer pat-test-oploop"}


@pytest.fixture
def box() -> Iterator[HubSpotSandbox]:
    made = new_sandbox(index_lag=5)
    with made.running():
        yield made


async def call(box: HubSpotSandbox, method: str, path: str, body: Any = None) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession(headers=AUTH) as session,
        session.request(method, box.url + path, json=body) as answer,
    ):
        return answer.status, await answer.json() if answer.content_type == "application/json" else None, answer.headers


async def test_a_search_shows_ten_thousand_and_lags(box: HubSpotSandbox) -> None:
    box.load("contacts", [contact(n) for n in range(1, 4)])
    status, body, headers = await call(box, "POST", "/crm/v3/objects/contacts/search", {"limit": 200, "after": "9900"})
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert not [h for h in headers if h.lower().startswith("x-hubspot-ratelimit")]
    made, record, _ = await call(box, "POST", "/crm/v3/objects/contacts", {"properties": {"email": "n@x.example"}})
    assert made == 201
    ask = {"filterGroups": [{"filters": [{"propertyName": "email", "operator": "EQ", "value": "N@x.example"}]}]}
    assert (await call(box, "POST", "/crm/v3/objects/contacts/search", ask))[1]["total"] == 0
    box.advance(6)
    found = (await call(box, "POST", "/crm/v3/objects/contacts/search", ask))[1]
    assert [r["id"] for r in found["results"]] == [record["id"]]


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"nonsense": "1"}, "PROPERTY_DOESNT_EXIST"), ({"plan": "gold"}, "INVALID_OPTION"), ({"spend": "much"}, "INVALID_NUMBER"),
        ({"email": "nobody"}, "INVALID_EMAIL"), ({"renewal": "1572480000001"}, "INVALID_DATE"), ({"seen_at": "soon"}, "INVALID_DATE"),
        ({"score": "1"}, "READ_ONLY_VALUE"), ({"vip": "perhaps"}, "INVALID_OPTION"), ({"topics": "a;z"}, "INVALID_OPTION"),
    ],
)  # fmt: skip
async def test_properties_are_validated(box: HubSpotSandbox, properties: dict[str, str], code: str) -> None:
    status, body, _ = await call(box, "POST", "/crm/v3/objects/contacts", {"properties": properties})
    assert status == 400
    assert [e["code"] for e in body["errors"]] == [code]
    assert code in body["message"]


async def test_a_batch_that_is_refused_as_a_whole_leaves_nothing(box: HubSpotSandbox) -> None:
    box.load("contacts", [contact(1)])
    inputs = [{"id": "1", "properties": {"plan": "pro"}}, {"id": "1x", "idProperty": "email", "properties": {}}]
    inputs[1] = {"id": "c1@acme.example", "idProperty": "email", "properties": {"plan": "gold"}}
    status, _, _ = await call(box, "POST", "/crm/v3/objects/contacts/batch/update", {"inputs": inputs})
    assert status == 400
    assert box.dump("contacts")[0]["properties"].get("plan") is None
    many = {"inputs": [{"id": str(n)} for n in range(101)]}
    assert (await call(box, "POST", "/crm/v3/objects/contacts/batch/archive", many))[0] == 400
    twice = {"inputs": [{"id": "1", "properties": {}}, {"id": "1", "properties": {}}]}
    assert (await call(box, "POST", "/crm/v3/objects/contacts/batch/update", twice))[0] == 400


async def test_an_archived_contacts_address_is_free_again(box: HubSpotSandbox) -> None:
    box.load("contacts", [contact(1)])
    again = {"properties": {"email": "c1@acme.example"}}
    assert (await call(box, "POST", "/crm/v3/objects/contacts", again))[0] == 409
    assert (await call(box, "DELETE", "/crm/v3/objects/contacts/1"))[0] == 204
    assert (await call(box, "GET", "/crm/v3/objects/contacts/1"))[0] == 404
    assert (await call(box, "GET", "/crm/v3/objects/contacts/1?archived=true"))[1]["archivedAt"]
    assert (await call(box, "POST", "/crm/v3/objects/contacts", again))[0] == 201


async def test_a_merged_contact_answers_as_the_one_it_went_into(box: HubSpotSandbox) -> None:
    box.load("contacts", [contact(1), contact(2, plan="pro")])
    status, _, _ = await call(
        box, "POST", "/crm/v3/objects/contacts/merge", {"primaryObjectId": "1", "objectIdToMerge": "2"}
    )
    assert status == 200
    _, shown, _ = await call(box, "GET", "/crm/v3/objects/contacts/2?properties=plan,email")
    assert (shown["id"], shown["properties"]["plan"], shown["properties"]["email"]) == ("1", "pro", "c1@acme.example")


async def test_the_first_company_becomes_the_primary_one(box: HubSpotSandbox) -> None:
    box.load("contacts", [contact(1)])
    box.load("companies", [{"id": "8", "properties": {}}, {"id": "9", "properties": {}}])
    for company in ("8", "9"):
        pair = {"inputs": [{"from": {"id": "1"}, "to": {"id": company}}]}
        await call(box, "POST", "/crm/v4/associations/contacts/companies/batch/associate/default", pair)
    assert [r["types"] for r in box.dump("contacts_to_companies")] == [[1, 279], [279]]
    assert box.dump("contacts")[0]["properties"]["associatedcompanyid"] == "8"
    await call(box, "PATCH", "/crm/v3/objects/contacts/1", {"properties": {"associatedcompanyid": "9"}})
    assert [r["types"] for r in box.dump("contacts_to_companies")] == [[279], [1, 279]]


async def test_limits_are_told_and_enforced() -> None:
    box = new_sandbox(rate_limit=2, daily_limit=3)
    with box.running():
        first = await call(box, "GET", "/crm/v3/owners/")
        assert (first[2]["X-HubSpot-RateLimit-Remaining"], first[2]["X-HubSpot-RateLimit-Daily-Remaining"]) == (
            "1",
            "2",
        )
        await call(box, "GET", "/crm/v3/owners/")
        status, body, _ = await call(box, "GET", "/crm/v3/owners/")
    assert (status, body["policyName"], body["category"]) == (429, "TEN_SECONDLY_ROLLING", "RATE_LIMITS")


async def test_an_address_that_is_not_there(box: HubSpotSandbox) -> None:
    status, body, _ = await call(box, "GET", "/crm/v9/nothing")
    assert (status, body["category"]) == (404, "OBJECT_NOT_FOUND")
