"""Mixpanel before the suite that every app must pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.mixpanel import MixpanelApp
from oploop.apps.mixpanel.sandbox import MixpanelSandbox
from oploop.apps.sandbox import Sandbox
from oploop.runtime import Runtime

START = datetime(2026, 1, 1, tzinfo=UTC)


def _event(i: int) -> dict[str, Any]:
    at = START + timedelta(hours=i // 40)
    return {"event": "Signed Up", "time": at, "$insert_id": f"e-{i}", "distinct_id": f"ü{i % 7}", "plan": None, "n": i}


def _profile(i: int) -> dict[str, Any]:
    return {"$distinct_id": f"ü{i}", "$properties": {"$name": f"Kündin {i} 🌻", "plan": None if i % 3 else "it's pro"}}


def _change(group: str, sandbox: Any, key: str) -> None:
    sandbox.store.put(group, key, {**sandbox.store.profile(group, key), "plan": "geändert"})


def _delete(group: str, sandbox: Any, key: str) -> None:
    sandbox.store.put(group, key, None)


def _profiles(name: str, kind: str, group: str) -> StreamCase:
    return StreamCase(
        name,
        kind,
        _profile,
        "POST /api/query/engage",
        count=1_250,  # more than a page
        change=lambda box, key: _change(group, box, key),
        delete=lambda box, key: _delete(group, box, key),
    )


def _tables(sandbox: Any, count: int) -> list[str]:
    sandbox.load("lookup_tables", [{"id": f"t{i}", "name": f"Table {i}"} for i in range(count)])
    return [f"t{i}" for i in range(count)]


class TestMixpanel(AppSuite):
    app_class = MixpanelApp
    wrong_credentials = {"secret": "nobodys-secret", "service_account": "nobody.mp-service-account"}
    streams = [
        StreamCase("events", "events", _event, "GET /api/2.0/export"),
        _profiles("profiles", "profiles", ""),
        _profiles("group_company", "company", "company"),
        StreamCase(
            "lookup_tables",
            "lookup_tables",
            lambda i: {"id": f"55b4fb2b-e8de-466c-930f-{i:012}", "name": f"Täble {i} 🌻"},
            "GET /lookup-tables",
            count=250,
            change=lambda box, key: box.tables[key].update(name="umbenannt"),
            delete=lambda box, key: box.tables.pop(key),
        ),
    ]
    objects = [
        ObjectCase(
            "profiles",
            fields=lambda i: {"$distinct_id": f"n{i}", "$name": f"Neu {i} 'n' Co 🌻", "properties.plan": f"p{i}"},
            changed=lambda i: {"$name": None, "properties.plan": "pro", "properties.seats": i},
            bad={"properties.list": list(range(300))},
            calls="POST /engage",
            key=("$distinct_id",),
            nothing=("0", '{"status": 0, "error": null}'),
        ),
        ObjectCase(
            "group_company",
            fields=lambda i: {"$distinct_id": f"o{i}", "$name": f"Firma {i}", "properties.arr": i},
            changed=lambda i: {"properties.arr": None, "properties.tier": "gold"},
            calls="POST /groups",
            kind="company",
            key=("$distinct_id",),
        ),
        ObjectCase(
            "events",
            fields=lambda i: {"event": "Upgraded", "time": START, "distinct_id": f"ü{i}", "properties.plan": "pro"},
            bad={"distinct_id": "anonymous"},
            calls="POST /import",
            key=("distinct_id",),
            nothing=('{"code": 200, "num_records_imported": 0, "status": "OK"}',),
        ),
        ObjectCase(
            "lookup_tables",
            fields=lambda i: {"id": f"t{i}"},
            changed=lambda i: {"rows": [{"id": f"s{i}", "name": "it's 🌻", "price": i / 4, "at": None}]},
            bad={"rows": [{"id": "a"}, {"id": "a"}]},
            calls="PUT /lookup-tables",
            key=("id",),
            existing=_tables,
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return MixpanelSandbox(runtime=runtime, per_hour=100_000)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        return {
            **MixpanelSandbox.default_config(sandbox.url),
            "queries_per_hour": 100_000,
            "exports_per_second": 100_000,
        }
