"""Whose state is whose: two syncs on one object, a renamed sync file, a field that moved to another file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from oploop.activate import diff as diffing
from oploop.activate import folding, ledger, states
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import make_plan
from oploop.records import FieldType, Op, Outcome
from oploop.state import JournalStep
from oploop.verify import ReadBack, Target, Watched, read_back
from tests.unit.activate.engine import APP, OBJECT, Engine, a_field, a_sync, an_object, at, micros

OBJ = an_object(a_field("tier"), a_field("n", FieldType.INTEGER), a_field("note"))
COLUMNS = {"email": "VARCHAR", "tier": "VARCHAR", "n": "BIGINT", "note": "VARCHAR"}


class World:
    """Two people in an app, and any number of syncs that write fields of theirs."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.w, self.runs = engine, engine.warehouse, 0
        self.holds: dict[str, list[Any]] = {"a@x": ["old", 0, "old"], "b@x": ["old", 0, "old"]}
        self.wants(("gold", 1, "hi"), ("iron", 2, "ho"))
        self.shows(0)

    def wants(self, a: Sequence[Any], b: Sequence[Any]) -> None:
        self.engine.model(COLUMNS, [("a@x", *a), ("b@x", *b)])

    def shows(self, seconds: float) -> None:
        """The app is read then."""
        rows = [(k[0], k, *v, micros(seconds), at(seconds), False) for k, v in self.holds.items()]
        self.engine.records(COLUMNS, rows)

    def sync(self, name: str, *fields: str, others: Sequence[str] = ()) -> BoundSync:
        return replace(self.engine.bind(a_sync(*fields, name=name, mode="update"), OBJ), others=frozenset(others))

    def sends(self, bound: BoundSync, seconds: float) -> str:
        """Deliver all that the sync wants; the app takes it as it is."""
        self.runs += 1
        run_id = f"r{self.runs}"
        found = self.engine.diff(bound)
        for change in self.engine.changes(found):
            for name, value in change.fields.items():
                self.holds[change.key["email"]][["tier", "n", "note"].index(name)] = value
        sent = found.count("update")
        plan = make_plan(found, self.w, budget=None, call_seconds=None)
        table = ledger.keep_plan(plan, self.w, run_id, at(seconds))
        entry = JournalStep(run_id, bound.name, "s", 1, sent, 1, Op.UPDATE, at(seconds), at(seconds), Outcome.OK)
        entry.version = micros(seconds)
        folding.fold(
            self.w, Begun(run_id, ledger.spec_of(bound, self.w, None), table, at(seconds)), [entry], at(seconds)
        )
        return run_id

    async def looks(self, bound: BoundSync) -> ReadBack:
        watched = tuple(
            Watched(f.field.name, f.label, f.now or "", self.w.sql_type(f.field.type), f.field.type)
            for f in bound.fields
        )
        assert bound.raw_table is not None
        table = states.state_table(bound)
        target = Target(bound.name, APP, OBJECT, bound.raw_table, "id", table, watched, None)
        return await read_back(target, self.w, fetch=None, now=at(99), within_run=False)

    def counts(self, bound: BoundSync) -> dict[str, int]:
        return self.engine.diff(bound).counts


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


async def test_two_syncs_on_one_object_judge_their_own_changes(world: World) -> None:
    tiers, notes = world.sync("tiers", "tier", others=["notes"]), world.sync("notes", "note", others=["tiers"])
    world.sends(tiers, 10)
    world.shows(11)
    assert (await world.looks(tiers)).counts == {"confirmed": 2}
    world.sends(notes, 20)
    world.holds["a@x"][0] = "by hand"  # before any read has shown what `notes` sent
    world.shows(15)
    assert (await world.looks(tiers)).counts == {"confirmed": 1, "drifted": 1}
    assert (await world.looks(notes)).waiting == 2
    assert world.counts(tiers) == {"kept": 1}
    assert world.counts(notes) == {}
    rows = world.w.rows(f"SELECT sync, run_id, settled_at IS NULL FROM {states.state_table(tiers)} ORDER BY 1, 2, 3")
    assert rows == [("notes", "r2", True)] * 2 + [("tiers", "r1", False)] * 2


async def test_a_renamed_sync_keeps_its_state_in_the_plan_and_after_the_next_run(world: World) -> None:
    old = world.sync("old", "tier", "n")
    run_id = world.sends(old, 10)
    world.holds["a@x"][0] = "by hand"
    world.shows(20)
    new = world.sync("new", "tier", "n")
    assert world.counts(new) == {"kept": 1}  # it knows what it sent, and that it was changed since
    states.claim(world.w, new)
    assert world.w.rows(f"SELECT DISTINCT sync, log_sync FROM {states.state_table(new)}") == [("new", "old")]
    assert world.counts(new) == {"kept": 1}
    looked = await world.looks(new)
    assert (looked.run_id, looked.counts) == (run_id, {"confirmed": 1, "drifted": 1})
    assert world.w.rows("SELECT sync, key, status FROM oploop.changes ORDER BY key") == [
        ("old", "a@x", "drifted"),
        ("old", "b@x", "confirmed"),
    ]
    world.wants(("lead", 1, ""), ("iron", 3, ""))
    world.sends(new, 30)
    world.shows(31)
    assert (await world.looks(new)).counts == {"confirmed": 2}
    assert world.w.rows(f"SELECT count(*), count(log_sync) FROM {states.state_table(new)}") == [(2, 0)]


