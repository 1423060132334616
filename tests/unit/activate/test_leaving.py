"""Rows that leave the model: cleared, archived, removed, and only what is ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from oploop.activate import folding, ledger, states
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.diff import Diff
from oploop.activate.plan import make_plan
from oploop.errors import FixConfig
from oploop.project import Adopt, FieldMapping, Limit, Limits, Mode, OnDeleted, OnLeave
from oploop.records import FieldType, Op
from oploop.state import JournalStep
from oploop.verify import Target, Watched, read_back, to_fetch
from oploop.warehouse.base import quote_table
from tests.unit.activate.engine import SAFE, Engine, a_field, a_sync, an_object, at, micros

OPS = {Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.REMOVE: SAFE, Op.ARCHIVE: SAFE}
TIER, TAGS, CODE = a_field("tier"), a_field("tags", FieldType.LIST), a_field("code", nullable=False)


def bound(engine: Engine, *fields: FieldMapping | str, **more: Any) -> BoundSync:
    sync = a_sync(*(fields or ("tier",)), **({"on_leave": OnLeave.DELETE} | more))
    return engine.bind(sync, an_object(TIER, TAGS, CODE, operations=OPS))


def world(engine: Engine, model: list[tuple[str | None, str]], records: list[tuple[str, str | None, str]]) -> None:
    """A model of (email, tier) and an app of (id, email, tier), read completely long after all writes."""
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, model)
    rows = [(i, e, t, None, None, micros(500), at(500), False) for i, e, t in records]
    engine.records({"email": "VARCHAR", "tier": "VARCHAR", "tags": "VARCHAR", "code": "VARCHAR"}, rows)
    engine.complete_read(at(500))


def made(engine: Engine, b: BoundSync, *ids: tuple[str, str], fields: dict[str, Any] | None = None) -> None:
    """Records (id, key) that this sync created."""
    for remote_id, key in ids:
        engine.identity(key, remote_id)
    given = fields or {"tier": ("gold", "gold")}
    engine.state(b, [{"remote_id": i, "acked_at": at(0), "fields": given} for i, _ in ids])


def statuses(engine: Engine, found: Diff) -> dict[str, str]:
    return {r["__key"]: r["__status"] for r in engine.plan_rows(found)}


def deliver(engine: Engine, b: BoundSync, found: Diff, *, version: float = 600) -> None:
    """The plan's changes all acknowledged, and folded."""
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r9", at(600))
    step = JournalStep("r9", b.name, "s1", 1, plan.changes, 1, Op.REMOVE, at(600), at(600))
    step.outcome, step.version = "ok", micros(version)  # type: ignore[assignment]
    folding.fold(
        engine.warehouse, Begun("r9", ledger.spec_of(b, engine.warehouse, None), table, at(600)), [step], at(601)
    )


