"""A plan's arithmetic: batches, calls, time, guardrails, summaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.activate import deliver as delivering
from oploop.activate import ledger
from oploop.activate.plan import SyncPlan, as_json, batches, calls, estimate, make_plan, pass_word
from oploop.apps.transport import Budget
from oploop.cli.options import parse_allow
from oploop.cli.show_plan import field_lines
from oploop.project import Check, FieldMapping, Limit, Limits
from oploop.records import CallKind, CallTime, FieldType, Op, Operation, Replay
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at
from tests.unit.activate.script import Clock, ScriptedApp

JOB = Operation(batch=100, single_up_to=2, calls=2, in_flight=10, replay=Replay.SAFE)


@pytest.mark.parametrize(
    ("records", "sizes", "cost"),
    [
        (0, [], 0),
        (1, [1], 1),
        (2, [1, 1], 2),
        (3, [3], 2),
        (100, [100], 2),
        (101, [100, 1], 3),
        (102, [100, 1, 1], 4),
        (103, [100, 3], 4),
        (250, [100, 100, 50], 6),
    ],
)
def test_a_job_is_used_where_it_is_cheaper(records: int, sizes: list[int], cost: int) -> None:
    assert batches(JOB, records) == sizes
    assert calls(JOB, records) == cost


@given(st.integers(1, 50), st.integers(1, 3), st.integers(0, 400))
@settings(database=None, derandomize=True)
def test_batches_are_the_fewest_that_hold_all(batch: int, single: int, records: int) -> None:
    sizes = batches(Operation(batch=batch, single_up_to=min(single, batch)), records)
    assert sum(sizes) == records
    assert all(1 <= s <= batch for s in sizes)
    least = -(-records // batch)
    assert len(sizes) <= least + max(0, min(single, batch) - 1)


def people(engine: Engine, creates: int, updates: int, same: int = 0, held: int = 0, **sync: Any) -> Any:
    """A sync of (email, tier) with so many rows of each kind, bound."""
    engine.warehouse.execute("CREATE SCHEMA IF NOT EXISTS mart")
    engine.select(
        f"SELECT 'c' || lpad(i::VARCHAR, 5, '0') AS email, 'new' AS tier, 1 AS score FROM range({creates}) t(i) UNION ALL "
        f"SELECT 'u' || lpad(i::VARCHAR, 5, '0'), 'new', 1 FROM range({updates}) t(i) UNION ALL "
        f"SELECT 's' || lpad(i::VARCHAR, 5, '0'), 'old', 1 FROM range({same}) t(i) UNION ALL "
        f"SELECT 'h' || lpad(i::VARCHAR, 5, '0'), 'new', 0 FROM range({held}) t(i)"
    )
    engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [])
    for kind, n in (("u", updates), ("s", same)):
        engine.warehouse.execute(
            f"INSERT INTO {engine.raw} SELECT '{kind}' || i, '{kind}' || lpad(i::VARCHAR, 5, '0'), 'old', 0, TIMESTAMPTZ '2025-03-01', "
            f"FALSE FROM range({n}) t(i)"
        )
    operations = sync.pop("operations", None)
    obj = an_object(a_field("tier"), a_field("score", FieldType.INTEGER), operations=operations)
    return engine.bind(a_sync("tier", checks=(Check("score > 0"),), **sync), obj)


def planned(engine: Engine, bound: Any, *allow: str, budget: Budget | None = None) -> SyncPlan:
    return make_plan(engine.diff(bound), engine.warehouse, budget=budget, call_seconds=None, allow=allow)


def delivered_once(engine: Engine, bound: Any) -> None:
    """As if the sync's fields had been delivered before."""
    engine.state(bound, [{"remote_id": "none", "acked_at": at(0), "fields": {"tier": (None, None)}}])
    engine.warehouse.execute(
        "INSERT INTO oploop.sync_runs (run_id, sync, object, status, noted_at) VALUES ('r0', 'people', 'crm.people', 'ok', now())"
    )


