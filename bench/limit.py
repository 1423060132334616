"""A Zendesk account of 400 calls a minute, called by two processes that share its budget, its minutes lasting five seconds.

The sandbox and the callers live by one sped-up clock. Used: the least time that whole minutes' allowances take, beside
the time that they took, from the first call to the first call of the last of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.table import Row
from oploop.apps.registry import make_app
from oploop.apps.zendesk.sandbox import API_TOKEN, ZendeskSandbox
from oploop.project import load_project
from oploop.runtime import Runtime

LIMIT = 400
SPEED = 12.0
PROCESSES = 2
CALLS = 1_600  #: of each process
AT_ONCE = 4
PROJECT = """\
name: bench
warehouse: {type: duckdb, database: w.duckdb}
models: {engine: none}
apps:
  zendesk: {subdomain: sandbox, email: ops@acme.example, api_token: "${TOKEN}", base_url: "${URL}", rate_limit: 400}
"""


async def sped_up(seconds: float) -> None:
    await asyncio.sleep(seconds / SPEED)


def runtime(budgets: Path | None = None) -> Runtime:
    """A clock on which `SPEED` seconds pass in one; the same in all processes of the machine."""
    return Runtime(monotonic=lambda: time.monotonic() * SPEED, sleep=sped_up, budgets=budgets)


async def call(folder: Path, url: str, calls: int) -> None:
    """One process: make so many calls, some at once, and print what came of them as JSON."""
    rt = runtime(folder / "budgets")
    app = make_app(load_project(folder, {"TOKEN": API_TOKEN, "URL": url}).apps["zendesk"], rt)
    left = iter(range(calls))
    times: list[float] = []

    async def caller() -> None:
        for _ in left:
            await app.check()
            times.append(rt.monotonic())

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    assert app.transport is not None
    made = app.transport.calls
    await app.aclose()
    print(json.dumps({"answered": times, "made": made}))


async def measure(calls: int = CALLS) -> tuple[float, float]:
    """(share of the limit that was used, share of the calls that were refused)."""
    sandbox = ZendeskSandbox(runtime=runtime(), rate_limit=LIMIT, keep_log=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "budgets").mkdir()
        (folder / "oploop.yml").write_text(PROJECT)
        url = sandbox.start()
        command = [sys.executable, "-m", "bench.limit", name, url, str(calls)]
        try:
            processes = [
                await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(PROCESSES)
            ]
            said = [json.loads((await p.communicate())[0]) for p in processes]
        finally:
            sandbox.stop()
    answered, made = sorted(t for s in said for t in s["answered"]), sum(s["made"] for s in said)
    whole = (len(answered) - 1) // LIMIT
    return whole * 60 / (answered[whole * LIMIT] - answered[0]), (made - len(answered)) / made


def run() -> list[Row]:
    used, refused = asyncio.run(measure())
    what = f"{PROCESSES} processes under Zendesk's {LIMIT} a minute"
    return [
        Row(f"limit: {what}, used", f"{used:.1%}", "bar: 95%", f"{used / 0.95:.2f}x"),
        Row(f"limit: {what}, refused", f"{refused:.3%}", "bar: 0.1%", f"{refused / 0.001:.2f}x"),
    ]


if __name__ == "__main__":
    asyncio.run(call(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
