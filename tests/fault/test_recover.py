"""What the next run makes of a run that died between two of its last writes."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.activate import finishing, ledger
from oploop.apps.sandbox import Fault
from oploop.apps.segment import SegmentApp, SegmentSandbox
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Op
from oploop.runtime import Runtime
from oploop.selection import Selection
from oploop.state import JournalStep
from oploop.workspace import Event, Workspace
from tests.flow.conftest import Desk
from tests.flow.test_turns import only
from tests.flow.test_undo import CREATES
from tests.unit.cli.support import run as command

PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps: {segment: {write_key: KEY, base_url: "URL"}}
"""
EVENTS = """\
model: mart.made
to: segment.track
mode: append
key: {properties.code: code}
fields: {event: {value: Made}, userId: code}
"""


async def test_a_delivery_that_was_folded_is_under_way_no_more_once_the_next_run_recovers(desk: Desk) -> None:
    async with desk.workspace() as ws:
        ws.store.begin_run("r0", "prod", "run")
        ws.store.begin_delivery("r0", "ranked", "oploop_state.plan_r0")  # and died after its fold, before it said so
        assert await loop.recover(ws) == []
        assert ws.store.open_deliveries() == []


async def test_retry_takes_a_dead_run_into_the_ledger_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left is parked only then, and so nothing else could be said of it."""
    desk.sync(CREATES)
    await desk.model("SELECT 'A-1' AS code, 'Call' AS subject, 'low' AS priority", "mart.calls")
    for name, value in desk.variables.items():
        monkeypatch.setenv(name, value)

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    desk.sandbox.faults.append(Fault("POST /api/v2/tickets$", "cut", times=9))
    with monkeypatch.context() as m:
        m.setattr("oploop.activate.folding.fold", dies)
        with pytest.raises(KeyboardInterrupt):
            await desk.turn(Options(yes=True, first_run=True))
    done = await asyncio.to_thread(command, "retry", "tickets", "--not-sent", folder=desk.folder)
    assert (done.code, "tickets released 1 unknown" in done.words) == (0, True), done
    desk.sandbox.faults.clear()
    assert only(await desk.turn(Options(yes=True, first_run=True))).status == "ok"
    assert [t["external_id"] for t in desk.sandbox.dump("tickets") if t["external_id"]] == ["A-1"]


async def test_retry_leaves_what_a_run_makes_once_more_and_says_so(tmp_path: Path, segment: SegmentSandbox) -> None:
    died = Died(tmp_path, segment.start())
    await died.die()
    done = await asyncio.to_thread(command, "retry", "made", "--not-sent", folder=tmp_path)
    assert (done.code, done.words) == (0, "nothing of that is parked")
    assert "made of run r0 was cut off" in done.err
    statuses, _ = await died.run("made")
    assert (statuses, sent(segment)) == (["sent"] * 3, ONCE)


@pytest.fixture
def segment() -> Iterator[SegmentSandbox]:
    sandbox = SegmentSandbox()
    yield sandbox
    sandbox.stop()


class Died:
    """A project whose last run died in the middle of three calls, of one event each, of which the app got none."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.runtime = folder, Runtime()
        self.told: list[Event] = []  #: notes of the last run
        self.says(url)
        (folder / "syncs").mkdir()
        (folder / "syncs" / "made.yml").write_text(EVENTS)
        (folder / "syncs" / "other.yml").write_text(EVENTS.replace("mart.made", "mart.other"))

    def says(self, url: str, key: str = "wk_test_oploop") -> None:
        """Write the project's file."""
        (self.folder / "oploop.yml").write_text(PROJECT.replace("URL", url).replace("KEY", key))

    def opened(self, environment: str = "prod") -> Workspace:
        return Workspace(load_project(self.folder, {}), environment, self.runtime, "test")

    async def die(self, environment: str = "prod", **first: Any) -> None:
        """`first`: more of what the journal has of the first call."""
        async with self.opened(environment) as ws:
            ws.warehouse.execute("CREATE SCHEMA mart")
            ws.warehouse.execute("CREATE TABLE mart.made AS SELECT 'c' || i AS code FROM range(3) t(i)")
            ws.warehouse.execute("CREATE TABLE mart.other AS SELECT 'other' AS code")
            sync = ws.project.syncs["made"]
            planned = await loop.plan_sync(ws, await ws.bound(sync), Options(yes=True, backfill=True))
            assert planned.plan is not None
            ws.store.begin_run("r0", environment, "run")
            account = finishing.account_of(ws.app(sync.app), "r0")
            table = ledger.keep_plan(planned.plan, ws.warehouse, "r0", self.runtime.now(), None, account)
            ws.store.begin_delivery("r0", "made", table)
            for n in (1, 2, 3):
                more = first if n == 1 else {}
                step = JournalStep("r0", "made", f"s{n}", n, n, 1, Op.CREATE, self.runtime.now(), **more)
                ws.store.write_steps([step])

    async def run(self, *select: str, environment: str = "prod") -> tuple[list[str], Any]:
        """What became of the dead run's changes after another run (none: they stand as they did), and its report."""
        async with self.opened(environment) as ws:
            options = Options(Selection(select), yes=True, first_run=True, backfill=True)
            self.told = []
            report = await loop.run(ws, options, lambda e: self.told.append(e) if e.kind == "note" else None)
            assert bool(ws.store.open_deliveries()) == bool(ledger.unfolded(ws.warehouse))
            rows = ws.warehouse.rows("SELECT status FROM oploop.changes WHERE run_id = 'r0' ORDER BY key")
            return [status for (status,) in rows], report


