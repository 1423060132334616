"""References on a real Zendesk sandbox: records of one sync that another's records refer to, in one turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oploop import loop
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.selection import Selection
from tests.flow.conftest import Desk, ticket

ORGS = """\
model: mart.orgs
to: zendesk.organizations
key: {external_id: code}
fields: {name: name}
"""
MAKES = {"tickets": frozenset({"first-run"})}
#: By name it would go before the organizations.
PEOPLE = """\
model: mart.people
to: zendesk.users
key: {external_id: code}
fields:
  name: name
  organization_id: {ref: zendesk.organizations, by: external_id, column: org}
limits: {held: 100%}
"""


@pytest.fixture
async def desk(make_desk: Callable[..., Desk]) -> Desk:
    desk = make_desk(tickets=0)
    (desk.folder / "syncs" / "tickets.yml").unlink()
    desk.sync(ORGS, "orgs")
    desk.sync(PEOPLE, "a_people")
    desk.load("organizations", [{"id": 500, "name": "Old", "external_id": "OLD"}])
    await desk.model("SELECT 'new-' || i AS code, 'New ' || i AS name FROM range(3) t(i)", "mart.orgs")
    await desk.model(
        "SELECT * FROM (VALUES ('p1', 'Ann', 'old'), ('p2', 'Bo', 'NEW-1'), ('p3', 'Cy', 'nowhere'), ('p4', 'Di', NULL)) "
        "AS t(code, name, org)",
        "mart.people",
    )
    return desk


def organizations(desk: Desk) -> dict[str, int]:
    return {o["external_id"]: o["id"] for o in desk.sandbox.dump("organizations")}


def homes(desk: Desk) -> dict[str, int | None]:
    return {u["external_id"]: u.get("organization_id") for u in desk.sandbox.dump("users") if u.get("external_id")}


async def test_a_turn_makes_the_organizations_first_and_the_people_with_their_ids(desk: Desk) -> None:
    report = await desk.turn()
    assert [s.sync for s in report.syncs] == ["orgs", "a_people"]
    ids = organizations(desk)
    assert homes(desk) == {"p1": 500, "p2": ids["new-1"], "p4": None}
    held = await desk.rows("SELECT key, reason FROM oploop.held")
    assert held == [("p3", 'organization_id: no zendesk.organizations has external_id "nowhere"')]
    writes = len(desk.writes())
    desk.sandbox.advance(120)
    await desk.turn()
    assert len(desk.writes()) == writes


async def test_the_referenced_stream_is_read_without_being_asked_for(desk: Desk) -> None:
    report = await desk.turn(Options(yes=True, selection=Selection(("a_people",))))
    assert {f"{r.app}.{r.stream}" for r in report.extracted} == {"zendesk.users", "zendesk.organizations"}
    assert homes(desk) == {"p1": 500, "p4": None}
    assert report.syncs[0].plan is not None
    assert report.syncs[0].plan.held == 2


async def test_a_plan_says_which_rows_wait_for_what_it_would_make(desk: Desk) -> None:
    async with desk.workspace() as ws:
        await loop.extract(ws, Selection().pick(ws.project))
        bound = await loop.bind_all(ws, Selection().pick(ws.project), loop.RunReport("r", "prod"))
        reports: list[loop.SyncReport] = []
        for b in (b for wave in loop.waves(bound) for b in wave):
            reports.append(await loop.plan_sync(ws, b, Options(), before=reports))
    counts = [r.plan.diff.counts for r in reports if r.plan is not None]
    assert counts == [{"create": 3}, {"create": 2, "waiting": 1, "held": 1}]
    assert reports[1].plan is not None
    home = next(f for f in reports[1].plan.fields if f.label == "organization_id")
    assert (home.median, home.moves) == (None, (("empty", "500", 1),))  # ids have no middle


async def test_a_ticket_whose_problem_is_made_now_goes_in_the_next_turn(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=0)
    desk.sync(
        "model: mart.tickets\nto: zendesk.tickets\nmode: create\nkey: {external_id: code}\n"
        "fields:\n  description: code\n  type: kind\n"
        "  problem_id: {ref: zendesk.tickets, by: external_id, column: problem}\n"
    )
    desk.load("tickets", [ticket(9, external_id="known", type="problem")])
    await desk.model(
        "SELECT * FROM (VALUES ('p', 'problem', NULL), ('i', 'incident', 'p'), ('j', 'incident', 'known')) AS t(code, kind, problem)"
    )
    problems = {}
    for round_ in range(2):
        assert (await desk.turn(Options(yes=True, allow=MAKES))).status == "ok"
        problems = {t["external_id"]: t.get("problem_id") for t in desk.sandbox.dump("tickets")}
        assert problems["j"] == 9
        assert ("i" in problems) is (round_ == 1)
        desk.sandbox.advance(120)
    made = {t["external_id"]: t["id"] for t in desk.sandbox.dump("tickets")}
    assert problems["i"] == made["p"]


async def test_references_in_a_circle_stop_before_any_call(desk: Desk) -> None:
    text = ORGS.replace(
        "{name: name}", "\n  name: name\n  group_id: {ref: zendesk.users, by: external_id, column: code}"
    )
    desk.sync(text, "orgs")
    calls = len(desk.sandbox.log)
    with pytest.raises(FixConfig, match=r"references go in a circle: syncs/a_people.yml .organization_id. needs") as e:
        await desk.turn()
    assert e.value.exit_code == 2
    assert len(desk.sandbox.log) == calls
