"""`mode: append`: each row once, ever."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate import appending, folding, ledger
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.diff import Diff
from oploop.activate.plan import make_plan
from oploop.errors import FixConfig
from oploop.project import FieldMapping, Mode, OnLeave
from oploop.records import FieldType, Op, Operation, Outcome, Replay
from oploop.state import JournalStep
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at

NEVER = Operation(batch=1, replay=Replay.NEVER)


def events(engine: Engine, *keys: str | None, **more: Any) -> BoundSync:
    """A model of (id, text) rows, and an append sync of its texts to an object that has no such key."""
    engine.model({"id": "VARCHAR", "text": "VARCHAR"}, [(k, f"hello {k}") for k in keys])
    obj = an_object(a_field("text"), a_field("at", FieldType.TIMESTAMP), operations={Op.CREATE: NEVER}, stream=None)
    return engine.bind(a_sync("text", **({"mode": Mode.APPEND, "key": {"id": "id"}} | more)), obj)


def statuses(engine: Engine, found: Diff) -> dict[str, str]:
    return {r["__key"]: r["__status"] for r in engine.plan_rows(found)}


def deliver(engine: Engine, b: BoundSync, found: Diff, *outcomes: Outcome, run: str = "r1") -> None:
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first-run"})
    table = ledger.keep_plan(plan, engine.warehouse, run, at(0))
    steps = [
        JournalStep(run, b.name, f"s{n}", n, n, 1, Op.CREATE, at(1), at(1), outcome=o)
        for n, o in enumerate(outcomes, 1)
    ]
    folding.fold(engine.warehouse, Begun(run, ledger.spec_of(b, engine.warehouse, None), table, at(0)), steps, at(2))


def test_a_first_append_marks_what_exists_and_later_rows_are_sent_once(engine: Engine) -> None:
    b = events(engine, "1", "2")
    found = engine.diff(b)
    assert (statuses(engine, found), found.changes) == ({"1": "seen", "2": "seen"}, 0)
    appending.mark_seen(engine.warehouse, b, found.table, "r0", at(0))
    assert statuses(engine, engine.diff(b)) == {}
    b = events(engine, "1", "2", "3")
    found = engine.diff(b)
    [change] = engine.changes(found)
    assert (change.op, change.key, change.fields) == (Op.CREATE, {"id": "3"}, {"text": "hello 3"})
    deliver(engine, b, found, Outcome.OK)
    engine.warehouse.execute("UPDATE mart.people SET text = 'changed'")
    assert statuses(engine, engine.diff(b)) == {}, "a changed row is no new row"
    engine.warehouse.execute("DELETE FROM oploop.change_rows")
    assert statuses(engine, engine.diff(b)) == {}, "the keys outlive the ledger"


def test_a_key_that_is_json_in_the_app_is_sent_as_its_value(engine: Engine) -> None:
    engine.model({"id": "VARCHAR", "text": "VARCHAR"}, [("c1", "x")])
    key, text = a_field("properties.id", FieldType.JSON, key=True, source=None), a_field("text", FieldType.JSON)
    obj = an_object(key, text, operations={Op.CREATE: NEVER}, stream=None)
    b = engine.bind(a_sync("text", mode=Mode.APPEND, key={"properties.id": "id"}), obj)
    [change] = engine.changes(engine.diff(b, backfill=True))
    assert (change.key, change.fields) == ({"properties.id": "c1"}, {"properties.id": "c1", "text": "x"})


WHOLE = ("BIGINT", "INTEGER", "VARCHAR", "DECIMAL(18, 0)", "DECIMAL(20, 4)", "HUGEINT", "DOUBLE", "FLOAT")
TIMES = ("DATE", "TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMPTZ", "VARCHAR")


@pytest.mark.parametrize(
    ("kinds", "values", "old"),
    [(WHOLE, ("1", "20", "300"), ("1.0", "20.00", "300")),
     (TIMES, ("2024-01-01", "2024-02-01", "2024-03-01"), ("2024-01-01 00:00:00", "2024-02-01 00:00:00+00", "2024-03-01"))],
)  # fmt: skip
def test_a_key_whose_column_changes_its_type_is_the_same_key(
    engine: Engine, kinds: tuple[str, ...], values: tuple[str, ...], old: tuple[str, ...]
) -> None:
    def b(kind: str) -> BoundSync:
        rows = ", ".join(f"('{v}')" for v in values)
        engine.select(f"SELECT CAST(v AS {kind}) AS id, 'a' AS part, 'hello' AS text FROM (VALUES {rows}) AS t(v)")
        obj = an_object(a_field("text"), operations={Op.CREATE: NEVER}, stream=None)
        return engine.bind(a_sync("text", mode=Mode.APPEND, key={"id": "id", "part": "part"}), obj)

    first = b(kinds[0])
    deliver(engine, first, engine.diff(first, backfill=True), *[Outcome.OK] * 3)
    for kind in kinds:
        assert statuses(engine, engine.diff(b(kind))) == {}, kind
    # and as an earlier release wrote them down
    engine.warehouse.execute("DELETE FROM oploop.appended")
    rows = ", ".join(f"('people', 'crm', 'people', '{o}' || chr(31) || 'a', 'sent', 'r0', now())" for o in old)
    engine.warehouse.execute(f"INSERT INTO oploop.appended VALUES {rows}")
    for kind in kinds:
        if kind != "VARCHAR":
            assert statuses(engine, engine.diff(b(kind))) == {}, kind


def test_an_empty_first_run_counts_as_begun(engine: Engine) -> None:
    b = events(engine)
    appending.begin(engine.warehouse, b.name, at(0))
    assert statuses(engine, engine.diff(events(engine, "1"))) == {"1": "create"}


def test_backfill_sends_what_exists_and_what_failed_is_sent_by_the_next_run(engine: Engine) -> None:
    b = events(engine, "1", "2", "3")
    found = engine.diff(b, backfill=True)
    assert set(statuses(engine, found).values()) == {"create"}
    deliver(engine, b, found, Outcome.OK, Outcome.RETRY, Outcome.REJECTED)
    assert statuses(engine, engine.diff(b)) == {"2": "create", "3": "parked"}


def test_an_unknown_one_that_must_not_be_doubled_waits_for_a_person(engine: Engine) -> None:
    b = events(engine, "1")
    deliver(engine, b, engine.diff(b, backfill=True), Outcome.UNKNOWN)
    assert statuses(engine, engine.diff(b)) == {"1": "parked"}


def test_a_first_run_is_refused_until_it_is_said_to_be_one(engine: Engine) -> None:
    b = events(engine, "1", "2")

    def stops(*allow: str, backfill: bool = False) -> list[str]:
        found = engine.diff(b, backfill=backfill)
        plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow=set(allow))
        return [f.message for f in plan.stops]

    remembered = "first run of this sync, as far as is remembered: "
    assert stops() == [f"{remembered}2 rows would be marked as seen, none sent"]
    assert stops("first", backfill=True) == [f"{remembered}2 changes"]
    assert stops("first-run", backfill=True) == []


def test_rows_without_a_key_or_twice_are_held(engine: Engine) -> None:
    b = events(engine, "1", "1", None, "2")
    assert [r["__status"] for r in engine.plan_rows(engine.diff(b, backfill=True))].count("held") == 3


def test_two_syncs_append_the_same_key_each_once(engine: Engine) -> None:
    b = events(engine, "1")
    deliver(engine, b, engine.diff(b, backfill=True), Outcome.OK)
    other = events(engine, "1", name="others")
    assert statuses(engine, engine.diff(other, backfill=True)) == {"1": "create"}


def test_what_does_not_fit_an_append_is_refused(engine: Engine) -> None:
    events(engine)
    with pytest.raises(FixConfig, match="append needs a key"):
        events(engine, key={})
    with pytest.raises(FixConfig, match="does not fit mode append"):
        events(engine, on_leave=OnLeave.DELETE)
    with pytest.raises(FixConfig, match="does not take mode 'append'"):
        engine.bind(a_sync("text", mode=Mode.APPEND), an_object(a_field("text"), operations={Op.UPDATE: NEVER}))


def test_a_field_of_the_app_may_be_the_key_and_is_sent_then(engine: Engine) -> None:
    engine.model({"email": "VARCHAR"}, [("a@x",)])
    obj = an_object(a_field("text"), operations={Op.CREATE: NEVER}, stream=None)
    b = engine.bind(a_sync(FieldMapping("text", value="hi"), mode=Mode.APPEND), obj)
    [change] = engine.changes(engine.diff(b, backfill=True))
    assert change.fields == {"email": "a@x", "text": "hi"}
