"""Undo as statements: whatever runs and people did, what a run changed and nobody touched since is as before it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from oploop.activate import diff as diffing
from oploop.activate import folding, jobs, ledger, undo
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import SyncPlan, make_plan
from oploop.project import FieldMapping, OnLeave
from oploop.records import FieldType, Op, Outcome, Receipt
from oploop.state import JournalStep
from oploop.warehouse.base import quote_table
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at, micros
from tests.unit.activate.test_jobs import Crm

FIELDS = ("tier", "n", "tags")
OBJ = an_object(
    a_field("tier"),
    a_field("n", FieldType.INTEGER),
    a_field("tags", FieldType.LIST),
    operations={Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.REMOVE: SAFE},
)
RAW = {"email": "VARCHAR", "tier": "VARCHAR", "n": "BIGINT", "tags": "JSON"}
MODEL = {"email": "VARCHAR", "tier": "VARCHAR", "n": "BIGINT", "tags": "VARCHAR[]"}
Record = dict[str, Any]


class Office:
    """An app in memory, a sync that writes it, and people."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.w = engine, engine.warehouse
        self.engine.reset()
        self.ids, self.runs, self.seconds = itertools.count(1), 0, 0
        self.live: dict[str, Record] = {}
        self.dead: dict[str, Record] = {}
        for key in ("a@x", "b@x", "o'c@x"):
            self.put({"email": key, "tier": "old", "n": None, "tags": ["x"]})

    def put(self, record: Record) -> str:
        rid = f"r{next(self.ids)}"
        self.live[rid] = record
        return rid

    def read(self) -> None:
        self.seconds += 10
        rows = []
        for deleted, records in ((False, self.live), (True, self.dead)):
            for rid, r in records.items():
                tags = None if r["tags"] is None else orjson.dumps(sorted(r["tags"])).decode()
                rows.append((rid, r["email"], r["tier"], r["n"], tags, micros(self.seconds), at(self.seconds), deleted))
        self.engine.records(RAW, rows)

    def bound(self) -> BoundSync:
        mapped = tuple(FieldMapping(f, column=f, on_null="clear") for f in FIELDS)  # type: ignore[arg-type]
        return self.engine.bind(a_sync(*mapped, mode="upsert", conflict="ours"), OBJ)

    def turn(self, rows: Sequence[Sequence[Any]]) -> str:
        """A run of the loop with this model."""
        self.engine.model(MODEL, rows)
        self.read()
        found = self.engine.diff(self.bound())
        return self.send(make_plan(found, self.w, budget=None, call_seconds=None))

    def job(self, *rows: Sequence[Any]) -> str:
        """A run that gives these changes to a job of which nobody hears any more."""
        self.engine.model(MODEL, rows)
        self.read()
        plan = make_plan(self.engine.diff(self.bound()), self.w, budget=None, call_seconds=None)
        self.runs += 1
        run_id = f"run{self.runs:03}"
        table = ledger.keep_plan(plan, self.w, run_id, at(self.seconds))
        step = JournalStep(run_id, "people", "s", 1, plan.changes, 1, Op.UPDATE, at(self.seconds), note="j1")
        step.ended_at, step.outcome = at(self.seconds), Outcome.UNKNOWN
        begun = Begun(run_id, ledger.spec_of_plan(plan, self.w, None), table, at(self.seconds))
        folding.fold(self.w, begun, [step], at(self.seconds))
        return run_id

    def over(self) -> None:
        """The app says that the jobs are over, and did what they were to do."""
        app = Crm([Receipt(n, Outcome.OK, rid) for n, rid in enumerate(self.live, 1)])
        asyncio.run(jobs.ask(app, self.w, self.bound(), lambda: at(self.seconds)))

    def send(self, plan: SyncPlan) -> str:
        self.runs += 1
        run_id = f"run{self.runs:03}"
        if not plan.changes:
            return run_id
        columns = diffing.change_columns(plan.bound, "wc")
        query = f"SELECT {columns} FROM {quote_table(plan.diff.table)} WHERE __number IS NOT NULL ORDER BY __number"
        batches = self.w.query(query).to_batches()
        changes = [c for batch in batches for c in diffing.changes_of(plan.bound, batch)]
        self.seconds += 1
        entry = JournalStep(run_id, "people", "s", 1, len(changes), 1, Op.UPDATE, at(self.seconds), at(self.seconds))
        entry.outcome, entry.version = Outcome.OK, micros(self.seconds)
        table = ledger.keep_plan(plan, self.w, run_id, at(self.seconds))
        for c in changes:
            if c.op is Op.CREATE:
                empty = {"email": None, **dict.fromkeys(FIELDS)}
                entry.ids.append((c.number, self.put(empty | dict(c.fields) | {"email": c.key["email"]})))
            elif c.op is Op.REMOVE:
                assert c.remote_id is not None
                self.dead[c.remote_id] = self.live.pop(c.remote_id)
            else:
                self.live[str(c.remote_id)].update(c.fields)
        spec = ledger.spec_of_plan(plan, self.w, None)
        folding.fold(self.w, Begun(run_id, spec, table, at(self.seconds)), [entry], at(self.seconds))
        return run_id

    def undo(self, *runs: str, **asked: Any) -> undo.UndoPlan:
        """Plan it; `send` does it."""
        self.read()
        [t] = undo.touched(self.w, runs)
        wide, missing = undo.with_fields(self.bound(), OBJ.fields, self.w, t.labels, {})
        wish = undo.Asked(tuple(runs), **asked)
        undo.gather(wide, self.w, ["people"], wish)
        return undo.make(wide, self.w, wish, missing, table=f"undo_{self.runs}", budget=None)

    def now(self) -> dict[str, Record]:
        return {rid: dict(r) for rid, r in self.live.items()}


