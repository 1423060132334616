"""A sandbox on loopback and the app that speaks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from oploop.apps.mixpanel import MixpanelApp, MixpanelConfig
from oploop.apps.mixpanel.sandbox import MixpanelSandbox
from oploop.records import Change, Op, ReadOptions, Step
from oploop.runtime import Runtime


async def short(seconds: float) -> None:
    """Waits are real but short."""
    await asyncio.sleep(min(seconds, 0.02))


@asynccontextmanager
async def bench(
    runtime: Runtime | None = None, config: Mapping[str, Any] | None = None, **sandbox: Any
) -> AsyncIterator[tuple[MixpanelSandbox, MixpanelApp]]:
    """A running sandbox and an app on it."""
    runtime = runtime or Runtime(sleep=short)
    box = MixpanelSandbox(runtime=runtime, **{"per_hour": 10_000, **sandbox})
    with box.running() as url:
        limits = {"queries_per_hour": 10_000, "exports_per_second": 10_000}
        block = {**MixpanelSandbox.default_config(url), **limits, **(config or {})}
        app = MixpanelApp("mixpanel", MixpanelConfig(**block), runtime)
        try:
            yield box, app
        finally:
            await app.aclose()


def step(obj: str, op: Op, *changes: dict[str, Any], once: frozenset[str] = frozenset(), sync: str = "s") -> Step:
    """A step of changes that are {"key": ..., field: value, ...}, numbered from 1."""
    made = []
    for number, fields in enumerate(changes, 1):
        key = fields.pop("key")
        remote = key.get("$distinct_id") if op is not Op.UPSERT else None
        made.append(Change(number, op, key, fields, remote, once))
    return Step("01STEP", sync, obj, op, made)


async def rows(app: MixpanelApp, stream: str, cursor: Any = None, **options: Any) -> tuple[list[dict[str, Any]], Any]:
    """All rows of one read, and the cursor for the next."""
    found: list[dict[str, Any]] = []
    async for batch in app.read(stream, cursor, ReadOptions(**options)):
        found += batch.table.to_pylist()
        cursor = batch.cursor if batch.cursor is not None else cursor
    return found, cursor