def test_only_records_that_we_made_are_removed(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"))
    engine.state(b, [{"remote_id": "3", "acked_at": at(0), "fields": {"tier": ("gold", "gold")}}])  # only updated by us
    found = engine.diff(b)
    assert statuses(engine, found) == {"b": "remove"}
    [change] = engine.changes(found)
    assert (change.op, change.remote_id, change.key, change.fields) == (Op.REMOVE, "2", {"email": "b"}, {})
    assert (found.rows, found.same, found.left) == (1, 1, 1)


def test_many_records_are_looked_for_in_the_model_at_once(engine: Engine) -> None:
    """Not one by one in all of it, as Postgres did for 150,000 records without an end."""
    count, numbers = 20_000, "generate_series({}, 20000) AS t(g)"
    columns = {"email": "VARCHAR", "tier": "VARCHAR"}
    engine.model(columns, [])
    engine.records({**columns, "tags": "VARCHAR", "code": "VARCHAR"}, [])
    engine.complete_read(at(500))
    b = bound(engine)
    made(engine, b)
    key, then = "CAST(g AS VARCHAR)", "TIMESTAMPTZ '{}'"
    rows = {
        "mart.people": f"{key}, 'gold' FROM {numbers.format(3)}",
        quote_table(
            engine.raw
        ): f"'r' || {key}, {key}, 'gold', NULL, NULL, {micros(500)}, {then.format(at(500))}, FALSE "
        f"FROM {numbers.format(1)}",
        "oploop.record_rows": f"'crm', 'people', 'email', {key}, 'r' || {key}, 'r1', {then.format(at(0))} FROM {numbers.format(1)}",
        f"{states.state_table(b)} (remote_id, sync, acked_at)": f"'r' || {key}, 'people', {then.format(at(0))} FROM {numbers.format(1)}",
    }
    for table, select in rows.items():
        engine.warehouse.execute(f"INSERT INTO {table} SELECT {select}")
    if engine.warehouse.dialect == "postgres":  # it takes a third of a second; one by one it took over twenty
        engine.warehouse.connection.execute("SET statement_timeout = '6s'")
    try:
        found = engine.diff(b)
    finally:
        if engine.warehouse.dialect == "postgres":
            engine.warehouse.connection.execute("SET statement_timeout = 0")
    assert (found.same, found.left) == (count - 2, 2)


def test_adopting_all_widens_it_to_what_we_wrote_and_in_a_mirror_to_all_that_is_there(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "gold")])
    b = bound(engine, adopt=Adopt.ALL)
    engine.state(b, [{"remote_id": "3", "acked_at": at(0), "fields": {"tier": ("gold", "gold")}}])
    assert statuses(engine, engine.diff(b)) == {"c": "remove"}
    mirror = bound(engine, mode=Mode.MIRROR, adopt=Adopt.ALL)
    assert statuses(engine, engine.diff(mirror)) == {"b": "remove", "c": "remove"}


def test_held_rows_have_not_left_and_rows_after_where_have(engine: Engine) -> None:
    world(engine, [("a", "gold"), ("b", "x" * 9), ("c", "free")], [(str(n), k, "gold") for n, k in enumerate("abc")])
    short = an_object(a_field("tier", max_length=5), TAGS, CODE, operations=OPS)
    b = engine.bind(a_sync("tier", on_leave=OnLeave.DELETE, where="tier <> 'free'"), short)
    made(engine, b, ("1", "b"), ("2", "c"))
    assert statuses(engine, engine.diff(b)) == {"b": "held", "c": "remove"}


