"""Whole turns with Postgres as the warehouse: through the loop, and through the command line of several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.flow.conftest import SYNC, Desk
from tests.flow.test_turns import RANKED, only, planned
from tests.postgres import PASSWORD
from tests.warehouses import empty


@pytest.fixture
def desk(desks: Callable[..., Desk], database: str) -> Desk:
    empty(database)
    return desks(dsn=database)


def oploop(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "oploop", *words],
        cwd=desk.folder,
        env=os.environ | desk.variables,
        capture_output=True,
        text=True,
    )


def ask(desk: Desk, sql: str) -> list[tuple[Any, ...]]:
    """Straight from the server, in its own dialect."""
    with psycopg.connect(desk.dsn) as db:
        done = db.execute(sql)  # type: ignore[call-overload]
        rows: list[tuple[Any, ...]] = done.fetchall() if done.description else []
        return rows


async def test_turns_send_what_is_missing_see_what_people_change_and_leave_it(desk: Desk) -> None:
    await desk.model(RANKED)
    first = only(await desk.turn())
    assert planned(first) == (0, 250)
    assert first.read_back is not None
    assert first.read_back.counts == {"confirmed": 250}
    assert desk.tickets("priority") == {n: "urgent" if n % 10 == 0 else "low" for n in range(1, 251)}
    writes = len(desk.writes())
    assert planned(only(await desk.turn())) == (0, 0)
    desk.edit(10, priority="normal")
    desk.sandbox.advance(120)
    third = await desk.turn()
    assert third.verified[0].counts == {"confirmed": 249, "drifted": 1}
    assert len(desk.writes()) == writes
    assert ask(desk, "SELECT status, count(*) FROM oploop.changes GROUP BY 1 ORDER BY 1") == [
        ("confirmed", 249),
        ("drifted", 1),
    ]
    assert ask(desk, "SELECT after ->> 'priority' FROM oploop.changes WHERE key = '20'") == [("urgent",)]
    assert ask(desk, "SELECT count(*), count(*) FILTER (WHERE status = 'ok') FROM oploop_journal.runs") == [(3, 3)]
    assert ask(desk, "SELECT count(*) FROM oploop_journal.steps") == [(0,)]
    assert ask(desk, "SELECT name FROM oploop_journal.leases") == []
    assert not (desk.folder / ".oploop" / "state.sqlite").exists()  # a runner that is thrown away loses nothing


async def test_new_records_are_made_once_and_deleted_ones_stay_gone(desks: Callable[..., Desk], database: str) -> None:
    empty(database)
    desk = desks(tickets=3, dsn=database)
    desk.sync(
        SYNC.replace("mode: update", "mode: upsert").replace("{id: ticket_id}", "{external_id: ticket_id}") + "  # it\n"
    )
    desk.sync(
        desk.folder.joinpath("syncs/tickets.yml").read_text().replace("[priority]", "[priority, subject, description]")
    )
    await desk.model(
        "SELECT 'e' || i AS ticket_id, 'low' AS priority, 'it''s ' || i AS subject, 'x' AS description FROM range(5) t(i)"
    )
    assert planned(only(await desk.turn())) == (5, 0)
    desk.sandbox.advance(120)
    assert planned(only(await desk.turn())) == (0, 0)
    assert sorted(t["external_id"] for t in desk.sandbox.dump("tickets") if t["external_id"]) == [
        f"e{i}" for i in range(5)
    ]


async def test_the_command_line_plans_runs_and_tells_in_processes_of_their_own(desk: Desk) -> None:
    await desk.model(RANKED)
    assert oploop(desk, "extract").returncode == 0
    plan = oploop(desk, "plan", "--env", "prod", "-o", "json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["syncs"][0]["planned"]["update"] == 250
    assert desk.writes() == []
    run = oploop(desk, "run", "--env", "prod", "--yes")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "250 sent" in run.stdout
    status = oploop(desk, "status")
    assert status.returncode == 0, status.stderr
    assert "250" in status.stdout
    doctor = oploop(desk, "doctor")
    assert "in the warehouse" in doctor.stdout, doctor.stdout + doctor.stderr
    for told in (plan, run, status, doctor):
        assert PASSWORD not in told.stdout + told.stderr


async def test_a_second_process_waits_or_says_who_is_at_it(desk: Desk) -> None:
    await desk.model(RANKED)
    async with desk.workspace() as ws:
        assert ws.warehouse
        second = oploop(desk, "run", "--env", "prod", "--yes")
        assert second.returncode == 2
        assert f"the warehouse is held by test (pid {os.getpid()}) since" in second.stderr
        assert second.stderr.count("\n") == 1
        waited = oploop(desk, "run", "--env", "prod", "--yes", "--wait", "0.5")
        assert waited.returncode == 2
        looks = oploop(desk, "status")  # reading is free
        assert looks.returncode == 0, looks.stderr
    assert desk.writes() == []
    assert oploop(desk, "run", "--env", "prod", "--yes", "--wait", "5").returncode == 0
    assert len(desk.tickets("priority")) == 250


async def test_a_run_that_died_is_taken_into_the_ledger_by_another_machine(desk: Desk) -> None:
    """Its state stands in the server, not in its folder."""
    from oploop.apps.sandbox import Fault

    await desk.model(RANKED)
    desk.sandbox.faults.append(Fault("PUT /api/v2/tickets/update_many", "timeout", times=9))
    words = [sys.executable, "-m", "oploop", "run", "--env", "prod", "--yes"]
    dying = subprocess.Popen(  # noqa: ASYNC220
        words, cwd=desk.folder, env=os.environ | desk.variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        if _begun(desk):
            break
        try:
            dying.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    dying.kill()
    dying.wait()
    assert _begun(desk)
    ask(desk, "UPDATE oploop_journal.leases SET beat_at = 'epoch', host = 'runner-7/x'")  # long ago, elsewhere
    desk.sandbox.faults.clear()
    again = await desk.turn()
    assert again.status == "ok", again.as_json()
    assert set(desk.tickets("priority").values()) == {"urgent", "low"}
    assert sorted(s for (s,) in ask(desk, "SELECT status FROM oploop_journal.runs")) == ["interrupted", "ok"]


def _begun(desk: Desk) -> bool:
    return ask(desk, "SELECT to_regclass('oploop_journal.steps') IS NOT NULL") == [(True,)] and ask(
        desk, "SELECT count(*) > 0 FROM oploop_journal.steps"
    ) == [(True,)]


def test_an_address_whose_variable_is_not_set_is_named_by_its_line(desk: Desk) -> None:
    desk.dsn = ""
    told = oploop(desk, "extract")
    assert told.returncode == 2
    assert "oploop.yml:2" in told.stderr
    assert "WAREHOUSE_DSN is empty" in told.stderr
