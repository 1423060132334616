"""Creates whose answer was lost: which of them can be looked up, and what is done with the others."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate import folding, ledger, states, waiting
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import make_plan
from oploop.errors import FixConfig
from oploop.project import Mode
from oploop.records import ColumnType, FieldType, Op, Operation, Outcome, Replay, Stream
from oploop.state import JournalStep
from oploop.verify import Target, Watched, read_back, unmeant
from tests.unit.activate.engine import OBJECT, SAFE, Engine, a_field, a_sync, an_object, at

LOOKUP = Operation(replay=Replay.LOOKUP, settle=100.0)
TIER = a_field("tier")
COLUMNS = {"email": "VARCHAR", "number": "VARCHAR", "tier": "VARCHAR"}
STREAM = Stream(OBJECT, ("id",), {"id": ColumnType.TEXT})


def bound(engine: Engine, create: Operation = LOOKUP, **sync: Any) -> BoundSync:
    """A model of one row; the app has shown nothing yet."""
    engine.model(COLUMNS, [("a@x", "7", "gold")])
    engine.records(COLUMNS, [])
    number = a_field("number", key=True, read_only=True)
    obj = an_object(TIER, number, operations={Op.CREATE: create, Op.UPDATE: SAFE})
    return engine.bind(a_sync("tier", **sync), obj, STREAM)


def lose(engine: Engine, b: BoundSync) -> None:
    """The one create is sent at 4, and its answer lost."""
    found = engine.diff(b, backfill=True)
    assert found.counts == {"create": 1}
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first", "first-run"})
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    step = JournalStep("r1", b.name, "s1", 1, 1, 1, Op.CREATE, at(4), at(5), outcome=Outcome.UNKNOWN)
    folding.fold(engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3)), [step], at(9))
    assert engine.diff(b).counts == {"parked": 1}


def read(engine: Engine, b: BoundSync, seconds: float, *rows: tuple[str, str]) -> None:
    """A complete read begins, shows these records (id, email), and the next run looks."""
    engine.records(COLUMNS, [(i, e, None, "gold", 0, at(seconds), False) for i, e in rows])
    waiting.note_shown(engine.warehouse, b, at(seconds))
    ledger.forget_unknown(engine.warehouse, b, at(seconds))


BY_NUMBER = {"key": {"number": "number"}}


def test_a_create_that_no_read_could_find_again_is_refused(engine: Engine) -> None:
    with pytest.raises(FixConfig, match=r"key number is not sent by a create") as e:
        bound(engine, **BY_NUMBER)
    assert "mode: update" in str(e.value)
    assert "at_most_once: true" in str(e.value)
    with pytest.raises(FixConfig, match="key id is not sent by a create") as e:
        bound(engine, mode=Mode.APPEND, key={"id": "number"})
    assert "mode: update" not in str(e.value)


@pytest.mark.parametrize(
    ("create", "sync"),
    [
        (LOOKUP, {}),
        (LOOKUP, {"mode": Mode.APPEND}),
        (LOOKUP, {"mode": Mode.UPDATE, **BY_NUMBER}),
        (LOOKUP, {"at_most_once": True, **BY_NUMBER}),
        (SAFE, BY_NUMBER),
        (Operation(replay=Replay.KEY), BY_NUMBER),
        (Operation(replay=Replay.NEVER), BY_NUMBER),
    ],
)
def test_others_are_taken(engine: Engine, create: Operation, sync: dict[str, Any]) -> None:
    assert bound(engine, create, **sync).keys


@pytest.mark.parametrize("sync", [{}, {"mode": Mode.APPEND}])
def test_what_a_read_does_not_show_is_sent_again_once_it_must_have_shown_it(
    engine: Engine, sync: dict[str, Any]
) -> None:
    b = bound(engine, **sync)
    lose(engine, b)
    read(engine, b, 109)  # noted at 9, and it settles for 100 s
    assert engine.diff(b).counts == {"parked": 1}
    read(engine, b, 110)
    assert engine.diff(b).counts == {"create": 1}


@pytest.mark.parametrize(("large_from", "seconds"), [(0, 1009), (1, 109)])
def test_what_may_have_gone_as_a_job_waits_as_long_as_jobs_take(
    engine: Engine, large_from: int, seconds: float
) -> None:
    job = Operation(batch=100, replay=Replay.LOOKUP, settle=1000.0)
    b = bound(engine, Operation(replay=Replay.LOOKUP, settle=100.0, large=job, large_from=large_from))
    lose(engine, b)
    read(engine, b, seconds)
    assert engine.diff(b).counts == {"parked": 1}
    read(engine, b, seconds + 1)
    assert engine.diff(b).counts == {"create": 1}


@pytest.mark.parametrize("sync", [{"mode": Mode.APPEND}, {"at_most_once": True}])
def test_what_a_read_shows_is_known(engine: Engine, sync: dict[str, Any]) -> None:
    b = bound(engine, **sync)
    lose(engine, b)
    read(engine, b, 10, ("1", "A@x"))
    assert engine.diff(b).counts == {"parked": 1}, "that is somebody else"
    read(engine, b, 11, ("1", "A@x"), ("2", "a@x"))
    assert engine.diff(b).counts == {}
    assert engine.warehouse.rows("SELECT count(*) FROM oploop.parked") == [(0,)]


def test_an_append_that_was_done_after_all_stands_so_in_the_ledger(engine: Engine) -> None:
    b = bound(engine, mode=Mode.APPEND)
    lose(engine, b)
    read(engine, b, 11, ("2", "a@x"))
    assert engine.warehouse.rows("SELECT status FROM oploop.changes") == [("sent",)]
    assert engine.warehouse.rows("SELECT key, how FROM oploop.appended") == [("a@x", "sent")]
    read(engine, b, 999)  # deleted since
    assert engine.diff(b).counts == {}


@pytest.mark.parametrize(
    ("create", "sync"),
    [
        (LOOKUP, {"at_most_once": True}),
        (LOOKUP, {"at_most_once": True, "mode": Mode.APPEND}),
        (Operation(replay=Replay.KEY), BY_NUMBER),  # the app may have made one under a number that we do not know
        (Operation(replay=Replay.NEVER), {}),
    ],
)
def test_at_most_once_waits_for_a_person(engine: Engine, create: Operation, sync: dict[str, Any]) -> None:
    b = bound(engine, create, **sync)
    lose(engine, b)
    read(engine, b, 9_999)
    assert engine.diff(b).counts == {"parked": 1}


def test_a_canary_whose_id_was_not_told_could_not_be_read_back(engine: Engine) -> None:
    b = bound(engine)
    plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    step = JournalStep("r1", b.name, "s1", 1, 1, 1, Op.CREATE, at(4), at(5), outcome=Outcome.OK)
    folding.fold(engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3)), [step], at(9))
    watched = Watched("tier", "tier", "r.tier", "VARCHAR", FieldType.TEXT)
    target = Target(b.name, "crm", OBJECT, engine.raw, "id", states.state_table(b), (watched,), None)
    [found] = unmeant(target, engine.warehouse, "r1", None)
    assert (found.key, found.field, found.holds) == (
        "a@x",
        None,
        "the app did not tell its id, so it cannot be read back",
    )


@pytest.mark.parametrize("mode", [Mode.UPDATE, Mode.UPSERT])
@pytest.mark.parametrize("create", [LOOKUP, Operation(replay=Replay.NEVER)])
@pytest.mark.parametrize("update", [LOOKUP, Operation(replay=Replay.NEVER)])
def test_an_unknown_update_is_judged_by_what_an_update_declares(
    engine: Engine, mode: Mode, create: Operation, update: Operation
) -> None:
    engine.model(COLUMNS, [("a@x", "7", "gold")])
    engine.records(COLUMNS, [("id1", "a@x", None, "free", 0, at(1), False)])
    obj = an_object(TIER, operations={Op.CREATE: create, Op.UPDATE: update})
    b = engine.bind(a_sync("tier", mode=mode), obj, STREAM)
    found = engine.diff(b)
    assert found.counts == {"update": 1}
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    step = JournalStep("r1", b.name, "s1", 1, 1, 1, Op.UPDATE, at(4), at(5), outcome=Outcome.UNKNOWN)
    folding.fold(engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3)), [step], at(9))
    assert engine.diff(b).counts == {"parked": 1}
    ledger.forget_unknown(engine.warehouse, b, at(50))
    assert engine.diff(b).counts == {"parked": 1}, "a read of before it must have settled"
    ledger.forget_unknown(engine.warehouse, b, at(200))
    assert engine.diff(b).counts == ({"update": 1} if update is LOOKUP else {"parked": 1})


def test_what_died_long_ago_is_told_by_the_first_read_after_it_was_found(engine: Engine) -> None:
    b = bound(engine)
    plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(3))
    step = JournalStep("r1", b.name, "s1", 1, 1, 1, Op.CREATE, at(4))  # no answer: the run died
    folding.fold(
        engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(3)), [step], at(5000)
    )
    read(engine, b, 4 + 60 + 100)  # in time, but of before: the call may have been on its way
    assert engine.diff(b).counts == {"parked": 1}
    read(engine, b, 4 + 60 + 101)
    assert engine.diff(b).counts == {"create": 1}


async def test_a_lost_update_of_what_the_app_does_not_show_is_not_taken_for_done(engine: Engine) -> None:
    """No look can tell, so it is sent again, which does no harm."""
    columns = {"email": "VARCHAR", "tier": "VARCHAR", "note": "VARCHAR"}
    engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [("1", "a@x", "gold", 0, at(0), False)])
    engine.model(columns, [("a@x", "gold", "one")])
    b = engine.bind(a_sync("tier", "note"), an_object(TIER, a_field("note", source=None)), STREAM)
    tier = Watched("tier", "tier", b.fields[0].now or "", "VARCHAR", FieldType.TEXT)
    unshown = (("note", "note"),)
    target = Target(b.name, "crm", OBJECT, engine.raw, "id", states.state_table(b), (tier,), at(100), unshown=unshown)
    for seconds, run, note, outcome in ((4, "r1", "one", Outcome.OK), (14, "r2", "two", Outcome.UNKNOWN)):
        engine.model(columns, [("a@x", "gold", note)])
        plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
        assert plan.update == 1
        table = ledger.keep_plan(plan, engine.warehouse, run, at(seconds))
        step = JournalStep(run, b.name, "s1", 1, 1, 1, Op.UPDATE, at(seconds), at(seconds + 1), outcome=outcome)
        spec = ledger.spec_of(b, engine.warehouse, None)
        folding.fold(engine.warehouse, Begun(run, spec, table, at(seconds)), [step], at(seconds + 2))
    await read_back(target, engine.warehouse, fetch=None, now=at(101), within_run=False)
    assert engine.warehouse.rows("SELECT status FROM oploop.changes ORDER BY run_id") == [("sent",), ("unknown",)]
    assert engine.diff(b).counts == {"update": 1}
