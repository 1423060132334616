"""Another key for a sync that has delivered: refused, or its records are known by the new one."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate import appending, folding, ledger, rekeying
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.plan import make_plan
from oploop.errors import FixConfig
from oploop.project import Mode, OnLeave
from oploop.records import Op, Outcome
from oploop.state import JournalStep
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at, micros

COLUMNS = {"email": "VARCHAR", "ext": "VARCHAR", "tier": "VARCHAR"}
OPS = {Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.REMOVE: SAFE}
BY_EXT = {"key": {"ext": "ext"}}


def bound(engine: Engine, **sync: Any) -> BoundSync:
    obj = an_object(
        a_field("tier"),
        a_field("ext", key=True),
        operations=OPS,
        **({"stream": None} if sync.pop("blind", False) else {}),
    )
    return engine.bind(a_sync("tier", **sync), obj)


def deliver(engine: Engine, b: BoundSync, *ids: str, **more: Any) -> None:
    """All that the diff wants is acknowledged; these are the new records' ids."""
    plan = make_plan(
        engine.diff(b, **more), engine.warehouse, budget=None, call_seconds=None, allow={"first", "first-run"}
    )
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(0))
    new = list(enumerate(ids, 1))
    step = JournalStep("r1", b.name, "s1", 1, plan.changes, 1, Op.CREATE, at(1), at(1), outcome=Outcome.OK, ids=new)
    folding.fold(engine.warehouse, Begun("r1", ledger.spec_of(b, engine.warehouse, None), table, at(0)), [step], at(2))


def raw(engine: Engine, *rows: tuple[str, str | None, str | None]) -> None:
    """The app shows (id, email, ext), long after all writes."""
    engine.records(COLUMNS, [(i, e, x, "gold", micros(500), at(500), False) for i, e, x in rows])


def model(engine: Engine, *rows: tuple[str | None, str | None]) -> None:
    engine.model(COLUMNS, [(e, x, "gold") for e, x in rows])


def test_another_key_or_object_is_refused_with_its_line(engine: Engine) -> None:
    model(engine, ("a", "1"))
    raw(engine)
    old, new = bound(engine), bound(engine, **BY_EXT)
    rekeying.refuse(engine.warehouse, new)
    deliver(engine, old, "id1")
    rekeying.refuse(engine.warehouse, old)
    rekeying.refuse(engine.warehouse, bound(engine, key={"email": "ext"}))
    rekeying.refuse(engine.warehouse, bound(engine, name="other", **BY_EXT))
    with pytest.raises(FixConfig, match="has delivered by key email; by ext it would not know") as e:
        rekeying.refuse(engine.warehouse, new)
    assert "oploop run --rekey people" in str(e.value)
    assert e.value.place is not None
    engine.warehouse.execute("UPDATE oploop.sync_targets SET object = 'firms'")
    with pytest.raises(FixConfig, match=r"has delivered to crm\.firms; with `to: crm\.people` it would begin anew"):
        rekeying.refuse(engine.warehouse, old)


def test_records_are_known_by_the_new_key_also_where_the_app_does_not_hold_it(engine: Engine) -> None:
    model(engine, ("a", "1"), ("b", "2"), ("c", "3"))
    raw(engine, ("idb", "b", None))
    old, new = bound(engine), bound(engine, **BY_EXT)
    deliver(engine, old, "ida", "idc")
    raw(engine, ("ida", "a", None), ("idb", "b", None), ("idc", "c", None))
    engine.complete_read(at(500))
    assert engine.diff(new).count("create") == 3, "without taking over"
    rekeying.move(engine.warehouse, old, new, at(9))
    rekeying.refuse(engine.warehouse, new)
    assert engine.diff(new).counts == {}
    engine.warehouse.execute("UPDATE mart.people SET tier = 'new'")
    assert [(c.op, c.remote_id) for c in engine.changes(engine.diff(new))] == [
        (Op.UPDATE, i) for i in ("ida", "idb", "idc")
    ]


