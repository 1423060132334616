"""Where the app holds nothing, the short statement says what the long one says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from oploop.activate import diff as diffing
from oploop.activate import fresh, ledger, volumes
from oploop.activate.plan import make_plan
from oploop.project import Check, FieldMapping
from oploop.records import FieldType, Op, Operation
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at
from tests.warehouses import columnar

MODEL = {"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT", "day": "VARCHAR"}
ROWS = [
    ("b@x", "it's", 3, "2025-01-01"),
    ("a@x", None, 1, "2025-01-01"),
    ("c@x", "long text", 2, "no day"),
    ("d@x", "x", None, None),
    ("d@x", "y", 5, None),
    (None, "z", 6, None),
    ("e@x", "w", -1, None),
]
COLUMNS = {"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT", "day": "DATE"}


def bound_of(engine: Engine, *, create: bool = True, **sync: Any) -> Any:
    engine.model(MODEL, ROWS)
    engine.records(COLUMNS, [])
    operations = {Op.CREATE: SAFE, Op.UPDATE: SAFE} if create else {Op.UPDATE: Operation(batch=1)}
    obj = an_object(
        a_field("a", max_length=8),
        a_field("n", FieldType.INTEGER, key=True),
        a_field("day", FieldType.DATE),
        operations=operations,
    )
    fields = ("a", FieldMapping("n", column="n", on_null="clear"), "day")
    more: dict[str, Any] = {"explain": ("n",), "checks": (Check("n >= 0"),)}
    return engine.bind(a_sync(*fields, **(more | sync)), obj)


@columnar
@pytest.mark.parametrize(
    "sync", [{}, {"mode": "update"}, {"order_by": ("n DESC",)}, {"checks": (Check("n >= 0", stop=True),)}]
)
def test_it_says_what_the_long_statement_says(
    engine: Engine, sync: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bound_of(engine, create=sync.get("mode") != "update", **sync)
    known = diffing.look(bound, engine.warehouse)
    assert fresh.is_fresh(bound, engine.warehouse, known)
    short = engine.diff(bound)
    monkeypatch.setattr(fresh, "is_fresh", lambda *_: False)
    long = engine.diff(bound)
    assert short.counts == long.counts
    assert engine.plan_rows(short) == engine.plan_rows(long)
    assert engine.held(short) == engine.held(long)
    assert diffing.shown_changes(short, engine.warehouse, None) == diffing.shown_changes(long, engine.warehouse, None)
    assert list(engine.warehouse.columns(short.table)) == list(engine.warehouse.columns(long.table))


@columnar
@pytest.mark.parametrize("what", ["a record", "an identity", "something removed", "something parked", "state"])
def test_not_where_anything_is_held_or_remembered(engine: Engine, what: str) -> None:
    bound, w = bound_of(engine), engine.warehouse
    if what == "a record":
        engine.records(COLUMNS, [("r1", "q@x", "a", 1, None, 0, at(0), True)])
    elif what == "an identity":
        w.execute("INSERT INTO oploop.record_rows VALUES ('crm', 'people', 'email', 'a@x', 'r1', 'r', ?)", (at(0),))
    elif what == "something removed":
        w.execute(
            "INSERT INTO oploop.removed VALUES ('crm', 'people', 'r1', 'a@x', 'remove', 'people', 'r', 1, ?)", (at(0),)
        )
    elif what == "something parked":
        w.execute(
            "INSERT INTO oploop.parked (sync, app, object, key, reason, noted_at) VALUES ('people', 'crm', 'people', 'a@x', 'rejected', ?)",
            (at(0),),
        )
    else:
        w.execute(
            'CREATE TABLE oploop_state."crm__people" (remote_id VARCHAR, sync VARCHAR, run_id VARCHAR, number BIGINT, '
            'acked_at TIMESTAMPTZ, receipt_version BIGINT, settled_at TIMESTAMPTZ, "a.sent" VARCHAR, "a.stored" VARCHAR, "a.at" TIMESTAMPTZ)'
        )
        assert fresh.is_fresh(bound, w, diffing.look(bound, w))
        w.execute("INSERT INTO oploop_state.\"crm__people\" (remote_id, sync) VALUES ('r1', 'people')")
    assert not fresh.is_fresh(bound, w, diffing.look(bound, w))


@columnar
@pytest.mark.parametrize(
    "sync", [{}, {"mode": "update"}, {"order_by": ("n DESC",)}, {"explain": ()}, {"key": {"n": "n"}}, {"limit": 1}]
)
def test_a_plan_that_stays_has_what_a_temporary_one_has(
    engine: Engine, sync: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    sync = dict(sync)
    limit = sync.pop("limit", None)
    bound = bound_of(engine, create=sync.get("mode") != "update", **sync)
    looked = diffing.diff(bound, engine.warehouse, table="looked", limit=limit)
    stands = diffing.diff(bound, engine.warehouse, table="stands", limit=limit, lasting=True)
    assert stands.table == "oploop_state.stands"
    assert list(engine.warehouse.columns(stands.table)) == list(engine.warehouse.columns(looked.table))
    names = ", ".join(c for c in engine.warehouse.columns("looked") if c != "__value")
    both = [f"SELECT {names} FROM {table}" for table in (looked.table, stands.table)]
    for one, other in (both, reversed(both)):
        assert engine.warehouse.rows(f"{one} EXCEPT ALL {other}") == []
    assert looked.counts == stands.counts
    assert engine.held(looked) == engine.held(stands)


@columnar
def test_what_all_rows_have_is_not_written(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `a` has rows without a value: whether it is sent differs from row to row."""
    monkeypatch.setattr(volumes, "FROM", 1)
    w = engine.warehouse
    engine.model({"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}, [("a@x", None, 1), ("b@x", "x", 2)])
    engine.records({"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}, [])
    bound = engine.bind(
        a_sync("a", "n"),
        an_object(a_field("a"), a_field("n", FieldType.INTEGER), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE}),
    )
    found = diffing.diff(bound, w, table="stands", lasting=True)
    assert w.rows(f"SELECT __number, c0, c1, b1 FROM {found.table} ORDER BY 1") == [
        (1, False, True, None),
        (2, True, True, None),
    ]
    made = w.rows("SELECT sql FROM duckdb_tables() WHERE table_name = 'stands'")[0][0]
    assert "c0 BOOLEAN," in made
    for name in ("c1", "b0", "b1", "d0", "o0", "__left", "__remote", "__status"):
        assert re.search(rf"{name} \w+ GENERATED ALWAYS", made), f"{name} is written: {made}"


@columnar
def test_a_large_plan_is_written_once_where_it_stays(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    bound, w = bound_of(engine), engine.warehouse
    looked = engine.diff(bound)
    assert not looked.stands
    found = diffing.diff(bound, w, table="plan_people_x", lasting=True)
    assert (found.stands, found.table, found.name) == (True, "oploop_state.plan_people_x", "plan_people_x")
    assert engine.plan_rows(found) == engine.plan_rows(looked)
    plan = make_plan(found, w, budget=None, call_seconds=None)
    assert ledger.keep_plan(plan, w, "r1", at(1)) == found.table
    volumes.sweep(w)
    assert found.table in w.tables()
    w.execute("DELETE FROM oploop.deliveries")  # as if it had been stopped
    volumes.sweep(w)
    assert found.table not in w.tables()
