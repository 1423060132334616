"""A Stripe app and its sandbox side by side, the sandbox's clock in the test's hand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import orjson
import pyarrow as pa

from oploop.apps.stripe import StripeApp, StripeConfig
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.records import Batch, Change, Cursor, Op, ReadOptions, Step
from oploop.runtime import Runtime

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW = int(NOON.timestamp())


class Clock:
    """A clock that only sleeping moves, so that no test waits."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.slept.append(seconds)


def still_sandbox(**options: Any) -> StripeSandbox:
    """A sandbox whose clock stands still unless `advance` moves it."""
    return StripeSandbox(runtime=Runtime(now=lambda: NOON, random=Random(7)), **options)


@contextlib.asynccontextmanager
async def app_of(
    url: str, *, clock: Clock | None = None, real: bool = False, **config: Any
) -> AsyncIterator[StripeApp]:
    """The app against an address; it does not really wait, unless it is to be `real`."""
    clock = clock or Clock()
    whole = {"api_key": "sk_test_oploop", "base_url": url, "rate_limit": 100_000, **config}
    still = Runtime(sleep=clock.sleep, monotonic=clock.monotonic, random=Random(3))
    app = StripeApp("stripe", StripeConfig(**whole), Runtime() if real else still)
    try:
        yield app
    finally:
        await app.aclose()


class RawTable:
    """What the raw table of a stream holds after batches: the newest version of each row, deletes marked."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.cursor: Cursor | None = None
        self.seen = 0
        self.loads = 0

    def load(self, batch: Batch) -> None:
        rows = batch.table.to_pylist()
        for row in rows:
            known = self.rows.get(row["id"])
            if known is None or row["_version"] >= known["_version"]:
                self.rows[row["id"]] = row
        self.seen += len(rows)
        self.loads += 1
        if batch.cursor is not None:
            self.cursor = orjson.loads(orjson.dumps(batch.cursor))  # as it is stored
            if batch.cursor.get("relisted"):
                for row in self.rows.values():
                    if row["_version"] < batch.cursor["as_of"] * 1_000_000:
                        row["_deleted"] = True

    def live(self) -> dict[str, Any]:
        """The records that are there, as the app sent them."""
        return {key: orjson.loads(row["_raw"]) for key, row in self.rows.items() if not row["_deleted"]}

    def gone(self) -> set[str]:
        return {key for key, row in self.rows.items() if row["_deleted"]}


async def read(app: StripeApp, stream: str, table: RawTable, **options: Any) -> Batch:
    """One whole read into the table; the last batch."""
    last = None
    async for batch in app.read(stream, table.cursor, ReadOptions(**options)):
        assert last is None or not last.complete, "nothing comes after the complete batch"
        table.load(batch)
        last = batch
    assert last is not None
    assert last.complete
    return last


def held(sandbox: StripeSandbox, kind: str) -> dict[str, Any]:
    """What the sandbox holds of a kind, by id."""
    return {row["id"]: row for row in sandbox.dump(kind)}


def step(op: Op, *changes: Change, id: str = "01STEP") -> Step:
    return Step(id, "health", "customers", op, changes)


def update(number: int, customer: str, **fields: Any) -> Change:
    return Change(number, Op.UPDATE, {"id": customer}, {k.replace("__", "."): v for k, v in fields.items()}, customer)


def column(batch: Batch, name: str) -> list[Any]:
    table: pa.Table = batch.table
    values: list[Any] = table.column(name).to_pylist()
    return values


def calls(sandbox: StripeSandbox, start: str) -> list[str]:
    """The requests so far whose "METHOD /path" begins so."""
    made = [f"{entry.method} {entry.path}" for entry in sandbox.log]
    return [call for call in made if call.startswith(start)]
