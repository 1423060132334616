"""How fast apps are read: a large stream into Arrow, beside a bare client that fetches the very same pages.

The requests of one read are written down, and a keep-alive aiohttp session sends them again, one after the other: once
only taking the bytes ("fetched"), once with `orjson.loads` of each ("parsed"). Each sandbox runs in a process of its own,
with limits that nobody reaches. One read that is not counted comes first; then the three take turns.

`BENCH_ROWS` sets the rows, `BENCH_APPS` the apps (blank-separated).
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson
from yarl import URL

from bench.apps_serve import CASES, Case
from bench.table import Row
from oploop.apps.base import App
from oploop.apps.policy import Answer, Request
from oploop.apps.registry import app_class
from oploop.apps.sender import AiohttpSender
from oploop.lean import collect_seldom
from oploop.records import ReadOptions
from oploop.runtime import Runtime

ROWS = int(os.environ.get("BENCH_ROWS", "20000"))
RUNS = 5
BAR = 0.8


@contextmanager
def sandbox(case: Case) -> Iterator[dict[str, Any]]:
    """The app's block for its sandbox, which serves meanwhile."""
    command = [sys.executable, "-m", "bench.apps_serve", case.type, str(ROWS)]
    here = Path(__file__).parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield orjson.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(30)


class Taken(NamedTuple):
    """Seconds by the clock, and of this process's core."""

    wall: float
    cpu: float

    @classmethod
    def since(cls, began: Taken) -> Taken:
        return cls(time.perf_counter() - began.wall, time.process_time() - began.cpu)


NOTHING = Taken(0.0, 0.0)


async def read(app: App, stream: str) -> Taken:
    """What the stream takes from its beginning, into typed Arrow batches."""
    began, rows = Taken.since(NOTHING), 0
    async for batch in app.read(stream, None, ReadOptions()):
        rows += batch.table.num_rows
    assert rows >= ROWS, rows
    return Taken.since(began)


async def bare(session: aiohttp.ClientSession, requests: list[Request], case: Case, *, parse: bool) -> Taken:
    """What the same requests take without an app. Where pages are of a query, they are of the new one's."""
    began, query = Taken.since(NOTHING), ""
    for r in requests:
        url = re.sub(case.query, query, r.url) if query else r.url
        async with session.request(r.method, URL(url, encoded=True), data=r.body, headers=dict(r.headers)) as answer:
            body = await answer.read()
        assert answer.status == 200, (r.url, answer.status)
        if case.query and (found := re.search(case.query.encode(), body)):
            query = found[0].decode()
        if parse:
            lines = body.splitlines() if "json" not in answer.content_type else [body]
            for line in lines:
                orjson.loads(line)
    return Taken.since(began)


@contextmanager
def written_down() -> Iterator[list[Request]]:
    """All requests that go out meanwhile."""
    requests: list[Request] = []
    send = AiohttpSender.__call__

    async def noting(self: AiohttpSender, request: Request) -> Answer:
        requests.append(request)
        return await send(self, request)

    AiohttpSender.__call__ = noting  # type: ignore[method-assign]
    try:
        yield requests
    finally:
        AiohttpSender.__call__ = send  # type: ignore[method-assign]


async def measure(case: Case, block: dict[str, Any]) -> tuple[list[Taken], int]:
    """Medians: ours, fetched, parsed; and the calls of one read."""
    cls = app_class(case.type)
    app = cls(case.type, cls.Config(**block), Runtime())
    taken: list[tuple[Taken, Taken, Taken]] = []
    try:
        await read(app, case.stream)
        with written_down() as requests:
            await read(app, case.stream)
        async with aiohttp.ClientSession() as session:
            for _ in range(RUNS):
                fetched = await bare(session, requests, case, parse=False)
                parsed = await bare(session, requests, case, parse=True)
                taken.append((await read(app, case.stream), fetched, parsed))
    finally:
        await app.aclose()
    medians = [Taken(*map(statistics.median, zip(*column, strict=True))) for column in zip(*taken, strict=True)]
    return medians, len(requests)


def run() -> list[Row]:
    collect_seldom()  # as `oploop` does
    rows = []
    wanted = os.environ.get("BENCH_APPS", "").split()
    for case in CASES:
        if wanted and case.type not in wanted:
            continue
        with sandbox(case) as block:
            (ours, fetched, parsed), calls = asyncio.run(measure(case, block))
        ratio = fetched.wall / ours.wall
        cores = f"{ours.cpu / ROWS * 1e6:.1f} us of our core a row, bare {fetched.cpu / ROWS * 1e6:.1f}"
        rows.append(
            Row(
                f"read {case.type}.{case.stream}, {calls:,} calls",
                f"{ROWS / ours.wall:,.0f} rows/s, {cores}",
                f"bare: fetched {ROWS / fetched.wall:,.0f}, parsed {ROWS / parsed.wall:,.0f} rows/s",
                f"{ratio:.0%} of fetched, {parsed.wall / ours.wall:.0%} of parsed; bar {BAR:.0%}: "
                + ("met" if ratio >= BAR else "NOT met"),
            )
        )
    return rows
