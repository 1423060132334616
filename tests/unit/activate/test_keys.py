"""Keys that an earlier release wrote down in another form: no record is made again, none is taken for left."""

from __future__ import annotations

from typing import Any

from oploop.activate import keys, states, undo
from oploop.activate.bound import BoundSync
from oploop.project import Mode, OnLeave
from oploop.records import FieldType, Op, Operation, Outcome, Replay
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at
from tests.unit.activate.test_appending import deliver
from tests.unit.activate.test_leaving import statuses

OPS = {Op.CREATE: Operation(batch=1, replay=Replay.NEVER), Op.UPDATE: SAFE, Op.REMOVE: SAFE}
#: Of a DECIMAL(10, 2) and a TIMESTAMPTZ: as they were written down, and as they are today.
WAS, IS = "{}.50\x1f2024-01-01 10:00:00+00", "{}.5\x1f2024-01-01 10:00:00"


def bound(engine: Engine, *numbers: int, blind: bool = True, **more: Any) -> BoundSync:
    """A sync of rows by a number and a time, each with the same text."""
    rows = ", ".join(f"({n})" for n in numbers)
    engine.select(
        "SELECT CAST(n + 0.5 AS DECIMAL(10, 2)) AS code, CAST('2024-01-01 10:00:00+00' AS TIMESTAMPTZ) AS at, 'x' AS tier "
        f"FROM (VALUES {rows}) AS t(n)"
    )
    fields = a_field("code", FieldType.NUMBER, key=True), a_field("at", FieldType.TIMESTAMP, key=True), a_field("tier")
    obj = an_object(*fields, operations=OPS, **({"stream": None} if blind else {}))
    given = {"key": {"code": "code", "at": "at"}, "mode": Mode.MIRROR, "on_leave": OnLeave.DELETE} | more
    return engine.bind(a_sync("tier", **given), obj)


def test_what_is_unknown_is_not_sent_again(engine: Engine) -> None:
    for mode in ({}, {"mode": Mode.APPEND, "on_leave": OnLeave.KEEP}):
        engine.reset()
        b = bound(engine, 1, **mode)
        deliver(engine, b, engine.diff(b, backfill=True), Outcome.UNKNOWN)
        engine.warehouse.execute("UPDATE oploop.parked SET key = ?", (WAS.format(1),))
        engine.warehouse.execute("UPDATE oploop.change_rows SET key = ?", (WAS.format(1),))
        keys.bring_to_form(engine.warehouse, b)
        assert statuses(engine, engine.diff(b)) == {IS.format(1): "parked"}


def test_records_that_cannot_be_read_are_known_again(engine: Engine) -> None:
    b = bound(engine, 1, 2)
    engine.identity(WAS.format(1), "r1", b.key_names)
    state = [{"remote_id": WAS.format(n), "acked_at": at(0), "fields": {"tier": ("x", "x")}} for n in (1, 2)]
    engine.state(b, state)
    assert statuses(engine, engine.diff(b)) == {}, "a plan, which may not write"
    for _ in range(2):
        keys.bring_to_form(engine.warehouse, b)
        assert statuses(engine, engine.diff(b)) == {}
    told = engine.warehouse.rows(f"SELECT remote_id FROM {states.state_table(b)} ORDER BY 1")
    assert told == [(IS.format(1),), (IS.format(2),)]
    b = bound(engine, 2)
    [left] = engine.plan_rows(engine.diff(b))
    assert (left["__key"], left["__status"], left["__remote"]) == (IS.format(1), "remove", "r1")


def test_a_record_that_no_read_shows_yet_is_known_again(engine: Engine) -> None:
    b = bound(engine, 1, blind=False)
    engine.records({"code": "DOUBLE PRECISION", "at": "TIMESTAMPTZ", "tier": "VARCHAR"}, [])
    engine.identity(WAS.format(1), "r1", b.key_names)
    engine.state(b, [{"remote_id": "r1", "acked_at": at(0), "fields": {"tier": ("x", "x")}}])
    assert statuses(engine, engine.diff(b)) == {}
    keys.bring_to_form(engine.warehouse, b)
    assert statuses(engine, engine.diff(b)) == {}
    assert engine.warehouse.rows("SELECT canonical_key, remote_id FROM oploop.records") == [(IS.format(1), "r1")]


def test_an_undo_sees_that_a_row_has_come_back(engine: Engine) -> None:
    b = bound(engine, 1, blind=False)
    engine.records(
        {"code": "DOUBLE PRECISION", "at": "TIMESTAMPTZ", "tier": "VARCHAR"}, [("r1", 1.5, at(0), "x", 0, at(0), False)]
    )
    engine.identity(WAS.format(2), "r2", b.key_names)
    shown = f"1.5\x1f{at(0):%Y-%m-%d %H:%M:%S}"
    for key, there in (
        (f"{shown}+00", True),
        (shown, True),
        (WAS.format(2), True),
        (IS.format(2), True),
        (IS.format(3), False),
    ):
        assert engine.warehouse.rows(f"SELECT {undo._live_by_key(b)} FROM (SELECT ? AS key) AS rec", (key,)) == [
            (there,)
        ]
