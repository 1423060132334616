"""Reading 20,000 charges from the Stripe sandbox, 100 a page, beside a bare client that only fetches the same pages.

The sandbox runs in a process of its own, so that with two cores it does not share one with the reader.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import duckdb

from bench.table import Row, median_of
from oploop import loop
from oploop.apps.registry import make_app
from oploop.project import load_project
from oploop.records import ReadOptions
from oploop.runtime import Runtime
from oploop.workspace import Workspace

CHARGES = 20_000
KEY = "sk_test_oploop"
PROJECT = """\
name: bench
warehouse: {type: duckdb, database: w.duckdb}
models: {engine: none}
apps:
  stripe: {api_key: "${STRIPE_API_KEY}", base_url: "${STRIPE_URL}", rate_limit: 100000, read: [charges]}
"""


@contextmanager
def sandbox() -> Iterator[str]:
    """The Stripe sandbox in another process, filled with charges of the last year."""
    command = [sys.executable, "-m", "oploop.demo.serve", "stripe"]
    with tempfile.TemporaryDirectory() as folder:
        store = ["--store", str(Path(folder) / "store.gz")]
        process = subprocess.Popen([*command, *store], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            asyncio.run(fill(url))
            yield url
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
            process.stdout.close()


async def fill(url: str) -> None:
    now = int(time.time())
    charges = [
        {"id": f"ch_{i:08d}", "amount": 100 + i, "currency": "usd", "created": now - 31_000_000 + i * 1500}
        for i in range(CHARGES)
    ]
    async with aiohttp.ClientSession() as session, session.post(f"{url}/_sandbox/load", json={"charges": charges}) as r:
        assert r.status == 200, await r.text()


async def bare(url: str) -> float:
    """Fetch all pages and look for nothing but the last id, as the cursor needs it."""
    began, rows, after = time.perf_counter(), 0, ""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        while True:
            async with session.get(f"{url}/v1/charges?limit=100{after}") as r:
                page = await r.read()
            rows += 100
            if b'"has_more":false' in page or b'"has_more": false' in page:
                break
            start = page.rindex(b'"id":"ch_') + 6
            last = page[start : page.index(b'"', start)].decode()
            after = f"&starting_after={last}"
    assert rows == CHARGES, rows
    return time.perf_counter() - began


async def read(folder: Path, url: str) -> float:
    """What the reader alone takes: pages into typed Arrow batches."""
    project = load_project(folder, {"STRIPE_API_KEY": KEY, "STRIPE_URL": url})
    app = make_app(project.apps["stripe"], Runtime())
    began, rows = time.perf_counter(), 0
    async for batch in app.read("charges", None, ReadOptions()):
        rows += batch.table.num_rows
    seconds = time.perf_counter() - began
    await app.aclose()
    assert rows >= CHARGES, rows
    return seconds


async def extract(folder: Path, url: str) -> float:
    """The whole stage: read, staged, merged into a raw table, cursor stored."""
    (folder / "w.duckdb").unlink(missing_ok=True)
    project = load_project(folder, {"STRIPE_API_KEY": KEY, "STRIPE_URL": url})
    async with Workspace(project, "prod", Runtime(), "bench") as ws:
        began = time.perf_counter()
        results = await loop.extract(ws, [])
        seconds = time.perf_counter() - began
    assert results[0].error is None, results[0].error
    with duckdb.connect(str(folder / "w.duckdb")) as con:
        assert con.execute("SELECT count(*) FROM raw_stripe.charges").fetchone() == (CHARGES,)
    return seconds


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name, sandbox() as url:
        folder = Path(name)
        (folder / "oploop.yml").write_text(PROJECT)
        floor = median_of(3, lambda: asyncio.run(bare(url)))
        reading = median_of(3, lambda: asyncio.run(read(folder, url)))
        stage = median_of(3, lambda: asyncio.run(extract(folder, url)))
    beside = f"bare client {CHARGES / floor:,.0f} rows/s"
    return [
        Row(
            "read Stripe charges into Arrow",
            f"{CHARGES / reading:,.0f} rows/s",
            beside,
            f"{floor / reading:.0%} of it; bar 20,000 rows/s",
        ),
        Row("the same, loaded into DuckDB", f"{CHARGES / stage:,.0f} rows/s", beside, f"{floor / stage:.0%} of it"),
    ]
