"""The diff against the oracle, over generated worlds; and what a world cannot show."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

from oploop.activate import diff as diffing
from oploop.errors import FixConfig
from oploop.project import Adopt, Check, FieldMapping, Mode, OnLeave
from oploop.records import Canonical, Column, Field, FieldType, JsonEntry, JsonPath, Op, Operation, Replay
from tests.unit.activate.engine import SAFE, Engine, a_field, a_stream, a_sync, an_object, at, micros
from tests.unit.activate.oracle import Record, Row, Spec, State, World, decide, left

REMOVABLE = {Op.CREATE: SAFE, Op.UPDATE: SAFE, Op.REMOVE: SAFE, Op.ARCHIVE: SAFE}
#: One field of each type, under names that SQL and JSON find hard, in the places where apps put values.
FIELDS: dict[str, Field] = {
    f.name: f
    for f in (
        Field('we\'ird "na.me"', FieldType.TEXT, source=JsonPath("custom", ("a/b", 'it\'s."x"'))),
        Field("Mail Alias", FieldType.TEXT, source=Column("Mail Alias"), canonical=Canonical.LOWER, max_length=12),
        Field("tier", FieldType.TEXT, source=Column("tier"), enum=("low", "it's", "50%"), nullable=False),
        Field("cf.360", FieldType.INTEGER, source=JsonEntry("entries", 360)),
        Field("number", FieldType.NUMBER, source=Column("number")),
        Field("select", FieldType.BOOLEAN, source=Column("select")),
        Field("day", FieldType.DATE, source=Column("day")),
        Field("when at", FieldType.TIMESTAMP, source=Column("when at")),
        Field("tags", FieldType.LIST, source=Column("tags")),
        Field("js\\on", FieldType.JSON, source=JsonPath("custom", ("js",))),
    )
}
MODEL_TYPES = {
    FieldType.TEXT: "VARCHAR",
    FieldType.INTEGER: "BIGINT",
    FieldType.NUMBER: "DOUBLE",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
    FieldType.TIMESTAMP: "TIMESTAMPTZ",
    FieldType.LIST: "VARCHAR[]",
    FieldType.JSON: "JSON",
}
RAW_COLUMNS = {
    "email": "VARCHAR",
    "Mail Alias": "VARCHAR",
    "tier": "VARCHAR",
    "number": "DOUBLE",
    "select": "BOOLEAN",
    "day": "DATE",
    "when at": "TIMESTAMPTZ",
    "tags": "JSON",
    "custom": "JSON",
    "entries": "JSON",
}
ODD = [
    "",
    "a",
    "A",
    "a ",
    "b",
    "it's",
    '"',
    "100%",
    "\\",
    "a\nb",
    "\t",
    "\x00",
    "\x1f",
    "🚀",
    "é",
    "NULL",
    "null",
    "{}",
    "?",
    "$1",
    "'; --",
]

texts = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=6)
tag_sets = st.lists(st.sampled_from(["a", "b", "it's", "vip", "é", '"']), max_size=3).map(
    lambda x: tuple(sorted(set(x)))
)
json_texts = st.sampled_from(
    ["0", "1.5", "true", '"x"', '"it\'s"', "[]", "[1,[null]]", "{}", '{"a":1,"b":{"a b":[2,1]}}', '{"é":"🚀"}']
)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.TEXT: texts,
    FieldType.INTEGER: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]),
    FieldType.NUMBER: st.sampled_from([0.0, 0.1, -1.5, 1e300, 5e-324, 123456789.125, float(2**60)]),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.DATE: st.sampled_from(
        [dt.date(1, 1, 1), dt.date(2025, 3, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]
    ),
    FieldType.TIMESTAMP: st.sampled_from(
        [at(0), at(0.000001), at(-1e9), at(0).astimezone(dt.timezone(timedelta(hours=9)))]
    ),
    FieldType.LIST: tag_sets,
    FieldType.JSON: json_texts,
}
SPECIAL = {
    "Mail Alias": st.sampled_from(["jo@x.com", "Jo@X.com ", " ", "", "a@b", "x" * 12, "x" * 13, "ÀÉ", "àé"]),
    "tier": st.sampled_from(["low", "low", "it's", "it's", "50%", "50%", "Low"]),
}


def pool_of(name: str) -> st.SearchStrategy[list[Any]]:
    """A few values of a field, so that equal ones meet; NULL among them now and then."""
    some = st.lists(SPECIAL.get(name, VALUES[FIELDS[name].type]), min_size=3, max_size=3)
    return st.tuples(some, st.sampled_from([[], [None]])).map(lambda x: x[0] + x[1])


@st.composite
def specs(draw: st.DrawFn, name: str) -> Spec:
    f = FIELDS[name]
    add, remove = ((), ())
    if f.type is FieldType.LIST and draw(st.booleans()):
        add, remove = draw(st.sampled_from([(("vip",), ()), (("vip",), ("a",)), ((), ("b", "it's"))]))
    return Spec(
        name,
        f.canonical,
        f.enum,
        f.max_length,
        f.nullable,
        conflict=draw(st.sampled_from(["theirs", "ours", "hold"])),
        on_null=draw(st.sampled_from(["keep", "clear"])),
        if_empty=draw(st.integers(0, 5)) == 0,
        only_create=draw(st.integers(0, 7)) == 0,
        add=add,
        remove=remove,
    )


KEYS = [None, "", "jo@x.com", "Jo@X.com", " jo@x.com", "it's", "a\nb", "100%", "🚀", "b", "c"]
DISTINCT = ["jo@x.com", "it's", "a\nb", "100%", "🚀", "b", "c"]
SECONDS = [-50.0, 0.0, 5.0, 30.0, 50.0, 70.0, 100.0]


def like(key: str, form: Canonical) -> str:
    """The same key in another form."""
    return {Canonical.LOWER: f" {key.upper()}", Canonical.TRIM: f"{key}  "}.get(form, key)


@st.composite
def a_state(draw: st.DrawFn, remote_id: str, pools: Mapping[str, list[Any]], wanted: Mapping[str, Any]) -> State:
    """A state of any values; often of those that the model still wants, so that only the app has moved."""
    acked = draw(st.sampled_from(SECONDS))
    receipt = draw(st.sampled_from([None, micros(acked), micros(acked - 1)]))
    fields = {}
    for n, pool in pools.items():
        if draw(st.integers(0, 4)):
            sent = draw(st.sampled_from([wanted.get(n), wanted.get(n), *pool]))
            fields[n] = (sent, draw(st.just(sent) | st.sampled_from(pool)))
    return State(remote_id, at(acked), receipt, fields)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    names = draw(st.lists(st.sampled_from(list(FIELDS)), min_size=1, max_size=4, unique=True))
    fields = [draw(specs(n)) for n in names]
    form = draw(st.sampled_from([Canonical.EXACT, Canonical.LOWER, Canonical.TRIM]))
    pools = {n: draw(pool_of(n)) for n in names}

    def some(of: list[str]) -> dict[str, Any]:
        return {n: draw(st.sampled_from(pools[n])) for n in of}

    pool = draw(st.permutations(DISTINCT))[: draw(st.integers(1, 6))]
    rows = [Row(k, some(names)) for k in pool if draw(st.integers(0, 7))]
    rows += [Row(draw(st.sampled_from(KEYS)), some(names)) for _ in range(draw(st.sampled_from([0, 0, 0, 1])))]
    records = []
    of_records = [draw(st.sampled_from([k, k, like(k, form)])) for k in pool if draw(st.integers(0, 5))]
    of_records += [draw(st.sampled_from(KEYS)) for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])))]
    for i, k in enumerate(of_records):
        second = draw(st.sampled_from(SECONDS))
        version = draw(st.sampled_from([0, micros(second), micros(second + 1000)]))
        records.append(Record(f"r{i}", k, some(names), version, at(second), draw(st.integers(0, 9)) == 0))
    ids = [f"r{i}" for i in range(len(records) + 2)]  # two that no read has shown
    values = {r.key: r.values for r in rows}
    wants = [values.get(r.key) or values.get(r.key and r.key.strip().lower(), {}) for r in records] + [{}, {}]
    states = [draw(a_state(i, pools, w)) for i, w in zip(ids, wants, strict=True) if draw(st.integers(0, 3))]
    known_keys = sorted({k for k in (key_text(x, form) for x in KEYS) if k})
    identities = draw(st.dictionaries(st.sampled_from(known_keys), st.sampled_from(ids), max_size=2))
    began = draw(st.none() | st.sampled_from(SECONDS).map(at))
    lag = timedelta(seconds=draw(st.sampled_from([0, 60])))
    mode = draw(st.sampled_from(["upsert", "upsert", "update", "create"]))
    return World(mode, form, fields, rows, records, states, identities, began, lag)


def key_text(value: Any, form: Canonical) -> str | None:
    from tests.unit.activate.oracle import key_of

    found: str | None = key_of(value, form)
    return found


def to_sql(name: str, value: Any) -> Any:
    """A value of the world as the state table and the plan table write it."""
    if value is not None and FIELDS[name].type is FieldType.LIST:
        return orjson.dumps(list(value)).decode()
    return value


def raw_row(r: Record) -> list[Any]:
    v = {n: r.values.get(n) for n in FIELDS}
    weird, js = v['we\'ird "na.me"'], v["js\\on"]
    custom = {"a/b": {'it\'s."x"': weird}, "js": None if js is None else orjson.loads(js)}
    entries = [{"id": 359, "value": 1}, {"id": 360, "value": v["cf.360"]}]
    tags = None if v["tags"] is None else orjson.dumps(list(reversed(v["tags"]))).decode()
    columns = [r.key, v["Mail Alias"], v["tier"], v["number"], v["select"], v["day"], v["when at"], tags]
    return [
        r.remote_id,
        *columns,
        orjson.dumps(custom).decode(),
        orjson.dumps(entries).decode(),
        r.version,
        r.read_at,
        r.deleted,
    ]


def model_value(name: str, value: Any) -> Any:
    return list(value) if value is not None and FIELDS[name].type is FieldType.LIST else value


def build(engine: Engine, world: World) -> Any:
    """The world as tables; returns the sync bound to them."""
    names = [f.name for f in world.fields]
    columns = {"email": "VARCHAR", **{n: MODEL_TYPES[FIELDS[n].type] for n in names}}
    engine.model(columns, [[r.key, *(model_value(n, r.values[n]) for n in names)] for r in world.rows])
    engine.records(RAW_COLUMNS, [raw_row(r) for r in world.records])
    mappings = [
        FieldMapping(
            f.name,
            column=None if f.in_place else f.name,
            add=f.add,
            remove=f.remove,
            if_empty=f.if_empty,
            only="create" if f.only_create else None,  # type: ignore[arg-type]
            on_null=f.on_null,  # type: ignore[arg-type]
            conflict=f.conflict,  # type: ignore[arg-type]
        )
        for f in world.fields
    ]
    shown = {"stream": None} if world.blind else {}
    obj = an_object(*(FIELDS[n] for n in names), canonical=world.key_form, operations=REMOVABLE, **shown)
    sync = a_sync(*mappings, mode=Mode(world.mode), on_leave=OnLeave(world.on_leave), adopt=Adopt(world.adopt))
    bound = engine.bind(sync, obj, None if world.blind else a_stream(world.lag.total_seconds()))
    engine.state(bound, [state_row(s) for s in world.states])
    for key, remote_id in world.identities.items():
        engine.identity(key, remote_id)
    for remote_id in world.archived:
        values = ("crm", "people", remote_id, None, "archive", "people", "r0", 1, at(0))
        engine.warehouse.execute("INSERT INTO oploop.removed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    if world.read_began is not None:
        engine.complete_read(world.read_began)
    return bound


def state_row(s: State) -> dict[str, Any]:
    fields = {n: (to_sql(n, sent), to_sql(n, stored)) for n, (sent, stored) in s.fields.items()}
    return {"remote_id": s.remote_id, "acked_at": s.acked_at, "receipt_version": s.receipt, "fields": fields}


def sent_values(change: Any, verdict_sends: Mapping[str, Any]) -> dict[str, Any]:
    out = {}
    for name, value in change.fields.items():
        if name == "email":
            continue
        kind = FIELDS[name].type
        if value is not None and kind is FieldType.LIST:
            value = tuple(value)
        if value is not None and kind is FieldType.JSON:
            value = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        out[name] = value
    return out


class _Undo(Exception):
    """Takes a world back."""


def check(engine: Engine, world: World) -> None:
    assume(engine.warehouse.dialect != "postgres" or "\\x00" not in repr(world))  # no text of Postgres holds it
    with contextlib.suppress(_Undo), engine.warehouse.transaction():
        compare(engine, world)
        raise _Undo


def compare(engine: Engine, world: World) -> None:
    bound = build(engine, world)
    found = engine.diff(bound)
    wanted = decide(world)
    assert found.rows == len(world.rows)
    statuses: dict[str, int] = {}
    for v in wanted:
        statuses[v.status] = statuses.get(v.status, 0) + 1
    event(",".join(sorted(statuses)))
    assert found.same == statuses.pop("same", 0)
    assert found.counts == statuses
    got = {r["__key"]: r["__status"] for r in engine.plan_rows(found) if r["__status"] != "held"}
    assert got == {v.key: v.status for v in wanted if v.status not in ("held", "same")}
    expected = sorted((v for v in wanted if v.status in ("create", "update")), key=lambda v: (v.status, v.key.encode()))
    changes = engine.changes(found)
    assert [c.number for c in changes] == list(range(1, len(expected) + 1))
    for change, v in zip(changes, expected, strict=True):
        assert change.op is (Op.CREATE if v.status == "create" else Op.UPDATE)
        assert change.remote_id == v.remote_id
        assert sent_values(change, v.sends) == dict(v.sends), v
        assert (change.fields.get("email") == change.key["email"]) == (v.status == "create")


RELAXED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.generate, Phase.shrink],
)


@given(world=worlds())
@RELAXED
def test_the_diff_does_what_the_design_says(engine: Engine, world: World) -> None:
    check(engine, world)


def compare_left(engine: Engine, world: World) -> None:
    found = engine.diff(build(engine, world))
    rows = [r for r in engine.plan_rows(found) if r["__left"]]
    wanted = {v.remote_id: v for v in left(world)}
    event(",".join(sorted({v.status for v in wanted.values()})))
    assert sorted((r["__remote"], r["__status"]) for r in rows) == sorted(
        (v.remote_id, v.status) for v in wanted.values()
    )
    numbers = {r["__number"] for r in rows}
    for change in engine.changes(found):
        if change.number in numbers:
            assert change.op is {"clear": Op.UPDATE, "delete": Op.REMOVE, "archive": Op.ARCHIVE}[world.on_leave]
            assert sent_values(change, {}) == dict(wanted[change.remote_id].sends)


@given(
    world=worlds(),
    on_leave=st.sampled_from(["delete", "archive", "clear"]),
    adopt=st.sampled_from(["none", "none", "all", "mirror"]),
    gone=st.integers(0, 4),
    ours=st.integers(0, 255),
    nameless=st.integers(0, 3),
    away=st.integers(0, 15),
)
@settings(RELAXED, max_examples=150)
def test_what_leaves_is_what_the_design_says(
    engine: Engine, world: World, on_leave: str, adopt: str, gone: int, ours: int, nameless: int, away: int
) -> None:
    made = {i: k for k, i in world.identities.items()}  # a record has one key
    shown = {r.remote_id: key_text(r.key, world.key_form) for r in world.records}
    for n, s in enumerate(world.states):
        if ours >> n & 1:
            made.setdefault(s.remote_id, shown.get(s.remote_id) or f"k{n}")
    rows = [*world.rows[gone:]] + ([Row(None, {f.name: None for f in world.fields})] if nameless == 0 else [])
    world = replace(world, on_leave=on_leave, rows=rows, identities={k: i for i, k in made.items()})
    if adopt != "none":
        world = replace(world, adopt="all", mode="mirror" if adopt == "mirror" else world.mode)
    if on_leave == "archive":
        world = replace(world, archived=frozenset(s.remote_id for n, s in enumerate(world.states) if away >> n & 1))
    see_left(engine, world)


@given(
    world=worlds(),
    on_leave=st.sampled_from(["keep", "delete", "archive", "clear"]),
    adopt=st.sampled_from(["none", "all"]),
    told=st.integers(0, 255),
    gone=st.integers(0, 4),
    nameless=st.integers(0, 3),
)
@settings(RELAXED, max_examples=150)
def test_a_blind_sync_goes_by_what_it_sent(
    engine: Engine, world: World, on_leave: str, adopt: str, told: int, gone: int, nameless: int
) -> None:
    keys = [k for k in dict.fromkeys(key_text(x, world.key_form) for x in DISTINCT) if k]
    states = [replace(s, remote_id=k) for k, s in zip(keys, world.states, strict=False)]
    identities = {s.remote_id: f"r{n}" for n, s in enumerate(states) if told >> n & 1}  # the app told who it is
    rows = [*world.rows[gone:]] + ([Row(None, {f.name: None for f in world.fields})] if nameless == 0 else [])
    leaves = {"on_leave": on_leave, "adopt": adopt if on_leave != "keep" else "none"}
    blind = replace(world, blind=True, records=[], states=states, identities=identities, rows=rows, **leaves)
    if on_leave == "keep":
        check(engine, blind)
    else:
        see_left(engine, blind)


def see_left(engine: Engine, world: World) -> None:
    assume(engine.warehouse.dialect != "postgres" or "\\x00" not in repr(world))
    with contextlib.suppress(_Undo), engine.warehouse.transaction():
        compare_left(engine, world)
        raise _Undo


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


def test_each_held_row_has_its_reason_and_doubled_keys_one(engine: Engine) -> None:
    one(engine, [("a", "x"), ("a", "y"), (None, "x"), ("b", "x"), ("c", "{}")], [("1", "b", "x"), ("2", "b", "y")])
    found = engine.diff(engine.bind(a_sync("tier"), an_object(a_field("tier", enum=("x", "y")))))
    assert sorted(engine.held(found), key=lambda h: h[0] or "") == [
        (None, "key email is empty"),
        ("a", "this key is in more than one row of the model"),
        ("b", "this key is that of more than one record in the app"),
        ("c", 'tier: "{}" is not one of x, y'),
    ]
    assert found.counts == {"held": 5}
    assert dict(diffing.held_reasons(found, engine.warehouse))["this key is in more than one row of the model"] == 2


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
