"""The plan table of a large delivery stands in the ledger as if its rows had been written there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oploop.activate import folding, ledger, plan, volumes
from oploop.activate.chunks import read_chunks
from oploop.activate.plan import make_plan
from oploop.activate.retention import retain
from oploop.errors import FixData
from oploop.project import Retention
from oploop.warehouse.base import NoRoom, SqlError
from tests.unit.activate.engine import Engine, at
from tests.unit.activate.test_ledger import CREATES, fold, kept, step, world
from tests.warehouses import columnar

LOG = "SELECT * FROM oploop.change_log ORDER BY run_id, number"
CHANGES = "SELECT * EXCLUDE (run_id, planned_at, event_at) FROM oploop.changes ORDER BY run_id, key"


def delivered(engine: Engine, run_id: str = "r1") -> tuple[Any, str]:
    """Six of eight changes are begun, one of them refused."""
    bound = world(engine)
    _, table = kept(engine, bound, run_id)
    steps = [step(1, CREATES, exceptions=[(2, "rejected", "no")], ids=[(1, "n1")]), step(5, 6)]
    fold(engine, bound, table, steps, run_id)
    return bound, table


def tables(engine: Engine) -> list[str]:
    return [t for t in engine.warehouse.tables() if t.startswith("oploop_state.plan_")]


@columnar
def test_a_volume_says_what_rows_would_say(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered(engine)
    rows, changes = engine.warehouse.rows(LOG), engine.warehouse.rows(CHANGES)
    assert (len(rows), len(changes)) == (6, 6)
    assert tables(engine) == []
    engine.reset()
    monkeypatch.setattr(volumes, "FROM", 6)
    _, table = delivered(engine)
    assert engine.warehouse.rows(LOG) == rows
    assert engine.warehouse.rows(CHANGES) == changes
    assert tables(engine) == [table]
    assert engine.warehouse.rows("SELECT count(*) FROM oploop.change_rows") == [(0,)]
    ledger.ensure(engine.warehouse)  # as the next process does
    assert engine.warehouse.rows(LOG) == rows


@columnar
def test_of_a_first_load_nothing_is_kept_for_what_was_not_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    bound = world(engine)
    engine.records({"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}, [])
    _, table = kept(engine, bound)
    assert [k for c, k in engine.warehouse.columns(table).items() if c in ("b0", "b1")] == ["INTEGER", "INTEGER"]
    fold(engine, bound, table, [step(1, CREATES)])
    first = "SELECT before::VARCHAR, after::VARCHAR FROM oploop.changes ORDER BY key LIMIT 1"
    assert engine.warehouse.rows(first) == [
        ('{"we\'ird \\"f.x\\"":null,"n":null}', '{"we\'ird \\"f.x\\"":"it\'s 0","n":0}')
    ]


@columnar
def test_the_oldest_volume_becomes_rows_when_there_are_many(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    monkeypatch.setattr(volumes, "MOST", 1)
    delivered(engine, "r1")
    one = engine.warehouse.rows(LOG)
    _, table = delivered(engine, "r2")
    assert tables(engine) == [table]
    assert engine.warehouse.rows("SELECT DISTINCT run_id FROM oploop.change_rows") == [("r1",)]
    assert engine.warehouse.rows(LOG.replace(" ORDER", " WHERE run_id = 'r1' ORDER")) == one
    assert engine.warehouse.rows("SELECT run_id, count(*) FROM oploop.changes GROUP BY 1 ORDER BY 1") == [
        ("r1", 6),
        ("r2", len(engine.warehouse.rows(LOG)) - 6),
    ]


@columnar
def test_a_fold_that_fails_leaves_no_volume(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    bound = world(engine)
    _, table = kept(engine, bound)
    monkeypatch.setattr(folding, "_park", lambda *_: engine.warehouse.execute("SELECT nothing"))
    with pytest.raises(FixData):
        fold(engine, bound, table, [step(1, CREATES)])
    assert engine.warehouse.rows(LOG) == []
    assert volumes.standing(engine.warehouse) == []
    assert [d.plan_table for d in ledger.unfolded(engine.warehouse)] == [table]
    monkeypatch.undo()
    fold(engine, bound, table, [step(1, CREATES)])
    assert len(engine.warehouse.rows(LOG)) == CREATES


@columnar
def test_what_its_time_is_over_leaves_a_volume_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FROM", 1)
    delivered(engine)
    retain(engine.warehouse, Retention(changes=1.0), at(100_000))
    held = [r[2] for r in engine.warehouse.rows(LOG)]
    assert held == [1, 2, 5, 6]  # the last of their records, or parked; the other two told no id
    assert engine.warehouse.rows("SELECT count(*) FROM oploop.change_outcomes") == [(4,)]
    engine.warehouse.execute("DELETE FROM oploop.parked")
    engine.warehouse.execute('DELETE FROM oploop_state."crm__people"')
    retain(engine.warehouse, Retention(changes=1.0), at(100_000))
    assert (engine.warehouse.rows(LOG), tables(engine), volumes.standing(engine.warehouse)) == ([], [], [])


def test_a_ledger_of_an_earlier_release_is_opened(engine: Engine) -> None:
    delivered(engine)
    w = engine.warehouse
    told = (LOG, "SELECT * FROM oploop.change_outcomes ORDER BY number", "SELECT * FROM oploop.records")
    before, others = w.rows(LOG), [w.rows(q) for q in told]
    assert all(others)
    with w.transaction():  # where the views stand now, tables stood
        w.execute("DROP VIEW oploop.changes")
        w.execute("DROP TABLE oploop.volumes")
        w.execute("DROP TABLE oploop.volumes_told")
        for view, rows in (
            ("change_log", "change_rows"),
            ("change_outcomes", "outcome_rows"),
            ("records", "record_rows"),
        ):
            w.execute(f"DROP VIEW oploop.{view}")
            w.execute(f"ALTER TABLE oploop.{rows} RENAME TO {view}")
        w.execute(
            "CREATE VIEW oploop.changes AS SELECT l.run_id, l.sync, l.app, l.object, l.key, l.op, CAST(l.before AS JSON) AS before, "
            "CAST(l.after AS JSON) AS after, CAST(l.why AS JSON) AS why, o.status, o.error, o.attempts, o.remote_id, l.planned_at, "
            "o.sent_at, o.confirmed_at, o.event_at, l.release FROM oploop.change_log l JOIN oploop.change_outcomes o ON o.number = l.number"
        )
    ledger.ensure(w)
    ledger.ensure(w)
    assert [w.rows(q) for q in told] == others
    assert w.rows("SELECT count(*) FROM oploop.changes") == [(len(before),)]
    assert w.rows("SELECT count(*) FROM oploop.change_rows") == [(len(before),)]


@columnar
def test_of_a_volume_only_what_is_asked_for_is_made(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered(engine, "r0")
    monkeypatch.setattr(volumes, "FROM", 1)
    delivered(engine, "r1")
    _, table = delivered(engine, "r2")
    w = engine.warehouse
    numbers = [r[2] for r in w.rows(LOG) if r[0] == "r1"]
    w.execute(
        "CREATE TEMP TABLE wanted AS SELECT run_id, sync, number FROM oploop.change_log l WHERE run_id = 'r0' AND number = 5 "
        f"OR run_id = 'r1' AND number IN ({numbers[0]}, {numbers[1]})"
    )
    found = volumes.among(w, "wanted")
    assert table not in found  # of that run nothing is asked
    assert sorted(w.rows(found)) == [
        r for r in w.rows(LOG) if (r[0], r[2]) in {("r0", 5), *(("r1", n) for n in numbers[:2])}
    ]
    assert len(w.rows(found)) == 3
    v = next(v for v in volumes.standing(w) if v.run_id == "r1")
    unread = replace(v, before="error('made')", after="error('made')")
    with pytest.raises(SqlError, match="made"):
        w.rows(unread.select())
    assert w.rows(unread.select("(SELECT * FROM wanted WHERE number < 0)")) == []


def test_a_read_of_the_plan_that_lacks_memory_goes_on_without_the_bound(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    w, lifted, real, streams = engine.warehouse, [], engine.warehouse.stream, []

    def stream(sql: str, params: Any = (), *, batch_rows: int) -> Any:
        streams.append(sql)
        for n, batch in enumerate(real(sql, params, batch_rows=batch_rows)):
            for row in range(batch.num_rows):
                if len(streams) == 1 and row + n == 3:
                    raise NoRoom("out of memory")
                yield batch.slice(row, 1)

    monkeypatch.setattr(w, "stream", stream)
    monkeypatch.setattr(w, "unbound", lambda: lifted.append(1))
    read = [
        n for _, part in read_chunks(bound, w, table, lambda *_: 3) for n in part.rows.column("__number").to_pylist()
    ]
    assert (read, lifted) == (list(range(1, 9)), [1])


def test_a_fold_that_lacks_memory_is_done_without_the_bound(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = world(engine)
    _, table = kept(engine, bound)
    real, tries = folding._park, []

    def park(*given: Any) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise NoRoom("out of memory")
        real(*given)

    monkeypatch.setattr(folding, "_park", park)
    with engine.warehouse.bounded(100):
        fold(engine, bound, table, [step(1, CREATES)])
    assert len(tries) == 2
    assert len(engine.warehouse.rows(LOG)) == CREATES


@columnar
def test_what_a_large_plan_shows_is_counted_in_little_memory_or_without_the_bound(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, w, real, limits = world(engine), engine.warehouse, plan._summary, []

    def summary(*given: Any) -> Any:
        limits.append(w.rows("SELECT current_setting('memory_limit')")[0][0])
        if len(limits) == 1:
            raise NoRoom("out of memory")
        return real(*given)

    monkeypatch.setattr(plan, "_summary", summary)
    usual = w.rows("SELECT current_setting('memory_limit')")[0][0]
    small = make_plan(engine.diff(bound), w, budget=None, call_seconds=None)
    assert {*limits} == {usual}
    limits.clear()
    monkeypatch.setattr(volumes, "FROM", 8)
    assert make_plan(engine.diff(bound), w, budget=None, call_seconds=None).fields == small.fields
    assert limits == [limits[0], *[usual] * len(bound.fields)]
    assert limits[0] != usual


@columnar
def test_what_takes_more_memory_than_allowed_says_so(engine: Engine) -> None:
    w = engine.warehouse
    query = "SELECT max(x) FROM (SELECT list(i) AS x FROM range(10000000) t(i))"
    with w.bounded(60):
        with pytest.raises(NoRoom, match="Out of Memory"):
            w.rows(query)
        with pytest.raises(NoRoom, match="Out of Memory"):
            list(w.stream(query))
        w.unbound()
        assert len(w.rows(query)) == 1
    assert len(w.rows(query)) == 1


@columnar
def test_only_where_it_is_said_rows_may_lose_their_order(engine: Engine) -> None:
    asked = "SELECT current_setting('preserve_insertion_order'), current_setting('disabled_compression_methods')"
    w = engine.warehouse
    [usual] = w.rows(asked)
    assert usual[0] is True
    with w.bulk(lasting=False):
        assert w.rows(asked)[0][0] is True
    with w.bulk(lasting=False, ordered=False):
        assert w.rows(asked)[0][0] is False
    assert w.rows(asked) == [usual]