def test_what_was_parked_stays_parked_under_the_new_name(world: World) -> None:
    world.sends(world.sync("old", "tier"), 10)
    world.w.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at) VALUES ('old', 'crm', 'people', 'a@x', 'rejected', '{\"tier\":\"lead\"}', 'no', 'r1', ?)",
        (at(10),),
    )
    world.wants(("lead", 1, ""), ("iron", 2, ""))
    world.shows(20)
    new = world.sync("new", "tier")
    assert world.counts(new) == {"parked": 1}
    states.claim(world.w, new)
    assert world.counts(new) == {"parked": 1}
    assert world.w.rows("SELECT sync FROM oploop.parked") == [("new",)]


async def test_a_field_that_moves_to_another_file_takes_its_state_along(world: World) -> None:
    both = world.sync("both", "tier", "n")
    world.sends(both, 10)
    world.holds["a@x"][1] = 77
    world.shows(20)
    tiers, numbers = world.sync("both", "tier", others=["numbers"]), world.sync("numbers", "n", others=["both"])
    assert (world.counts(tiers), world.counts(numbers)) == ({}, {"kept": 1})
    for bound in (tiers, numbers):
        states.claim(world.w, bound)
    assert (world.counts(tiers), world.counts(numbers)) == ({}, {"kept": 1})
    assert (await world.looks(tiers)).counts == {"confirmed": 2}
    assert (await world.looks(numbers)).run_id is None  # its last change was the other's
    back = world.sync("both", "tier", "n")
    states.claim(world.w, back)
    assert world.counts(back) == {"kept": 1}
    assert world.w.rows(f"SELECT sync, count(*) FROM {states.state_table(back)} GROUP BY 1") == [("both", 2)]


def test_a_cleared_value_moves_as_what_it_is(world: World) -> None:
    old = world.sync("old", "tier")
    world.sends(old, 10)
    world.w.execute(f'UPDATE {states.state_table(old)} SET "tier.sent" = NULL, "tier.stored" = NULL')
    new = world.sync("new", "tier")
    states.claim(world.w, new)
    assert world.w.rows(f'SELECT "tier.sent", "tier.stored", "tier.at" FROM {states.state_table(new)}') == [
        (None, None, at(10)),
        (None, None, at(10)),
    ]


async def test_the_table_of_an_earlier_release_whose_rows_two_syncs_shared(world: World) -> None:
    tiers, notes = world.sync("tiers", "tier", others=["notes"]), world.sync("notes", "note", others=["tiers"])
    world.sends(tiers, 10)
    world.sends(notes, 20)
    table, stored = states.state_table(tiers), [states.stored("t", n) for n in ("tier", "note")]
    world.w.execute(
        f"CREATE OR REPLACE TABLE {table} AS SELECT remote_id, 'notes' AS sync, max(run_id) AS run_id, max(number) AS number, "
        "max(acked_at) AS acked_at, max(receipt_version) AS receipt_version, max(settled_at) AS settled_at, "
        f'max("tier.sent") AS "tier.sent", max({stored[0]}) AS "tier.stored", max("tier.at") AS "tier.at", '
        f'max("note.sent") AS "note.sent", max({stored[1]}) AS "note.stored", max("note.at") AS "note.at" FROM {table} AS t GROUP BY 1'
    )
    world.holds["a@x"][0] = "by hand"
    world.shows(30)
    for _ in range(2):  # as the plan sees it, and once taken over
        assert (world.counts(tiers), world.counts(notes)) == ({"kept": 1}, {})
        for bound in (tiers, notes):
            states.claim(world.w, bound)
    assert (await world.looks(notes)).counts == {"confirmed": 2}
    assert world.w.rows(f"SELECT sync, count(*) FROM {table} GROUP BY 1 ORDER BY 1") == [("notes", 2), ("tiers", 2)]


def test_a_name_that_wrote_other_fields_is_left_alone(world: World) -> None:
    world.sends(world.sync("tiers", "tier"), 10)
    notes = world.sync("notes", "note")
    assert diffing.look(notes, world.w).names == ("notes",)
    states.claim(world.w, notes)
    assert world.w.rows(f"SELECT DISTINCT sync FROM {states.state_table(notes)}") == [("tiers",)]