def sent(sandbox: SegmentSandbox) -> dict[str, int]:
    return dict(Counter(e["properties"]["code"] for e in sandbox.dump("track")))


ONCE = {"c0": 1, "c1": 1, "c2": 1}


@pytest.mark.parametrize(("died_in", "status"), [("prod", "sent"), ("dev", "unknown")])
async def test_calls_of_a_run_are_made_once_more_in_its_own_environment_alone(
    tmp_path: Path, segment: SegmentSandbox, died_in: str, status: str
) -> None:
    """Another's models, on a sandbox that stood there then, are not meant for this one's app."""
    died = Died(tmp_path, segment.start())
    await died.die(died_in)
    statuses, report = await died.run()
    assert (statuses, report.recovered) == ([status] * 3, ["made of run r0"])
    assert sent(segment) == (ONCE if status == "sent" else {}) | {"other": 1}


async def test_a_run_of_another_sync_leaves_them_for_a_run_of_theirs(tmp_path: Path, segment: SegmentSandbox) -> None:
    died = Died(tmp_path, segment.start())
    await died.die()
    statuses, report = await died.run("other")
    assert (statuses, report.recovered, sent(segment)) == ([], [], {"other": 1})
    statuses, report = await died.run("made")
    assert (statuses, report.recovered, sent(segment)) == (["sent"] * 3, ["made of run r0"], ONCE | {"other": 1})


async def test_a_run_of_another_environment_leaves_them_too(tmp_path: Path, segment: SegmentSandbox) -> None:
    """As `dev` is the default, somebody's run in it would leave a person to say what became of each of prod's."""
    died = Died(tmp_path, segment.start())
    await died.die()
    statuses, report = await died.run("other", environment="dev")
    assert (statuses, report.recovered, sent(segment)) == ([], [], {"other": 1})
    statuses, report = await died.run("made")
    assert (statuses, report.recovered, sent(segment)) == (["sent"] * 3, ["made of run r0"], ONCE | {"other": 1})


async def test_a_run_that_sends_nothing_leaves_those_of_its_syncs_to_a_run_of_their_environment(
    tmp_path: Path, segment: SegmentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "delivers", lambda self, app: self.environment == "prod")  # as to an app elsewhere
    died = Died(tmp_path, segment.start())
    await died.die()
    statuses, report = await died.run(environment="dev")
    assert (statuses, report.recovered, sent(segment)) == ([], [], {})
    statuses, report = await died.run()
    assert (statuses, report.recovered, sent(segment)) == (["sent"] * 3, ["made of run r0"], ONCE | {"other": 1})


async def test_none_is_made_before_it_is_known_that_the_run_can_go_on(tmp_path: Path, segment: SegmentSandbox) -> None:
    died = Died(tmp_path, segment.start())
    await died.die()
    other = tmp_path / "syncs" / "other.yml"
    other.write_text(EVENTS.replace("userId", "userIdd"))
    with pytest.raises(FixConfig, match="userIdd"):
        await died.run()
    assert sent(segment) == {}
    other.unlink()
    statuses, _ = await died.run()
    assert (statuses, sent(segment)) == (["sent"] * 3, ONCE)


@pytest.mark.parametrize("key", ["wk_test_oploop", "wk_another"])
async def test_a_key_means_nothing_in_another_account(tmp_path: Path, key: str) -> None:
    """Be it by its address or by its credentials."""
    with SegmentSandbox().running() as before, SegmentSandbox(write_key=key).running() as now:
        died = Died(tmp_path, before)
        await died.die()
        died.says(now if key == "wk_test_oploop" else before, key)
        async with died.opened() as ws:
            await loop.recover(ws, only=())
            assert await loop.finish(ws, {"made"}) == ["made of run r0"]
            assert ws.warehouse.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1") == [("unknown", 3)]