def test_a_row_without_a_key_keeps_all(engine: Engine) -> None:
    world(engine, [("a", "gold"), (None, "gold")], [("1", "a", "gold"), ("2", "b", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"))
    found = engine.diff(b)
    assert statuses(engine, found) == {"b": "left", None: "held"}
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None)
    [said] = [f for f in plan.findings if f.check == "nameless"]
    assert (said.stop, said.message) == (False, "1 left the model, and are kept: 1 of its rows have no key")


def test_a_record_whose_key_somebody_changed_to_another_of_ours_has_not_left(engine: Engine) -> None:
    world(engine, [("new", "gold")], [("2", "new", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "old"))
    assert statuses(engine, engine.diff(b)) == {}


def test_a_record_that_shows_the_key_of_a_held_row_has_not_left(engine: Engine) -> None:
    world(engine, [("b", "gold")], [("1", "b", "gold"), ("2", "b", "gold")])
    b = bound(engine)
    made(engine, b, ("1", "old"), ("2", "older"))  # somebody gave both the same key
    assert statuses(engine, engine.diff(b)) == {"b": "held"}


def test_what_is_gone_in_the_app_is_not_removed_again(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"))  # a complete read would have shown it
    assert statuses(engine, engine.diff(b)) == {}
    engine.warehouse.execute(f"INSERT INTO {engine.raw} VALUES ('2', 'b', 'gold', NULL, NULL, 1, ?, TRUE)", [at(500)])
    assert statuses(engine, engine.diff(b)) == {}


def test_removed_records_are_forgotten_and_a_row_that_comes_back_makes_a_new_one(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"))
    deliver(engine, b, engine.diff(b))
    assert statuses(engine, engine.diff(b)) == {}, "removed once"
    [row] = engine.warehouse.rows("SELECT op, status, key, remote_id, before, after FROM oploop.changes")
    assert row[:4] == ("remove", "sent", "b", "2")
    assert [orjson.loads(text) for text in row[4:]] == [{"tier": "gold"}, {}]
    engine.warehouse.execute("INSERT INTO mart.people VALUES ('b', 'gold')")
    assert statuses(engine, engine.diff(b)) == {"b": "create"}, "the old read still shows it, and is no news"
    engine.warehouse.execute(f"UPDATE {engine.raw} SET _deleted = TRUE, _extracted_at = ? WHERE id = '2'", [at(700)])
    assert statuses(engine, engine.diff(b)) == {"b": "create"}, "we removed it: no person did"


async def test_a_removal_whose_answer_was_lost_was_ours_once_a_read_shows_that_it_is_gone(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "gold"), ("4", "d", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"), ("3", "c"), ("4", "d"))
    plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r9", at(600))
    cut_off = JournalStep("r9", b.name, "s1", 1, 3, 1, Op.REMOVE, at(600))  # the run died before the answer
    folding.fold(
        engine.warehouse,
        Begun("r9", ledger.spec_of(b, engine.warehouse, None), table, at(600)),
        [cut_off],
        at(601),
    )
    engine.warehouse.execute(f"UPDATE {engine.raw} SET _deleted = TRUE, _extracted_at = ? WHERE id = '2'", [at(700)])
    engine.warehouse.execute(f"DELETE FROM {engine.raw} WHERE id = '3'")  # a complete read must have shown it
    engine.warehouse.execute("UPDATE oploop.streams SET complete_began = ?", [at(700)])
    engine.warehouse.execute("INSERT INTO mart.people VALUES ('b', 'gold'), ('c', 'gold')")
    assert statuses(engine, engine.diff(b)) == {"b": "gone", "c": "gone", "d": "remove"}
    watched = Watched("tier", "tier", "r.tier", "VARCHAR", FieldType.TEXT)
    target = Target(b.name, "crm", "people", engine.raw, "id", states.state_table(b), (watched,), at(700))
    await read_back(target, engine.warehouse, fetch=None, now=at(701), within_run=False)
    assert statuses(engine, engine.diff(b)) == {"b": "create", "c": "create", "d": "remove"}
    rows = dict(engine.warehouse.rows("SELECT remote_id, status FROM oploop.changes"))
    assert rows == {"2": "confirmed", "3": "confirmed", "4": "unknown"}


def test_archived_records_are_archived_once_though_the_app_still_shows_them(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold")])
    b = bound(engine, mode=Mode.MIRROR, adopt=Adopt.ALL, on_leave=OnLeave.ARCHIVE)
    assert statuses(engine, engine.diff(b)) == {"b": "archive"}
    deliver(engine, b, engine.diff(b))
    engine.warehouse.execute(f"UPDATE {engine.raw} SET _extracted_at = ?", [at(900)])
    assert statuses(engine, engine.diff(b)) == {}


def test_clearing_takes_only_what_we_set_and_what_still_stands(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "Silver"), ("4", "d", "gold")])
    b = bound(engine, "tier", FieldMapping("code", column="tier"), on_leave=OnLeave.CLEAR)
    for i in ("2", "3"):  # 4 was never written by us; 3 was changed by somebody
        known = {"tier": ("gold", "gold"), "code": ("gold", "gold")}
        engine.state(b, [{"remote_id": i, "acked_at": at(0), "fields": known}])
    found = engine.diff(b)
    assert statuses(engine, found) == {"b": "update", "c": "kept", "a": "update"}
    change = next(c for c in engine.changes(found) if c.remote_id == "2")
    assert (change.op, change.fields) == (Op.UPDATE, {"tier": None}), "code cannot be cleared"


def test_clearing_takes_back_the_tags_that_were_added(engine: Engine) -> None:
    engine.model({"email": "VARCHAR"}, [("a",)])
    rows = [("2", "b", None, '["mine","theirs"]', None, micros(500), at(500), False)]
    engine.records({"email": "VARCHAR", "tier": "VARCHAR", "tags": "VARCHAR", "code": "VARCHAR"}, rows)
    b = bound(engine, FieldMapping("tags", add=("mine",)), on_leave=OnLeave.CLEAR)
    tags = '["mine","theirs"]'
    engine.state(b, [{"remote_id": "2", "acked_at": at(0), "fields": {"tags": (tags, tags)}}])
    [change] = [c for c in engine.changes(engine.diff(b)) if c.remote_id == "2"]
    assert change.fields == {"tags": ["theirs"]}


def test_removes_need_a_limit_that_allows_them(engine: Engine) -> None:
    world(engine, [("a", "gold")], [(str(n), f"p{n}", "gold") for n in range(3)])
    b = bound(engine)
    made(engine, b, *((str(n), f"p{n}") for n in range(3)))
    found = engine.diff(b)

    def stops(sync: BoundSync = b, *allow: str) -> list[str]:
        plan = make_plan(
            engine.diff(sync) if sync is not b else found,
            engine.warehouse,
            budget=None,
            call_seconds=None,
            allow={"first", *allow},
        )
        return [f.message for f in plan.stops]

    assert stops() == ["removes 3 > 0"]
    assert stops(b, "removes=3") == []
    assert stops(b, "removes=2") == ["removes 3 > 0"]
    assert stops(bound(engine, limits=Limits(removes=Limit(count=5)))) == []


def test_an_empty_model_stops_a_mirror(engine: Engine) -> None:
    world(engine, [], [("1", "a", "gold")])
    b = bound(engine, mode=Mode.MIRROR, adopt=Adopt.ALL, limits=Limits(removes=Limit(count=5)))
    plan = make_plan(engine.diff(b), engine.warehouse, budget=None, call_seconds=None, allow={"first", "changes"})
    assert [f.check for f in plan.stops] == ["empty"]


def test_a_record_that_was_deleted_in_the_app_is_made_again_only_if_asked(engine: Engine) -> None:
    world(engine, [("b", "gold")], [])
    engine.warehouse.execute(f"INSERT INTO {engine.raw} VALUES ('2', 'b', 'old', NULL, NULL, 1, ?, TRUE)", [at(500)])
    left = bound(engine, on_leave=OnLeave.KEEP)
    made(engine, left, ("2", "b"))
    assert statuses(engine, engine.diff(left)) == {"b": "gone"}
    again = bound(engine, on_leave=OnLeave.KEEP, on_deleted=OnDeleted.RECREATE)
    found = engine.diff(again)
    [change] = engine.changes(found)
    assert (change.op, change.remote_id, change.fields) == (Op.CREATE, None, {"email": "b", "tier": "gold"})
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(plan, engine.warehouse, "r9", at(600))
    step = JournalStep("r9", again.name, "s1", 1, 1, 1, Op.CREATE, at(600), at(600), ids=[(1, "77")])
    step.outcome = "ok"  # type: ignore[assignment]
    folding.fold(
        engine.warehouse,
        Begun("r9", ledger.spec_of(again, engine.warehouse, None), table, at(600)),
        [step],
        at(601),
    )
    assert engine.warehouse.rows("SELECT remote_id FROM oploop.records WHERE canonical_key = 'b'") == [("77",)]
    assert statuses(engine, engine.diff(again)) == {}


def test_a_blind_record_is_removed_by_its_key(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, [("a", "gold")])
    blind = an_object(TIER, operations=OPS, stream=None)
    b = engine.bind(a_sync("tier", on_leave=OnLeave.DELETE), blind)
    engine.state(b, [{"remote_id": k, "acked_at": at(0), "fields": {"tier": ("gold", "gold")}} for k in "ab"])
    engine.identity("b", "77")
    [change] = engine.changes(engine.diff(b))
    assert (change.op, change.remote_id, change.key) == (Op.REMOVE, "77", {"email": "b"})


def test_one_key_asked_for_leaves_the_others_alone(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"), ("3", "c"))
    assert statuses(engine, engine.diff(b, key="c")) == {"c": "remove"}
    assert statuses(engine, engine.diff(b, key="a")) == {}


def test_what_the_object_cannot_do_is_refused(engine: Engine) -> None:
    world(engine, [], [])
    plain = an_object(TIER)
    with pytest.raises(FixConfig, match=r"crm\.people cannot delete records"):
        engine.bind(a_sync("tier", on_leave=OnLeave.DELETE), plain)
    with pytest.raises(FixConfig, match="cannot archive records"):
        engine.bind(a_sync("tier", on_leave=OnLeave.ARCHIVE), plain)
    with pytest.raises(FixConfig, match="adopt says which records may be removed"):
        engine.bind(a_sync("tier", adopt=Adopt.ALL), plain)


def test_plan_rows_of_left_records_have_typed_keys(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "n": "BIGINT"}, [("a", 1)])
    engine.records({"email": "VARCHAR", "n": "BIGINT", "tier": "VARCHAR"}, [])
    number = a_field("n", FieldType.INTEGER, key=True)
    obj = an_object(number, a_field("email", key=True), TIER, operations=OPS)
    b = engine.bind(
        a_sync(FieldMapping("tier", value="x"), key={"email": "email", "n": "n"}, on_leave=OnLeave.DELETE), obj
    )
    engine.identity("b\x1f7", "2", key_fields="email,n")
    engine.state(b, [{"remote_id": "2", "acked_at": at(0), "fields": {"tier": ("x", "x")}}])
    found = engine.diff(b)
    rows = engine.warehouse.rows(f"SELECT k0, k1 FROM {quote_table(found.table)} WHERE __status = 'remove'")
    assert rows == [("b", 7)]


async def test_what_was_removed_is_looked_for_until_a_read_tells(engine: Engine) -> None:
    world(engine, [("a", "gold")], [("1", "a", "gold"), ("2", "b", "gold"), ("3", "c", "gold"), ("4", "d", "gold")])
    b = bound(engine)
    made(engine, b, ("2", "b"), ("3", "c"), ("4", "d"))
    deliver(engine, b, engine.diff(b))
    watched = Watched("tier", "tier", "r.tier", "VARCHAR", FieldType.TEXT)
    target = Target(b.name, "crm", "people", engine.raw, "id", states.state_table(b), (watched,), at(400))
    assert sorted(to_fetch(target, engine.warehouse, "r9", limit=9)) == ["2", "3", "4"]

    async def seen(vouched: float) -> tuple[dict[str, int], int]:
        looked = await read_back(
            replace(target, vouched=at(vouched)), engine.warehouse, fetch=None, now=at(999), within_run=False
        )
        return looked.counts, looked.waiting

    assert await seen(500) == ({}, 3), "what was read before the removal tells nothing"
    engine.warehouse.execute(f"UPDATE {engine.raw} SET _deleted = TRUE WHERE id = '2'")
    engine.warehouse.execute(
        f"UPDATE {engine.raw} SET _extracted_at = ? WHERE id = '3'", [at(700)]
    )  # somebody restored it
    engine.warehouse.execute(f"DELETE FROM {engine.raw} WHERE id = '4'")
    assert await seen(500) == ({"confirmed": 1, "drifted": 1}, 1)
    assert await seen(650) == ({"confirmed": 2, "drifted": 1}, 0), "a complete read must have shown the third"
    rows = dict(engine.warehouse.rows("SELECT remote_id, status FROM oploop.changes WHERE op = 'remove'"))
    assert rows == {"2": "confirmed", "3": "drifted", "4": "confirmed"}
    [(confirmed,)] = engine.warehouse.rows("SELECT count(confirmed_at) FROM oploop.changes")
    assert confirmed == 2
