"""What a plan says of calls and time, beside what its delivery takes in simulated time: one app of each kind."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oploop.activate import ledger
from oploop.activate.deliver import Deliverer
from oploop.activate.journal import Journal
from oploop.activate.plan import SyncPlan, make_plan
from oploop.apps.base import App
from oploop.apps.columns import Taken
from oploop.apps.policy import Answer, Request
from oploop.apps.transport import Budget, Transport
from oploop.records import CallKind, Op, Operation, Pace, Replay, Step
from oploop.state import StateStore
from tests.fault.sim.clock import Clock, SimLoop
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object

SAFE = Replay.SAFE
JOB = Operation(batch=500, calls=8, in_flight=2, replay=SAFE, seconds=10.0)
#: (operation, calls of its account's budget a minute, seconds of a call, asks after each job's state, records)
KINDS: dict[str, tuple[Operation, int | None, float, int, int]] = {
    "single": (Operation(batch=1, in_flight=4, replay=SAFE), None, 0.4, 0, 43),
    "batch": (Operation(batch=10, single_up_to=2, calls=1, in_flight=4, replay=SAFE), None, 0.7, 0, 121),
    "a batch that is asked after": (Operation(batch=10, single_up_to=2, calls=2, in_flight=3, replay=SAFE), None, 0.3, 0, 95),
    "job": (Operation(batch=10, in_flight=4, replay=SAFE, large=JOB, large_from=100), None, 0.2, 5, 1200),
    "limited": (Operation(batch=1, in_flight=10, replay=SAFE), 100, 0.3, 0, 250),
    "limited batches": (Operation(batch=2, in_flight=10, replay=SAFE), 60, 0.3, 0, 250),
    "a limit for each value": (Operation(batch=1, in_flight=8, replay=Replay.NEVER, pace=Pace("tier", 1, 1.0)), 300, 0.1, 0, 40),
}  # fmt: skip


class TimedApp(App):
    """Every call lasts as long as the wire makes it; a job is asked after, with waits between."""

    type = title = "timed"

    def __init__(
        self, budget: Budget | None, runtime: Any, seconds: float, asks: int, channels: dict[Any, Budget]
    ) -> None:
        super().__init__("crm", None, runtime)
        self.seconds, self.asks, self.channels = seconds, asks, channels

        async def wire(request: Request) -> Answer:
            await asyncio.sleep(self.seconds)
            return Answer(200, {}, b"{}", request)

        self.transport: Transport = Transport("http://127.0.0.1:9", runtime=runtime, budget=budget, sender=wire)
        self.operation = Operation()

    async def check(self) -> Any: ...

    def read(self, stream: str, cursor: Any, options: Any) -> Any: ...

    async def send(self, step: Step) -> Taken:
        many = len(step.changes)
        if self.operation.pace is not None:
            await self.channels[step.changes[0].fields["tier"]].take()
        job = many > self.operation.batch
        for n in range(3 + self.asks if job else self.operation.calls if many > 1 else 1):
            if job and n > 1:
                await asyncio.sleep(1.0)
            await self.transport.request("POST", "/x", json={})
        return Taken(step.changes)


class Office:
    """A sync of which as many records as one likes are new."""

    def __init__(self, engine: Engine, folder: Path, kind: str) -> None:
        operation, limit, seconds, asks, self.records = KINDS[kind]
        self.engine, self.clock, self.runs = engine, Clock(), itertools.count(1)
        self.loop = SimLoop(self.clock)
        self.runtime = replace(self.clock.runtime(random.Random(7)))
        budget = Budget(self.runtime, calls=limit, window=60.0) if limit is not None else None
        channels = {t: Budget(self.runtime, calls=1, window=1.0) for t in ("a", "b", "c")}
        self.app = TimedApp(budget, self.runtime, seconds, asks, channels)
        self.app.operation, self.budget = operation, budget
        self.store = StateStore(folder, self.runtime)
        self.object = an_object(a_field("tier"), operations={Op.CREATE: operation, Op.UPDATE: operation})

    def plan(self, records: int) -> SyncPlan:
        """Two thirds of them have the tier "a"."""
        self.engine.warehouse.execute("CREATE OR REPLACE TABLE mart.people (email VARCHAR, tier VARCHAR)")
        self.engine.warehouse.execute(
            f"INSERT INTO mart.people SELECT 'p' || i, CASE WHEN i % 6 < 4 THEN 'a' WHEN i % 6 = 4 THEN 'b' ELSE 'c' END "
            f"FROM range({records}) t(i)"
        )
        self.engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [])
        bound = self.engine.bind(a_sync("tier"), self.object)
        times = self.store.call_times("crm", "people")
        return make_plan(self.engine.diff(bound), self.engine.warehouse, budget=self.budget, call_seconds=times)

    def deliver(self, plan: SyncPlan) -> tuple[int, float]:
        """(calls, seconds) that it really took."""
        run = f"r{next(self.runs)}"
        table = ledger.keep_plan(plan, self.engine.warehouse, run, self.runtime.now())
        deliverer = Deliverer(
            plan, self.app, run_id=run, table=table, warehouse=self.engine.warehouse, journal=Journal(self.store.write_steps),
            runtime=self.runtime,
        )  # fmt: skip
        result = self.loop.run_until_complete(deliverer.run())
        self.loop.run_until_complete(asyncio.sleep(0))
        assert (result.delivered, result.error) == (plan.changes, None)
        self.store.end_delivery(run, "people", ("crm", "people"), result.times)
        self.engine.warehouse.execute("DELETE FROM oploop.deliveries")
        self.clock.seconds += 120.0  # no budget remembers it
        return result.calls, result.seconds


@pytest.fixture
def office(engine: Engine, tmp_path: Path) -> Iterator[Callable[[str], Office]]:
    made: list[Office] = []

    def make(kind: str) -> Office:
        made.append(Office(engine, tmp_path, kind))
        return made[-1]

    yield make
    for one in made:
        one.store.close()
        one.loop.close()


@pytest.mark.parametrize("kind", list(KINDS))
def test_once_calls_were_measured_the_plan_tells_them_exactly_and_the_time_within_a_tenth(
    office: Callable[[str], Office], kind: str
) -> None:
    made = office(kind)
    made.deliver(made.plan(made.records // 2 + 1))
    for records in (made.records, made.records // 3 + 7):
        plan = made.plan(records)
        calls, seconds = made.deliver(plan)
        job = made.app.operation.large is not None
        if records > 100 or not job:  # of the job's other way nothing was measured
            assert plan.estimate.calls == calls
            assert plan.estimate.seconds == pytest.approx(seconds, rel=0.1, abs=0.11)


def test_before_that_it_is_what_the_app_says_or_what_calls_usually_take(office: Callable[[str], Office]) -> None:
    job, single = office("job").plan(1200), office("single").plan(8)
    assert (job.estimate.calls, job.estimate.seconds) == (3 * 8, 20.0), "three jobs, two at once"
    assert (single.estimate.calls, single.estimate.seconds) == (8, pytest.approx(0.3)), "four at once, 0.15 s each"


def test_what_is_known_moves_on_with_what_deliveries_show_and_waiting_is_no_part_of_it(
    office: Callable[[str], Office],
) -> None:
    made = office("limited")
    made.deliver(made.plan(250))
    known = made.store.call_times("crm", "people")[Op.CREATE, CallKind.SINGLE]
    assert (round(known.seconds, 3), known.calls, known.steps) == (0.3, 1.0, 250)
    made.app.seconds = 1.3
    made.deliver(made.plan(5))
    moved = made.store.call_times("crm", "people")[Op.CREATE, CallKind.SINGLE]
    assert moved.seconds == pytest.approx(0.3 + (1 - 0.9**5), abs=0.01)
    made.deliver(made.plan(80))
    assert made.store.call_times("crm", "people")[Op.CREATE, CallKind.SINGLE].seconds == pytest.approx(1.3, abs=0.01)
