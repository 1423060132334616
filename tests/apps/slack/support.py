"""A sandbox on loopback and the app that speaks to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from oploop.apps.slack import SlackApp, SlackConfig
from oploop.apps.slack.sandbox import SlackSandbox
from oploop.records import Change, Op, Step
from oploop.runtime import Runtime


async def short(seconds: float) -> None:
    """Waits are real but short."""
    await asyncio.sleep(min(seconds, 0.02))


@asynccontextmanager
async def bench(
    runtime: Runtime | None = None, config: Mapping[str, Any] | None = None, **sandbox: Any
) -> AsyncIterator[tuple[SlackSandbox, SlackApp]]:
    """A running sandbox without limits, and an app on it that keeps to none."""
    runtime = runtime or Runtime(sleep=short)
    box = SlackSandbox(runtime=runtime, **{"messages_per_second": None, "reads_per_minute": None, **sandbox})
    with box.running() as url:
        limits = {"messages_per_second": 10_000, "reads_per_minute": 10_000}
        app = SlackApp(
            "slack", SlackConfig(**{**SlackSandbox.default_config(url), **limits, **(config or {})}), runtime
        )
        try:
            yield box, app
        finally:
            await app.aclose()


def message(number: int = 1, **fields: Any) -> Step:
    """A step of one message."""
    return Step("01STEP", "s", "messages", Op.CREATE, [Change(number, Op.CREATE, {"id": number}, fields)])
