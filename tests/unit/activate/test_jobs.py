"""Jobs whose end nobody heard: nothing of them is sent again until the app says that they are over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from oploop.activate import folding, jobs, ledger
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import make_plan
from oploop.apps.base import Account, App
from oploop.errors import RetryLater
from oploop.project import Mode
from oploop.records import (
    Batch,
    Change,
    ColumnType,
    Cursor,
    Op,
    Operation,
    Outcome,
    ReadOptions,
    Receipt,
    Replay,
    Stream,
)
from oploop.runtime import Runtime
from oploop.state import JournalStep
from tests.unit.activate.engine import OBJECT, SAFE, Engine, a_field, a_sync, an_object, at

COLUMNS = {"email": "VARCHAR", "tier": "VARCHAR"}
STREAM = Stream(OBJECT, ("id",), {"id": ColumnType.TEXT})
LOOKUP = Operation(batch=100, replay=Replay.LOOKUP, settle=0.0)
RECORDS = [("1", "a@x", "silver", 0, at(0), False), ("2", "b@x", "silver", 0, at(0), False)]


class Crm(App):
    """Tells of its jobs what it is made to tell, and remembers what it was asked."""

    type = "crm"
    title = "Crm"

    def __init__(self, *answers: Sequence[Receipt] | Exception) -> None:
        super().__init__("crm", None, Runtime())
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    async def check(self) -> Account:
        return Account("crm")

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """It shows nothing."""
        for batch in ():
            yield batch

    async def settle(self, object_name: str, op: Op, note: str, changes: Sequence[Change]) -> Sequence[Receipt]:
        self.asked.append((op, note, [(c.number, c.key, c.remote_id) for c in changes]))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def bound(engine: Engine, shown: Sequence[tuple[Any, ...]] = (), **sync: Any) -> BoundSync:
    engine.model(COLUMNS, [("a@x", "gold"), ("b@x", "gold")])
    engine.records(COLUMNS, list(shown))
    obj = an_object(a_field("tier"), operations={Op.CREATE: LOOKUP, Op.UPDATE: SAFE})
    return engine.bind(a_sync("tier", **sync), obj, STREAM)


def unheard(engine: Engine, b: BoundSync, op: Op, ended: bool = True) -> None:
    """Two changes go as a job at 4, of which nobody hears any more; with `ended` the run lived, and said so."""
    plan = make_plan(
        engine.diff(b, backfill=True), engine.warehouse, budget=None, call_seconds=None, allow={"first", "first-run"}
    )
    assert plan.changes == 2
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    how = {"ended_at": at(5), "outcome": Outcome.UNKNOWN} if ended else {}
    step = JournalStep("r1", b.name, "s1", 1, 2, 1, op, at(4), note="j1", **how)
    begun = Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3))
    folding.fold(engine.warehouse, begun, [step], at(9))
    assert engine.diff(b).counts == {"parked": 2}


async def ask(engine: Engine, b: BoundSync, app: App, seconds: float) -> None:
    await jobs.ask(app, engine.warehouse, b, lambda: at(seconds))


def read(engine: Engine, b: BoundSync, seconds: float, *rows: tuple[Any, ...]) -> None:
    """A complete read of the app begins then, and shows these records."""
    engine.records(COLUMNS, [(*r[:4], at(seconds), False) for r in rows])
    ledger.forget_unknown(engine.warehouse, b, at(seconds))


def statuses(engine: Engine) -> list[tuple[str, str]]:
    return engine.warehouse.rows("SELECT key, status FROM oploop.changes ORDER BY 1")


@pytest.mark.parametrize("ended", [True, False])
async def test_nothing_is_made_again_while_a_job_may_be_at_work(engine: Engine, ended: bool) -> None:
    b = bound(engine)
    unheard(engine, b, Op.CREATE, ended)
    app = Crm(RetryLater("still at work"), KeyError("a defect of the app's own"), [])
    for seconds in (100, 200, 300):
        await ask(engine, b, app, seconds)
        read(engine, b, seconds)
        assert engine.diff(b).counts == {"parked": 2}
    assert app.asked[0] == (Op.CREATE, "j1", [(1, {"email": "a@x"}, None), (2, {"email": "b@x"}, None)])


async def test_what_the_app_tells_later_counts_as_if_it_had_been_told_at_once(engine: Engine) -> None:
    b = bound(engine)
    unheard(engine, b, Op.CREATE)
    await ask(engine, b, Crm([Receipt(1, Outcome.OK, "7"), Receipt(2, Outcome.REJECTED, None, "no")]), 100)
    assert statuses(engine) == [("a@x", "sent"), ("b@x", "rejected")]
    assert engine.diff(b).counts == {"parked": 1}, "what was made is known before any read shows it"
    assert engine.warehouse.rows("SELECT canonical_key, remote_id FROM oploop.records") == [("a@x", "7")]
    assert engine.warehouse.rows("SELECT key, reason, message FROM oploop.parked") == [("b@x", "rejected", "no")]
    assert not engine.warehouse.rows("SELECT 1 FROM oploop.jobs")
    assert not [t for t in engine.warehouse.tables() if t.startswith(jobs.TABLES)]


async def test_what_was_not_done_is_sent_again(engine: Engine) -> None:
    b = bound(engine)
    unheard(engine, b, Op.CREATE)
    await ask(engine, b, Crm([Receipt(n, Outcome.RETRY, None, "never begun") for n in (1, 2)]), 100)
    assert statuses(engine) == [("a@x", "failed"), ("b@x", "failed")]
    assert engine.diff(b).counts == {"create": 2}


async def test_of_a_job_that_is_over_and_tells_nothing_a_read_of_afterwards_decides(engine: Engine) -> None:
    b = bound(engine)
    unheard(engine, b, Op.CREATE)
    await ask(engine, b, Crm([Receipt(n, Outcome.UNKNOWN) for n in (1, 2)]), 100)
    read(engine, b, 99, RECORDS[0])  # it may have begun before the job was over
    assert engine.diff(b).counts == {"parked": 2}
    read(engine, b, 101, RECORDS[0])
    assert engine.diff(b).counts == {"create": 1, "update": 1}


async def test_what_a_job_may_still_change_is_not_changed_meanwhile(engine: Engine) -> None:
    b = bound(engine, RECORDS)
    unheard(engine, b, Op.UPDATE)
    engine.model(COLUMNS, [("a@x", "lead"), ("b@x", "gold")])
    app = Crm(RetryLater("still at work"), [Receipt(1, Outcome.OK, "1"), Receipt(2, Outcome.OK, "2")])
    await ask(engine, b, app, 100)
    read(engine, b, 100, *RECORDS)
    assert engine.diff(b).counts == {"parked": 2}
    await ask(engine, b, app, 200)
    assert engine.diff(b).counts == {"update": 1}


async def test_rows_that_a_job_appended_are_not_appended_again(engine: Engine) -> None:
    b = bound(engine, mode=Mode.APPEND)
    unheard(engine, b, Op.CREATE)
    await ask(engine, b, Crm([Receipt(1, Outcome.OK, "7"), Receipt(2, Outcome.RETRY)]), 100)
    assert engine.warehouse.rows("SELECT key, how FROM oploop.appended") == [("a@x", "sent")]
    assert engine.diff(b, backfill=True).counts == {"create": 1}


async def test_what_was_sent_beside_a_job_does_not_wait_for_it(engine: Engine) -> None:
    b = bound(engine)
    plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    steps = [
        JournalStep("r1", b.name, f"s{n}", n, n, 1, Op.CREATE, at(4), at(5), outcome=Outcome.UNKNOWN, note=note)
        for n, note in ((1, "j1"), (2, None))
    ]
    folding.fold(engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3)), steps, at(9))
    read(engine, b, 100)
    assert engine.diff(b).counts == {"parked": 1, "create": 1}
    await ask(engine, b, Crm([Receipt(1, Outcome.UNKNOWN)]), 150)
    read(engine, b, 200)
    assert engine.diff(b).counts == {"create": 2}
