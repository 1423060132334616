"""Whole turns against HubSpot's sandbox: a custom property, people's edits, companies, members of a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.apps.hubspot import HubSpotSandbox
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Outcome
from oploop.report import RunReport
from oploop.runtime import Runtime
from oploop.stages.undoing import Wish, plan_undo
from oploop.workspace import Workspace
from tests.apps.hubspot.support import PROPERTIES
from tests.flow.conftest import DUCKDB, SERVER

PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps:
  hubspot: {access_token: pat-test-oploop, base_url: URL}
"""
CONTACTS = """\
model: mart.people
to: hubspot.contacts
key: {email: email}
fields: {firstname: first, Account spend: spend, plan: plan, topics: topics, renewal: renewal}
"""


@dataclass
class Desk:
    """A folder and a sandbox, and turns of the loop over them."""

    folder: Path
    box: HubSpotSandbox
    dsn: str  #: of the warehouse, where it is a server

    def sync(self, name: str, text: str) -> None:
        (self.folder / "syncs").mkdir(exist_ok=True)
        (self.folder / "syncs" / f"{name}.yml").write_text(text)

    def workspace(self) -> Workspace:
        return Workspace(load_project(self.folder, {"WAREHOUSE_DSN": self.dsn}), "prod", Runtime(), "test")

    async def model(self, table: str, select: str) -> None:
        async with self.workspace() as ws:
            ws.warehouse.execute("CREATE SCHEMA IF NOT EXISTS mart")
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE mart.{table} AS {select}")

    async def turn(self, **options: Any) -> RunReport:
        async with self.workspace() as ws:
            report = await loop.run(ws, Options(**{"yes": True, **options}))
        self.box.advance(120)
        return report

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.workspace() as ws:
            return ws.warehouse.rows(sql)

    def held(self, kind: str, *names: str) -> dict[str, tuple[Any, ...]]:
        return {r["id"]: tuple(r["properties"].get(n) for n in names) for r in self.box.dump(kind)}


@contextmanager
def opened(folder: Path, dsn: str) -> Iterator[Desk]:
    box = HubSpotSandbox()
    box.load("properties.contacts", PROPERTIES)
    with box.running() as url:
        text = PROJECT.replace(DUCKDB, SERVER) if dsn else PROJECT
        (folder / "oploop.yml").write_text(text.replace("URL", url))
        yield Desk(folder, box, dsn)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """On a file."""
    with opened(tmp_path, "") as desk:
        yield desk


@pytest.fixture
def each_desk(tmp_path: Path, dsn: str) -> Iterator[Desk]:
    """On each kind of warehouse, one kind after the other."""
    with opened(tmp_path, dsn) as desk:
        yield desk


def sent(report: RunReport, sync: str) -> int:
    """How many changes of a sync the app took; nothing of it may have been refused, or have stopped."""
    [found] = [s for s in report.syncs if s.sync == sync]
    assert (found.error, found.stopped) == (None, [])
    outcomes = found.delivery.outcomes if found.delivery is not None else Counter()
    assert set(outcomes) <= {Outcome.OK}, outcomes
    return outcomes[Outcome.OK]


PEOPLE = """\
SELECT * FROM (VALUES ('A@acme.example ', 'Ann', 120.5, 'pro', ['a', 'b'], DATE '2026-03-01'),
('b@acme.example', 'Bo''s', 7, 'free', CAST([] AS VARCHAR[]), NULL), ('c@acme.example', 'Cé 🌻', 9, 'gold', ['c'], NULL))
AS t(email, first, spend, plan, topics, renewal)"""


