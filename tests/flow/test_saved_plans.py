"""Plans that were saved, and sent later: what is as it was looked at goes."""

from __future__ import annotations

import stat
from pathlib import Path

from oploop import loop
from oploop.apps.sandbox import Fault
from oploop.loop import Options
from tests.flow.conftest import Desk
from tests.flow.test_turns import RANKED, only


async def saved(desk: Desk, folder: Path) -> Path:
    """The plan of all syncs, of 250 tickets."""
    await desk.model(RANKED)
    file = folder / "plan.json"
    async with desk.workspace() as ws:
        await loop.extract(ws, list(ws.project.syncs.values()))
        plans = [await loop.plan_sync(ws, await ws.bound(s), Options(yes=True)) for s in ws.project.syncs.values()]
        loop.save_plan(ws, plans, file)
    return file


async def test_saved_plans_send_what_is_still_equal(desk: Desk, tmp_path: Path) -> None:
    file = await saved(desk, tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await desk.model(RANKED.replace("'urgent'", "CASE WHEN i = 10 THEN 'high' ELSE 'urgent' END"))
    async with desk.workspace() as ws:
        strict = await loop.apply(ws, file, Options(), strict=True)
    assert strict.exit_code == 1
    assert desk.writes() == []
    async with desk.workspace() as ws:
        report = await loop.apply(ws, file, Options())
    assert only(report).not_equal == ["10"]
    assert report.exit_code == 1
    found = desk.tickets("priority")
    assert found[10] is None
    assert found[20] == "urgent"
    assert only(report).delivery is not None
    assert only(report).delivery.delivered == 249


async def test_a_change_is_as_it_was_saved_only_if_what_it_replaces_is(desk: Desk, tmp_path: Path) -> None:
    """Who looked at the plan has not looked at what a person wrote since; the records are looked at by key."""
    file = await saved(desk, tmp_path)
    desk.sandbox.advance(120)
    desk.edit(20, priority="low")
    desk.sandbox.faults.append(Fault("GET /api/v2/tickets/show_many", "status", status=404, times=9))
    async with desk.workspace() as ws:
        report = await loop.apply(ws, file, Options())
    assert (only(report).status, desk.writes()) == ("stopped", []), "what cannot be looked at is not written over"
    desk.sandbox.faults.clear()
    async with desk.workspace() as ws:
        report = await loop.apply(ws, file, Options())
    assert (only(report).not_equal, report.exit_code) == (["20"], 1)
    assert desk.tickets("priority")[20] == "low"
    looks = [e for e in desk.sandbox.log if "show_many" in e.path]
    assert len(looks) == 1 + 3 + 3, "250 records by hundreds, before the delivery and after it"