TIER = st.sampled_from([None, "old", "gold", "it's", "12"])
TAGS = st.sampled_from([None, ("x",), ("x", "é\"'"), ()]).map(lambda t: None if t is None else list(t))
VALUES = st.tuples(TIER, st.sampled_from([None, 0, 1, 2**62]), TAGS)
KEYS = ("a@x", "b@x", "o'c@x", "new1@x", "new2@x")
TURN = st.tuples(st.just("run"), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1))
EDIT = st.tuples(st.just("edit"), st.tuples(st.sampled_from(KEYS), st.sampled_from(FIELDS), VALUES))
DELETE = st.tuples(st.just("delete"), st.sampled_from(KEYS))


@settings(
    max_examples=20, phases=[Phase.generate], deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(TURN, TURN, EDIT, EDIT, DELETE), min_size=2, max_size=9), st.data())
def test_what_nobody_touched_since_is_as_before_the_run(engine: Engine, story: list[Any], data: st.DataObject) -> None:
    office = Office(engine)
    states: list[tuple[str | None, dict[str, Record]]] = []  #: the app before each thing that happened; a run's id
    for kind, what in story:
        before = office.now()
        if kind == "run":
            states.append((office.turn([(k, *v) for k, v in what.items()]), before))
            continue
        states.append((None, before))
        key = what[0] if kind == "edit" else what
        for rid, r in list(office.live.items()):
            if r["email"] == key and kind == "edit":
                r[what[1]] = what[2][FIELDS.index(what[1])]
            elif r["email"] == key:
                office.dead[rid] = office.live.pop(rid)
    able = [i for i, (run, _) in enumerate(states) if run is not None and undo.touched(office.w, [run])]
    if not able:
        return
    i = data.draw(st.sampled_from(able))
    since = data.draw(st.booleans())
    runs = [run for run, _ in states[i:] if run is not None] if since else [str(states[i][0])]
    runs = [r for r in runs if undo.touched(office.w, [r])]
    then, history = office.now(), [s for _, s in states[i + 1 :]] + [office.now()]
    office.send(office.undo(*runs).plan)
    own = {j for j, (run, _) in enumerate(states) if run in runs}
    for rid, was in states[i][1].items():
        for f in FIELDS:
            if rid not in then:
                assert rid not in office.live
                continue
            # moved by something that is not undone, and not to what it would have been anyway
            touched = any(
                states[j][1].get(rid, {}).get(f) != history[j - i].get(rid, {}).get(f)
                for j in range(i, len(states))
                if j not in own
            )
            if not touched:
                assert office.live[rid][f] == was[f], (rid, f)
    for rid, f in ((rid, f) for rid in then.keys() & office.live.keys() for f in FIELDS):
        if office.live[rid][f] != then[rid][f]:  # only what an undone run had left there was put back
            wrote = [
                history[j - i].get(rid, {}).get(f) for j in own if states[j][1].get(rid) != history[j - i].get(rid)
            ]
            assert then[rid][f] in wrote
    for rid in then.keys() - states[i][1].keys():  # made since
        untouched = all(history[j - i].get(rid) == states[j][1].get(rid) for j in range(i, len(states)) if j not in own)
        if untouched:
            assert rid not in office.live


def test_undoing_twice_does_nothing_more(engine: Engine) -> None:
    office = Office(engine)
    run_id = office.turn([("a@x", "gold", 1, ["y"]), ("new@x", "gold", 1, ["y"])])
    before = office.undo(run_id)
    assert (before.plan.update, before.plan.remove, before.reasons) == (1, 1, ())
    office.send(before.plan)
    again = office.undo(run_id)
    assert (again.plan.changes, dict(again.reasons)) == (0, {undo.GONE: 1})


