"""Both directions against the vendor's OpenAPI documents: what the app sends, and what the sandbox answers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from oploop.apps.hubspot import HubSpotApp, HubSpotSandbox
from oploop.records import Op
from tests.apps.hubspot.support import contact, new_sandbox, read, send, step, using

SHARED = Path(__file__).parents[3] / "../shared"
DOCUMENTS = {
    r"/crm/v3/objects/contacts": "hubspot-contacts.json",
    r"/crm/v3/objects/companies": "hubspot-companies.json",
    r"/crm/v3/objects/": "hubspot-objects.json",
    r"/crm/v3/properties/": "hubspot-properties.json",
}
#: What the documents have wrong, each with the reason for passing over it.
IGNORE = (
    # Of a search, all is marked as required; the guide and HubSpot's own clients leave out what is not needed.
    r"^schema:required body '(after|query)' is a required property",
    # `sorts` is a list of texts here; the guide, and HubSpot's clients, write {propertyName, direction}.
    r"^schema:type body\.sorts\.0",
    # Values are typed as texts; where there is none HubSpot answers null.
    r"^schema:type response\.(results\.\d+\.)?properties\.\w+ None is not of type 'string'",
)
#: Calls that no document here describes: associations v4, lists, schemas, owners, account information.
ELSEWHERE = re.compile(r"/crm/v4/|/crm/v3/lists|/crm-object-schemas/|/crm/v3/owners|/account-info/")


@pytest.fixture
def contracts() -> dict[str, Any]:
    """A fresh checker of each of the vendor's documents."""
    tool = SHARED / "tools/oas_contract.py"
    files = {n: SHARED / "specs" / n for n in DOCUMENTS.values()}
    if not tool.exists() or not all(f.exists() for f in files.values()):
        pytest.skip("needs ../shared: tools/oas_contract.py and specs/hubspot-*.json")
    spec = importlib.util.spec_from_file_location("oas_contract", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {n: module.Contract(orjson.loads(f.read_bytes()), ignore=IGNORE) for n, f in files.items()}


def findings(contracts: dict[str, Any], box: HubSpotSandbox) -> list[tuple[str, str, Any]]:
    """What is wrong with any request or answer, by the document of its address."""
    found = []
    for e in box.log:
        document = next((d for part, d in DOCUMENTS.items() if re.match(part, e.path)), None)
        if document is None:
            assert ELSEWHERE.search(e.path), e.path
            continue
        said = contracts[document].check_request(e.method, e.path, e.query, e.headers, e.body)
        said += contracts[document].check_response(e.method, e.path, e.status, e.answer_headers, e.answer)
        found += [(f"{e.method} {e.path} {e.status}", e.body.decode()[:300], f) for f in said]
    return found


async def everything(app: HubSpotApp, box: HubSpotSandbox) -> None:
    """Every call that the app can make, with good and bad records."""
    box.load("contacts", [contact(n) for n in range(1, 251)])
    box.load("companies", [{"id": str(n), "properties": {"name": f"C {n}"}} for n in range(900, 903)])
    box.load("contacts_to_companies", [{"from_id": "1", "to_id": "900"}])
    box.store.archive(box.store.kinds["contacts"], "250")
    await app.check()
    for name in ("contacts", "companies", "deals", "tickets", "cars"):
        await app.describe(name)
        _, cursor = await read(app, name)
        box.advance(60)
        await read(app, name, cursor)
        await app.fetch(name, ["1", "999999"])
    await read(app, "contacts_to_companies")
    new = {"email": "n1@acme.example", "firstname": "N", "spend": 1.5, "topics": ["a"]}
    await send(app, step("contacts", Op.UPSERT, (None, new), key="email"))
    await send(
        app, step("contacts", Op.UPDATE, ("1", {"plan": "pro", "vip": False}), ("2", {"associations.company": "901"}))
    )
    await send(app, step("contacts", Op.UPDATE, ("1", {"plan": None}), ("777777", {"plan": "pro"})))
    deals = [{"dealname": "D", "dealstage": s, "associations.company": "902"} for s in ("closedwon", "nowhere")]
    await send(app, step("deals", Op.CREATE, *[(None, d) for d in deals]))
    await send(app, step("tickets", Op.CREATE, (None, {"subject": "T", "hs_pipeline_stage": "1"})))
    await send(app, step("cars", Op.UPSERT, (None, {"vin": "V", "doors": 4}), key="vin"))
    await send(app, step("companies", Op.ARCHIVE, ("901", {})))
    for bad in ({"plan": "gold"}, {"nonsense": "1"}, {"spend": "much"}):
        with pytest.raises(Exception, match="not valid"):
            await app.send(step("contacts", Op.UPDATE, ("1", bad)))


async def test_requests_and_answers_keep_to_the_documents(contracts: dict[str, Any]) -> None:
    box = new_sandbox()
    async with using(box) as app:
        await everything(app, box)
    assert findings(contracts, box) == []
    called = set().union(*(c.hits for c in contracts.values()))
    for name in ("contacts", "{objectType}"):
        base = f"/crm/v3/objects/{name}"
        assert {f"GET {base}", f"POST {base}/search", f"POST {base}/batch/upsert", f"POST {base}/batch/read"} <= called
    assert {"POST /crm/v3/objects/{objectType}/batch/create", "POST /crm/v3/objects/companies/batch/archive"} <= called


async def test_the_contract_would_notice(contracts: dict[str, Any]) -> None:
    """The check can fail: an unknown parameter in a request, a wrong type in an answer."""
    box = new_sandbox()
    box.load("contacts", [contact(7)])
    async with using(box) as app:
        await app.client.get("crm/v3/objects/contacts", {"pageSize": 7})
        box.store.kinds["contacts"].records[7]["archived"] = False
        box.store.kinds["contacts"].records[7]["createdAt"] = 5  # type: ignore[assignment]
        await app.client.get("crm/v3/objects/contacts/7")
    assert len(findings(contracts, box)) >= 2


def test_the_sandboxs_properties_have_every_key_of_the_document(contracts: dict[str, Any]) -> None:
    schema = contracts["hubspot-properties.json"].spec["components"]["schemas"]["Property"]
    for definition in new_sandbox().dump("properties.contacts"):
        assert set(schema["required"]) <= definition.keys() <= schema["properties"].keys()
