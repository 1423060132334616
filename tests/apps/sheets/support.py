"""A sandbox on loopback and the app that speaks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from oploop.apps.sheets import SheetsApp, SheetsConfig
from oploop.apps.sheets.sandbox import SheetsSandbox
from oploop.records import Change, Op, ReadOptions, Step
from oploop.runtime import Runtime


async def short(seconds: float) -> None:
    """Waits are real but short."""
    await asyncio.sleep(min(seconds, 0.02))


@asynccontextmanager
async def bench(
    runtime: Runtime | None = None, config: Mapping[str, Any] | None = None, **sandbox: Any
) -> AsyncIterator[tuple[SheetsSandbox, SheetsApp]]:
    """A running sandbox and an app on it."""
    runtime = runtime or Runtime(sleep=short)
    box = SheetsSandbox(runtime=runtime, **{"per_minute": None, **sandbox})
    with box.running() as url:
        block = {**SheetsSandbox.default_config(url), "rate_limit": 10_000, **(config or {})}
        app = SheetsApp("sheets", SheetsConfig(**block), runtime)
        try:
            yield box, app
        finally:
            await app.aclose()


def step(op: Op, *changes: dict[str, Any], once: frozenset[str] = frozenset()) -> Step:
    """A step of changes that are rows by their columns, numbered from 1."""
    made = [
        Change(n, op, {"Account": c["Account"]}, c, None if op is Op.UPSERT else str(c["Account"]), once)
        for n, c in enumerate(changes, 1)
    ]
    return Step("01STEP", "s", "targets", op, made)


async def rows(app: SheetsApp, **options: Any) -> list[dict[str, Any]]:
    """All rows of one read."""
    found: list[dict[str, Any]] = []
    async for batch in app.read("targets", None, ReadOptions(**options)):
        found += batch.table.to_pylist()
    return found
