"""Read-back: what a look at the app says of what was sent, and what it makes of it in the state."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from oploop.activate import folding, ledger, states
from oploop.activate.begun import Begun
from oploop.activate.plan import make_plan
from oploop.errors import RetryLater
from oploop.project import FieldMapping
from oploop.records import Canonical, Field, FieldType, JsonPath, Op, Outcome
from oploop.state import JournalStep
from oploop.verify import ReadBack, Target, Watched, read_back, to_fetch
from oploop.warehouse import Warehouse
from oploop.warehouse.base import SqlError
from tests.unit.activate.engine import Engine, a_field, a_stream, a_sync, an_object, at, micros
from tests.warehouses import warehouse

__all__ = ["warehouse"]

TEXT, NUMBER, LIST, JSON = FieldType.TEXT, FieldType.NUMBER, FieldType.LIST, FieldType.JSON
SENT_AT, RECEIPT = 10.0, 10.0  #: seconds on the tests' clock
FIELDS = {
    "tier": a_field("tier"),
    'it\'s "odd"/~.x': Field('it\'s "odd"/~.x', TEXT, source=JsonPath("custom", ("x",))),
    "n": a_field("n", FieldType.INTEGER),
    "ratio": a_field("ratio", NUMBER),
    "vip": a_field("vip", FieldType.BOOLEAN),
    "day": a_field("day", FieldType.DATE),
    "seen": a_field("seen", FieldType.TIMESTAMP),
    "tags": a_field("tags", LIST),
    "js": Field("js", JSON, source=JsonPath("custom", ("js",))),
    "mail": a_field("mail", canonical=Canonical.LOWER),
}
RAW = {
    "tier": "VARCHAR",
    "n": "BIGINT",
    "ratio": "DOUBLE",
    "vip": "BOOLEAN",
    "day": "DATE",
    "seen": "TIMESTAMPTZ",
    "tags": "JSON",
    "mail": "VARCHAR",
    "custom": "JSON",
}
MODEL = {
    "tier": "VARCHAR",
    "n": "BIGINT",
    "ratio": "DOUBLE",
    "vip": "BOOLEAN",
    "day": "DATE",
    "seen": "TIMESTAMPTZ",
    "tags": "VARCHAR[]",
    "js": "JSON",
    "mail": "VARCHAR",
    'it\'s "odd"/~.x': "VARCHAR",
}


class Office:
    """One record, "1" of a@x, in an app; a sync of some fields to it."""

    def __init__(self, warehouse: Warehouse, *names: str, lag: float = 0.0) -> None:
        self.engine, self.w, self.names, self.lag, self.run = Engine(warehouse), warehouse, names, lag, 0
        self.engine.reset()
        self.vouched: dt.datetime | None = None
        self.holds: dict[str, Any] = {}
        self.shows(0)
        self.wants(**dict.fromkeys(names))

    def wants(self, **values: Any) -> None:
        """What the model says from now on."""
        self.model = {n: values.get(n) for n in self.names}
        self.engine.model({"email": "VARCHAR", **{n: MODEL[n] for n in self.names}}, [("a@x", *self.model.values())])
        sync = a_sync(*(FieldMapping(n, column=n, on_null="clear") for n in self.names))  # type: ignore[arg-type]
        obj = an_object(*(FIELDS[n] for n in self.names))
        self.bound = self.engine.bind(sync, obj, replace(a_stream(), lag=self.lag))

    def shows(self, seconds: float, *, version: float | None = None, deleted: bool = False, **values: Any) -> None:
        """What a read that began then brings; fields that are not named stay."""
        self.holds |= values
        h = {n: self.holds.get(n) for n in FIELDS}
        custom = {"x": h['it\'s "odd"/~.x'], "js": None if h["js"] is None else orjson.loads(h["js"])}
        cells = [h[c] for c in RAW if c != "custom"]
        cells[6] = None if h["tags"] is None else orjson.dumps(h["tags"]).decode()
        row = [
            "1",
            "a@x",
            *cells,
            orjson.dumps(custom).decode(),
            micros(seconds if version is None else version),
            at(seconds),
            deleted,
        ]
        self.engine.records({"email": "VARCHAR", **RAW}, [row])

    def disappears(self) -> None:
        self.engine.records({"email": "VARCHAR", **RAW}, [])

    def sends(self, *, receipt: float | None = RECEIPT, seconds: float = SENT_AT) -> str:
        """Deliver what the diff wants; the app acknowledges it."""
        self.run += 1
        run_id = f"r{self.run}"
        found = self.engine.diff(self.bound)
        assert found.counts == {"update": 1}, found.counts
        plan = make_plan(found, self.w, budget=None, call_seconds=None)
        table = ledger.keep_plan(plan, self.w, run_id, at(seconds))
        version = None if receipt is None else micros(receipt)
        steps = [
            JournalStep(
                run_id, "people", "s1", 1, 1, 1, Op.UPDATE, at(seconds), at(seconds), Outcome.OK, version=version
            )
        ]
        begun = Begun(run_id, ledger.spec_of(self.bound, self.w, None), table, at(seconds))
        folding.fold(self.w, begun, steps, at(seconds))
        return run_id

    @property
    def target(self) -> Target:
        watched = tuple(
            Watched(f.field.name, f.label, f.now or "", self.w.sql_type(f.field.type), f.field.type, f.field.canonical)
            for f in self.bound.fields
        )
        assert self.bound.raw_table is not None
        return Target(
            "people",
            "crm",
            "people",
            self.bound.raw_table,
            "id",
            states.state_table(self.bound),
            watched,
            self.vouched,
            self.lag,
        )

    async def look(self, *, within_run: bool = False) -> str:
        """The record's status after a look."""
        found = await read_back(self.target, self.w, fetch=None, now=at(99), within_run=within_run)
        counts = found.counts | ({"waiting": found.waiting} if found.waiting else {})
        ((status, n),) = counts.items()
        assert n == 1
        return status

    @property
    def ledger(self) -> list[str]:
        """Statuses of the last change, in order."""
        rows = self.w.rows("SELECT status FROM oploop.change_outcomes WHERE run_id = ? ORDER BY seq", (f"r{self.run}",))
        return [r[0] for r in rows]

    def stored(self, name: str) -> Any:
        return self.w.rows(f"SELECT {states.stored('s', name)} FROM {states.state_table(self.bound)} AS s")[0][0]

    @property
    def diff(self) -> dict[str, int]:
        return self.engine.diff(self.bound).counts


