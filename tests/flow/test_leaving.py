"""A mirror on a real sandbox: what leaves the model is deleted there, once that is allowed."""

from __future__ import annotations

from collections.abc import Callable

from oploop.loop import Options
from tests.flow.conftest import Desk

MIRROR = (
    "model: mart.tickets\nto: zendesk.tickets\nmode: mirror\nkey: {external_id: code}\n"
    "fields: {subject: subject, description: subject}\n"
)


async def test_a_mirror_deletes_what_it_made_and_nothing_else(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=2)
    desk.sync(MIRROR)
    await desk.model("SELECT code, 'Call ' || code AS subject FROM (VALUES ('A'), ('B'), ('C')) AS t(code)")
    assert (await desk.turn()).exit_code == 0
    desk.sandbox.advance(120)
    await desk.model("SELECT 'A' AS code, 'Call A' AS subject")
    stopped = (await desk.turn()).syncs[0]
    assert stopped.status == "stopped"
    assert any("removes 2 > 0" in why for why in stopped.stopped), stopped.stopped
    assert not [e for e in desk.writes() if e.method == "DELETE"]
    allow = {"tickets": frozenset({"removes=2", "rows", "changes"})}
    done = await desk.turn(Options(yes=True, allow=allow))
    assert done.exit_code == 0, done.syncs[0].stopped
    left = {t["external_id"] for t in desk.sandbox.dump("tickets") if t["status"] != "deleted"}
    assert left == {None, "A"}, "tickets that were there before are not ours"
    desk.sandbox.advance(120)
    again = (await desk.turn()).syncs[0]
    assert again.plan is not None
    assert again.plan.changes == 0
