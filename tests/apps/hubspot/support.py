"""What the tests of HubSpot share: an app on a sandbox, steps, what a read brought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from oploop.apps.hubspot import HubSpotApp, HubSpotSandbox
from oploop.apps.hubspot.client import HubSpotConfig
from oploop.records import Batch, Change, Cursor, Op, ReadOptions, Receipt, Step
from oploop.runtime import Runtime

CUSTOM = {
    "name": "cars",
    "requiredProperties": ["vin"],
    "properties": [
        {"name": "vin", "label": "VIN", "hasUniqueValue": True},
        {"name": "doors", "label": "Doors", "type": "number", "fieldType": "number"},
    ],
}
PROPERTIES = [
    {"name": "billing_id", "label": "Billing ID", "hasUniqueValue": True},
    {"name": "spend", "label": "Account spend", "type": "number", "fieldType": "number"},
    {"name": "plan", "label": "Plan", "type": "enumeration", "fieldType": "select", "options": ["free", "pro"]},
    {"name": "topics", "label": "Topics", "type": "enumeration", "fieldType": "checkbox", "options": ["a", "b", "c"]},
    {"name": "renewal", "label": "Renewal", "type": "date", "fieldType": "date"},
    {"name": "seen_at", "label": "Seen at", "type": "datetime", "fieldType": "date"},
    {"name": "vip", "label": "VIP", "type": "bool", "fieldType": "booleancheckbox"},
    {"name": "score", "label": "Score", "type": "number", "fieldType": "calculation_equation", "calculated": True},
]


def hasty() -> Runtime:
    """A runtime whose waits are short."""

    async def short(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    return Runtime(sleep=short)


def new_sandbox(**settings: Any) -> HubSpotSandbox:
    """A sandbox with custom properties of contacts and a custom object."""
    box = HubSpotSandbox(**settings)
    box.load("properties.contacts", PROPERTIES)
    box.load("schemas", [CUSTOM])
    return box


def contact(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": str(number),
        "properties": {"email": f"c{number}@acme.example", "firstname": f"Jürgen {number}", **more},
    }


@asynccontextmanager
async def using(box: HubSpotSandbox, runtime: Runtime | None = None, **config: Any) -> AsyncIterator[HubSpotApp]:
    """An app on a running sandbox."""
    with box.running():
        settings = HubSpotConfig(**{**HubSpotSandbox.default_config(box.url), **config})
        app = HubSpotApp("hubspot", settings, runtime or hasty())
        try:
            yield app
        finally:
            await app.aclose()


def step(obj: str, op: Op, *changes: tuple[str | None, dict[str, Any]], key: str | None = None) -> Step:
    """A step of (remote id, fields), numbered from 1; `key`: the field that is the key, taken out of the fields."""
    listed = []
    for n, (remote_id, fields) in enumerate(changes, 1):
        rest = dict(fields)
        known = {key: rest.pop(key)} if key is not None else {"id": remote_id}
        listed.append(Change(n, op, known, rest, remote_id=remote_id))
    return Step("01STEP", "a_sync", obj, op, listed)


async def send(app: HubSpotApp, made: Step) -> dict[int, Receipt]:
    return {r.number: r for r in await app.send(made)}


async def read(
    app: HubSpotApp, stream: str, cursor: Cursor | None = None, options: ReadOptions | None = None
) -> tuple[list[dict[str, Any]], Cursor]:
    """(all rows of a read, where it stopped)."""
    batches = [b async for b in app.read(stream, cursor, options or ReadOptions())]
    assert batches[-1].complete
    assert batches[-1].cursor is not None
    return [row for b in batches for row in b.table.to_pylist()], batches[-1].cursor


def rows(batch: Batch) -> dict[str, dict[str, Any]]:
    return {r["id"]: r for r in batch.table.to_pylist()}


def calls(box: HubSpotSandbox, part: str) -> list[Any]:
    """The requests whose path has this part."""
    return [e for e in box.log if part in e.path]
