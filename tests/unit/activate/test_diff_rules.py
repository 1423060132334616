"""What the diff does with one thing at a time: conditions, checks, keys, parked changes, blind syncs, names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from oploop.activate import diff as diffing
from oploop.errors import FixConfig
from oploop.project import Check, FieldMapping
from oploop.records import FieldType, Op, Operation, Replay
from tests.unit.activate.engine import SAFE, Engine, a_field, a_stream, a_sync, an_object, at, micros

TIER = a_field("tier")


def one(engine: Engine, rows: list[tuple[Any, ...]], records: list[tuple[Any, ...]] = []) -> None:  # noqa: B006
    """A model of (email, tier) and an app of (id, email, tier), all read at one time."""
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, rows)
    engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [(*r, 0, at(0), False) for r in records])


def test_rows_where_the_condition_does_not_hold_are_not_looked_at(engine: Engine) -> None:
    one(engine, [("a", "x"), ("a", "y"), ("b", None)])
    found = engine.diff(engine.bind(a_sync("tier", where="tier = 'x'"), an_object(TIER)))
    assert (found.rows, found.counts) == (1, {"create": 1})


def test_checks_hold_rows_where_they_are_false_and_not_where_they_are_unknown(engine: Engine) -> None:
    one(engine, [("a", "x"), ("b", "y"), ("c", None)])
    found = engine.diff(engine.bind(a_sync("tier", checks=(Check("tier = 'x'", name="tier is x"),)), an_object(TIER)))
    assert found.counts == {"create": 2, "held": 1}
    assert engine.held(found) == [("b", "check failed: tier is x")]


def test_a_check_that_stops_is_hidden_by_no_other_fault_of_a_row(engine: Engine) -> None:
    one(engine, [("a", "bad"), ("a", "bad"), (None, "bad"), ("c", "bad, and too long")])
    checks = (Check("tier <> 'x'"), Check("tier NOT LIKE 'bad%'", stop=True))
    found = engine.diff(engine.bind(a_sync("tier", checks=checks), an_object(a_field("tier", max_length=5))))
    assert diffing.stopping(found, engine.warehouse) == [("check failed: tier NOT LIKE 'bad%'", 4)]


def test_each_held_row_has_its_reason_also_of_a_key_that_is_doubled(engine: Engine) -> None:
    one(engine, [("a", "x"), ("a", "y"), (None, "x"), ("b", "x"), ("c", "{}")], [("1", "b", "x"), ("2", "b", "y")])
    found = engine.diff(engine.bind(a_sync("tier"), an_object(a_field("tier", enum=("x", "y")))))
    assert sorted(engine.held(found), key=lambda h: h[0] or "") == [
        (None, "key email is empty"),
        ("a", "this key is in more than one row of the model"),
        ("a", "this key is in more than one row of the model"),
        ("b", "this key is that of more than one record in the app"),
        ("c", 'tier: "{}" is not one of x, y'),
    ]
    assert found.counts == {"held": 5}
    assert dict(diffing.held_reasons(found, engine.warehouse))["this key is in more than one row of the model"] == 2


@pytest.mark.parametrize("kind", ["VARCHAR", "BIGINT"])
@pytest.mark.parametrize("beside", [0, 1, 9], ids=lambda n: f"{n} records without a row")
def test_keys_that_come_twice_are_found_where_the_app_holds_what_their_rows_want(
    engine: Engine, kind: str, beside: int
) -> None:
    twice = "this key is in more than one row of the model"
    field = FieldType.TEXT if kind == "VARCHAR" else FieldType.INTEGER
    obj = an_object(a_field("email", field, key=True), TIER)
    for extra, held, counts in (
        ([], [], {}),
        ([("3", "x")], [("3", twice)], {"held": 2}),  # as the app has it, both times
        ([("8", "x"), ("8", "x"), ("9", "x")], [("8", twice)], {"held": 2, "create": 1}),
        ([(None, "x"), (None, "x"), ("3", "y")], [(None, "key email is empty"), ("3", twice)], {"held": 4}),
    ):
        engine.model({"email": kind, "tier": "VARCHAR"}, [*((str(n), "x") for n in range(6)), *extra])
        engine.records(
            {"email": kind, "tier": "VARCHAR"},
            [(str(n), str(n), "x", 0, at(0), False) for n in (*range(6), *range(10, 10 + beside))],
        )
        found = engine.diff(engine.bind(a_sync("tier"), obj, a_stream(primary_key=("email",))))
        assert set(engine.held(found)) == set(held)
        assert len(engine.held(found)) == found.count("held")
        assert found.counts == counts


def test_what_a_new_record_needs_is_needed_only_of_new_ones(engine: Engine) -> None:
    one(engine, [("a", None), ("b", None)], [("1", "a", "x")])
    obj = an_object(a_field("tier", required=True))
    found = engine.diff(engine.bind(a_sync("tier"), obj))
    assert engine.held(found) == [("b", "tier: is NULL, and a new record needs it")]
    assert engine.diff(engine.bind(a_sync("tier", mode="update"), obj)).counts == {"missing": 1}
    with pytest.raises(FixConfig, match="needs tier, which the sync does not map") as e:
        engine.bind(
            a_sync(FieldMapping("other", value="x")), an_object(a_field("tier", required=True), a_field("other"))
        )
    assert "mode: update" in str(e.value)


def test_names_that_differ_only_by_case_are_refused(engine: Engine) -> None:
    one(engine, [])
    obj = an_object(a_field("Plan"), a_field("plan"))
    for a, b, says in (("Plan", "plan", "differs only by case"), ("plan", "plan", "mapped twice")):
        with pytest.raises(FixConfig, match=says):
            engine.bind(a_sync(FieldMapping(a, column="tier"), FieldMapping(b, column="tier")), obj)


def test_a_key_of_several_fields_is_one_key_and_incomplete_ones_are_held(engine: Engine) -> None:
    engine.model(
        {"a": "VARCHAR", "b": "BIGINT", "tier": "VARCHAR"},
        [("x", 1, "n"), ("x", 2, "n"), ("x", None, "n"), ("x,1", 1, "n")],
    )
    engine.records({"a": "VARCHAR", "b": "BIGINT", "tier": "VARCHAR"}, [("1", "x", 2, "old", 0, at(0), False)])
    obj = an_object(a_field("a", key=True), a_field("b", FieldType.INTEGER, key=True), TIER)
    bound = engine.bind(a_sync("tier", key={"a": "a", "b": "b"}), obj)
    found = engine.diff(bound)
    assert found.counts == {"create": 2, "update": 1, "held": 1}
    update = engine.changes(found)[-1]
    assert (update.key, update.remote_id, update.fields) == ({"a": "x", "b": 2}, "1", {"tier": "n"})
    only = engine.diff(bound, key="x,2")
    assert [c.key for c in engine.changes(only)] == [{"a": "x", "b": 2}]


def test_whole_numbers_are_joined_as_numbers(engine: Engine) -> None:
    engine.model({"n": "INTEGER", "tier": "VARCHAR"}, [(1, "n"), (2, "n"), (2, "n"), (None, "n"), (3, "n")])
    records = [(str(i), i, "n" if i == 3 else "old", 0, at(0), False) for i in (1, 2, 3)]
    engine.records({"number": "BIGINT", "tier": "VARCHAR"}, records)
    obj = an_object(a_field("number", FieldType.INTEGER, key=True), TIER)
    found = engine.diff(engine.bind(a_sync("tier", key={"number": "n"}), obj))
    assert found.counts == {"update": 1, "held": 3}
    assert [c.key for c in engine.changes(found)] == [{"number": 1}]
    texts = {"number": "JSON", "tier": "VARCHAR"}  # the app gives numbers as texts
    engine.records(texts, [(str(i), f'"{i}"', "n", 0, at(0), False) for i in (1, 3)])
    assert engine.diff(engine.bind(a_sync("tier", key={"number": "n"}), obj)).counts == {"held": 3}


def test_key_and_limit_take_part_of_a_plan(engine: Engine) -> None:
    one(engine, [(k, "x") for k in "abcde"], [("1", "e", "old")])
    bound = engine.bind(a_sync("tier"), an_object(TIER))
    assert [c.key["email"] for c in engine.changes(engine.diff(bound, limit=2))] == ["a", "b"]
    assert [c.key["email"] for c in engine.changes(engine.diff(bound, limit=99))] == list("abcde")
    only = engine.diff(bound, key="c")
    assert (only.rows, only.counts) == (1, {"create": 1})
    assert engine.diff(bound, key="it's").counts == {}


def parked(engine: Engine, key: str, wanted: str | None, reason: str = "rejected", sync: str = "people") -> None:
    engine.warehouse.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at) VALUES (?, 'crm', 'people', ?, ?, ?, NULL, 'r1', ?)",
        (sync, key, reason, wanted, at(0)),
    )


def test_what_is_parked_waits_until_the_model_wants_something_else(engine: Engine) -> None:
    one(engine, [("a", "it's"), ("b", "x"), ("c", "x"), ("d", "x")], [("1", "a", "old"), ("2", "b", "old")])
    parked(engine, "a", '{"tier":"it\'s"}')
    parked(engine, "b", '{"tier":"another"}')
    parked(engine, "c", None, "unknown")
    parked(engine, "d", None, "unknown", sync="other")
    found = engine.diff(engine.bind(a_sync("tier"), an_object(TIER)))
    assert found.counts == {"parked": 2, "update": 1, "create": 1}
    assert [(c.number, c.key["email"]) for c in engine.changes(found)] == [(1, "d"), (2, "b")]


def test_a_blind_sync_compares_with_what_it_sent(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, [("a", "x"), ("b", "x"), ("c", None)])
    obj = an_object(TIER, operations={Op.UPSERT: SAFE}, stream=None)
    bound = engine.bind(a_sync("tier"), obj)
    assert engine.diff(bound).counts == {"create": 3}
    engine.state(bound, [{"remote_id": k, "acked_at": at(0), "fields": {"tier": ("x", "x")}} for k in "abc"])
    assert engine.diff(bound).counts == {}
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, [("a", "y"), ("b", "x"), ("c", None)])
    assert [(c.op, c.key, c.fields) for c in engine.changes(engine.diff(bound))] == [
        (Op.UPSERT, {"email": "a"}, {"tier": "y"})
    ]


def test_the_app_finds_the_record_itself_where_the_key_is_one_of_its_own(engine: Engine) -> None:
    one(engine, [("a", "x")])
    upsert = Operation(replay=Replay.SAFE, keys=("email",))
    both = an_object(TIER, operations={Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.UPSERT: upsert})
    assert engine.changes(engine.diff(engine.bind(a_sync("tier"), both)))[0].op is Op.UPSERT
    other = an_object(TIER, operations={Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.UPSERT: replace(upsert, keys=("phone",))})
    assert engine.changes(engine.diff(engine.bind(a_sync("tier"), other)))[0].op is Op.CREATE


def test_a_value_that_is_no_number_does_not_break_the_why(engine: Engine) -> None:
    engine.model(
        {"email": "VARCHAR", "tier": "VARCHAR", "k": "DOUBLE", "l": "DOUBLE[]"},
        [("a", "it's", float("nan"), [float("inf")])],
    )
    engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [])
    found = engine.diff(engine.bind(a_sync("tier", explain=("k", "tier", "l")), an_object(TIER)))
    texts = {"k": "NaN", "l": "{Infinity}"} if engine.warehouse.dialect == "postgres" else {"k": "nan", "l": "[inf]"}
    assert orjson.loads(engine.plan_rows(found)[0]["__why"]) == {"tier": "it's", **texts}


@pytest.mark.parametrize(("a", "b"), [("a-b", "a_b"), ("Ab", "ab"), ("a", "a-")])
def test_no_two_syncs_share_a_plan_table(a: str, b: str) -> None:
    first, second = (diffing.plan_table_name(n, "01RUN") for n in (a, b))
    assert first.lower() != second.lower()
    assert first.isidentifier()


def test_an_object_with_a_dot_in_its_name_has_a_state(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, [("a", "x")])
    obj = replace(an_object(TIER, stream=None, operations={Op.UPSERT: SAFE}), name="public.people")
    bound = engine.bind(replace(a_sync("tier"), object="public.people"), obj)
    engine.state(bound, [{"remote_id": "a", "acked_at": at(0), "fields": {"tier": ("x", "x")}}])
    assert diffing.look(bound, engine.warehouse).has_state
    assert engine.diff(bound).counts == {}
    stream = replace(a_stream(), name="public.people")
    readable = engine.bind(
        replace(a_sync("tier"), object="public.people"), replace(obj, stream="public.people"), stream
    )
    assert readable.raw_table == "raw_crm.public__people__all"


def test_additions_to_a_list_that_the_app_stores_otherwise_are_not_sent_again(engine: Engine) -> None:
    engine.model({"email": "VARCHAR"}, [("a",)])
    engine.records({"email": "VARCHAR", "tags": "JSON"}, [("1", "a", '["very","vip"]', micros(9), at(9), False)])
    tags = FieldMapping("tags", add=("Very VIP",))
    bound = engine.bind(a_sync(tags), an_object(a_field("tags", FieldType.LIST)))
    engine.state(
        bound,
        [
            {
                "remote_id": "1",
                "acked_at": at(0),
                "receipt_version": 0,
                "fields": {"tags": ('["Very VIP"]', '["very","vip"]')},
            }
        ],
    )
    assert engine.diff(bound).counts == {}
    more = engine.bind(a_sync(replace(tags, add=("Very VIP", "new"))), an_object(a_field("tags", FieldType.LIST)))
    assert engine.changes(engine.diff(more))[0].fields == {"tags": ["Very VIP", "new", "very", "vip"]}


@pytest.mark.parametrize(
    ("version", "read_at", "receipt", "lag", "read", "news"),
    [
        (11, 11, 10, 0, None, True),
        (10, 11, 10, 0, None, True),  # the version that our own write made
        (9, 11, 10, 0, None, False),  # read later, but as it was before
        (11, 10, 10, 0, None, False),  # the read began before our write was acknowledged
        (11, 9, 10, 60, 80, True),  # 80: a complete read that began so late has seen it
        (11, 9, 10, 60, 70, False),
        (0, 69, None, 60, None, False),
        (0, 71, None, 60, None, True),
    ],
)
def test_a_read_is_news_by_its_version_and_its_time(
    engine: Engine, version: int, read_at: int, receipt: int | None, lag: int, read: int | None, news: bool
) -> None:
    engine.model({"email": "VARCHAR", "tier": "VARCHAR"}, [("a", "gold")])
    engine.records({"email": "VARCHAR", "tier": "VARCHAR"}, [("1", "a", "old", micros(version), at(read_at), False)])
    bound = engine.bind(a_sync(FieldMapping("tier", column="tier", conflict="ours")), an_object(TIER), a_stream(lag))  # type: ignore[arg-type]
    state = {"remote_id": "1", "acked_at": at(10), "receipt_version": None if receipt is None else micros(receipt)}
    engine.state(bound, [{**state, "fields": {"tier": ("gold", "gold")}}])
    if read is not None:
        engine.complete_read(at(read))
    assert engine.diff(bound).counts == ({"update": 1} if news else {})
