"""Rows of the state that change take a new place where they stand apart, and say the same there as where they stood."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate import folding, ledger, states
from oploop.activate.begun import Begun
from oploop.activate.plan import make_plan
from oploop.records import FieldType, Op, Outcome
from oploop.state import JournalStep
from oploop.warehouse import duckdb
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at
from tests.warehouses import columnar

pytestmark = columnar
COLUMNS = {"email": "VARCHAR", "a": "VARCHAR", "n": "BIGINT"}
MANY = 60


def world(engine: Engine) -> Any:
    """Records of which every twentieth differs in one field, and one that is new; their state of all kinds."""
    rows = [(f"p{i:02}", "new" if i % 20 == 0 else "as it is", i) for i in range(MANY)]
    engine.model(COLUMNS, [*rows, ("q", "made", 7)])
    held = [(f"r{i:02}", f"p{i:02}", "as it is", i, 0, at(0), False) for i in range(MANY)]
    engine.records(COLUMNS, held)
    obj = an_object(a_field("a"), a_field("n", FieldType.INTEGER), operations={Op.CREATE: SAFE, Op.UPDATE: SAFE})
    bound = engine.bind(a_sync("a", "n"), obj)
    fields = {"a": ("as it is", "as it is"), "n": (3, 4)}
    engine.state(bound, [{"remote_id": f"r{i:02}", "acked_at": at(-9), "fields": fields} for i in range(MANY)])
    table = states.state_table(bound)
    w = engine.warehouse
    w.execute(
        f"UPDATE {table} SET run_id = 'r0', number = 1, settled_at = acked_at, log_sync = 'was', receipt_version = 0"
    )
    # NULL: of a release that knew of no `as_sent`
    for kind, which in (("NULL", "r00"), ("TRUE", "r20"), ("FALSE", "r40")):
        w.execute(f"UPDATE {table} SET as_sent = {kind} WHERE remote_id = '{which}'")
    w.execute(f"INSERT INTO {table} (remote_id, sync, run_id, number) VALUES ('r00', 'another', 'r0', 1)")
    w.execute(f'ALTER TABLE {table} ADD COLUMN "gone.sent" VARCHAR')  # a field that the sync maps no more
    w.execute(f"""UPDATE {table} SET "gone.sent" = 'kept ' || remote_id""")
    return bound


def delivered(engine: Engine) -> tuple[list[tuple[Any, ...]], list[str]]:
    """What the state says of each row after a delivery, and whose rows stand behind all others."""
    engine.reset()
    bound, w = world(engine), engine.warehouse
    plan = make_plan(engine.diff(bound), w, budget=None, call_seconds=None)
    assert plan.diff.counts == {"create": 1, "update": 3}
    kept = ledger.keep_plan(plan, w, "r1", at(1), release=None)
    ended = {"attempt": 1, "began_at": at(4), "ended_at": at(5), "outcome": Outcome.OK, "version": 9}
    steps = [
        JournalStep("r1", "people", "s1", 1, 1, op=Op.CREATE, ids=[(1, "made")], **ended),
        JournalStep("r1", "people", "s2", 2, 4, op=Op.UPDATE, **ended),
    ]
    folding.fold(w, Begun("r1", ledger.spec_of(bound, w, None), kept, at(1)), steps, at(9))
    table = states.state_table(bound)
    stored = ", ".join(f'{states.stored("s", n)} AS "{n}.stored"' for n in ("a", "n"))
    told = w.rows(f"SELECT * REPLACE ({stored}) FROM {table} AS s ORDER BY remote_id, sync")
    last = w.rows(f"SELECT remote_id FROM {table} WHERE rowid > (SELECT max(rowid) FROM {table} WHERE run_id = 'r0')")
    return told, sorted(r[0] for r in last)


def test_a_moved_row_says_what_a_merged_one_does(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    merged, behind = delivered(engine)
    assert behind == ["made"]
    monkeypatch.setattr(duckdb, "ROW_GROUP", 1)
    moved, behind = delivered(engine)
    assert behind == ["made", "r00", "r20", "r40"]
    assert moved == merged
    assert len(moved) == MANY + 2
