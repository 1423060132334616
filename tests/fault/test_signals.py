"""Ctrl-C and SIGTERM in the middle of a delivery: what is in flight ends, the rest is not begun, nothing is unknown."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from oploop.apps.sandbox import Fault
from oploop.runtime import Runtime, Stop, heeding_signals, term_as_interrupt
from tests.fault.test_kill import sent_ids
from tests.flow.conftest import Desk

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dsn() -> str:
    """A file: what a signal ends is the delivery. Processes that die on a server are in test_kill.py."""
    return ""


async def signalled(desk: Desk, writes: int, *numbers: signal.Signals) -> int | None:
    """The exit code of a turn that gets signals, one after the other, once the app has seen so many writing calls."""
    command = [sys.executable, "-m", "tests.fault.turn", str(desk.folder)]
    env = os.environ | desk.variables
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stderr=asyncio.subprocess.DEVNULL)
    while process.returncode is None and len(desk.writes()) < writes:  # noqa: ASYNC110  the app's log has no event
        await asyncio.sleep(0.002)
    for number in numbers:
        process.send_signal(number)
        await asyncio.sleep(0.3)
    return await process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_what_is_in_flight_ends_and_the_rest_waits(
    make_desk: Callable[..., Desk], number: signal.Signals, code: int
) -> None:
    desk = make_desk(tickets=3000, job_seconds=1.0)
    await desk.model("SELECT i AS ticket_id, 'high' AS priority FROM range(1, 3001) t(i)")
    assert await signalled(desk, 4, number) == code
    begun = sent_ids(desk)
    assert 0 < len(begun) < 3000
    rows = dict(await desk.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1"))
    assert rows == {"sent": len(begun)}, "what was begun has its answer, and stands in the ledger"
    report = await desk.turn()
    assert (report.status, report.recovered) == ("ok", [])
    assert set(desk.tickets("priority").values()) == {"high"}
    assert set(sent_ids(desk).values()) == {1}, "nothing was sent twice"


async def test_a_second_signal_ends_it_at_once_and_the_next_run_recovers(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=3000, job_seconds=5.0)
    await desk.model("SELECT i AS ticket_id, 'high' AS priority FROM range(1, 3001) t(i)")
    began = asyncio.get_running_loop().time()
    await signalled(desk, 4, signal.SIGINT, signal.SIGINT)
    assert asyncio.get_running_loop().time() - began < 20
    desk.sandbox.jobs.seconds = 0.05
    report = await desk.turn()
    assert report.recovered
    assert set(desk.tickets("priority").values()) == {"high"}


@pytest.mark.parametrize("asked", [False, True])
async def test_after_a_delivery_sigterm_does_what_it_did_before(asked: bool) -> None:
    """What is open is closed then, and it is said; the system's own way ends the process in the middle."""
    stop = Stop()
    with term_as_interrupt():
        before = signal.getsignal(signal.SIGTERM)
        with heeding_signals(stop):
            assert signal.getsignal(signal.SIGTERM) is not before
            if asked:
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.05)
                assert signal.getsignal(signal.SIGTERM) is before, "a second one is obeyed at once"
        assert stop.asked is asked
        assert signal.getsignal(signal.SIGTERM) is before


async def test_what_does_not_answer_in_its_time_is_unknown_and_said_to_be(
    make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(tickets=20)
    await desk.model("SELECT i AS ticket_id, 'high' AS priority FROM range(1, 11) t(i)")
    monkeypatch.setattr("oploop.activate.deliver.GRACE", 0.3)
    desk.sandbox.faults.append(Fault("PUT .*update_many", "delay", seconds=30))

    async def stop() -> None:
        while not desk.runtime.stop.asked:
            await asyncio.sleep(0.01)
            if desk.writes() or desk.sandbox.faults[0].times == 0:
                desk.runtime.stop.ask(signal.SIGTERM)

    asking = asyncio.create_task(stop())
    report = await desk.turn()
    await asking
    (done,) = report.syncs
    assert done.delivery is not None
    assert (done.status, done.delivery.unknown, report.exit_code) == ("interrupted", 10, 143)
    assert await desk.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1") == [("unknown", 10)]
    desk.runtime = Runtime()
    desk.sandbox.faults.clear()
    assert (await desk.turn()).status == "ok"
    assert [p for n, p in desk.tickets("priority").items() if n <= 10] == ["high"] * 10