@pytest.mark.parametrize(("creates", "updates"), [(0, 0), (1, 0), (7, 9), (23, 1), (24, 26), (50, 50), (3, 97)])
@pytest.mark.parametrize("read_rows", [1, 7, 1000])
def test_a_delivery_makes_the_planned_calls_however_the_plan_is_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, creates: int, updates: int, read_rows: int
) -> None:
    monkeypatch.setattr(delivering, "READ_ROWS", read_rows)
    op = Operation(batch=10, single_up_to=2, calls=2, in_flight=2, replay=Replay.SAFE)
    bound = people(engine, creates, updates, operations={Op.CREATE: op, Op.UPDATE: op})
    plan = planned(engine, bound)
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(0))
    runtime = Clock().runtime()
    app: Any = ScriptedApp([], runtime)
    journal: Any = None
    sender = delivering.Deliverer(
        plan, app, run_id="r1", table=table, warehouse=engine.warehouse, journal=journal, runtime=runtime
    )
    steps = list(sender.steps())
    assert [(s.op, len(s.changes)) for s in steps] == [
        *((Op.CREATE, n) for n in batches(op, creates)),
        *((Op.UPDATE, n) for n in batches(op, updates)),
    ]
    assert [c.number for s in steps for c in s.changes] == list(range(1, creates + updates + 1))
    assert plan.estimate.calls == calls(op, creates) + calls(op, updates)
    assert len({s.id for s in steps}) == len(steps)


def test_time_is_what_the_budget_allows_or_what_the_calls_last(engine: Engine) -> None:
    bound = people(engine, 0, 1000, operations={Op.UPDATE: Operation(batch=1, in_flight=4), Op.CREATE: JOB})
    assert planned(engine, bound).estimate.seconds == 37.5  # 1,000 calls of 0.15 s, 4 at once
    minute = Budget(Clock().runtime(), calls=400, window=60)
    paced = planned(engine, bound, budget=minute).estimate
    assert (paced.calls, paced.seconds) == (1000, pytest.approx(120.0, rel=0.01))
    assert estimate(bound, {"update": 5}, None, {(Op.UPDATE, CallKind.SINGLE): CallTime(2.0, 1)}).seconds == 4.0
    assert estimate(bound, {}, minute, None).seconds == 0.0


@given(st.integers(1, 40), st.integers(0, 120))
@settings(database=None, derandomize=True, max_examples=30, deadline=None)
def test_a_budgets_estimate_is_the_time_that_it_takes(allowed: int, wanted: int) -> None:
    import asyncio

    clock = Clock()
    budget = Budget(clock.runtime(), calls=allowed, window=60)
    said = budget.seconds_for(wanted)

    async def take() -> None:
        for _ in range(wanted):
            await budget.take()

    asyncio.run(take())
    assert clock.seconds == pytest.approx(said, abs=0.01 * max(1, wanted))


@pytest.mark.parametrize(
    ("changes", "rows", "stopped"),
    [(49, 49, False), (50, 50, True), (50, 250, False), (51, 250, True), (60, 299, True), (60, 300, False)],
)
def test_a_share_counts_from_fifty_changes_on_and_only_above_it(
    engine: Engine, changes: int, rows: int, stopped: bool
) -> None:
    bound = people(engine, 0, changes, same=rows - changes)
    delivered_once(engine, bound)
    plan = planned(engine, bound)
    assert [f.check for f in plan.stops] == (["changes"] if stopped else [])
    if stopped:
        seen, most = plan.stops[0].message.removeprefix("changes ").split(" > ")
        assert float(seen.rstrip("%")) > float(most.rstrip("%"))
        word = pass_word(plan.stops[0])
        assert parse_allow((f"people:{word}",), {"people"}) == {"people": {word}}
        assert planned(engine, bound, word).stops == ()
        assert planned(engine, bound, "changes").stops == ()
        assert planned(engine, bound, "changes=1%").stops != ()


def test_a_count_holds_at_any_size(engine: Engine) -> None:
    limits = Limits(changes=Limit(None, 3), held=Limit(None, 1))
    for n, stops in ((3, []), (4, ["changes"])):
        bound = people(engine, n, 0, limits=limits)
        delivered_once(engine, bound)
        assert [f.check for f in planned(engine, bound).stops] == stops
    bound = people(engine, 4, 0, held=2, limits=limits)
    assert [(f.check, pass_word(f)) for f in planned(engine, bound).stops] == [
        ("changes", "changes=4"),
        ("held", "held=2"),
    ]
    assert planned(engine, bound, "changes=4", "held=2").stops == ()
    assert [f.check for f in planned(engine, bound, "changes=3", "held=2").stops] == ["changes"]


def test_held_rows_have_a_guardrail_of_their_own(engine: Engine) -> None:
    for held, stops in ((49, []), (60, ["held"])):
        bound = people(engine, 0, 0, same=300, held=held)
        delivered_once(engine, bound)
        assert [f.check for f in planned(engine, bound).stops] == stops


