"""A stand-in org, and an app on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from oploop.apps.conformance import Bench
from oploop.apps.salesforce import SalesforceApp, SalesforceConfig
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.runtime import Runtime


@pytest.fixture
def box() -> Iterator[SalesforceSandbox]:
    sandbox = SalesforceSandbox(page=100)
    with sandbox.running():
        yield sandbox


Make = Callable[..., Bench]


@pytest.fixture
async def make(box: SalesforceSandbox) -> Any:
    """Makes apps on the org; waits are short."""
    made: list[SalesforceApp] = []

    async def short(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    def app(runtime: Runtime | None = None, **config: Any) -> Bench:
        block = {**SalesforceSandbox.default_config(box.url), **config}
        runtime = runtime or Runtime(sleep=short)
        made.append(SalesforceApp("salesforce", SalesforceConfig(**block), runtime))
        return Bench(box, made[-1])

    yield app
    for a in made:
        await a.aclose()
