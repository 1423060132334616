"""References: a value looked up among an object's records, what a miss does, and which records count."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.activate.bind import bind
from oploop.activate.bound import BoundSync
from oploop.activate.refbind import Referenced
from oploop.errors import FixConfig, Place
from oploop.project import FieldMapping, Mode, OnMiss, OnNull, Sync
from oploop.records import Canonical, Column, ColumnType, Field, FieldType, Object, Op, Stream
from oploop.stages.ordering import waves
from tests.unit.activate.engine import SAFE, T0, Engine, a_field, a_stream, a_sync, an_object, at

FIRMS = Object(
    "firms",
    {Op.CREATE: SAFE, Op.UPDATE: SAFE},
    stream="firms",
    fields={
        "code": Field("code", FieldType.TEXT, source=Column("code"), key=True, canonical=Canonical.LOWER),
        "number": Field("number", FieldType.INTEGER, source=Column("number")),
        "secret": Field("secret", FieldType.TEXT),
    },
)
FIRMS_STREAM = Stream("firms", ("id",), {"id": ColumnType.INTEGER})
FIRM = a_field("firm")


def firms(engine: Engine, *rows: tuple[Any, ...]) -> None:
    """The raw table of firms: id, code, number, deleted."""
    columns = {"id": "BIGINT", "code": "VARCHAR", "number": "BIGINT"}
    meta = {"_version": "BIGINT", "_extracted_at": "TIMESTAMPTZ", "_deleted": "BOOLEAN"}
    made = [(i, code, number, 0, at(0), deleted) for i, code, number, deleted in rows]
    engine.table("raw_crm.firms__all", columns | meta, made)


def bound(engine: Engine, mapping: FieldMapping, field: Field = FIRM, **more: Any) -> BoundSync:
    obj = an_object(field)
    found = Referenced("crm", FIRMS, FIRMS_STREAM, FIRMS.fields, more.pop("unread", ()))
    return bind(
        a_sync(mapping, **more),
        obj,
        a_stream(),
        obj.fields,
        engine.warehouse,
        "mart.people",
        engine.warehouse.columns("mart.people"),
        referenced={"crm.firms": found, "crm.people": Referenced("crm", obj, a_stream(), obj.fields)},
    )


def ref(**more: Any) -> FieldMapping:
    given = {"column": "firm"} if not more.keys() & {"column", "sql", "value"} else {}
    return FieldMapping("firm", **({"ref": "crm.firms", "by": "code"} | given | more))


def people(engine: Engine, rows: list[tuple[Any, ...]], records: list[tuple[Any, ...]]) -> None:
    engine.model({"email": "VARCHAR", "firm": "VARCHAR"}, rows)
    engine.records({"email": "VARCHAR", "firm": "VARCHAR"}, [(*r, 0, at(0), False) for r in records])


def sends(engine: Engine, b: BoundSync) -> dict[str, Any]:
    found = engine.diff(b)
    return {c.key["email"]: c.fields.get("firm", "not sent") for c in engine.changes(found)}


def test_the_id_is_found_by_the_canonical_form(engine: Engine) -> None:
    firms(engine, (7, "ACME ", 1, False), (8, "it's", 2, False))
    people(engine, [("a", " acme"), ("b", "it's"), ("c", "IT'S")], [("1", "a", None), ("2", "b", "7"), ("3", "c", "8")])
    assert sends(engine, bound(engine, ref())) == {"a": "7", "b": "8"}


def test_the_id_is_of_the_fields_type(engine: Engine) -> None:
    firms(engine, (7, "x", 1, False))
    people(engine, [("a", "x")], [])
    assert sends(engine, bound(engine, ref(), a_field("firm", FieldType.INTEGER))) == {"a": 7}


@pytest.mark.parametrize(
    ("on_miss", "held", "sent"),
    [
        (OnMiss.HOLD, {"b", "c", "d"}, {"a": "1"}),
        (OnMiss.KEEP, set(), {"a": "1"}),
        (OnMiss.CLEAR, set(), {"a": "1", "b": None, "c": None, "d": None}),
    ],
)
def test_a_miss_and_an_ambiguous_one_are_held_kept_or_cleared(
    engine: Engine, on_miss: OnMiss, held: set[str], sent: dict[str, Any]
) -> None:
    firms(engine, (1, "x", 1, False), (2, "two", 1, False), (3, "Two", 1, False), (4, "gone", 1, True))
    rows = [("a", "x"), ("b", "nobody"), ("c", "two"), ("d", "gone"), ("e", None)]
    people(engine, rows, [(k, k, "old") for k in "abcde"])
    b = bound(engine, ref(on_miss=on_miss))
    found = engine.diff(b)
    assert sends(engine, b) == sent
    reasons = dict(engine.held(found))
    assert set(reasons) == held
    if held:
        assert reasons["b"] == 'firm: no crm.firms has code "nobody"'
        assert reasons["c"] == 'firm: more than one crm.firms has code "two"'


def test_a_null_is_no_miss(engine: Engine) -> None:
    firms(engine, (1, "x", 1, False))
    people(engine, [("a", None), ("b", "")], [("1", "a", "old"), ("2", "b", "old")])
    assert sends(engine, bound(engine, ref())) == {}
    assert sends(engine, bound(engine, ref(on_null=OnNull.CLEAR))) == {"a": None, "b": None}


def test_a_constant_sql_and_a_map_are_looked_up(engine: Engine) -> None:
    firms(engine, (1, "x", 10, False), (2, "y", 20, False))
    people(engine, [("a", "old"), ("b", "new")], [])
    assert sends(engine, bound(engine, ref(value="Y"))) == {"a": "2", "b": "2"}
    assert sends(engine, bound(engine, ref(sql="'X' || ''"))) == {"a": "1", "b": "1"}
    assert sends(engine, bound(engine, ref(column="firm", map={"old": "x", "new": "y"}))) == {"a": "1", "b": "2"}
    found = engine.diff(bound(engine, ref(column="firm", map={"old": "x"})))
    assert engine.held(found) == [("b", 'firm: map has no entry for "new"')]
    assert sends(engine, bound(engine, ref(by="number", sql="CASE firm WHEN 'old' THEN 10.0 ELSE 20 END"))) == {
        "a": "1",
        "b": "2",
    }


def identity(engine: Engine, key: str, remote_id: str) -> None:
    engine.warehouse.execute(
        "INSERT INTO oploop.record_rows VALUES ('crm', 'firms', 'code', ?, ?, 'r1', ?)", (key, remote_id, T0)
    )


def test_a_record_that_we_made_counts_before_any_read_shows_it(engine: Engine) -> None:
    firms(engine, (1, "renamed", 1, False))
    people(engine, [("a", "x"), ("b", "y"), ("c", "renamed")], [])
    identity(engine, "x", "9")
    identity(engine, "y", "1")  # its key was changed in the app since: the read knows better
    b = bound(engine, ref())
    assert sends(engine, b) == {"a": "9", "c": "1"}
    assert engine.held(engine.diff(b)) == [("b", 'firm: no crm.firms has code "y"')]
    engine.warehouse.execute(
        "INSERT INTO oploop.streams (app, stream, reading, complete_began) VALUES ('crm', 'firms', FALSE, ?)",
        (at(99),),
    )  # it must have shown what we made, and did not
    assert sends(engine, b) == {"c": "1"}


def among_themselves(engine: Engine, *more: FieldMapping | str, **given: Any) -> BoundSync:
    """People whose `firm` is another of the same people."""
    own = FieldMapping("firm", ref="crm.people", by="email", column="firm", on_miss=given.pop("on_miss", OnMiss.HOLD))
    obj = an_object(FIRM, a_field("boss"), canonical=Canonical.LOWER)
    return bind(
        a_sync(own, *more, **given),
        obj,
        a_stream(),
        obj.fields,
        engine.warehouse,
        "mart.people",
        engine.warehouse.columns("mart.people"),
        referenced={"crm.people": Referenced("crm", obj, a_stream(), obj.fields)},
    )


def test_rows_wait_for_a_record_that_this_run_makes(engine: Engine) -> None:
    """Accounts with parents among themselves: one level a turn, and nothing of it counts as held."""
    rows = [("root", None), ("child", "Root"), ("grandchild", "child"), ("lost", "nobody"), ("own", "own")]
    people(engine, rows, [])

    def diffed(on_miss: OnMiss = OnMiss.HOLD) -> Any:
        return engine.diff(among_themselves(engine, on_miss=on_miss))

    assert ref().on_miss is OnMiss.HOLD
    first = diffed()
    assert first.counts == {"create": 1, "waiting": 2, "held": 2}
    assert engine.held(first) == [
        ("lost", 'firm: no crm.people has email "nobody"'),
        ("own", 'firm: no crm.people has email "own"'),
    ]
    assert diffed(OnMiss.KEEP).counts == {"create": 5}
    engine.identity("root", "77")
    second = diffed()
    assert second.counts == {"create": 1, "waiting": 1, "held": 2}
    assert [(c.key["email"], c.fields["firm"]) for c in engine.changes(second)] == [("child", "77")]


IN_TURN = 'firm: the row with email "{}" waits for others in turn, and none of them can be made first'
MAKES_NONE = 'firm: no crm.people has email "{}", and the row that has it makes none'


def test_rows_that_wait_in_vain_are_held(engine: Engine) -> None:
    """Two that refer to each other, what hangs on them, and what refers to a row that makes no record."""
    rows = [("a", "B"), ("b", "a"), ("c", "a"), ("root", None), ("d", "root"), ("e", "D"), ("lost", "nobody")]
    people(engine, [*rows, ("f", "lost"), ("g", "f")], [])
    b = among_themselves(engine)
    found = engine.diff(b)
    assert found.counts == {"create": 1, "waiting": 2, "held": 6}
    assert dict(engine.held(found)) == {
        "a": IN_TURN.format("b"),
        "b": IN_TURN.format("a"),
        "c": IN_TURN.format("a"),
        "lost": 'firm: no crm.people has email "nobody"',
        "f": MAKES_NONE.format("lost"),
        "g": IN_TURN.format("f"),
    }
    assert engine.diff(among_themselves(engine, on_miss=OnMiss.KEEP)).counts == {"create": 9}


def test_a_field_is_cleared_where_the_other_row_makes_no_record(engine: Engine) -> None:
    """It is left for now where that is made in this run."""
    rows = [("a", "new"), ("b", "twice"), ("c", "nobody"), ("new", None), ("twice", None), ("Twice", None)]
    people(engine, rows, [(k, k, "old") for k in "abc"])
    b = among_themselves(engine, on_miss=OnMiss.CLEAR)
    found = engine.diff(b)
    assert found.counts == {"update": 2, "create": 1, "held": 2}
    assert {c.key["email"]: c.fields for c in engine.changes(found) if c.remote_id} == {
        "b": {"firm": None},
        "c": {"firm": None},
    }


def test_a_row_waits_while_the_other_is_only_not_shown_yet(engine: Engine) -> None:
    """Parked as unknown, it comes with a read; parked as rejected, or deleted in the app, it does not."""
    for reason, says in (("unknown", {}), ("rejected", {"b": MAKES_NONE.format("a")})):
        people(engine, [("a", None), ("b", "a")], [])
        engine.warehouse.execute("DELETE FROM oploop.parked")
        engine.warehouse.execute(
            "INSERT INTO oploop.parked (sync, app, object, key, reason, run_id, noted_at) VALUES ('people', 'crm', 'people', 'a', ?, 'r', ?)",
            (reason, T0),
        )
        assert dict(engine.held(engine.diff(among_themselves(engine)))) == says
    engine.warehouse.execute("DELETE FROM oploop.parked")
    engine.records({"email": "VARCHAR", "firm": "VARCHAR"}, [("1", "a", None, 0, at(0), True)])
    assert dict(engine.held(engine.diff(among_themselves(engine)))) == {"b": MAKES_NONE.format("a")}


def test_of_two_references_each_must_come(engine: Engine) -> None:
    boss = FieldMapping("boss", ref="crm.people", by="email", column="boss")
    engine.model(
        {"email": "VARCHAR", "firm": "VARCHAR", "boss": "VARCHAR"},
        [("a", None, None), ("b", "a", "a"), ("c", "a", "d"), ("d", "c", None)],
    )
    engine.records({"email": "VARCHAR", "firm": "VARCHAR", "boss": "VARCHAR"}, [])
    found = engine.diff(among_themselves(engine, boss))
    assert found.counts == {"create": 1, "waiting": 1, "held": 2}
    assert [(key, says.partition(":")[0]) for key, says in engine.held(found)] == [("c", "boss"), ("d", "firm")]


def test_a_part_of_the_rows_holds_none_that_may_come_later(engine: Engine) -> None:
    people(engine, [("a", None), ("b", None), ("c", "b")], [])
    assert engine.diff(among_themselves(engine), limit=1).counts == {"create": 1, "waiting": 1}
    assert engine.diff(among_themselves(engine), key="c").counts == {"waiting": 1}


def test_appended_rows_that_are_only_marked_as_seen_do_not_wait(engine: Engine) -> None:
    people(engine, [("a", None), ("b", "a"), ("c", "d"), ("d", "c")], [])
    b = among_themselves(engine, mode=Mode.APPEND)
    assert engine.diff(b).counts == {"seen": 4}
    assert engine.diff(b, backfill=True).counts == {"create": 1, "waiting": 1, "held": 2}


@pytest.mark.parametrize(
    ("mapping", "more", "says"),
    [
        (ref(by="cod"), {}, "crm.firms has no field 'cod' — did you mean 'code'"),
        (ref(by="secret"), {}, "'secret' of crm.firms cannot be read"),
        (ref(), {"unread": ["code"]}, "'code' is excluded from reading"),
        (ref(column="frm"), {}, "no column 'frm'"),
    ],
)
def test_what_cannot_be_looked_up_is_a_mistake_in_the_file(
    engine: Engine, mapping: FieldMapping, more: dict[str, Any], says: str
) -> None:
    people(engine, [], [])
    with pytest.raises(FixConfig, match=says) as e:
        bound(engine, mapping, **more)
    assert e.value.place is not None
    with pytest.raises(FixConfig, match="cannot be cleared"):
        bound(engine, ref(on_miss=OnMiss.CLEAR), a_field("firm", nullable=False))


def a_file(name: str, to: str, *refs: str, mode: str = "upsert") -> Sync:
    app, _, obj = to.partition(".")
    fields = tuple(FieldMapping(f"f{i}", ref=r, by="k", column="c") for i, r in enumerate(refs))
    return Sync(
        name,
        "mart.m",
        app,
        obj,
        {"k": "k"},
        fields,
        Place(f"syncs/{name}.yml", 1),
        mode=mode,  # type: ignore[arg-type]
    )


def test_syncs_go_after_those_that_make_what_they_refer_to() -> None:
    users = a_file("a_users", "z.users", "z.orgs")
    orgs = a_file("orgs", "z.orgs", "z.orgs", "z.regions")
    regions = a_file("regions", "z.regions")
    tickets = a_file("b_tickets", "z.tickets", "z.users", "elsewhere.things")
    order = [[s.name for s in wave] for wave in waves([users, tickets, orgs, regions])]
    assert order == [["regions"], ["orgs"], ["a_users"], ["b_tickets"]]
    assert [[s.name for s in wave] for wave in waves([users, tickets])] == [["a_users"], ["b_tickets"]]
    update = a_file("orgs", "z.orgs", "z.users", mode="update")  # makes nothing, so nobody waits for it
    assert [[s.name for s in wave] for wave in waves([users, update])] == [["a_users"], ["orgs"]]


def test_references_in_a_circle_are_refused_with_the_files() -> None:
    syncs = [
        a_file("free", "z.x"),
        a_file("in", "z.y", "z.a"),
        a_file("one", "z.a", "z.b"),
        a_file("two", "z.b", "z.a"),
    ]
    with pytest.raises(FixConfig) as e:
        waves(syncs)
    assert "syncs/one.yml (f0) needs syncs/two.yml, syncs/two.yml (f0) needs syncs/one.yml" in str(e.value)
    assert "in.yml" not in str(e.value)
