"""Both directions against the vendor's OpenAPI document: what the app sends, and what the sandbox answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Logged
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.apps.zendesk.streams import Reader
from oploop.records import Change, Op, ReadOptions, Step
from tests.apps.zendesk.conftest import CAR, SPEND_ID, TEXT_ID, step

SHARED = Path(__file__).parents[3] / "../shared"

#: What the document leaves out or has wrong, each with the reason for passing over it.
IGNORE = (
    # `start_time` is marked as required, yet a later page is asked for by `cursor` alone ("Using the Incremental Export API").
    r"^missing-query query\.start_time required",
    # TicketUpdateInput names CustomFieldObject (a definition: key, type, title) for {id, value}; TicketObject has it right.
    r"^schema:required body\.tickets?\.(\d+\.)?custom_fields\.\d+ '(key|type|title)' is a required property",
    # A failed item of a job ({index, error, details}) is on the job statuses page, not in this version of the document.
    r"^schema:oneOf response\.job_status\.results .*'error'",
    # A deleted ticket's status in the exports ("Excluding deleted tickets") is missing from the enum.
    r"^schema:enum response\.tickets\.\d+\.status 'deleted' is not one of",
    # Records of custom objects have texts as ids; the results of jobs know numbers only.
    r"^schema:oneOf response\.job_status\.results .*'01SANDBOX",
    # "An array of strings for job actions that delete", says the field's own description.
    r"^schema:type body\.job\.items\.\d+ '01SANDBOX",
)

#: Fields that are null where nothing is set, which the document does not say of them (it has no `nullable` there).
NULLABLE = frozenset(
    {
        "external_id", "type", "recipient", "assignee_id", "organization_id", "group_id", "forum_topic_id", "problem_id",
        "value", "email", "last_login_at", "default_group_id",
    }
)  # fmt: skip


def without_nulls(value: Any) -> Any:
    """The answer less the nulls that the document forgets."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None or k not in NULLABLE}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def contract() -> Any:
    """A fresh checker of the vendor's document."""
    tool, document = SHARED / "tools/oas_contract.py", SHARED / "specs/zendesk.json"
    if not tool.exists() or not document.exists():
        pytest.skip("needs ../shared: tools/oas_contract.py and specs/zendesk.json")
    spec = importlib.util.spec_from_file_location("oas_contract", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Contract(orjson.loads(document.read_bytes()), ignore=IGNORE)


def findings(contract: Any, log: list[Logged]) -> list[tuple[str, str, Any]]:
    """Errors of all requests and answers."""
    found = []
    for e in log:
        answer = orjson.dumps(without_nulls(orjson.loads(e.answer))) if e.answer else b""
        said = contract.check_request(e.method, e.path, e.query, e.headers, e.body)
        said += contract.check_response(e.method, e.path, e.status, e.answer_headers, answer)
        found += [(f"{e.method} {e.path}", e.body.decode()[:300], f) for f in said if f["level"] == "error"]
    return found


async def everything(app: ZendeskApp, sandbox: ZendeskSandbox) -> None:
    """Every call that the app can make, with good and bad records."""
    await app.check()
    sandbox.store.delete("tickets", 290)
    sandbox.store.delete("users", 539)
    sandbox.store.delete("organizations", 61)
    sandbox.advance(100)
    sandbox.load("custom_objects", [CAR])
    sandbox.load("custom_objects.car", [{"name": f"Car {n}", "external_id": f"V{n}"} for n in range(120)])
    for kind in ("satisfaction_ratings", "ticket_metrics", "organization_memberships"):
        sandbox.load(kind, [{} for _ in range(120)])
    assert {"custom_objects.car"} == {n for n in ("custom_objects.car", "cars", "custom_objects.") if n in app.objects}
    for stream in ("custom_objects.car", *app.streams):
        if not app.streams[stream].incremental:
            async for batch in app.read(stream, None, ReadOptions()):
                assert batch.stream == stream
            continue
        async for batch in Reader(app.client, 45).read(stream, None, ReadOptions()):
            assert batch.stream == stream
    async for _ in app.client.listed("organizations", "organizations"):
        pass
    for name, obj in app.objects.items():
        await app.describe(name)
        if obj.stream is not None:
            await app.fetch(name, ["1", "505", "55"])
    ticket = {"subject": "Ü", "description": "d", "priority": "high", "tags": ["a"], f"custom_fields.{TEXT_ID}": "t"}
    user = {"name": "N", "email": "n1@acme.example", "user_fields.plan": "gold", "organization_id": 50}
    organization = {"name": "Neu", "external_id": "N-1", "tags": ["x"], "organization_fields.revenue": "5"}
    for name, fields in (("tickets", ticket), ("users", user), ("organizations", organization)):
        await app.send(step(name, Op.CREATE, (None, fields)))
        await app.send(
            step(name, Op.CREATE, (None, {**fields, "name" if name != "tickets" else "subject": "2"}), (None, fields))
        )
    await app.send(step("tickets", Op.UPDATE, ("7", {"status": "solved", f"custom_fields.{SPEND_ID}": 5})))
    await app.send(step("tickets", Op.UPDATE, ("7", {"tags": []}), ("8", {"priority": "asap"}), ("9", ticket_update())))
    stamp = next(t["updated_at"] for t in sandbox.dump("tickets") if t["id"] == 10)
    for seen in (stamp, "2020-01-01T00:00:00Z"):
        safe = Change(1, Op.UPDATE, {"id": 10}, {"priority": "high"}, "10", as_read={"updated_at": seen})
        await app.send(Step("02", "s", "tickets", Op.UPDATE, [safe], conditional=True))
    await app.send(step("users", Op.UPDATE, ("501", {"notes": "n"})))
    await app.send(step("users", Op.UPDATE, ("501", {"role": "king"}), ("502", {"tags": ["vip"]})))
    await app.send(step("organizations", Op.UPDATE, ("50", {"notes": "n"})))
    await app.send(step("organizations", Op.UPDATE, ("50", {"name": "Org 3"}), ("51", {"notes": "m"})))
    await app.send(step("users", Op.UPSERT, (None, {"name": "Up"}), key={"external_id": "C-9"}))
    two = [Change(n, Op.UPSERT, {"email": f"up{n}@acme.example"}, {"name": "U"}) for n in (1, 2)]
    await app.send(Step("01", "s", "users", Op.UPSERT, two))
    await app.send(step("organizations", Op.UPSERT, (None, {"name": "Up"}), key={"external_id": "O-5"}))
    for name, numbers in (
        ("tickets", ("20", "21", "22")),
        ("users", ("520", "521", "522")),
        ("organizations", ("57", "58", "59")),
    ):
        await app.send(step(name, Op.REMOVE, (numbers[0], {})))
        await app.send(step(name, Op.REMOVE, (numbers[1], {}), (numbers[2], {})))


async def comments_and_custom_records(app: ZendeskApp) -> None:
    """The same of comments and of custom objects' records."""
    said = [(None, {"ticket_id": n, "body": "b", "public": False}) for n in (4, 5, 6, 6)]
    await app.send(step("ticket_comments", Op.CREATE, *said))
    name, car = "custom_objects.car", {"name": "N", "custom_object_fields.doors": 4}
    for op, key in ((Op.CREATE, {}), (Op.UPSERT, {"external_id": "V1"})):
        await app.send(step(name, op, (None, car), key=key))
        await app.send(Step("01", "s", name, op, [Change(n, op, {"external_id": f"N{n}"}, car) for n in (1, 2)]))
    rows = (await app.fetch(name, [])).table.num_rows
    assert rows == 0
    batches = [b async for b in app.read(name, None, ReadOptions())]
    ids = batches[0].table["id"].to_pylist()
    for op, fields in ((Op.UPDATE, car), (Op.REMOVE, {})):
        await app.send(step(name, op, (ids[0], fields)))
        await app.send(step(name, op, (ids[1], fields), (ids[2], fields)))


def ticket_update() -> dict[str, Any]:
    return {"type": "task", "due_at": "2026-09-01T00:00:00Z", "assignee_id": 505, f"custom_fields.{TEXT_ID}": "x"}


async def test_requests_and_answers_keep_to_the_document(
    app: ZendeskApp, sandbox: ZendeskSandbox, contract: Any
) -> None:
    await everything(app, sandbox)
    await comments_and_custom_records(app)
    assert findings(contract, sandbox.log) == []
    called = set(contract.hits)
    for name in ("tickets", "users", "organizations"):
        assert {f"POST /api/v2/{name}", f"POST /api/v2/{name}/create_many", f"PUT /api/v2/{name}/update_many"} <= called
        assert {f"DELETE /api/v2/{name}/destroy_many", f"GET /api/v2/{name}/show_many"} <= called
    records = "/api/v2/custom_objects/{custom_object_key}/records"
    assert {
        f"GET {records}",
        f"POST {records}",
        f"PATCH {records}",
        f"PATCH {records}/{{custom_object_record_id}}",
    } <= called
    assert "POST /api/v2/custom_objects/{custom_object_key}/jobs" in called
    assert {
        f"GET /api/v2/{n}" for n in ("satisfaction_ratings", "ticket_metrics", "organization_memberships")
    } <= called
    assert {"GET /api/v2/incremental/tickets/cursor", "GET /api/v2/incremental/organizations"} <= called


async def test_the_contract_would_notice(app: ZendeskApp, sandbox: ZendeskSandbox, contract: Any) -> None:
    """The check can fail: a wrong enum in a request, a wrong type in an answer."""
    await app.client.write("PUT", "tickets/7", json={"ticket": {"priority": "asap"}}, ok=(422,))
    sandbox.store.records["tickets"][8]["has_incidents"] = "perhaps"
    await app.fetch("tickets", ["8"])
    assert len(findings(contract, sandbox.log)) == 2


def test_the_sandboxs_records_have_every_field_of_the_document(sandbox: ZendeskSandbox, contract: Any) -> None:
    schemas = contract.spec["components"]["schemas"]
    optional = {"via_followup_source_id", "macro_ids", "collaborators", "remote_photo_url"}
    for kind, name in (("tickets", "TicketObject"), ("users", "UserForAdmin"), ("organizations", "OrganizationObject")):
        shown = {k for k, v in schemas[name]["properties"].items() if not v.get("writeOnly")}
        assert shown - optional <= sandbox.dump(kind)[0].keys()
    columns = {"tickets": "TicketObject", "users": "UserForAdmin", "organizations": "OrganizationObject"}
    for stream, name in columns.items():
        shown = {k for k, v in schemas[name]["properties"].items() if not v.get("writeOnly")}
        assert shown - {"macro_ids", "collaborators", "remote_photo_url"} <= ZendeskApp.streams[stream].columns.keys()
    assert schemas["TicketFieldObject"]["properties"].keys() <= ZendeskApp.streams["ticket_fields"].columns.keys()
