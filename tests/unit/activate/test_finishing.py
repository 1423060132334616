"""Calls that a dead run had begun are made once more under their keys, where nobody else could tell what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from oploop.activate import finishing, folding, ledger, waiting
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import make_plan
from oploop.apps.segment import SegmentApp, SegmentConfig
from oploop.errors import FixData, OploopError, RetryLater
from oploop.project import FieldMapping, Mode
from oploop.records import Op, Operation, Outcome, Receipt, Replay, Step
from oploop.runtime import Runtime
from oploop.state import JournalStep
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at
from tests.unit.activate.test_jobs import COLUMNS, Crm

BY_KEY = Operation(batch=100, replay=Replay.KEY, ttl=3600.0)


class Api(Crm):
    """Knows calls by their keys."""

    def __init__(self, answer: Sequence[Receipt] | Exception) -> None:
        super().__init__()
        self.answer, self.steps = answer, []  # type: ignore[var-annotated]

    async def send(self, step: Step) -> Sequence[Receipt]:
        self.steps.append((step.id, step.op, [(c.number, dict(c.key), dict(c.fields)) for c in step.changes]))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def bound(engine: Engine, create: Operation = BY_KEY, **sync: Any) -> BoundSync:
    engine.model(COLUMNS, [("a@x", "gold"), ("b@x", "it's"), ("c@x", None)])
    obj = an_object(a_field("tier"), operations={Op.CREATE: create, Op.UPDATE: create}, stream=None)
    return engine.bind(a_sync("tier", **{"mode": Mode.UPSERT, **sync}), obj, None)


def died(engine: Engine, b: BoundSync, *steps: JournalStep) -> Begun:
    """A run that planned three creates died, with this in its journal."""
    plan = make_plan(
        engine.diff(b, backfill=True), engine.warehouse, budget=None, call_seconds=None, allow={"first", "first-run"}
    )
    assert (plan.create, plan.changes) == (3, 3)
    ledger.keep_plan(plan, engine.warehouse, "r1", at(3), None, "ours")
    [begun] = ledger.unfolded(engine.warehouse)
    return begun


def step(first: int, last: int, **more: Any) -> JournalStep:
    return JournalStep("r1", "people", f"s{first}", first, last, 1, Op.CREATE, at(4), **more)


async def finished(
    engine: Engine, b: BoundSync, begun: Begun, app: Api, *steps: JournalStep, later: float = 600.0
) -> dict[str, str]:
    """What the ledger has once the next run took it in, so many seconds later."""
    found: list[JournalStep] = []
    runtime = Runtime(now=lambda: at(4 + later))
    could = finishing.could(b.sync, begun, engine.warehouse, steps, runtime.now())
    if finishing.may(b, begun, engine.warehouse, "ours"):
        await finishing.finish(app, engine.warehouse, b, begun, steps, runtime, found.append)
    assert could or not app.steps, "what is not left for it is not sent"
    assert all(f in steps for f in found)
    folding.fold(engine.warehouse, begun, steps, at(5 + later))
    return dict(engine.warehouse.rows("SELECT key, status FROM oploop.changes"))


SENT = {"a@x": "sent", "b@x": "sent", "c@x": "sent"}


@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.CREATE, Mode.APPEND])
async def test_a_call_that_was_begun_is_made_once_more_under_its_key(engine: Engine, mode: Mode) -> None:
    b = bound(engine, mode=mode)
    begun, app = died(engine, b), Api([Receipt(n, Outcome.OK) for n in (2, 3)])
    done = step(1, 1, ended_at=at(5), outcome=Outcome.OK)
    assert await finished(engine, b, begun, app, done, step(2, 3)) == SENT
    [(name, op, changes)] = app.steps
    assert (name, op, [n for n, *_ in changes]) == ("s2", Op.CREATE, [2, 3])
    assert changes[0][1:] == ({"email": "b@x"}, {"email": "b@x", "tier": "it's"} | changes[0][2])
    assert not engine.warehouse.rows("SELECT 1 FROM oploop.parked")
    assert engine.diff(b, backfill=True).count("create") == 0


async def test_what_is_told_of_each_record_counts(engine: Engine) -> None:
    b = bound(engine)
    told = [Receipt(1, Outcome.OK), Receipt(2, Outcome.REJECTED, None, "no"), Receipt(3, Outcome.RETRY)]
    found = await finished(engine, b, died(engine, b), Api(told), step(1, 3))
    assert found == {"a@x": "sent", "b@x": "rejected", "c@x": "unknown"}  # the first try may have done it


@pytest.mark.parametrize("error", [RetryLater("not now"), FixData("what is that")])
async def test_where_that_fails_a_person_is_asked(engine: Engine, error: OploopError) -> None:
    b = bound(engine)
    found = await finished(engine, b, died(engine, b), Api(error), step(1, 3))
    assert set(found.values()) == {"unknown"}
    assert engine.diff(b).counts == {"parked": 3}


async def test_after_a_defect_of_the_app_no_further_call_is_made_and_that_is_told(engine: Engine) -> None:
    b, app = bound(engine), Api(KeyError("batch"))
    found = await finished(engine, b, died(engine, b), app, step(1, 1), step(2, 3))
    assert (len(app.steps), set(found.values())) == (1, {"unknown"})
    [told] = engine.warehouse.rows("SELECT error FROM oploop.changes WHERE key = 'a@x'")
    assert str(told[0]).startswith("sending to crm failed: KeyError: 'batch' (activate/test_finishing.py:")


@pytest.mark.parametrize(
    ("create", "sync", "later", "note"),
    [
        (BY_KEY, {}, 1801.0, None),  # the clock may have been set back by as much since
        (BY_KEY, {}, -60.0, None),
        (BY_KEY, {"at_most_once": True}, 60.0, None),
        (BY_KEY, {}, 60.0, "job 1"),
        (Operation(batch=100, replay=Replay.NEVER), {}, 60.0, None),
        (Operation(batch=100, replay=Replay.KEY, ttl=3600.0, finishes=False), {}, 60.0, None),
    ],
    ids=["too late", "before it began", "at most once", "a job", "never", "known for the run alone"],
)
async def test_what_might_be_done_twice_is_not_sent(
    engine: Engine, create: Operation, sync: dict[str, Any], later: float, note: str | None
) -> None:
    b, app = bound(engine, create, **sync), Api([])
    found = await finished(engine, b, died(engine, b), app, step(1, 3, note=note), later=later)
    assert (app.steps, set(found.values())) == ([], {"unknown"})


@pytest.mark.parametrize(("later", "status"), [(1700.0, "sent"), (1900.0, "unknown")])
async def test_a_key_is_as_old_as_the_first_try_under_it(engine: Engine, later: float, status: str) -> None:
    b = bound(engine)
    begun, app = died(engine, b), Api([Receipt(n, Outcome.OK) for n in (1, 2, 3)])
    lost = step(1, 3, ended_at=at(34), outcome=Outcome.UNKNOWN)
    again = replace(step(1, 3), attempt=2, began_at=at(1500))
    assert set((await finished(engine, b, begun, app, lost, again, later=later)).values()) == {status}
    assert len(app.steps) == (status == "sent")


async def test_a_sync_that_is_paused_or_another_one_by_now_sends_nothing(engine: Engine) -> None:
    b = bound(engine)
    begun = died(engine, b)
    assert finishing.may(b, begun, engine.warehouse, "ours")
    assert finishing.could(b.sync, begun, engine.warehouse, [step(1, 3)], at(5))
    other = engine.bind(
        a_sync("tier", FieldMapping("zip", column="tier")),
        an_object(a_field("tier"), a_field("zip"), operations={Op.CREATE: BY_KEY, Op.UPDATE: BY_KEY}, stream=None),
        None,
    )
    assert not finishing.may(other, begun, engine.warehouse, "ours")
    assert not finishing.may(b, begun, engine.warehouse, "theirs")
    assert not finishing.could(None, begun, engine.warehouse, [step(1, 3)], at(5))
    waiting.pause(engine.warehouse, b.name, None, None, at(5))
    assert not finishing.may(b, begun, engine.warehouse, "ours")
    assert not finishing.could(b.sync, begun, engine.warehouse, [step(1, 3)], at(5))


async def test_once_the_run_is_to_end_no_further_call_is_made_and_what_was_told_is_kept(engine: Engine) -> None:
    b = bound(engine)
    begun, runtime, kept = died(engine, b), Runtime(now=lambda: at(60)), list[JournalStep]()

    class Asked(Api):
        async def send(self, step: Step) -> Sequence[Receipt]:
            runtime.stop.ask()
            return await super().send(step)

    app = Asked([Receipt(1, Outcome.OK)])
    steps = [step(1, 1), step(2, 2), step(3, 3)]
    await finishing.finish(app, engine.warehouse, b, begun, steps, runtime, kept.append)
    assert ([name for name, *_ in app.steps], kept) == (["s1"], steps[:1])
    assert [s.outcome for s in steps] == [Outcome.OK, None, None]


def test_an_account_is_known_by_all_that_its_block_says_and_no_other_run_names_it_so() -> None:
    def named(run: str = "r1", **block: str) -> str:
        given = {"write_key": "wk_1", "base_url": "https://events.eu1.segmentapis.com/v1", **block}
        return finishing.account_of(SegmentApp("segment", SegmentConfig.model_validate(given), Runtime()), run)

    others = (named("r2"), named(write_key="wk_2"), named(base_url="https://events.eu1.segmentapis.com/v2"))
    assert named() == named()
    assert len({named(), *others}) == 4
    assert "wk_1" not in named()
