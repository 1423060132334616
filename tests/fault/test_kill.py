"""`kill -9` in the middle of a delivery: the next run loses nothing, doubles nothing, and the ledger says what happened."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from oploop.loop import Options
from tests.flow.conftest import Desk
from tests.unit.apps.test_way import a_proxy

ROOT = Path(__file__).parents[2]
PEOPLE = "model: mart.people\nto: zendesk.users\nmode: upsert\nkey: {external_id: code}\nfields: {name: name}\n"


async def kill_after(desk: Desk, writes: int, *, asked: int = 0) -> None:
    """Run a turn in another process and kill it once the app has seen so many writing calls, and was `asked` so often after a job."""

    def seen() -> bool:
        return len(desk.writes()) >= writes and sum("job_statuses" in e.path for e in desk.sandbox.log) >= asked

    command = [sys.executable, "-m", "tests.fault.turn", str(desk.folder)]
    env = os.environ | desk.variables
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stderr=asyncio.subprocess.DEVNULL)
    while process.returncode is None and not seen():  # noqa: ASYNC110  the app's log has no event
        await asyncio.sleep(0.002)
    assert process.returncode is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    await process.wait()


def sent_ids(desk: Desk) -> Counter[int]:
    """How often each ticket was sent."""
    return Counter(t["id"] for e in desk.writes() if "update_many" in e.path for t in json.loads(e.body)["tickets"])


@pytest.mark.parametrize("writes", [1, 3, 6])
async def test_updates(make_desk: Callable[..., Desk], writes: int) -> None:
    desk = make_desk(tickets=1000, job_seconds=0.3)
    await desk.model("SELECT i AS ticket_id, 'high' AS priority FROM range(1, 1001) t(i)")
    await kill_after(desk, writes)
    before = len(desk.sandbox.log)
    report = await desk.turn()
    late = itertools.takewhile(lambda e: e.method != "GET", desk.sandbox.log[before:])  # sent by the dead one
    died = sum(e.method == "PUT" for e in [*desk.sandbox.log[:before], *late])
    assert report.status == "ok", report.as_json()
    assert report.recovered
    assert set(desk.tickets("priority").values()) == {"high"}
    # what had no receipt may be sent a second time, as an update does no harm; nothing that had one is
    assert max(sent_ids(desk).values()) <= 2
    assert sum(n - 1 for n in sent_ids(desk).values()) <= died * 100
    statuses = dict(await desk.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1"))
    assert statuses["confirmed"] >= 1000 - statuses.get("unknown", 0)
    again = await desk.turn()
    assert again.syncs[0].plan is not None
    assert again.syncs[0].plan.changes == 0


@pytest.mark.parametrize("writes", [1, 4])
async def test_creates_are_made_once(make_desk: Callable[..., Desk], writes: int) -> None:
    desk = make_desk(tickets=0, job_seconds=0.3)
    desk.sync(PEOPLE)
    await desk.model("SELECT 'C' || i AS code, 'Person ' || i AS name FROM range(1, 601) t(i)", "mart.people")
    await kill_after(desk, writes)
    for _ in range(3):
        await desk.turn(Options(yes=True))
        desk.sandbox.advance(90)
    made = Counter(u["external_id"] for u in desk.sandbox.dump("users") if u["external_id"])
    assert made == Counter({f"C{i}": 1 for i in range(1, 601)})
    assert await desk.rows("SELECT count(*) FROM oploop.deliveries") == [(0,)]
    assert await desk.rows("SELECT count(*) FROM information_schema.tables WHERE table_name LIKE 'plan%'") == [(0,)]


async def test_a_lost_state_makes_unknown_of_what_may_have_been_sent(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=1000, job_seconds=0.3)
    desk.sync(
        "model: mart.calls\nto: zendesk.tickets\nmode: create\nkey: {external_id: code}\n"
        "fields: {subject: subject, description: subject}\n"
    )
    await desk.model("SELECT 'A-' || i AS code, 'Call ' || i AS subject FROM range(300) t(i)", "mart.calls")
    await kill_after(desk, 2, asked=1)
    noted: set[int] = set()
    if desk.dsn:  # there the journal stands in the server, with the jobs that the app can still be asked after
        steps = await desk.rows("SELECT first, last FROM oploop_journal.steps WHERE note IS NOT NULL")
        noted = {n for first, last in steps for n in range(first, last + 1)}
        assert noted, "what is asked after has been noted before"
    shutil.rmtree(desk.folder / ".oploop")
    report = await desk.turn()
    assert report.recovered
    assert report.syncs[0].plan is not None
    assert report.syncs[0].plan.changes == 0
    told = dict(await desk.rows("SELECT number, arg_max(status, seq) FROM oploop.change_outcomes GROUP BY 1"))
    assert told == {n: "confirmed" if n in noted else "unknown" for n in range(1, 301)}
    made = Counter(t["external_id"] for t in desk.sandbox.dump("tickets") if t["external_id"])
    assert set(made.values()) <= {1}


@pytest.mark.parametrize("writes", [1, 3])
async def test_a_proxy_that_dies_in_the_middle_loses_and_doubles_nothing(
    make_desk: Callable[..., Desk], writes: int
) -> None:
    desk = make_desk(tickets=0, job_seconds=0.3)
    desk.sync(
        "model: mart.calls\nto: zendesk.tickets\nmode: create\nkey: {external_id: code}\n"
        "fields: {subject: subject, description: subject}\n"
    )
    file = desk.folder / "oploop.yml"
    direct = file.read_text()

    async def hasty(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))

    desk.runtime = real = replace(desk.runtime, sleep=hasty)
    await desk.model("SELECT 'A-' || i AS code, 'Call ' || i AS subject FROM range(1100) t(i)", "mart.calls")
    async with a_proxy() as (proxy, at):
        file.write_text(direct.replace("  zendesk:\n", f"  zendesk:\n    http: {{proxy: http://{at}}}\n"))
        turn = asyncio.create_task(desk.turn(Options(yes=True, first_run=True)))
        while len(desk.writes()) < writes and not turn.done():  # noqa: ASYNC110  the app's log has no event
            await asyncio.sleep(0.002)
        assert proxy.asked
        await proxy.die()
        report = await turn
    assert report.exit_code == 1, report.as_json()
    file.write_text(direct)
    for later in (600, 1200):
        desk.sandbox.advance(600)
        desk.runtime = replace(real, now=lambda later=later: real.now() + timedelta(seconds=later))
        if later == 600:
            (held,) = (await desk.turn(Options(yes=True))).syncs
            assert held.stopped[0].startswith("the first run of this sync was broken off: "), held.stopped
        await desk.turn(Options(yes=True, first_run=True))
    made = Counter(t["external_id"] for t in desk.sandbox.dump("tickets"))
    assert made == Counter({f"A-{i}": 1 for i in range(1100)})
    assert await desk.rows("SELECT count(*) FROM oploop.parked") == [(0,)]
    assert await desk.rows("SELECT count(*) FROM oploop.jobs") == [(0,)]
