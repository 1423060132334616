"""The fold: a journal and a plan table become ledger rows, state per field, identities and parked changes, once."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oploop.activate import folding, ledger, spreading, states, sync_runs
from oploop.activate.begun import Begun
from oploop.activate.plan import SyncPlan, delivered_before, make_plan
from oploop.errors import FixData
from oploop.project import FieldMapping
from oploop.records import FieldType, Op, Operation, Outcome, Replay
from oploop.state import JournalStep
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at, micros

CREATES, UPDATES = 4, 4
ODD = 'we\'ird "f.x"'
STATUS = {"ok": "sent", "rejected": "rejected", "retry": "failed", "unknown": "unknown"}


def world(engine: Engine, create: Operation = SAFE, update: Operation = SAFE, **sync: Any) -> Any:
    """Four new people and four known ones, two fields each; the second field of the odd ones is as wanted already."""
    rows = [(f"c{i}", f"it's {i}", i) for i in range(CREATES)] + [(f"u{i}", f"it's {i}", i) for i in range(UPDATES)]
    engine.model({"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}, rows)
    held = [(f"r{i}", f"u{i}", "old", i if i % 2 else None, 0, at(0), False) for i in range(UPDATES)]
    engine.records({"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}, held)
    obj = an_object(
        a_field(ODD, source=a_field("a").source),
        a_field("n", FieldType.INTEGER),
        operations={Op.CREATE: create, Op.UPDATE: update},
    )
    return engine.bind(a_sync(FieldMapping(ODD, column="a"), "n", explain=("a",), **sync), obj)


def kept(engine: Engine, bound: Any, run_id: str = "r1") -> tuple[SyncPlan, str]:
    plan = make_plan(engine.diff(bound), engine.warehouse, budget=None, call_seconds=None)
    return plan, ledger.keep_plan(plan, engine.warehouse, run_id, at(1), release="v7")


def step(first: int, last: int, outcome: str | None = "ok", **more: Any) -> JournalStep:
    kind = Op.CREATE if last <= CREATES else Op.UPDATE
    ended = {} if outcome is None else {"ended_at": at(5), "outcome": Outcome(outcome)}
    return JournalStep(
        "r1", "people", f"s{first}", first, last, op=kind, began_at=at(4), **({"attempt": 1} | ended | more)
    )


def fold(engine: Engine, bound: Any, table: str, steps: list[JournalStep], run_id: str = "r1") -> None:
    spec = ledger.spec_of(bound, engine.warehouse, "v7")
    folding.fold(engine.warehouse, Begun(run_id, spec, table, at(1)), steps, at(9))


@st.composite
def journals(draw: st.DrawFn) -> list[JournalStep]:
    """Steps in the order in which they were written: overlapping as they will, answered or not."""
    steps = []
    for attempt in range(draw(st.integers(0, 7))):
        low, high = draw(st.sampled_from([(1, CREATES), (CREATES + 1, CREATES + UPDATES)]))
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        outcome = draw(st.sampled_from(["ok", "ok", "ok", "rejected", "retry", "unknown", None]))
        entry = step(first, last, outcome, attempt=attempt, error=None if outcome == "ok" else outcome)
        entry.step_id = f"s{attempt}"
        if outcome == "ok":
            for number in range(first, last + 1):
                other = draw(st.sampled_from([None, None, "rejected", "retry", "unknown"]))
                if other is not None:
                    entry.exceptions.append((number, other, f"{other} it's"))
                elif number <= CREATES and draw(st.integers(0, 3)):
                    entry.ids.append((number, f"new{number}"))
            entry.version = draw(st.none() | st.just(micros(5)))
        steps.append(entry)
    return steps


def expected(steps: list[JournalStep]) -> dict[int, tuple[str, str | None, str | None]]:
    """What the last try says of each change: (status, error, new id)."""
    found: dict[int, tuple[str, str | None, str | None]] = {}
    for s in steps:
        for number in range(s.first, s.last + 1):
            exception = next((e for e in s.exceptions if e[0] == number), None)
            if exception is not None:
                found[number] = (STATUS[exception[1]], exception[2], None)
            elif s.outcome is None:
                found[number] = ("unknown", "the run died before the answer", None)
            else:
                found[number] = (STATUS[s.outcome.value], s.error, dict(s.ids).get(number))
    return found


class _Undo(Exception):
    """Takes a fold back."""


def test_any_journal_folds_to_one_row_a_change_with_its_last_outcome(engine: Engine) -> None:
    bound = world(engine, create=Operation(batch=9, replay=Replay.KEY))
    _, table = kept(engine, bound)

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(journals(), st.sampled_from([1, 2, 2_000]))
    def holds(steps: list[JournalStep], at_once: int) -> None:
        with patch.object(spreading, "AT_ONCE", at_once), contextlib.suppress(_Undo), engine.warehouse.transaction():
            fold(engine, bound, table, steps)
            compare(engine, bound, expected(steps))
            raise _Undo

    holds()


def compare(engine: Engine, bound: Any, wanted: dict[int, tuple[str, str | None, str | None]]) -> None:
    rows = engine.warehouse.rows
    assert rows("SELECT number, status, error FROM oploop.change_outcomes ORDER BY 1") == [
        (n, s, e) for n, (s, e, _) in sorted(wanted.items())
    ]
    assert rows("SELECT number FROM oploop.change_log ORDER BY 1") == [(n,) for n in sorted(wanted)]
    assert rows("SELECT count(*) FROM oploop.changes") == [(len(wanted),)]
    sent = {n: new for n, (s, _, new) in wanted.items() if s == "sent"}
    ids = {n: new if n <= CREATES else f"r{n - CREATES - 1}" for n, new in sent.items()}
    state = rows(f"SELECT number, remote_id, acked_at, settled_at FROM {states.state_table(bound)} ORDER BY 1")
    assert state == [(n, i, at(5), None) for n, i in sorted(ids.items()) if i is not None]
    records = rows("SELECT canonical_key, remote_id, created_by FROM oploop.records ORDER BY 1")
    assert records == [(f"c{n - 1}", new, "r1") for n, new in sorted(sent.items()) if new is not None]
    parked = rows("SELECT key, reason FROM oploop.parked ORDER BY 1")
    key = {n: f"c{n - 1}" if n <= CREATES else f"u{n - CREATES - 1}" for n in wanted}
    expected = []
    for n, (status, _, new) in sorted(wanted.items()):
        untold = status == "sent" and new is None and n <= CREATES  # made, but nobody knows which record it is
        if status == "rejected" or untold or (status == "unknown" and n <= CREATES):
            expected.append((key[n], "unknown" if untold else status))
    assert parked == expected
    assert rows("SELECT count(*) FROM oploop.deliveries") == [(0,)]


def test_a_delivery_is_folded_once(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    (begun,) = ledger.unfolded(engine.warehouse)
    assert begun == Begun("r1", ledger.spec_of(bound, engine.warehouse, "v7"), table, at(1))
    folding.fold(engine.warehouse, begun, [step(1, 4), step(5, 8)], at(9))
    assert ledger.unfolded(engine.warehouse) == []
    before = engine.warehouse.rows("SELECT * FROM oploop.change_outcomes ORDER BY number")
    with pytest.raises(FixData):
        folding.fold(engine.warehouse, begun, [step(1, 4)], at(9))
    assert engine.warehouse.rows("SELECT * FROM oploop.change_outcomes ORDER BY number") == before


def test_the_ledger_shows_fields_before_and_after_and_the_why(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 4, ids=[(n, f"new{n}") for n in range(1, 5)]), step(5, 8, version=7)])
    rows = engine.warehouse.rows(
        "SELECT key, op, before::VARCHAR, after::VARCHAR, why::VARCHAR, status, remote_id, attempts, planned_at, sent_at, release, object "
        "FROM oploop.changes WHERE key IN ('c1', 'u0', 'u1') ORDER BY key"
    )
    shown = [(k, op, orjson.loads(b), orjson.loads(a), orjson.loads(w), *rest) for k, op, b, a, w, *rest in rows]
    tail = (at(1), at(4), "v7", "people")
    assert shown == [
        ("c1", "create", {ODD: None, "n": None}, {ODD: "it's 1", "n": 1}, {"a": "it's 1"}, "sent", "new2", 1, *tail),
        ("u0", "update", {ODD: "old", "n": None}, {ODD: "it's 0", "n": 0}, {"a": "it's 0"}, "sent", "r0", 1, *tail),
        ("u1", "update", {ODD: "old"}, {ODD: "it's 1"}, {"a": "it's 1"}, "sent", "r1", 1, *tail),
    ]


def state_of(engine: Engine, bound: Any, remote_id: str) -> dict[str, Any]:
    (row,) = engine.warehouse.query(
        f"SELECT * FROM {states.state_table(bound)} WHERE remote_id = '{remote_id}'"
    ).to_pylist()
    return dict(row)


def test_a_first_state_is_the_same_in_slices(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (folding.SLICE, 3):
        engine.reset()
        monkeypatch.setattr(folding, "SLICE", size)
        bound = world(engine)
        _, table = kept(engine, bound)
        fold(engine, bound, table, [step(1, 4, ids=[(n, f"new{n}") for n in range(1, 5)]), step(5, 7)])
        found.append(engine.warehouse.rows(f"SELECT * FROM {states.state_table(bound)} ORDER BY number"))
    assert [len(rows) for rows in found] == [7, 7]
    assert found[0] == found[1]


def test_only_fields_that_were_sent_get_a_state_and_the_others_keep_theirs(engine: Engine) -> None:
    bound = world(engine)
    engine.state(bound, [{"remote_id": "r1", "acked_at": at(0), "receipt_version": 1, "fields": {"n": (1, 1)}}])
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(5, 8, version=micros(5))])
    r0, r1 = state_of(engine, bound, "r0"), state_of(engine, bound, "r1")
    assert (r0[f"{ODD}.sent"], r0["as_sent"], r0[f"{ODD}.at"], r0["n.sent"]) == ("it's 0", True, at(5), 0)
    assert (r1[f"{ODD}.sent"], r1["n.sent"], r1["n.at"]) == ("it's 1", 1, at(0))
    assert (r1["acked_at"], r1["receipt_version"], r1["settled_at"], r1["run_id"], r1["sync"]) == (
        at(5),
        micros(5),
        None,
        "r1",
        "people",
    )
    assert engine.diff(bound).counts == {"create": 4}


def test_a_delivery_that_came_to_its_end_is_no_diff_even_before_a_read_shows_it(engine: Engine) -> None:
    bound = world(engine)
    plan, table = kept(engine, bound)
    assert not delivered_before(bound, engine.warehouse, [bound.name])
    fold(engine, bound, table, [step(1, 4, ids=[(n, f"new{n}") for n in range(1, 5)]), step(5, 8)])
    sync_runs.note_sync_run(engine.warehouse, plan, "r1", "ok", {"delivered": 8}, at(9))
    assert engine.diff(bound).counts == {}
    assert delivered_before(bound, engine.warehouse, [bound.name])


def test_two_creates_that_the_app_took_for_one_record_leave_one_state(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 4, ids=[(1, "same"), (2, "same"), (3, "new3"), (4, "new4")])])
    assert engine.warehouse.rows(f"SELECT remote_id, number FROM {states.state_table(bound)} ORDER BY 2") == [
        ("same", 2),
        ("new3", 3),
        ("new4", 4),
    ]
    assert engine.diff(bound).counts["update"] == UPDATES + 1  # the other of the two wants its own value; no row twice
    assert engine.diff(bound).rows == CREATES + UPDATES


def test_a_new_record_whose_id_was_not_told_has_no_state_under_another_records_id(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 4)])
    assert engine.warehouse.rows(f"SELECT count(*) FROM {states.state_table(bound)}") == [(0,)]
    assert engine.warehouse.rows("SELECT DISTINCT status FROM oploop.changes") == [("sent",)]


def test_records_of_a_blind_sync_are_known_by_their_key_and_their_id(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "n": "BIGINT"}, [("a", 1), ("b", 1)])
    obj = an_object(a_field("n", FieldType.INTEGER), stream=None)
    bound = engine.bind(a_sync("n"), obj)
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 2, ids=[(1, "id-a")])])
    assert engine.diff(bound).counts == {}
    engine.model({"email": "VARCHAR", "n": "BIGINT"}, [("a", 2), ("b", 2)])
    assert [(c.key["email"], c.remote_id) for c in engine.changes(engine.diff(bound))] == [("a", "id-a"), ("b", "b")]


@pytest.mark.parametrize(
    ("replay", "careful"),
    [
        (Replay.SAFE, []),
        (Replay.KEY, ["create"]),
        (Replay.LOOKUP, ["create", "update"]),
        (Replay.NEVER, ["create", "update"]),
    ],
)
def test_what_must_not_be_doubled_is_parked_while_it_is_unknown(
    engine: Engine, replay: Replay, careful: list[str]
) -> None:
    one = Operation(replay=replay, settle=100.0)
    bound = world(engine, one, one)
    assert ledger.spec_of(bound, engine.warehouse, None).careful == careful
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 1, None), step(5, 5, "unknown")])
    parked = engine.warehouse.rows("SELECT key, reason FROM oploop.parked ORDER BY 1")
    assert parked == [({"create": "c0", "update": "u0"}[kind], "unknown") for kind in careful]
    for vouched in (None, at(9), at(109)):  # noted at 9: not settled, or noted at that very time
        ledger.forget_unknown(engine.warehouse, bound, vouched)
        assert engine.diff(bound).count("parked") == len(careful)
    ledger.forget_unknown(engine.warehouse, bound, at(109.5))
    assert engine.diff(bound).count("parked") == (len(careful) if replay is Replay.NEVER else 0)


def test_without_a_journal_all_that_was_to_be_sent_is_unknown(engine: Engine) -> None:
    bound = world(engine, create=Operation(batch=9, replay=Replay.KEY))
    _, table = kept(engine, bound)
    (begun,) = ledger.unfolded(engine.warehouse)
    fold(engine, bound, table, ledger.all_unknown(engine.warehouse, begun))
    assert engine.warehouse.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1") == [("unknown", 8)]
    assert engine.diff(bound).counts == {"parked": CREATES, "update": UPDATES}


def test_a_rejected_change_is_parked_until_it_is_sent_in_another_form(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    fold(engine, bound, table, [step(1, 1, "rejected", error="no"), step(5, 5, "rejected", error="no")])
    assert engine.diff(bound).counts == {"parked": 2, "create": 3, "update": 3}
    ledger.forget_unknown(engine.warehouse, bound, at(99))  # that is for unknown ones
    assert engine.diff(bound).count("parked") == 2
    engine.warehouse.execute("UPDATE mart.people SET a = 'better' WHERE email IN ('c0', 'u0')")
    assert engine.diff(bound).counts == {"create": 4, "update": 4}
    _, table = kept(engine, bound, "r2")
    fold(engine, bound, table, [step(1, 4), step(5, 8)], "r2")
    assert engine.warehouse.rows("SELECT count(*) FROM oploop.parked") == [(0,)]


def test_held_rows_are_noted_with_each_run(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "a": "VARCHAR"}, [(None, "x"), ("a", "x" * 9), ("b", "y")])
    engine.records({"email": "VARCHAR", "a": "VARCHAR"}, [])
    bound = engine.bind(a_sync("a"), an_object(a_field("a", max_length=3)))
    for run_id in ("r1", "r2"):
        plan = make_plan(engine.diff(bound), engine.warehouse, budget=None, call_seconds=None)
        sync_runs.note_sync_run(engine.warehouse, plan, run_id, "stopped", {}, at(9))
    assert engine.warehouse.rows("SELECT run_id, key, field FROM oploop.held ORDER BY 2 NULLS FIRST") == [
        ("r2", None, "email"),
        ("r2", "a", "a"),
    ]
    assert engine.warehouse.rows("SELECT rows, created, held, delivered FROM oploop.sync_runs WHERE run_id = 'r1'") == [
        (3, 1, 2, 0)
    ]
    assert not delivered_before(bound, engine.warehouse, [bound.name])


def test_a_crash_before_the_journal_begins_leaves_nothing(engine: Engine) -> None:
    bound = world(engine)
    kept(engine, bound)
    (begun,) = ledger.unfolded(engine.warehouse)
    folding.fold(engine.warehouse, begun, [], at(9))
    assert engine.warehouse.rows("SELECT count(*) FROM oploop.changes") == [(0,)]
    assert engine.diff(bound).counts == {"create": 4, "update": 4}


def test_making_our_tables_twice_changes_nothing(engine: Engine) -> None:
    before = engine.warehouse.tables()
    ledger.ensure(engine.warehouse)
    assert engine.warehouse.tables() == before


def test_a_fold_that_fails_leaves_all_as_it_was(engine: Engine) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    engine.warehouse.execute("ALTER TABLE oploop.parked RENAME TO elsewhere")
    with pytest.raises(FixData):
        fold(engine, bound, table, [step(1, 4), step(5, 8)])
    engine.warehouse.execute("ALTER TABLE oploop.elsewhere RENAME TO parked")
    for left in ("oploop.change_log", "oploop.change_outcomes", "oploop.records"):
        assert engine.warehouse.rows(f"SELECT count(*) FROM {left}") == [(0,)]
    assert not engine.warehouse.columns(states.state_table(bound).replace('"', ""))
    (begun,) = ledger.unfolded(engine.warehouse)
    folding.fold(engine.warehouse, begun, [step(1, 4), step(5, 8)], at(9))
    assert engine.warehouse.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1") == [("sent", 8)]