def test_who_made_a_record_moves_too_and_nobody_leaves_by_it(engine: Engine) -> None:
    model(engine, ("a", "1"), ("b", "2"), ("l", "9"), ("k", "8"))
    raw(engine)
    deliver(engine, bound(engine), "ida", "idb", "idk", "idl")
    model(engine, ("a", "1"), ("b", "2"), ("b", "2"))
    raw(engine, ("ida", "a", None), ("idb", "b", None), ("idl", "l", "9"), ("idk", "k", None))
    engine.complete_read(at(500))
    leaving = {"on_leave": OnLeave.DELETE}
    old, new = bound(engine, **leaving), bound(engine, **leaving, **BY_EXT)
    rekeying.move(engine.warehouse, old, new, at(9))
    found = engine.diff(new)
    assert [(c.op, c.remote_id) for c in engine.changes(found)] == [(Op.REMOVE, "idl")], (
        "and not the others, of whom nobody knows"
    )
    model(engine)
    assert {c.remote_id for c in engine.changes(engine.diff(new))} == {"ida", "idl"}


def test_what_is_parked_moves(engine: Engine) -> None:
    model(engine, ("a", "1"), ("b", "2"))
    raw(engine)
    old, new = bound(engine), bound(engine, **BY_EXT)
    deliver(engine, old, "ida", "idb")
    engine.warehouse.execute("DELETE FROM oploop.record_rows WHERE canonical_key = 'a'")
    engine.warehouse.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, noted_at) VALUES ('people', 'crm', 'people', 'a', 'unknown', ?)",
        [at(0)],
    )
    rekeying.move(engine.warehouse, old, new, at(9))
    assert engine.diff(new).counts == {"parked": 1}


def test_a_blind_sync_knows_what_it_sent_by_the_new_key(engine: Engine) -> None:
    model(engine, ("a", "1"), ("b", "2"), ("c", "3"))
    old, new = bound(engine, blind=True), bound(engine, blind=True, **BY_EXT)
    deliver(engine, old)
    model(engine, ("a", "b"), ("b", "a"))
    rekeying.move(engine.warehouse, old, new, at(9))
    assert engine.diff(new).counts == {}
    assert engine.warehouse.rows("SELECT count(*) FROM oploop_state.crm__people") == [(2,)]


def test_what_was_appended_is_not_sent_again_under_its_new_key(engine: Engine) -> None:
    model(engine, ("a", "b"), ("b", "a"), ("c", "x"))
    raw(engine)
    old, new = bound(engine, mode=Mode.APPEND), bound(engine, mode=Mode.APPEND, **BY_EXT)
    found = engine.diff(old)
    appending.mark_seen(engine.warehouse, old, found.table, "r0", at(0))
    rekeying.note(engine.warehouse, old, at(0))
    model(engine, ("a", "b"), ("b", "a"), ("d", "c"))
    other_column = bound(engine, mode=Mode.APPEND, key={"email": "ext"})
    with pytest.raises(FixConfig, match="by key"):
        rekeying.refuse(engine.warehouse, other_column)
    rekeying.move(engine.warehouse, old, new, at(9))
    assert [c.key for c in engine.changes(engine.diff(new))] == [{"ext": "c"}], "c was another row's old key"


def test_another_object_is_begun_anew(engine: Engine) -> None:
    model(engine, ("a", "1"))
    raw(engine)
    b = bound(engine, mode=Mode.APPEND)
    engine.warehouse.execute(
        "INSERT INTO oploop.sync_targets VALUES ('people', 'crm', 'firms', 'email', '{}', ?)", [at(0)]
    )
    appending.begin(engine.warehouse, "people", at(0))
    rekeying.begin_anew(engine.warehouse, b, at(9))
    rekeying.refuse(engine.warehouse, b)
    assert engine.diff(b).counts == {"seen": 1}
