"""The diff against the oracle, over generated worlds. What a world cannot show is in test_diff_rules.py."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

from oploop.project import Adopt, FieldMapping, Mode, OnLeave
from oploop.records import Canonical, Column, Field, FieldType, JsonEntry, JsonPath, Op
from tests.unit.activate.engine import SAFE, Engine, a_stream, a_sync, an_object, at, micros
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
        compare(Engine(engine.warehouse), world)
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
        compare_left(Engine(engine.warehouse), world)
        raise _Undo