async def test_contacts_with_custom_properties_drift_and_read_back(each_desk: Desk) -> None:
    desk = each_desk
    desk.box.load(
        "contacts", [{"id": "7", "properties": {"email": "a@acme.example", "firstname": "Ann", "plan": "free"}}]
    )
    desk.sync("people", CONTACTS)
    await desk.model("people", PEOPLE)
    first = await desk.turn()
    assert sent(first, "people") == 2  # gold is no plan
    assert desk.held("contacts", "email", "firstname", "spend", "plan", "topics", "renewal") == {
        "7": ("a@acme.example", "Ann", "120.5", "pro", "a;b", "2026-03-01"),
        "501": ("b@acme.example", "Bo's", "7", "free", None, None),
    }
    written = {e.path.rpartition("/")[2] for e in desk.box.log if "/batch/u" in e.path}
    assert written == {"upsert", "update"}
    held = await desk.rows("SELECT reason FROM oploop.held")
    assert len(held) == 1
    assert "gold" in held[0][0]
    again = await desk.turn()
    assert sent(again, "people") == 0
    desk.box.edit("contacts", "7", spend="1")
    desk.box.advance(120)
    kept = await desk.turn()
    assert sent(kept, "people") == 0
    assert await desk.rows("SELECT spend FROM raw_hubspot.contacts WHERE id = '7'") == [(1.0,)]
    await desk.model("people", PEOPLE.replace("120.5", "130"))
    moved = await desk.turn()
    assert sent(moved, "people") == 1
    assert desk.held("contacts", "spend")["7"] == ("130",)
    await desk.turn()
    statuses = await desk.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1 ORDER BY 1")
    assert statuses == [("confirmed", 2), ("drifted", 1)]
    renewal = await desk.rows("SELECT renewal, topics FROM raw_hubspot.contacts WHERE id = '7'")
    assert str(renewal[0][0]) == "2026-03-01"


async def test_an_archived_contact_is_gone_and_not_made_again(desk: Desk) -> None:
    desk.sync("people", CONTACTS)
    await desk.model("people", PEOPLE)
    await desk.turn()
    [number] = [i for i, v in desk.held("contacts", "email").items() if v == ("b@acme.example",)]
    desk.box.store.archive(desk.box.store.kinds["contacts"], number)
    desk.box.advance(120)
    report = await desk.turn()
    assert sent(report, "people") == 0
    assert number not in desk.held("contacts", "email")
    assert await desk.rows(f"SELECT _deleted FROM raw_hubspot.contacts__all WHERE id = '{number}'") == [(True,)]


async def test_a_primary_company_by_reference(desk: Desk) -> None:
    desk.box.load("companies", [{"id": str(n), "properties": {"domain": f"c{n}.example"}} for n in (31, 32)])
    desk.box.load("contacts", [{"id": "7", "properties": {"email": "a@acme.example"}}])
    desk.sync(
        "company",
        """\
model: mart.places
to: hubspot.contacts
key: {email: email}
fields:
  associations.company: {ref: hubspot.companies, by: domain, column: domain}
""",
    )
    await desk.model(
        "places",
        "SELECT 'a@acme.example' AS email, 'c32.example' AS domain UNION ALL SELECT 'n@acme.example', 'C31.example'",
    )
    assert sent(await desk.turn(), "company") == 2
    assert sorted(desk.held("contacts", "email", "associatedcompanyid").values()) == [
        ("a@acme.example", "32"), ("n@acme.example", "31"),
    ]  # fmt: skip
    assert sent(await desk.turn(), "company") == 0


@pytest.fixture
def mirror(desk: Desk) -> Callable[[str], None]:
    desk.box.load("lists", [{"name": "VIPs"}])
    desk.box.load("contacts", [{"id": str(n), "properties": {"email": f"c{n}@acme.example"}} for n in range(1, 9)])
    desk.box.load("list_memberships", [{"list_id": "1", "record_id": "8"}])
    desk.sync(
        "vips",
        "model: mart.vips\nto: hubspot.list_memberships\nmode: mirror\nkey: {list_id: list_id, record_id: contact_id}\n"
        "limits: {removes: 100}\n",
    )
    return lambda numbers: f"SELECT 1 AS list_id, unnest([{numbers}]) AS contact_id"


async def test_the_members_of_a_list_follow_a_model(desk: Desk, mirror: Callable[[str], str]) -> None:
    def members() -> list[str]:
        return [m["record_id"] for m in desk.box.dump("list_memberships")]

    await desk.model("vips", mirror("1, 2, 3"))
    assert sent(await desk.turn(), "vips") == 3
    assert members() == ["1", "2", "3", "8"]  # whom somebody else put there stays
    await desk.model("vips", mirror("3, 4"))
    assert sent(await desk.turn(), "vips") == 3
    assert members() == ["3", "4", "8"]
    assert sent(await desk.turn(), "vips") == 0