async def test_it_waits_until_a_read_shows_it_then_it_is_confirmed(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()
    assert await office.look() == "waiting"
    office.shows(SENT_AT - 1, tier="old")  # a read from before
    assert await office.look() == "waiting"
    office.shows(SENT_AT + 1, version=RECEIPT - 1, tier="old")  # a later read of what was then an older version
    assert await office.look() == "waiting"
    office.shows(SENT_AT + 1, tier="gold")
    assert [await office.look(), await office.look()] == ["confirmed", "confirmed"]
    assert office.ledger == ["sent", "confirmed"]
    ((confirmed, event),) = warehouse.rows("SELECT confirmed_at, event_at FROM oploop.changes")
    assert (confirmed, event) == (at(99), at(99))


async def test_without_versions_a_read_must_be_later_by_the_lag(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier", lag=60)
    office.wants(tier="gold")
    office.sends(receipt=None)
    office.shows(SENT_AT + 59, tier="old")
    assert await office.look() == "waiting"
    assert office.diff == {}
    office.shows(SENT_AT + 61, tier="gold")
    assert await office.look() == "confirmed"


async def test_a_field_that_was_never_sent_is_nobodys_drift(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier", "n")
    office.wants(tier="gold")
    office.sends()
    office.shows(SENT_AT + 1, tier="gold", n=5)
    assert await office.look() == "confirmed"
    office.wants(tier="gold", n=6)
    assert office.diff == {"update": 1}  # an overwrite, and no conflict


async def test_a_complete_read_vouches_for_what_was_sent_before_it(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()
    office.shows(SENT_AT - 5, tier="gold")
    office.vouched = at(SENT_AT)
    assert await office.look() == "waiting"
    office.vouched = at(SENT_AT + 0.5)
    assert await office.look() == "confirmed"


async def test_what_is_marked_deleted_or_missing_from_a_complete_read_is_gone(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()
    office.disappears()
    assert await office.look() == "waiting"
    office.vouched = at(SENT_AT + 1)
    assert await office.look() == "gone"
    office.shows(SENT_AT + 2, deleted=True, tier="gold")
    assert await office.look() == "gone"
    office.shows(SENT_AT + 3, tier="gold")  # restored from the bin
    assert await office.look() == "confirmed"
    assert office.ledger == ["sent", "gone", "confirmed"]


@pytest.mark.parametrize(
    ("name", "sent", "shown"),
    [
        ("tier", " Gold ", "gold"),
        ("tier", "x" * 300, "x" * 255),
        ("tier", "12.00", "12"),
        ("ratio", 0.123456, 0.12),
        ("seen", at(1.5), at(1)),
        ("tags", ["B", "a"], ["a", "b"]),
    ],
)
async def test_what_the_app_makes_of_a_value_is_altered_and_no_difference(
    warehouse: Warehouse, name: str, sent: Any, shown: Any
) -> None:
    for within_run in (True, False):
        office = Office(warehouse, name)
        office.wants(**{name: sent})
        office.sends()
        office.shows(SENT_AT + 1, **{name: shown})
        assert await office.look(within_run=within_run) == "altered"
        assert office.stored(name) == (orjson.dumps(shown).decode() if name == "tags" else shown)
        assert (await office.look(), office.diff) == ("altered", {})
        assert office.ledger == ["sent", "altered"]


@pytest.mark.parametrize(
    ("name", "sent", "shown"),
    [
        ("tier", "gold", "silver"),
        ("tier", "golden", "gold"),
        ("tier", "gold", None),
        ("n", 12, 1),
        ("ratio", 0.5, 0.6),
        ("vip", True, False),
        ("day", dt.date(2025, 3, 1), dt.date(2025, 3, 2)),
        ("seen", at(0), at(3600)),
        ("tags", ["a", "b"], ["a"]),
        ("js", '{"a":1}', '{"a":2}'),
    ],
)
async def test_what_a_person_makes_of_a_value_is_drift_and_within_the_run_the_apps_own_doing(
    warehouse: Warehouse, name: str, sent: Any, shown: Any
) -> None:
    office = Office(warehouse, name)
    office.wants(**{name: sent})
    office.sends()
    office.shows(SENT_AT + 1, **{name: shown})
    assert [await office.look(), await office.look()] == ["drifted", "drifted"]
    assert office.diff == {"kept": 1}
    assert office.ledger == ["sent", "drifted"]
    office.shows(SENT_AT + 2, **{name: sent})
    assert (await office.look(), office.diff) == ("confirmed", {})
    office = Office(warehouse, name)
    office.wants(**{name: sent})
    office.sends()
    office.shows(SENT_AT + 1, **{name: shown})
    assert await office.look(within_run=True) == ("altered" if shown is not None else "ignored")


@pytest.mark.parametrize(
    ("name", "before", "sent"),
    [
        ("tier", "old", "gold"),
        ('it\'s "odd"/~.x', 'old\'s "one"', "gold"),
        ("n", 1, 2),
        ("ratio", 1e20, 0.1),
        ("vip", False, True),
        ("day", dt.date(2025, 1, 1), dt.date(2025, 3, 1)),
        ("seen", at(-5.25), at(0)),
        ("tags", ["a", "it's"], ["b"]),
        ("js", '{"a":[1,"x"]}', '{"b":1}'),
        ("js", '"text"', '"other"'),
        ("tier", None, "gold"),
        ("js", None, '{"b":1}'),
    ],
)
async def test_a_value_that_the_app_ignores_is_parked(warehouse: Warehouse, name: str, before: Any, sent: Any) -> None:
    office = Office(warehouse, name)
    office.shows(1, **{name: before})
    office.wants(**{name: sent})
    office.sends()
    office.shows(SENT_AT + 1)
    assert await office.look(within_run=True) == "ignored"
    assert warehouse.rows("SELECT key, reason FROM oploop.parked") == [("a@x", "ignored")]
    for seconds in (20, 30):
        office.shows(seconds)
        assert (await office.look(), office.diff) == ("ignored", {})
    assert office.ledger == ["sent", "ignored"]
    assert len(warehouse.rows("SELECT * FROM oploop.parked")) == 1


@pytest.mark.parametrize(
    ("name", "before", "sent"),
    [("tier", "gold", " Gold"), ("ratio", 0.33, 0.333), ("tags", ["a", "b"], ["A", "B"])],
)
async def test_a_value_that_the_app_held_in_its_own_form_already_is_not_ignored(
    warehouse: Warehouse, name: str, before: Any, sent: Any
) -> None:
    office = Office(warehouse, name)
    office.shows(1, **{name: before})
    office.wants(**{name: sent})
    office.sends()
    office.shows(SENT_AT + 1)
    assert (await office.look(within_run=True), office.diff) == ("altered", {})
    assert warehouse.rows("SELECT key, reason FROM oploop.parked") == []


async def test_what_is_the_same_in_the_fields_canonical_form_is_confirmed(warehouse: Warehouse) -> None:
    office = Office(warehouse, "mail")
    office.wants(mail="Jo@X.com")
    office.sends()
    office.shows(SENT_AT + 1, mail="jo@x.com")
    assert await office.look() == "confirmed"


async def test_what_is_stored_otherwise_in_one_field_leaves_the_others_as_they_were_sent(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier", "n")
    office.wants(tier=" gold ", n=3)
    office.sends()
    assert (office.stored("tier"), office.stored("n")) == (" gold ", 3)
    office.shows(SENT_AT + 1, tier="gold", n=3)
    assert await office.look(within_run=True) == "altered"
    assert (office.stored("tier"), office.stored("n"), office.diff) == ("gold", 3, {})
    office.shows(SENT_AT + 2, n=4)
    assert (await office.look(), office.diff) == ("drifted", {"kept": 1})
    office.wants(tier=" gold ", n=5)
    office.sends(seconds=SENT_AT + 3, receipt=SENT_AT + 3)
    assert (office.stored("tier"), office.stored("n")) == ("gold", 5)


async def test_drift_after_a_confirmation(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()
    office.shows(SENT_AT + 1, tier="gold")
    assert await office.look(within_run=True) == "confirmed"
    office.shows(SENT_AT + 2, tier="silver")
    assert (await office.look(), office.diff, office.stored("tier")) == ("drifted", {"kept": 1}, "gold")
    assert office.ledger == ["sent", "confirmed", "drifted"]


async def test_a_settled_record_is_looked_at_again_only_when_it_was_read_since(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()

    async def look(vouched: float) -> tuple[str, int]:
        office.vouched = at(vouched)
        warehouse.execute("DROP TABLE IF EXISTS oploop_asked")
        status = await office.look()
        asked = "oploop_asked" if warehouse.columns("oploop_asked") else "(SELECT 1 WHERE FALSE) AS none"
        return status, warehouse.rows(f"SELECT count(*) FROM {asked}")[0][0]

    office.shows(12, tier="gold")
    assert await look(11) == ("confirmed", 0)  # the first is at all
    assert await look(20) == ("confirmed", 1)  # read since the complete read that the look before went by
    assert await look(20) == ("confirmed", 0)
    office.shows(21, tier="silver")
    assert await look(30) == ("drifted", 1)
    assert await look(40) == ("drifted", 1)  # not as it should be
    office.shows(22, tier="gold")
    assert [await look(40), await look(40)] == [("confirmed", 1), ("confirmed", 1)]  # it was not once


async def test_all_are_looked_at_again_where_other_fields_are_or_the_clock_was_set_back(warehouse: Warehouse) -> None:
    for unlike in ("depends = 'other fields'", f"vouched = TIMESTAMPTZ '{at(90).isoformat()}'"):
        office = Office(warehouse, "tier")
        office.wants(tier="gold")
        office.sends()
        office.shows(12, tier="gold")
        office.vouched = at(40)
        assert await office.look() == "confirmed"
        office.shows(12, tier="silver")  # no read brings a row of before the read that the last look went by
        assert await office.look() == "confirmed"
        warehouse.execute(f"UPDATE oploop.looks SET {unlike}")
        assert await office.look() == "drifted"


@pytest.mark.parametrize("within_run", [True, False])
async def test_a_change_of_one_field_is_not_judged_by_what_the_app_once_made_of_another(
    warehouse: Warehouse, within_run: bool
) -> None:
    office = Office(warehouse, "tier", "n")
    office.wants(tier="Gold", n=1)
    office.sends()
    office.shows(SENT_AT + 1, tier="gold", n=1)
    assert await office.look(within_run=True) == "altered"
    office.wants(tier="Gold", n=2)
    office.sends(seconds=20, receipt=20)
    office.shows(21, n=2)
    assert [await office.look(within_run=within_run), await office.look()] == ["confirmed", "confirmed"]
    assert (office.stored("tier"), office.diff) == ("gold", {})


async def test_a_persons_change_of_one_field_is_still_drift_after_another_was_sent(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier", "n")
    office.wants(tier="gold", n=1)
    office.sends()
    office.shows(SENT_AT + 1, tier="gold", n=1)
    assert await office.look(within_run=True) == "confirmed"
    office.shows(15, tier="silver")
    office.wants(tier="gold", n=2)
    office.sends(seconds=20, receipt=20)
    office.shows(21, n=2)
    assert await office.look(within_run=True) == "confirmed"  # of this change
    assert office.stored("tier") == "gold"
    assert (await office.look(), office.diff) == ("drifted", {"kept": 1})


async def test_records_are_fetched_that_no_read_vouches_for_yet(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    run_id = office.sends()
    asked: list[Sequence[str]] = []

    async def fetch(ids: Sequence[str]) -> Any:
        asked.append(ids)
        office.shows(SENT_AT + 1, tier="gold")

    found = await read_back(office.target, warehouse, fetch=fetch, now=at(99), within_run=True)
    assert (asked, found) == ([["1"]], ReadBack("people", run_id, {"confirmed": 1}, 0, 1, looked="oploop_looked"))
    office.vouched = at(50)
    assert to_fetch(office.target, warehouse, run_id, limit=10) == []
    found = await read_back(office.target, warehouse, fetch=fetch, now=at(99), within_run=False)
    assert (len(asked), found.fetched, found.looked) == (1, 0, None), "nothing has moved since"


async def test_an_app_that_cannot_be_asked_is_said_and_asked_again_later(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()

    async def fetch(ids: Sequence[str]) -> Any:
        raise RetryLater("busy")

    found = await read_back(office.target, warehouse, fetch=fetch, now=at(99), within_run=True)
    assert (found.counts, found.waiting, str(found.error)) == ({}, 1, "busy")


async def test_a_warehouse_that_takes_no_more_is_no_app_that_cannot_be_asked(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.wants(tier="gold")
    office.sends()

    async def fetch(ids: Sequence[str]) -> Any:
        raise SqlError("IO Error: No space left on device")

    with pytest.raises(SqlError, match="make room on its disk"):
        await read_back(office.target, warehouse, fetch=fetch, now=at(99), within_run=True)


async def test_nothing_delivered_is_nothing_to_look_at(warehouse: Warehouse) -> None:
    office = Office(warehouse, "tier")
    office.engine.state(office.bound, [])
    assert await read_back(office.target, warehouse, fetch=None, now=at(99), within_run=False) == ReadBack("people")
