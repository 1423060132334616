"""Guardrails on the model itself: empty, halved, full of NULLs; against the last run that came to its end."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate import sync_runs
from oploop.activate.guardrails import pass_word
from oploop.activate.plan import SyncPlan, make_plan
from oploop.cli.options import parse_allow
from oploop.project import FieldMapping, Limit, Limits
from oploop.records import Field, FieldType
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at

TIER, SCORE = a_field("tier"), a_field("score", FieldType.INTEGER)


def bound(engine: Engine, rows: int, nulls: int = 0, *fields: FieldMapping | str, **sync: Any) -> Any:
    """A model of so many rows, so many of them without a tier."""
    engine.select(
        f"SELECT 'c' || i AS email, CASE WHEN i >= {nulls} THEN 'x' END AS tier, i AS score FROM range({rows}) t(i)"
    )
    engine.records({"email": "VARCHAR", "tier": "VARCHAR", "score": "BIGINT"}, [])
    return engine.bind(a_sync(*(fields or ("tier", "score")), **sync), an_object(TIER, SCORE))


def planned(engine: Engine, b: Any, *allow: str, **more: Any) -> SyncPlan:
    found = engine.diff(b, **more)
    return make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first", "held", *allow})


def note(engine: Engine, plan: SyncPlan, run: str, status: str = "nothing") -> None:
    sync_runs.note_sync_run(engine.warehouse, plan, run, status, {}, at(0))


@pytest.mark.parametrize(
    ("last", "now", "message"),
    [
        (100, 49, "rows 51% > 50% fewer: 100 in the last run, 49 now"),
        (100, 50, None),
        (1000, 499, "rows 50.10% > 50.00% fewer: 1,000 in the last run, 499 now"),
        (49, 1, None),  # of so few a share says nothing
        (3, 0, "rows 100% > 50% fewer: 3 in the last run, 0 now"),
        (0, 0, None),
        (0, 9, None),
        (10, 500, None),
    ],
)
def test_a_model_that_shrinks_stops(engine: Engine, last: int, now: int, message: str | None) -> None:
    note(engine, planned(engine, bound(engine, last)), "r1")
    b = bound(engine, now)
    stops = planned(engine, b).stops
    assert [f.message for f in stops] == ([message] if message else [])
    if stops:
        word = pass_word(stops[0])
        assert parse_allow((f"people:{word}",), {"people"}) == {"people": {word}}
        assert planned(engine, b, word).stops == ()
        assert planned(engine, b, "rows").stops == ()
        assert [f.check for f in planned(engine, b, "rows=3%").stops] == ["rows"]
        off = bound(engine, now, limits=Limits(rows=Limit(1.0)))
        assert planned(engine, off).stops == ()


def test_only_runs_that_ended_and_looked_at_the_whole_model_count(engine: Engine) -> None:
    note(engine, planned(engine, bound(engine, 100)), "r1", "ok")
    note(engine, planned(engine, bound(engine, 100), key="c7"), "r2", "ok")
    note(engine, planned(engine, bound(engine, 10), "rows"), "r3", "stopped")
    note(engine, planned(engine, bound(engine, 10), "rows"), "r4", "failed")
    assert [f.check for f in planned(engine, bound(engine, 10)).stops] == ["rows"]
    assert planned(engine, bound(engine, 10), key="c7").stops == ()
    note(engine, planned(engine, bound(engine, 10), "rows"), "r5", "ok")
    assert planned(engine, bound(engine, 10)).stops == ()


@pytest.mark.parametrize(
    ("then", "now", "rows", "message"),
    [
        (0, 21, 100, "nulls 21% > 20% more in tier: 0% of the rows in the last run, 21% now"),
        (0, 20, 100, None),
        (70, 95, 100, "nulls 25% > 20% more in tier: 70% of the rows in the last run, 95% now"),
        (95, 0, 100, None),
        (0, 49, 49, None),
    ],
)
def test_nulls_that_rise_in_a_field_stop(engine: Engine, then: int, now: int, rows: int, message: str | None) -> None:
    note(engine, planned(engine, bound(engine, rows, then)), "r1")
    b = bound(engine, rows, now)
    stops = planned(engine, b).stops
    assert [(f.message, f.field) for f in stops] == ([(message, "tier")] if message else [])
    if stops:
        assert planned(engine, b, pass_word(stops[0])).stops == ()
        assert [f.check for f in planned(engine, b, "nulls=1%", "rows", "changes").stops] == ["nulls"]
        assert planned(engine, bound(engine, rows, now, limits=Limits(nulls=Limit(0.5)))).stops == ()


def test_a_new_field_and_a_constant_have_no_past(engine: Engine) -> None:
    note(engine, planned(engine, bound(engine, 100, 0, "score")), "r1")
    assert planned(engine, bound(engine, 100, 100, "tier", "score")).stops == ()
    constant = FieldMapping("tier", value="x")
    note(engine, planned(engine, bound(engine, 100, 0, constant)), "r2")
    assert engine.warehouse.rows("SELECT DISTINCT field FROM oploop.field_nulls WHERE run_id = 'r2'") == []


def test_nulls_are_counted_where_the_condition_holds_and_of_json_too(engine: Engine) -> None:
    engine.select(
        "SELECT 'c' || i AS email, CASE WHEN i < 60 THEN 'null'::JSON ELSE '1'::JSON END AS j FROM range(200) t(i)"
    )
    engine.records({"email": "VARCHAR", "j": "JSON"}, [])
    obj = an_object(Field("j", FieldType.JSON, source=a_field("j").source))
    found = engine.diff(engine.bind(a_sync("j", where="email <> 'c1'"), obj))
    assert (found.rows, found.nulls) == (199, {"j": 59})
