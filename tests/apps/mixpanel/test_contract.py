"""Both directions against Mixpanel's three OpenAPI documents: what the app sends, and what the sandbox answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from oploop.apps.mixpanel.sandbox import PROJECT
from oploop.apps.sandbox import Fault, Logged
from oploop.records import Change, Op, Step
from tests.apps.mixpanel.support import bench, rows, step

SHARED = Path(__file__).parents[3] / "../shared"
#: The documents, each with what its addresses begin with.
DOCUMENTS = {"export": "/api/2.0", "query": "/api/query", "ingestion": ""}
#: What the documents have wrong, each with the reason for passing over it.
IGNORE = (
    # A distinct_id is a text wherever else it stands (import-events, user profiles).
    r"^schema:type response\.results\.\d+\.\$distinct_id ",
    # The batch of updates is described as a text "blob"; each kind of update alone is a list of objects.
    r"^schema:type body .* is not of type 'string'",
)


@pytest.fixture(scope="module")
def contracts() -> dict[str, Any]:
    tool = SHARED / "tools/oas_contract.py"
    documents = {name: SHARED / f"specs/mixpanel-{name}.yaml" for name in DOCUMENTS}
    if not tool.exists() or not all(d.exists() for d in documents.values()):
        pytest.skip("needs ../shared: tools/oas_contract.py and specs/mixpanel-*.yaml")
    spec = importlib.util.spec_from_file_location("oas_contract", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {n: module.Contract(yaml.load(d.read_bytes(), Loader=_Loader), ignore=IGNORE) for n, d in documents.items()}


class _Loader(yaml.CSafeLoader):
    """Dates stay texts, and so does `=`, as JSON would have them."""

    yaml_implicit_resolvers = {
        k: [(tag, r) for tag, r in v if tag.rpartition(":")[2] not in ("value", "timestamp")]
        for k, v in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def findings(contracts: dict[str, Any], log: Iterable[Logged]) -> list[Any]:
    """Errors and warnings of all requests and answers."""
    found: list[Any] = []
    for e in log:
        name, prefix = next((n, p) for n, p in DOCUMENTS.items() if e.path.startswith(p))
        path = e.path.removeprefix(prefix)
        said = contracts[name].check_request(e.method, path, e.query, e.headers, e.body)
        said += contracts[name].check_response(e.method, path, e.status, e.answer_headers, e.answer)
        found += [(f"{e.method} {e.path}", e.body.decode()[:200], f) for f in said]
    return found


async def test_requests_and_answers_keep_to_the_documents(contracts: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    async with bench() as (box, app):
        await app.check()
        who = {"$distinct_id": "u1"}
        await app.send(step("profiles", Op.UPSERT, {"key": who, "$email": "a@acme.example", "properties.n": 1}))
        await app.send(
            step("profiles", Op.UPSERT, {"key": who, "properties.first": 1}, once=frozenset({"properties.first"}))
        )
        await app.send(step("profiles", Op.UPDATE, {"key": who, "$email": None}))
        await app.send(step("group_company", Op.UPSERT, {"key": {"$distinct_id": "acme"}, "properties.arr": 5}))
        await app.send(step("group_company", Op.UPDATE, {"key": {"$distinct_id": "acme"}, "properties.arr": None}))
        event = {"event": "Paid", "time": now - timedelta(hours=1), "distinct_id": "u1", "properties.amount": 5}
        await app.send(step("events", Op.CREATE, {"key": {"distinct_id": "u1"}, **event}))
        bad = {**event, "distinct_id": "anonymous"}
        await app.send(step("events", Op.CREATE, {"key": {"distinct_id": "u1"}, **event}, {"key": {}, **bad}))
        table = "55b4fb2b-e8de-466c-930f-8b36640b9b5e"
        box.load("lookup_tables", [{"id": table, "name": "Products"}])
        for given in ([{"id": "a", "price": 1.5}], [{"id": "a"}, {"id": "a"}]):
            change = Change(1, Op.UPDATE, {"id": table}, {"rows": given}, table)
            await app.send(Step("01STEP", "s", "lookup_tables", Op.UPDATE, [change]))
        await app.client.replace(table, b"sku,sku\r\na,b\r\n")
        for stream in app.streams:
            assert (await rows(app, stream, since=now - timedelta(days=3)))[0]
        await app.fetch("profiles", ["u1", "u2"])
        await app.fetch("group_company", ["acme"])
        await app.send(step("profiles", Op.REMOVE, {"key": who}))
        await app.send(step("group_company", Op.REMOVE, {"key": {"$distinct_id": "acme"}}))
        assert [e.status for e in box.log].count(400) == 2
        assert findings(contracts, box.log) == []
    called = {path for c in contracts.values() for path in c.hits}
    assert {
        "POST /engage",
        "POST /groups",
        "POST /import",
        "GET /export",
        "GET /lookup-tables",
        "PUT /lookup-tables/{id}",
    } <= called


async def test_the_contract_would_notice(contracts: dict[str, Any]) -> None:
    """The check can fail: an event without a name, an answer that is of another type."""
    async with bench() as (box, app):
        await app.client.write("import", {"strict": 1, "project_id": PROJECT}, b'[{"properties":{}}]', packed=True)
        box.faults.append(Fault("POST /import", "status", status=400, body='{"failed_records": "all"}'))
        await app.client.write("import", {"strict": 1, "project_id": PROJECT}, b"[]")
        said = [f["kind"] for *_, f in findings(contracts, box.log)]
    assert "schema:required" in said
    assert "schema:minItems" in said
    assert "schema:type" in said
