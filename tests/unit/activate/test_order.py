"""Who goes first, and what is left when the account's quota is used up."""

from __future__ import annotations

import pytest

from oploop.apps.transport import Answer, QuotaSpent
from oploop.errors import FixConfig
from oploop.records import FieldType, Op, Operation, Replay
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at
from tests.unit.apps.wire import Wire

ONE = Operation(batch=1, replay=Replay.NEVER)


def ranked(engine: Engine, count: int, *order: str) -> list[str]:
    """The keys of a plan of creates (even rows) and updates (odd ones), in the order in which they go."""
    rows = [(f"p{i:05}", None if i == 7 else (i * 37) % count) for i in range(count)]
    engine.model({"email": "VARCHAR", "spend": "BIGINT"}, rows)
    held = [(str(i), f"p{i:05}", -1, 0, at(0), False) for i in range(1, count, 2)]
    engine.records({"email": "VARCHAR", "spend": "BIGINT"}, held)
    obj = an_object(a_field("spend", FieldType.INTEGER), operations={Op.CREATE: ONE, Op.UPDATE: ONE})
    b = engine.bind(a_sync("spend", order_by=order, on_null="clear"), obj)
    return [str(c.key["email"]) for c in engine.changes(engine.diff(b))]


def test_the_syncs_own_order_goes_before_the_keys(engine: Engine) -> None:
    spend = {f"p{i:05}": (i * 37) % 100 for i in range(100) if i != 7}
    keys = ranked(engine, 100, "spend desc")
    creates, updates = [k for k in keys if int(k[1:]) % 2 == 0], [k for k in keys if int(k[1:]) % 2]
    assert keys == creates + updates, "calls of one kind stay together"
    assert creates == sorted(creates, key=lambda k: -spend[k])
    assert updates[-1] == "p00007", "what has no rank goes last"
    assert updates[:-1] == sorted(updates[:-1], key=lambda k: -spend[k])


def test_of_many_the_first_thousand_go_before_the_others_whatever_is_done_with_them(engine: Engine) -> None:
    keys = ranked(engine, 2500, "spend desc", "email")
    spend = {f"p{i:05}": -1 if i == 7 else (i * 37) % 2500 for i in range(2500)}
    first = keys[:999]
    assert min(spend[k] for k in first) > max(spend[k] for k in keys[1001:])


def test_a_column_that_is_not_there_is_named(engine: Engine) -> None:
    with pytest.raises(FixConfig, match="has no column 'spent'"):
        ranked(engine, 2, "spent desc")


async def test_an_app_that_lets_nobody_call_for_hours_is_not_waited_for() -> None:
    wire = Wire([(429, {"retry-after": "7200"}, b"{}")])
    with pytest.raises(QuotaSpent, match=r"lets nobody call for 2\.0 hours"):
        await wire.transport().request("POST", "x")
    assert (wire.tries, wire.clock.slept) == (1, [])
    waited = Wire([(429, {"retry-after": "60"}, b"{}"), 200])
    assert isinstance(await waited.transport().request("POST", "x"), Answer)
