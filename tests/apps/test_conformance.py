"""Our own apps before the suite that every app must pass."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.sandbox import Sandbox
from oploop.apps.segment import SegmentApp, SegmentSandbox
from oploop.apps.stripe import StripeApp
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.runtime import Runtime
from tests.apps.zendesk.conftest import CAR

SECOND = 1_760_000_000
#: A job of Zendesk's that has ended.
DONE = '{"job_status": {"id": "8b726e60", "status": "completed", "total": 2, "results": %s}}'


# -- Stripe -----------------------------------------------------------------------------------------------------------


def _customer(i: int) -> dict[str, Any]:
    text = {"name": f"Kündin {i} 🌻", "description": "it's O'Hara" if i % 3 else None}
    return {"id": f"cus_{i:014}", "created": SECOND + i // 120, "email": f"c{i}@acme.example", **text}


def _charge(i: int) -> dict[str, Any]:
    return {"id": f"ch_{i:024}", "created": SECOND + i // 120, "amount": 100 + i, "currency": "eur"}


def _stripe_change(kind: str, field: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, StripeSandbox)
    sandbox.books.update(kind, key, {field: "geändert"})


def _stripe_other(kind: str, prefix: str, **fields: Any) -> StreamCase:
    """One of the streams that are read as charges are: two pages of them."""

    def record(i: int) -> dict[str, Any]:
        return {**fields, "id": f"{prefix}_{i:024}", "created": SECOND + i // 80}

    def change(sandbox: Sandbox, key: Any) -> None:
        assert isinstance(sandbox, StripeSandbox)
        sandbox.books.update(kind, key, {"metadata": {"k": "geändert"}})

    return StreamCase(kind, kind, record, f"GET /v1/{kind}", count=120, change=change)


NO_ITEMS = {"object": "list", "data": [], "has_more": False, "url": "/v1/subscription_items"}


def _stripe_delete(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, StripeSandbox)
    sandbox.books.delete("customers", key)


class TestStripe(AppSuite):
    app_class = StripeApp
    wrong_credentials = {"api_key": "sk_test_nobodys"}
    streams = [
        StreamCase(
            "customers",
            "customers",
            _customer,
            "GET /v1/customers",
            change=partial(_stripe_change, "customers", "description"),
            delete=_stripe_delete,
        ),
        StreamCase(
            "charges", "charges", _charge, "GET /v1/charges", change=partial(_stripe_change, "charges", "description")
        ),
        _stripe_other("refunds", "re", amount=5, currency="eur"),
        _stripe_other("subscriptions", "sub", customer="cus_1", items=NO_ITEMS),
        _stripe_other("invoices", "in", currency="eur"),
        _stripe_other("products", "prod", name="Sträußchen 🌻"),
        _stripe_other("prices", "price", currency="eur", product="prod_1"),
    ]
    objects = [
        ObjectCase(
            "customers",
            fields=lambda i: {
                "email": f"new{i}@acme.example",
                "name": f"Neu {i} 'n' Söhne 🌻",
                "metadata.plan": f"p{i}",
            },
            changed=lambda i: {"name": f"Umbenannt {i}", "description": None, "metadata.plan": "pro"},
            bad={"email": "x" * 600},
            calls="POST /v1/customers",
            key=("email",),
        )
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return StripeSandbox(runtime=runtime)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        return {"base_url": sandbox.url, "api_key": "sk_test_oploop", "rate_limit": 100_000}


# -- Zendesk ----------------------------------------------------------------------------------------------------------


def _zendesk_record(base: dict[str, Any], name: str, i: int) -> dict[str, Any]:
    at = f"2026-01-01T00:{i // 120:02}:00Z"
    return {"id": 1000 + i, name: f"Drücker {i} 🔥 it's", "created_at": at, "updated_at": at, **base}


def _zendesk_user(i: int) -> dict[str, Any]:
    return _zendesk_record({"email": f"u{i}@acme.example" if i % 5 else None}, "name", i)


def _zendesk_change(kind: str, field: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, ZendeskSandbox)
    sandbox.store.update(kind, key, {field: f"geändert {key}"})


def _zendesk_delete(kind: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, ZendeskSandbox)
    sandbox.store.delete(kind, key)


def _zendesk_stream(kind: str, field: str, record: Any, calls: str) -> StreamCase:
    return StreamCase(
        kind, kind, record, calls, change=partial(_zendesk_change, kind, field), delete=partial(_zendesk_delete, kind)
    )


def _zendesk_listed(kind: str, field: str) -> StreamCase:
    """A list that is read whole."""

    def change(sandbox: Sandbox, key: Any) -> None:
        assert isinstance(sandbox, ZendeskSandbox)
        sandbox.custom.listed[kind][key][field] = 7

    def delete(sandbox: Sandbox, key: Any) -> None:
        assert isinstance(sandbox, ZendeskSandbox)
        del sandbox.custom.listed[kind][key]

    return StreamCase(kind, kind, lambda i: {"id": 1000 + i}, f"GET /api/v2/{kind}", change=change, delete=delete)


def _zendesk_car(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, ZendeskSandbox)
    sandbox.custom.put("car", {"name": "geändert"}, sandbox.custom.get("car", key))


def _zendesk_scrap(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, ZendeskSandbox)
    del sandbox.custom.records["car"][key]


class TestZendesk(AppSuite):
    app_class = ZendeskApp
    wrong_credentials = {"api_token": "nobodys-token"}
    elsewhere = (
        "ticket_fields",
        "satisfaction_ratings",
        "ticket_metrics",
        "organization_memberships",
        "ticket_comments",
    )
    streams = [
        _zendesk_stream(
            "tickets", "subject", partial(_zendesk_record, {}, "subject"), "GET /api/v2/incremental/tickets"
        ),
        _zendesk_stream("users", "name", _zendesk_user, "GET /api/v2/incremental/users"),
        _zendesk_stream(
            "organizations", "name", partial(_zendesk_record, {}, "name"), "GET /api/v2/incremental/organizations"
        ),
    ]
    objects = [
        ObjectCase(
            "tickets",
            fields=lambda i: {
                "external_id": f"E-{i}",
                "subject": f"Neu {i} 🔥",
                "description": "it's new",
                "tags": ["vip", f"t{i}"],
            },
            changed=lambda i: {"subject": f"Anders {i}", "priority": "high", "tags": []},
            bad={"priority": "asap"},
            calls="POST /api/v2/tickets",
            key=("external_id",),
            nothing=(DONE % "[]", DONE % "null"),
        ),
        ObjectCase(
            "users",
            fields=lambda i: {"email": f"new{i}@acme.example", "name": f"Neu {i} 'n' Co"},
            changed=lambda i: {"name": f"Anders {i} 🌻"},
            bad={"role": "king"},
            calls="POST /api/v2/users/create_or_update",
            key=("email",),
        ),
        ObjectCase(
            "organizations",
            fields=lambda i: {"external_id": f"O-{i}", "name": f"Neu {i} GmbH"},
            changed=lambda i: {"notes": f"Anders {i} 🌻"},
            calls="POST /api/v2/organizations",
            key=("external_id",),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return ZendeskSandbox(runtime=runtime, job_seconds=0.01, export_limit=100_000)


class TestZendeskMore(TestZendesk):
    """What is read whole, custom objects, and comments on tickets that are there."""

    wrong_credentials = {}
    elsewhere = ("tickets", "users", "organizations", "ticket_fields")
    streams = [
        _zendesk_listed("satisfaction_ratings", "reason_code"),
        _zendesk_listed("ticket_metrics", "reopens"),
        _zendesk_listed("organization_memberships", "organization_id"),
        StreamCase(
            "custom_objects.car",
            "custom_objects.car",
            lambda i: {"id": f"01C{i:05}", "name": f"Wägele {i} 🔥"},
            "GET /api/v2/custom_objects/car/records",
            change=_zendesk_car,
            delete=_zendesk_scrap,
        ),
    ]
    objects = [
        ObjectCase(
            "custom_objects.car",
            fields=lambda i: {"external_id": f"V-{i}", "name": f"Wägele {i} 'n' Co", "custom_object_fields.doors": i},
            changed=lambda i: {"custom_object_fields.doors": i + 1, "custom_object_fields.electric": True},
            bad={"custom_object_fields.doors": "many"},
            calls="POST /api/v2/custom_objects/car/jobs",
            key=("external_id",),
            nothing=(DONE % "[]", DONE % "null"),
        ),
        ObjectCase(
            "ticket_comments",
            fields=lambda i: {"ticket_id": 1 + i % 90, "body": f"gesagt {i} 🌻", "public": False},
            bad={"ticket_id": 999},
            calls="PUT /api/v2/tickets",
            key=("ticket_id",),
            nothing=('{"ticket": {"id": 1}, "audit": {"events": []}}',),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = super().sandbox(runtime)
        box.load("custom_objects", [CAR])
        box.load("tickets", [{"id": n, "subject": "s"} for n in range(1, 91)])
        return box


# -- Segment ----------------------------------------------------------------------------------------------------------


def _segment_event(i: int) -> dict[str, Any]:
    at = f"2026-01-01T00:{i // 120:02}:00.000Z"
    return {"messageId": f"m{i}", "userId": f"ü{i}", "event": "Signed In", "timestamp": at, "receivedAt": at}


class TestSegment(AppSuite):
    app_class = (
        SegmentApp  # any write key is answered 200, and logs are files: no credential to get wrong, no call to break
    )
    streams = [StreamCase("track", "track", _segment_event, calls=None)]
    elsewhere = ("identify", "page", "screen", "group", "alias")  # of the same files, by the type of their lines
    objects = [
        ObjectCase(
            "track",
            fields=lambda i: {"userId": f"ü{i}", "event": "Upgraded", "properties.plan": "pro", "properties.n": i},
            bad={"event": ""},
            calls="POST /v1/batch",
            key=("userId",),
        ),
        ObjectCase(
            "identify",
            fields=lambda i: {"userId": f"ü{i}", "traits.plan": f"p{i}"},
            bad={"userId": ""},
            calls="POST /v1/batch",
            key=("userId",),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return SegmentSandbox(runtime=runtime, logs=Path(mkdtemp(prefix="oploop-segment-")))

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        assert isinstance(sandbox, SegmentSandbox)
        return dict(SegmentSandbox.default_config(sandbox.url, sandbox.logs or ""))
