"""HubSpot before the suite that every app must pass."""

from __future__ import annotations

from functools import partial
from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.hubspot import HubSpotApp, HubSpotSandbox
from oploop.apps.sandbox import Sandbox
from oploop.records import Op
from oploop.runtime import Runtime
from tests.apps.hubspot.support import CUSTOM, PROPERTIES


def record(properties: dict[str, Any], name: str, i: int) -> dict[str, Any]:
    at = f"2026-01-01T00:{i // 120:02}:00.000Z"
    values = {**properties, name: f"Kündin {i} 🌻 it's" if i % 3 else None}
    return {"id": str(1000 + i), "createdAt": at, "updatedAt": at, "properties": values}


def change(kind: str, name: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HubSpotSandbox)
    sandbox.edit(kind, key, **{name: f"geändert {key}"})


def delete(kind: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HubSpotSandbox)
    sandbox.store.archive(sandbox.store.kinds[kind], key)


def stream(kind: str, name: str, **more: str) -> StreamCase:
    return StreamCase(
        kind,
        kind,
        partial(record, dict(more), name),
        r"(GET|POST) /crm/v3/objects/",
        change=partial(change, kind, name),
        delete=partial(delete, kind),
    )


def pair(i: int) -> dict[str, Any]:
    return {"id": f"{1000 + i}:{2000 + i % 7}", "from_id": str(1000 + i), "to_id": str(2000 + i % 7)}


def unpair(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HubSpotSandbox)
    kinds = sandbox.store.kinds
    left, _, right = key.partition(":")
    sandbox.links.remove(kinds["deals"], kinds["contacts"], left, right)


def member(i: int) -> dict[str, Any]:
    return {"id": f"{1 + i % 2}:{1000 + i}", "list_id": str(1 + i % 2), "record_id": str(1000 + i)}


def expel(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HubSpotSandbox)
    sandbox.lists.change(key.partition(":")[0], [], [key.partition(":")[2]])


#: An object that is written by batches, which may be answered with nothing done; 204 says that records are archived.
Batched = partial(ObjectCase, nothing=('{"status": "COMPLETE", "results": []}',), silent=(Op.ARCHIVE, Op.REMOVE))


class TestHubSpot(AppSuite):
    app_class = HubSpotApp
    elsewhere = ("owners", "lists", "*_to_companies", "tickets_to_contacts", "deals_to_contacts", "list_memberships")
    wrong_credentials = {"access_token": "pat-nobodys"}
    streams = [
        stream("contacts", "firstname"),
        stream("companies", "name"),
        stream("deals", "dealname", dealstage="closedwon"),
        stream("tickets", "subject", hs_pipeline_stage="1"),
        stream("cars", "vin"),
        StreamCase("deals_to_contacts", "deals_to_contacts", pair, "GET /crm/v3/objects/0-3|GET /crm/v3/objects/deals", delete=unpair),
        StreamCase("list_memberships", "list_memberships", member, "/crm/v3/lists/", count=300, delete=expel),
    ]  # fmt: skip
    objects = [
        Batched(
            "contacts",
            fields=lambda i: {
                "email": f"new{i}@acme.example",
                "firstname": f"Neu {i} 'n' Söhne 🌻",
                "topics": ["a", "c"],
            },
            changed=lambda i: {"firstname": f"Anders {i}", "spend": 12.5 * i, "vip": True, "topics": []},
            bad={"lifecyclestage": "king"},
            calls="POST /crm/v3/objects/contacts/batch/upsert",
            key=("email",),
        ),
        Batched(
            "companies",
            fields=lambda i: {"domain": f"neu{i}.example", "name": f"Neu {i} & Söhne 🌻"},
            changed=lambda i: {"name": f"Anders {i}", "numberofemployees": i},
            bad={"industry": "MAGIC"},
            calls="POST /crm/v3/objects/companies/batch/create",
            key=("domain",),
        ),
        Batched(
            "cars",
            fields=lambda i: {"vin": f"V-{i}", "doors": i},
            changed=lambda i: {"doors": i + 1},
            bad={"doors": "many"},
            calls=r"POST /crm/v3/objects/2-\d+/batch/upsert",
            key=("vin",),
        ),
        Batched(
            "deals",
            fields=lambda i: {"dealname": f"Geschäft {i} 🌻", "dealstage": "closedwon", "amount": 1.5 * i},
            changed=lambda i: {"amount": i + 0.25},
            bad={"dealstage": "nowhere"},
            calls="POST /crm/v3/objects/deals/batch/create",
            key=("dealname",),
        ),
        Batched(
            "tickets",
            fields=lambda i: {"subject": f"it's {i} 🌻", "hs_pipeline_stage": "1"},
            changed=lambda i: {"subject": f"Anders {i}"},
            bad={"hs_ticket_priority": "NOW"},
            calls="POST /crm/v3/objects/tickets/batch/create",
            key=("subject",),
        ),
        ObjectCase(
            "deals_to_contacts",
            fields=lambda i: {"from_id": str(100 + i), "to_id": str(3000 + i)},
            calls="POST /crm/v4/associations/deals/contacts/batch",
            bad={"to_id": "999999"},
            key=("from_id", "to_id"),
            nothing=('{"status": "COMPLETE", "results": []}',),
            silent=(Op.REMOVE,),
        ),
        ObjectCase(
            "list_memberships",
            fields=lambda i: {"list_id": "1", "record_id": str(3000 + i)},
            calls="PUT /crm/v3/lists/1/memberships",
            bad={"record_id": "999999"},
            key=("list_id", "record_id"),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = HubSpotSandbox(runtime=runtime)
        box.load("properties.contacts", PROPERTIES)
        box.load("schemas", [CUSTOM])
        box.load("lists", [{"name": "VIPs"}, {"name": "Beta"}])
        return box


class TestHubSpotPairs(TestHubSpot):
    """Associations and members, over records that are there."""

    wrong_credentials = {}
    elsewhere = ("contacts", "companies", "deals", "tickets", "cars", *TestHubSpot.elsewhere)
    streams = [s for s in TestHubSpot.streams if s.stream in ("deals_to_contacts", "list_memberships")]
    objects = [o for o in TestHubSpot.objects if o.object in ("deals_to_contacts", "list_memberships")]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = super().sandbox(runtime)
        for first, kind, count in ((100, "deals", 1_300), (2000, "contacts", 2_300), (1000, "contacts", 300)):
            box.load(kind, [{"id": str(first + i), "properties": {}} for i in range(count)])
        return box


TestHubSpot.streams = [s for s in TestHubSpot.streams if s not in TestHubSpotPairs.streams]
TestHubSpot.objects = [o for o in TestHubSpot.objects if o not in TestHubSpotPairs.objects]