def test_of_several_fields_only_those_are_parked_that_were_put_back(engine: Engine) -> None:
    office = Office(engine)
    run_id = office.turn([("a@x", "gold", 1, ["y"])])
    office.live["r1"]["n"] = 5
    found = office.undo(run_id)
    assert [(x.key, x.field, x.reason) for x in found.left] == [("a@x", "n", undo.CHANGED)]
    office.send(found.plan)
    assert office.live["r1"] == {"email": "a@x", "tier": "old", "n": 5, "tags": ["x"]}
    parked = office.w.rows("SELECT key, field, wanted, reason FROM oploop.parked ORDER BY field")
    assert parked == [("a@x", "tags", '["y"]', "undone"), ("a@x", "tier", '"gold"', "undone")]
    office.turn([("a@x", "gold", 7, ["y"])])  # another field moves: the parked ones stay behind
    assert office.live["r1"] == {"email": "a@x", "tier": "old", "n": 7, "tags": ["x"]}
    office.turn([("a@x", "lead", 7, ["y"])])
    assert office.live["r1"]["tier"] == "lead"
    assert office.w.rows("SELECT field FROM oploop.parked") == [("tags",)]


def test_what_an_object_cannot_take_is_named(engine: Engine) -> None:
    office = Office(engine)
    run_id = office.turn([("new@x", "gold", 1, ["y"])])
    poor = an_object(*(OBJ.fields[f] for f in FIELDS), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE})
    office.bound = lambda: engine.bind(a_sync(*FIELDS, mode="upsert"), poor)  # type: ignore[method-assign]
    assert dict(office.undo(run_id).reasons) == {"crm.people takes no removals, so what was made stays": 1}
    upserts = an_object(
        *(OBJ.fields[f] for f in FIELDS), operations={Op.UPSERT: SAFE, Op.UPDATE: SAFE, Op.REMOVE: SAFE}
    )
    office.bound = lambda: engine.bind(a_sync(*FIELDS, mode="upsert"), upserts)  # type: ignore[method-assign]
    assert dict(office.undo(run_id).reasons) == {undo.UPSERTED: 1}


@pytest.mark.parametrize("outcome", [Outcome.DEFERRED, Outcome.RETRY])
def test_what_was_not_done_is_nothing_to_undo(engine: Engine, outcome: Outcome) -> None:
    office = Office(engine)
    engine.model(MODEL, [("a@x", "gold", 1, None), ("new@x", "gold", 1, None)])
    office.read()
    plan = make_plan(engine.diff(office.bound()), office.w, budget=None, call_seconds=None)
    assert (plan.create, plan.update) == (1, 1)
    table = ledger.keep_plan(plan, office.w, "run001", at(3))
    step = JournalStep("run001", "people", "s", 1, 2, 1, Op.UPDATE, at(3), at(4), outcome=outcome)
    folding.fold(office.w, Begun("run001", ledger.spec_of_plan(plan, office.w, None), table, at(3)), [step], at(4))
    assert undo.touched(office.w, ("run001",)) == []
    wide, missing = undo.with_fields(office.bound(), OBJ.fields, office.w, FIELDS, {})
    wish = undo.Asked(("run001",))
    undo.gather(wide, office.w, ["people"], wish)
    found = undo.make(wide, office.w, wish, missing, table="undo_none", budget=None)
    assert (found.plan.changes, found.left) == (0, ())


def test_of_a_record_that_stays_what_was_changed_later_is_put_back(engine: Engine) -> None:
    office = Office(engine)
    runs = [office.turn([("new@x", tier, n, ["y"])]) for tier, n in (("gold", 1), ("lead", 1), ("tin", 1))]
    poor = an_object(*(OBJ.fields[f] for f in FIELDS), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE})
    office.bound = lambda: engine.bind(a_sync(*FIELDS, mode="upsert", conflict="ours"), poor)  # type: ignore[method-assign]
    found = office.undo(*runs)
    assert found.left == (undo.Left("new@x", None, "crm.people takes no removals, so what was made stays"),)
    assert (found.plan.update, found.plan.remove) == (1, 0)
    office.send(found.plan)
    [made] = [r for r in office.live.values() if r["email"] == "new@x"]
    assert made == {"email": "new@x", "tier": "gold", "n": 1, "tags": ["y"]}
    assert office.w.rows("SELECT field, wanted FROM oploop.parked") == [("tier", '"tin"')]
    assert not office.undo(*runs).plan.changes


