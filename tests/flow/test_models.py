"""Models by SQLMesh in the loop: what fails keeps back its own syncs and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from oploop.errors import FixConfig
from oploop.model.base import ModelStatus
from oploop.report import RunReport, SyncReport
from tests.flow.conftest import PROJECT, Desk, ticket

RANKED = """\
MODEL (name mart.ranked, kind {kind}, audits (accepted_values(column := priority, is_in := ('low', 'urgent'))));
SELECT id AS ticket_id, CASE WHEN subject = 'odd' THEN 'strange' WHEN subject LIKE '%!' THEN 'urgent' ELSE 'low' END AS priority
FROM raw_zendesk.tickets
"""
GREETED = """\
MODEL (name mart.greeted, kind VIEW);
SELECT id AS user_id, 'Hello ' || name AS notes FROM raw_zendesk.users WHERE role = 'end-user'
"""
TICKETS = "model: mart.ranked\nto: zendesk.tickets\nmode: update\nkey: {id: ticket_id}\nfields: [priority]\n"
USERS = "model: mart.greeted\nto: zendesk.users\nmode: update\nkey: {id: user_id}\nfields: [notes]\n"


@pytest.fixture
def modelled(make_desk: Callable[..., Desk]) -> Desk:
    desk = make_desk(tickets=0)
    desk.load("users", [{"id": 500 + i, "name": f"Zoë {i}", "role": "end-user"} for i in range(5)])
    desk.load("tickets", [ticket(i, subject="now!" if i % 2 else "later") for i in range(1, 11)])
    desk.project(PROJECT.replace("models: {engine: none}\n", "") + "    read: [tickets, users]\n")
    write(desk.folder, RANKED.format(kind="FULL"))
    (desk.folder / "models" / "greeted.sql").write_text(GREETED)
    desk.sync(TICKETS)
    desk.sync(USERS, "users")
    return desk


def write(folder: Path, model: str) -> None:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "ranked.sql").write_text(model)


def by_name(report: RunReport) -> dict[str, SyncReport]:
    return {s.sync: s for s in report.syncs}


def greetings(desk: Desk) -> list[str]:
    return [u["notes"] for u in desk.sandbox.dump("users") if u["role"] == "end-user"]


@pytest.mark.parametrize("kind", ["FULL", "VIEW"])
async def test_a_failed_audit_stops_its_sync_and_no_other(modelled: Desk, kind: str) -> None:
    desk = modelled
    write(desk.folder, RANKED.format(kind=kind))
    first = await desk.turn()
    assert first.status == "ok", first.as_json()
    assert set(desk.tickets("priority").values()) == {"urgent", "low"}

    desk.edit(1, subject="odd")
    desk.edit(2, subject="now!")
    desk.sandbox.store.update("users", 500, {"name": "Ada"})
    desk.sandbox.advance(120)
    second = await desk.turn()
    assert second.exit_code == 1
    failed = {m.model: m for m in second.models}["mart.ranked"]
    assert failed.status is ModelStatus.FAILED
    assert [(c.ok, c.rows) for c in failed.checks] == [(False, 1)]
    assert by_name(second)["tickets"].status == "stopped"
    assert "mart.ranked" in by_name(second)["tickets"].stopped[0]
    assert desk.tickets("priority")[2] == "low"  # the model wants urgent, but nothing of it is sent
    assert by_name(second)["users"].delivery is not None
    assert "Hello Ada" in greetings(desk)

    async with desk.workspace(read_only=True) as ws:  # the failure holds for a plan, too, until it is mended
        from oploop import loop

        report = await loop.plan_sync(ws, await ws.bound(ws.project.syncs["tickets"]), loop.Options())
        assert report.status == "stopped"

    desk.edit(1, subject="later")
    desk.sandbox.advance(120)
    third = await desk.turn()
    assert third.status == "ok", third.as_json()
    assert (desk.tickets("priority")[1], desk.tickets("priority")[2]) == ("low", "urgent")


async def test_what_is_wrong_with_a_model_or_its_sync_is_said_before_anything_is_read(modelled: Desk) -> None:
    desk = modelled
    desk.sync(TICKETS.replace("[priority]", "{priority: prioritty}"))
    with pytest.raises(
        FixConfig, match=r"syncs/tickets.yml:\d+: model mart.ranked has no column 'prioritty' — did you mean 'priority'"
    ):
        await desk.turn()
    desk.sync(TICKETS + "checks: [ticket_id > 0, prioritty is not null]\n")
    with pytest.raises(FixConfig, match=r"syncs/tickets.yml:\d+: checks: there is no column 'prioritty'"):
        await desk.turn()
    desk.sync(TICKETS.replace("mart.ranked", "mart.rankd"))
    with pytest.raises(
        FixConfig, match=r"syncs/tickets.yml:1: there is no model 'mart.rankd' — did you mean 'mart.ranked'"
    ):
        await desk.turn()
    async with desk.workspace() as ws:
        assert not [t for t in ws.warehouse.tables() if t.startswith("raw")]
    assert desk.writes() == []


async def test_a_model_that_names_what_is_not_there(modelled: Desk) -> None:
    desk = modelled
    write(desk.folder, RANKED.format(kind="VIEW").replace("raw_zendesk.tickets", "raw_zendesk.tickts"))
    with pytest.raises(FixConfig, match=r"ranked\.sql.*raw_zendesk\.tickets"):
        await desk.turn()
    assert set(desk.tickets("priority").values()) == {None}


async def test_environments_are_apart(modelled: Desk) -> None:
    desk = modelled
    await desk.turn()
    write(desk.folder, RANKED.format(kind="VIEW").replace("'low' END", "'urgent' END"))
    async with desk.workspace(env="dev") as ws:
        from oploop import loop

        await loop.build(ws, "b1")
        assert ws.warehouse.rows("SELECT DISTINCT priority FROM mart__dev.ranked") == [("urgent",)]
        assert {p for (p,) in ws.warehouse.rows("SELECT priority FROM mart.ranked")} == {"urgent", "low"}


UNIT_TEST = """\
test_ranked:
  model: mart.ranked
  inputs:
    raw_zendesk.tickets:
      rows: [{id: 1, subject: 'now!'}, {id: 2, subject: 'later'}]
  outputs:
    query:
      rows: [{ticket_id: 1, priority: urgent}, {ticket_id: 2, priority: WANTED}]
"""


async def test_unit_tests_run_before_a_build_and_again_only_when_something_changed(modelled: Desk) -> None:
    desk = modelled
    tests = desk.folder / "tests"
    tests.mkdir()
    (tests / "test_ranked.yaml").write_text(UNIT_TEST.replace("WANTED", "high"))
    with pytest.raises(FixConfig, match="unit test test_ranked failed"):
        await desk.turn()
    assert desk.writes() == []
    (tests / "test_ranked.yaml").write_text(UNIT_TEST.replace("WANTED", "low"))
    assert (await desk.turn()).unit_tests == 1
    passed = await desk.rows("SELECT * FROM oploop.unit_tests")
    assert (await desk.turn()).unit_tests == 1
    assert await desk.rows("SELECT * FROM oploop.unit_tests") == passed
    write(desk.folder, RANKED.format(kind="VIEW").replace("'%!'", "'now%'"))
    await desk.turn()
    assert len(await desk.rows("SELECT * FROM oploop.unit_tests")) == 2
