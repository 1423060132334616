"""What the ledger tells of a delivery in which all went well, without rows of its own, is what rows would tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oploop.activate import diff as diffing
from oploop.activate import folding, ledger, smooth, states, volumes
from oploop.activate.begun import Begun
from oploop.activate.plan import make_plan
from oploop.activate.retention import retain
from oploop.project import Retention
from oploop.records import FieldType, Op, Outcome
from oploop.state import JournalStep
from oploop.verify import Target, Watched, read_back
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at
from tests.warehouses import columnar

ROWS = [(f"p{i}", None if i == 2 else f"it's {i}", i) for i in range(6)]
COLUMNS = {"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}
CHANGES = "SELECT * FROM oploop.changes ORDER BY run_id, key"
OUTCOMES = "SELECT * FROM oploop.change_outcomes ORDER BY run_id, number, seq"
RECORDS = "SELECT * FROM oploop.records ORDER BY canonical_key"
TOLD = (CHANGES, OUTCOMES, RECORDS, 'SELECT * FROM oploop_state."crm__people" ORDER BY remote_id')


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FROM", 3)


def world(engine: Engine, rows: list[tuple[Any, ...]] = ROWS) -> Any:
    engine.model(COLUMNS, rows)
    engine.records(COLUMNS, [])
    obj = an_object(a_field("a"), a_field("n", FieldType.INTEGER), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE})
    return engine.bind(a_sync("a", "n"), obj)


def step(first: int, last: int, **more: Any) -> JournalStep:
    given: dict[str, Any] = {"ended_at": at(20 + first), "outcome": Outcome.OK, "version": first, "ids_from": "email"}
    more = given | {"attempt": 1} | more
    return JournalStep("r1", "people", f"s{first}", first, last, op=Op.CREATE, began_at=at(10 + first), **more)


STEPS = [step(4, 6), step(1, 2), step(3, 3, version=None)]


def deliver(engine: Engine, bound: Any, steps: list[JournalStep], run_id: str = "r1") -> str:
    w = engine.warehouse
    found = diffing.diff(bound, w, table=f"plan_people_{run_id}", lasting=True)
    table = ledger.keep_plan(make_plan(found, w, budget=None, call_seconds=None), w, run_id, at(1), release="v7")
    folding.fold(w, Begun(run_id, ledger.spec_of(bound, w, "v7"), table, at(1)), steps, at(50))
    return table


def told(engine: Engine) -> list[list[tuple[Any, ...]]]:
    return [engine.warehouse.rows(q) for q in TOLD]


def rows_of(engine: Engine) -> tuple[int, int]:
    """(outcomes, identities) that are written as rows."""
    counts = [engine.warehouse.rows(f"SELECT count(*) FROM oploop.{t}")[0][0] for t in ("outcome_rows", "record_rows")]
    return counts[0], counts[1]


@columnar
@pytest.mark.parametrize("held", [False, True])
def test_it_says_what_rows_would_say(engine: Engine, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    rows = [*ROWS, ("p9", "twice", 1), ("p9", "twice", 2)] if held else ROWS
    deliver(engine, world(engine, rows), STEPS)
    assert rows_of(engine) == (0, 0)
    short = told(engine)
    engine.reset()
    monkeypatch.setattr(folding, "smooth_of", lambda *_: None)
    deliver(engine, world(engine, rows), STEPS)
    assert rows_of(engine) == (6, 6)
    assert short == told(engine)
    assert [len(s) for s in short] == [6, 6, 6, 6]


@columnar
@pytest.mark.parametrize(
    "steps",
    [
        [step(1, 3), step(4, 6, outcome=Outcome.REJECTED, ids_from=None)],
        [step(1, 3), step(4, 6, exceptions=[(5, "rejected", "no")])],
        [step(1, 3), step(4, 6, ids_from=None, ids=[(4, "x"), (5, "y"), (6, "z")])],
        [step(1, 3), step(4, 6, ids_from=None)],
        [step(1, 3), step(4, 6, attempt=2)],
        [step(1, 3), step(4, 6, ended_at=None, outcome=None, ids_from=None)],
        [step(1, 5)],
        [step(1, 3), step(5, 6)],
        [step(1, 4), step(4, 6)],
        [],
    ],
)
def test_where_anything_went_otherwise_rows_are_written(engine: Engine, steps: list[JournalStep]) -> None:
    deliver(engine, world(engine), steps)
    assert volumes.standing(engine.warehouse)[0].told is None if steps else not volumes.standing(engine.warehouse)
    numbers = {n for s in steps for n in range(s.first, s.last + 1)}
    assert rows_of(engine)[0] == len(numbers)
    assert len(engine.warehouse.rows(CHANGES)) == len(numbers)


@columnar
def test_many_calls_are_told_by_rows(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smooth, "MOST", 2)
    deliver(engine, world(engine), STEPS)
    assert rows_of(engine) == (6, 6)


@columnar
def test_the_next_plan_knows_all_of_it(engine: Engine) -> None:
    bound = world(engine)
    deliver(engine, bound, STEPS)
    assert engine.diff(bound).counts == {}  # no read has shown the records yet
    engine.records(
        COLUMNS, [(f"p{i}", f"p{i}", f"it's {i}" if i != 2 else None, i, 9, at(90), False) for i in range(6)]
    )
    changed = [("p0", "new", 0), *ROWS[1:], ("q", "one more", 7)]
    engine.model(COLUMNS, changed)
    assert engine.diff(bound).counts == {"update": 1, "create": 1}


@columnar
def test_a_look_notes_what_it_saw_beside_it(engine: Engine) -> None:
    bound, w = world(engine), engine.warehouse
    deliver(engine, bound, STEPS)
    engine.records(
        COLUMNS, [(f"p{i}", f"p{i}", "other" if i == 1 else ROWS[i][1], i, 9, at(90), False) for i in range(3)]
    )
    watched = tuple(
        Watched(f.field.name, f.label, f.now or "", w.sql_type(f.field.type), f.field.type) for f in bound.fields
    )
    target = Target(
        "people",
        "crm",
        "people",
        engine.raw,
        "id",
        states.state_table(bound),
        watched,
        None,
        0.0,
        volumes.among,
    )
    import asyncio

    seen = asyncio.run(read_back(target, w, fetch=None, now=at(100), within_run=True))
    assert seen.counts == {"confirmed": 2, "altered": 1}
    assert seen.waiting == 3
    assert rows_of(engine) == (3, 0)
    assert w.rows("SELECT key, status, attempts, remote_id FROM oploop.changes ORDER BY key") == [
        ("p0", "confirmed", 1, "p0"),
        ("p1", "altered", 1, "p1"),
        ("p2", "confirmed", 1, "p2"),
        ("p3", "sent", 1, "p3"),
        ("p4", "sent", 1, "p4"),
        ("p5", "sent", 1, "p5"),
    ]


@columnar
def test_an_identity_that_is_taken_away_is_gone_and_the_others_stay(engine: Engine) -> None:
    deliver(engine, world(engine), STEPS)
    w, before = engine.warehouse, told(engine)
    volumes.forget_records(w, "app = 'crm' AND canonical_key IN (SELECT 'nobody' UNION ALL SELECT NULL)")
    assert told(engine) == before
    volumes.forget_records(w, "app = 'crm' AND remote_id IN (SELECT 'p3' UNION ALL SELECT NULL)")
    assert told(engine)[2] == [r for r in before[2] if r[3] != "p3"]
    assert rows_of(engine) == (0, 5)
    assert told(engine)[:2] == before[:2]
    volumes.forget_records(w, "remote_id = 'p4'")
    assert len(told(engine)[2]) == 4


@columnar
def test_who_is_who_outlives_the_ledger(engine: Engine) -> None:
    deliver(engine, world(engine), STEPS)
    w, before = engine.warehouse, told(engine)
    w.execute("DELETE FROM oploop_state.\"crm__people\" WHERE remote_id <> 'p1'")  # each record's last change stays
    retain(w, Retention(changes=1.0), at(200_000))
    assert [r[4] for r in w.rows(CHANGES)] == ["p1"]
    assert [r[2] for r in w.rows(OUTCOMES)] == [2]
    assert told(engine)[2] == before[2]
    w.execute('DELETE FROM oploop_state."crm__people"')
    retain(w, Retention(changes=1.0), at(200_000))
    assert (w.rows(CHANGES), w.rows(OUTCOMES), volumes.standing(w)) == ([], [], [])
    assert told(engine)[2] == before[2]
    assert w.rows("SELECT count(*) FROM oploop.volumes_told") == [(0,)]


@columnar
def test_it_becomes_rows_when_there_are_many_volumes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "MOST", 1)
    bound = world(engine)
    table = deliver(engine, bound, STEPS)
    before = told(engine)
    engine.model(COLUMNS, [*ROWS, *((f"q{i}", "more", i) for i in range(3))])
    engine.records(COLUMNS, [(f"p{i}", f"p{i}", ROWS[i][1], i, 9, at(90), False) for i in range(6)])
    deliver(engine, bound, [replace(step(1, 3), run_id="r2")], "r2")
    assert table not in engine.warehouse.tables()
    assert rows_of(engine) == (9, 9)
    for was, query in zip(before[:3], TOLD, strict=False):
        assert set(was) <= set(engine.warehouse.rows(query))


@columnar
def test_a_fold_that_fails_leaves_all_as_it_was(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "_first_state", lambda *_: (_ for _ in ()).throw(RuntimeError("cut")))
    bound = world(engine)
    with pytest.raises(RuntimeError, match="cut"):
        deliver(engine, bound, STEPS)
    assert (volumes.standing(engine.warehouse), engine.warehouse.rows(RECORDS)) == ([], [])
    monkeypatch.undo()
    [begun] = ledger.unfolded(engine.warehouse)
    monkeypatch.setattr(volumes, "FROM", 3)
    folding.fold(engine.warehouse, begun, STEPS, at(50))
    assert [len(t) for t in told(engine)] == [6, 6, 6, 6]