@pytest.mark.parametrize("removes", [True, False], ids=["removable", "not removable"])
def test_what_a_job_may_still_change_waits_until_it_is_over(engine: Engine, removes: bool) -> None:
    office = Office(engine)
    if not removes:
        poor = an_object(*(OBJ.fields[f] for f in FIELDS), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE})
        office.bound = lambda: engine.bind(a_sync(*FIELDS, mode="upsert", conflict="ours"), poor)  # type: ignore[method-assign]
    first = office.turn([("a@x", "gold", 1, ["y"]), ("b@x", "gold", 1, ["y"])])
    made = office.turn([("new@x", "gold", 1, ["y"])])
    moved = office.turn([("new@x", "gold", 2, ["y"])])
    later = office.job(("a@x", "lead", 1, ["y"]), ("new@x", "lead", 2, ["y"]), ("more@x", "gold", 1, ["y"]))
    for runs in ([first], [first, later]):
        found = office.undo(*runs, made, moved)
        assert {x.key for x in found.left if x.reason == undo.AT_WORK} >= {"a@x", "new@x"}
        sent = office.w.rows(f"SELECT __key FROM {quote_table(found.plan.diff.table)}")
        assert sent == [("b@x",)], "what no job has goes back"
    assert ("more@x", None, undo.AT_WORK) in [(x.key, x.field, x.reason) for x in found.left]
    assert office.w.rows("SELECT count(*) FROM oploop.parked WHERE reason = 'unknown'") == [(3,)]


def test_what_was_removed_is_not_made_a_second_time_beside_a_job(engine: Engine) -> None:
    office = Office(engine)
    office.bound = lambda: engine.bind(a_sync(*FIELDS, on_leave=OnLeave.DELETE), OBJ)  # type: ignore[method-assign]
    row = ("new@x", "gold", 1, ["y"])
    office.turn([("a@x", "gold", 1, ["y"]), row])
    removed = office.turn([("a@x", "gold", 1, ["y"])])
    assert "new@x" not in [r["email"] for r in office.live.values()]
    office.job(("a@x", "gold", 1, ["y"]), row)  # makes it anew
    found = office.undo(removed)
    assert (found.plan.changes, dict(found.reasons)) == (0, {undo.AT_WORK: 1})


def test_once_the_job_is_over_what_it_did_is_put_back(engine: Engine) -> None:
    office = Office(engine)
    run_id = office.job(("a@x", "lead", 1, ["y"]), ("b@x", "gold", 1, ["y"]), ("o'c@x", "gold", 1, ["y"]))
    assert not office.undo(run_id).plan.changes
    for record, tier in zip(office.live.values(), ("lead", "gold", "gold"), strict=True):
        record |= {"tier": tier, "n": 1, "tags": ["y"]}
    office.over()
    found = office.undo(run_id)
    assert (found.plan.update, found.left) == (3, ())
    office.send(found.plan)
    assert {(r["tier"], r["n"]) for r in office.live.values()} == {("old", None)}


def test_of_a_record_that_somebody_edited_the_rest_is_put_back(engine: Engine) -> None:
    office = Office(engine)
    runs = [office.turn([("new@x", "gold", 1, ["y"])]), office.turn([("new@x", "lead", 2, ["y"])])]
    [rid] = [i for i, r in office.live.items() if r["email"] == "new@x"]
    office.live[rid]["n"] = 7
    found = office.undo(*runs)
    assert [(x.field, x.reason) for x in found.left] == [("n", undo.CHANGED), (None, undo.CHANGED)]
    office.send(found.plan)
    assert office.live[rid] == {"email": "new@x", "tier": "gold", "n": 7, "tags": ["y"]}


def test_a_field_that_cannot_be_cleared_or_belongs_to_another_sync_is_named(engine: Engine) -> None:
    office = Office(engine)
    run_id = office.turn([("a@x", "gold", 1, ["y"])])
    fields = {**OBJ.fields, "n": a_field("n", FieldType.INTEGER, nullable=False)}
    stiff = an_object(*(fields[f] for f in FIELDS))
    office.bound = lambda: engine.bind(a_sync(*FIELDS), stiff)  # type: ignore[method-assign]
    assert dict(office.undo(run_id).reasons) == {undo.CLEAR: 1}
    only_tier = engine.bind(a_sync("tier"), OBJ)
    wide, missing = undo.with_fields(only_tier, OBJ.fields, engine.warehouse, ["tier", "n", "tags", "zip"], {"n": "nn"})
    assert ([f.label for f in wide.fields], missing) == (
        ["tier", "tags"],
        {"n": "now written by sync nn", "zip": "crm.people has no such field that could be written and read"},
    )