async def test_what_was_given_to_a_job_keeps_none_of_the_others_from_being_made(
    tmp_path: Path, segment: SegmentSandbox
) -> None:
    died = Died(tmp_path, segment.start())
    await died.die(note="job 1")
    statuses, _ = await died.run("made")
    assert statuses == ["unknown", "sent", "sent"]
    assert sent(segment) == {"c1": 1, "c2": 1}


@pytest.mark.parametrize(("does", "first"), [("send", {}), ("settle", {"note": "job 1"})])
async def test_an_app_that_fails_on_itself_ends_no_run(
    tmp_path: Path, segment: SegmentSandbox, monkeypatch: pytest.MonkeyPatch, does: str, first: dict[str, Any]
) -> None:
    """Each run begins with what is left of the last: one that failed on it would be followed by others that do."""

    async def fails(self: SegmentApp, *given: Any) -> Any:
        raise KeyError("status")

    died = Died(tmp_path, segment.start())
    await died.die(**first)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentApp, does, fails)
        statuses, report = await died.run("made")
    assert (statuses[0], report.recovered) == ("unknown", ["made of run r0"])
    assert sent(segment) == ({} if does == "send" else {"c1": 1, "c2": 1})
    told = "asking segment after a job failed: KeyError: 'status' (fault/test_recover.py:"
    assert {e.text.startswith(told) for e in died.told} == ({True} if does == "settle" else set())
    assert all("see --trace-http" in e.text for e in died.told)


async def test_sigterm_lets_the_call_end_and_leaves_the_others_to_the_next_run(
    tmp_path: Path, segment: SegmentSandbox
) -> None:
    died = Died(tmp_path, segment.start())
    await died.die()
    segment.faults.append(Fault("POST .*", "delay", seconds=0.3, skip=1, times=3))  # the first is preflight's

    async def stop() -> None:
        while len(segment.log) < 2:  # noqa: ASYNC110  the app's log has no event
            await asyncio.sleep(0.005)
        died.runtime.stop.ask(signal.SIGTERM)

    asking = asyncio.create_task(stop())
    statuses, report = await died.run()
    await asking
    assert (statuses, report.exit_code, report.syncs) == ([], 143, [])
    made = sent(segment)
    assert 0 < len(made) < 3
    died.runtime = Runtime()
    statuses, _ = await died.run("made")
    assert (statuses, sent(segment)) == (["sent"] * 3, ONCE)
    calls = Counter(e["messageId"] for e in segment.dump("track"))
    assert set(calls.values()) == {1}


async def test_sigterm_does_not_wait_for_what_is_only_asked(
    tmp_path: Path, segment: SegmentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run asks as well; an app may take a minute to answer."""
    asked = asyncio.Event()

    async def works(self: SegmentApp, *given: Any) -> Any:
        asked.set()
        await asyncio.sleep(60)

    died = Died(tmp_path, segment.start())
    await died.die(note="job 1")
    with monkeypatch.context() as patch:
        patch.setattr(SegmentApp, "settle", works)
        run = asyncio.create_task(died.run("made"))
        await asked.wait()
        died.runtime.stop.ask(signal.SIGTERM)
        statuses, report = await asyncio.wait_for(run, 10)
    assert (statuses, report.exit_code, report.recovered, sent(segment)) == ([], 143, [], {})
    died.runtime = Runtime()
    assert (await died.run("made"))[0] == ["unknown", "sent", "sent"]


async def test_what_does_not_answer_in_its_time_is_left_too(
    tmp_path: Path, segment: SegmentSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oploop.stages.recovering.GRACE", 0.2)
    died = Died(tmp_path, segment.start())
    await died.die()
    segment.faults.append(Fault("POST .*", "delay", seconds=30, skip=1))
    asking = asyncio.get_running_loop().call_later(0.5, died.runtime.stop.ask, signal.SIGTERM)
    began = asyncio.get_running_loop().time()
    statuses, report = await died.run()
    asking.cancel()
    assert (statuses, report.exit_code) == ([], 143)
    assert asyncio.get_running_loop().time() - began < 15
    died.runtime = Runtime()
    segment.faults.clear()
    assert ((await died.run("made"))[0], sent(segment)) == (["sent"] * 3, ONCE)