async def test_a_record_that_hubspot_refuses_stops_no_other(desk: Desk) -> None:
    """HubSpot refuses an upsert as a whole for one bad address: the batch is halved until the one is found."""
    desk.sync("people", "model: mart.people\nto: hubspot.contacts\nkey: {email: email}\nfields: {firstname: first}\n")
    rows = "SELECT CASE WHEN i = 37 THEN 'nobody' ELSE 'p' || i || '@acme.example' END AS email, 'F' || i AS first FROM range(150) t(i)"
    await desk.model("people", rows)
    report = await desk.turn()
    [found] = report.syncs
    assert found.delivery is not None
    assert found.delivery.outcomes == Counter({Outcome.OK: 149, Outcome.REJECTED: 1})
    assert len(desk.box.dump("contacts")) == 149
    [(error,)] = await desk.rows("SELECT error FROM oploop.changes WHERE status = 'rejected'")
    assert "Email address nobody is invalid" in error
    upserts = len([e for e in desk.box.log if e.path.endswith("batch/upsert")])
    assert upserts <= 2 + 2 * 7  # two batches, one of them halved
    assert sent(await desk.turn(), "people") == 0


async def test_rows_that_leave_are_archived_and_a_run_is_undone(each_desk: Desk) -> None:
    desk = each_desk
    desk.box.load("contacts", [{"id": "7", "properties": {"email": "old@acme.example"}}])
    desk.sync(
        "people",
        "model: mart.people\nto: hubspot.contacts\nmode: mirror\non_leave: archive\nkey: {email: email}\n"
        "fields: {firstname: first}\nlimits: {removes: 10}\n",
    )
    await desk.model("people", "SELECT * FROM (VALUES ('a@x.example', 'A'), ('b@x.example', 'B')) AS t(email, first)")
    assert sent(await desk.turn(), "people") == 2
    await desk.model("people", "SELECT * FROM (VALUES ('b@x.example', 'Bea'), ('c@x.example', 'C')) AS t(email, first)")
    second = await desk.turn()
    assert sent(second, "people") == 3
    assert set(desk.held("contacts", "email", "firstname").values()) == {
        ("old@acme.example", None), ("b@x.example", "Bea"), ("c@x.example", "C"),
    }  # fmt: skip
    async with desk.workspace() as ws:
        runs = (second.run_id,)
        undone = await loop.undo(ws, runs, await plan_undo(ws, Wish(runs)))
    assert set(desk.held("contacts", "email", "firstname").values()) == {
        ("old@acme.example", None), ("b@x.example", "B"), ("c@x.example", "C"),
    }  # fmt: skip
    assert {x.key: x.reason.split(":")[0].split(",")[0] for x in undone.syncs[0].left} == {
        "a@x.example": "archived",
        "c@x.example": "made by the app's own upsert",
    }


async def test_pairs_have_their_first_delivery_and_their_limit_too(desk: Desk) -> None:
    """A sync without fields is known by its own deliveries: it asks the first time, and is held to its limits afterwards."""
    numbers = range(1, 201)
    desk.box.load("deals", [{"id": str(n), "properties": {}} for n in numbers])
    desk.box.load("contacts", [{"id": "7", "properties": {"email": "a@acme.example"}}])
    desk.sync("pairs", "model: mart.pairs\nto: hubspot.deals_to_contacts\nmode: mirror\nkey: {from_id: a, to_id: b}\n")
    pairs = "SELECT CAST(i AS VARCHAR) AS a, '7' AS b FROM range(1, {}) AS t(i)"
    await desk.model("pairs", pairs.format(101))

    unasked = await desk.turn(yes=False)
    assert unasked.syncs[0].stopped == ["first delivery of this sync: 100 changes"]
    assert desk.box.dump("deals_to_contacts") == []
    assert sent(await desk.turn(), "pairs") == 100

    await desk.model("pairs", pairs.format(201))
    many = await desk.turn(yes=False)
    assert many.syncs[0].stopped == ["changes 50% > 20%"]
    await desk.model("pairs", pairs.format(111))
    assert sent(await desk.turn(yes=False), "pairs") == 10


async def test_a_property_that_is_new_since_the_last_read_is_said_to_be(desk: Desk) -> None:
    desk.sync("people", CONTACTS)
    await desk.model("people", PEOPLE)
    await desk.turn()
    desk.box.load("properties.contacts", [{"name": "fresh", "label": "Fresh", "type": "string", "fieldType": "text"}])
    desk.sync("people", CONTACTS.replace("{firstname: first, ", "{firstname: first, Fresh: first, "))
    async with desk.workspace() as ws:
        bound = await loop.bind_all(ws, list(ws.project.syncs.values()), RunReport("", "prod"))
        report = await loop.plan_sync(ws, bound[0], Options())
    said = "syncs/people.yml:4: field 'Fresh' is new in the app since hubspot.contacts was last read — oploop extract"
    assert report.stopped == [said]
    assert sent(await desk.turn(allow={"people": frozenset({"first"})}), "people") == 2, "a run reads it first"