def test_a_first_delivery_needs_a_yes_and_is_not_measured_by_its_share(engine: Engine) -> None:
    bound = people(engine, 0, 100)
    plan = planned(engine, bound)
    assert [(f.check, f.message, f.stop) for f in plan.findings] == [
        ("first", "first delivery of this sync: 100 changes", True)
    ]
    assert planned(engine, bound, "first").stops == ()
    assert plan.first == ("tier",)
    assert plan.fields[0].overwrites == 100
    assert [f.check for f in planned(engine, people(engine, 0, 0, same=9)).stops] == []


def test_a_new_field_is_a_first_delivery_of_that_field(engine: Engine) -> None:
    bound = people(engine, 0, 60, same=10)
    delivered_once(engine, bound)
    obj = an_object(a_field("tier"), a_field("score", FieldType.INTEGER))
    engine.records({"email": "VARCHAR", "tier": "VARCHAR", "score": "BIGINT"}, [])
    more = engine.bind(a_sync("tier", "score"), obj)
    plan = planned(engine, more)
    assert plan.first == ("score",)
    assert [f.check for f in plan.stops] == ["first", "changes"]
    assert planned(engine, more, "first", "changes=100%").stops == ()


def test_the_median_of_very_many_numbers_is_about_right_and_said_to_be(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oploop.warehouse.duckdb_values.EXACT_MEDIAN", 1_000)
    engine.model({"email": "VARCHAR", "n": "BIGINT"}, [(f"p{i}", i * i) for i in range(2_001)])
    engine.records({"email": "VARCHAR", "n": "BIGINT"}, [])
    plan = planned(
        engine, engine.bind(a_sync("n"), an_object(a_field("n", FieldType.INTEGER))), "first", "changes=100%"
    )
    [n] = plan.fields
    assert n.median is not None
    before, after = n.median
    assert before is None
    assert after == pytest.approx(1_000_000, rel=0.01)
    [line] = field_lines(plan)
    assert ("median about " in line) is engine.warehouse.columnar, line
    assert "median " in line


def test_a_summary_says_what_moves(engine: Engine) -> None:
    engine.model(
        {"email": "VARCHAR", "tier": "VARCHAR", "n": "BIGINT"},
        [("a", "x", 10), ("b", "x", 20), ("c", None, 30), ("d", "y", None)],
    )
    engine.records(
        {"email": "VARCHAR", "tier": "VARCHAR", "n": "BIGINT"},
        [
            ("1", "a", "y", 1, 0, at(0), False),
            ("2", "b", None, 2, 0, at(0), False),
            ("3", "c", "z", 3, 0, at(0), False),
            ("4", "d", "y", 4, 0, at(0), False),
        ],
    )
    clear = FieldMapping("tier", column="tier", on_null="clear")  # type: ignore[arg-type]
    plan = planned(engine, engine.bind(a_sync(clear, "n"), an_object(a_field("tier"), a_field("n", FieldType.INTEGER))))
    tier, n = plan.fields
    assert (tier.count, tier.overwrites) == (3, 2)
    assert tier.moves == (("empty", "x", 1), ("y", "x", 1), ("z", "empty", 1))
    assert (n.count, n.median) == (3, (2.0, 20.0))
    emptied = replace(plan, fields=(replace(n, median=(2.0, None)),))
    assert "median 2 → empty" in field_lines(emptied)[0]
    shown = as_json(plan, engine.warehouse)
    assert shown["changes"][2] == {
        "key": "c",
        "op": "update",
        "fields": {"tier": {"before": "z", "after": None}, "n": {"before": 3, "after": 30}},
    }
    assert (shown["same"], shown["planned"]) == (1, {"create": 0, "update": 3, "archive": 0, "remove": 0})


def test_what_is_added_to_a_list_and_what_fills_an_empty_one_overwrites_nothing(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "tags": "VARCHAR[]"}, [("a", ["x"]), ("b", ["x"])])
    engine.records(
        {"email": "VARCHAR", "tags": "JSON"},
        [("1", "a", '["old"]', 0, at(0), False), ("2", "b", "[]", 0, at(0), False)],
    )
    obj = an_object(a_field("tags", FieldType.LIST))
    [whole] = planned(engine, engine.bind(a_sync(FieldMapping("tags", column="tags")), obj)).fields
    [added] = planned(engine, engine.bind(a_sync(FieldMapping("tags", add=("x",))), obj)).fields
    assert ((whole.count, whole.overwrites), (added.count, added.overwrites)) == ((2, 1), (2, 0))
