"""Somebody changes a record between the read and the write: a conditional update leaves it alone, and it is decided anew."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import orjson

from oploop import loop
from oploop.apps.sandbox import Fault
from oploop.cli.out import Out
from oploop.cli.overview import look
from oploop.cli.show_plan import sync_lines
from oploop.loop import Options
from oploop.report import RunReport
from oploop.workspace import Event
from tests.flow.conftest import SYNC, Desk

LOW = "SELECT i AS ticket_id, 'low' AS priority, 'T' || i AS subject FROM range(1, 6) t(i)"
HIGH = LOW.replace("'low'", "'high'")
BOTH = SYNC.replace("[priority]", "[{priority: {column: priority, conflict: hold}}, subject]")


async def turn(desk: Desk, meanwhile: Callable[[], None] | None = None) -> RunReport:
    """A run, in which `meanwhile` happens when all is planned and nothing sent yet."""
    desk.sandbox.advance(120)

    def tell(event: Event) -> None:
        if meanwhile is not None and (event.stage, event.kind) == ("deliver", "start"):
            meanwhile()

    async with desk.workspace() as ws:
        return await loop.run(ws, Options(yes=True), tell)


def puts(desk: Desk) -> list[dict[str, Any]]:
    """The bodies of single updates."""
    return [orjson.loads(e.body) for e in desk.writes() if e.method == "PUT" and "update_many" not in e.path]


async def turn_beside_people(desk: Desk) -> RunReport:
    """A run that sends five records, of which somebody meanwhile changed one in the field that is held, and one in another."""

    def people() -> None:
        desk.edit(2, priority="urgent")
        desk.edit(3, type="task")

    report = await turn(desk, people)
    (done,) = report.syncs
    assert done.delivery is not None
    assert (report.status, done.delivery.delivered, done.delivery.failed, done.delivery.left) == ("ok", 4, 0, 1)
    return report


async def test_with_hold_a_change_of_somebody_is_never_overwritten(desk: Desk) -> None:
    desk.sync(BOTH)
    await desk.model(LOW)
    report = await turn(desk)
    assert (report.status, report.syncs[0].delivery and report.syncs[0].delivery.calls) == ("ok", 2), (
        "nothing to hold yet"
    )
    await desk.model(HIGH)
    report = await turn_beside_people(desk)
    assert desk.tickets("priority") == {n: "high" if n < 6 else None for n in range(1, 251)} | {2: "urgent"}
    assert await desk.rows("SELECT key, field, reason FROM oploop.parked") == [("2", "priority", "conflict")]
    said = await desk.rows(
        f"SELECT key, status, error FROM oploop.changes WHERE key IN ('2', '3') AND run_id = '{report.run_id}' ORDER BY key, status"
    )
    why = "changed in Zendesk since it was read"
    assert said == [("2", "drifted", why), ("3", "confirmed", None), ("3", "failed", why)]
    assert all(body["ticket"]["safe_update"] for body in puts(desk))


async def test_what_a_canary_finds_changed_is_looked_at_again_though_nothing_follows(desk: Desk) -> None:
    desk.sync(BOTH + "canary: 50\n")
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH)
    (done,) = (await turn_beside_people(desk)).syncs
    assert done.read_back is not None
    assert done.read_back.counts == {"confirmed": 4}
    assert desk.tickets("priority") == {n: "high" if n < 6 else None for n in range(1, 251)} | {2: "urgent"}


async def test_what_was_left_to_somebody_is_nothing_to_undo(desk: Desk) -> None:
    from oploop.stages.undoing import Wish, plan_undo

    desk.sync(BOTH)
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH.replace("6)", "3)"))
    run = (await turn(desk, lambda: desk.edit(2, priority="urgent"))).run_id
    desk.edit(2, priority="high")  # as if the refused change had been made
    async with desk.workspace() as ws:
        (planned,) = await plan_undo(ws, Wish((run,)))
    assert planned.plan is not None
    assert (planned.plan.changes, planned.left) == (1, [])


async def test_the_next_run_has_nothing_to_do_after_a_record_was_decided_anew(desk: Desk) -> None:
    desk.sync(BOTH)
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH)
    await turn(desk, lambda: desk.edit(3, type="task"))
    before = len(desk.writes())
    report = await turn(desk)
    assert (report.status, len(desk.writes())) == ("ok", before)


async def test_what_somebody_keeps_changing_waits_for_the_next_run(desk: Desk) -> None:
    desk.sync(BOTH)
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH.replace("6)", "2)"))
    store, update = desk.sandbox.store, desk.sandbox.store.update

    def restless(kind: str, number: int, body: Any) -> dict[str, Any]:
        if body.get("safe_update"):
            desk.sandbox.advance(2)
            update(kind, number, {"subject": f"at {desk.sandbox.now():%H:%M:%S}"})
        return update(kind, number, body)

    store.update = restless  # type: ignore[method-assign]
    report = await turn(desk)
    (done,) = report.syncs
    assert done.delivery is not None
    assert (report.status, done.delivery.failed, done.delivery.calls) == ("failed", 1, 4)
    async with desk.workspace(read_only=True) as ws:
        (told,) = look(ws, 10).syncs
    assert (told["delivered"], told["failed"]) == (0, 1)
    store.update = update  # type: ignore[method-assign]
    assert (await turn(desk)).status == "ok"
    assert desk.tickets("priority")[1] == "high"


async def test_a_run_that_is_stopped_while_it_looks_again_is_interrupted(desk: Desk) -> None:
    desk.sync(BOTH)
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH)
    busy = Fault("GET .*show_many", "status", status=429, headers={"Retry-After": "30"})

    def people() -> None:
        desk.edit(2, priority="urgent")
        desk.sandbox.faults.append(busy)

    async def stop() -> None:
        for _ in range(3_000):
            await asyncio.sleep(0.01)
            if busy.times == 0:
                break
        desk.runtime.stop.ask(signal.SIGTERM)

    report, _ = await asyncio.gather(turn(desk, people), stop())
    (done,) = report.syncs
    assert (done.status, report.exit_code, done.delivery and done.delivery.failed) == ("interrupted", 143, 1)


async def test_tags_are_safe_where_it_costs_no_call_more(desk: Desk) -> None:
    desk.sync(SYNC.replace("[priority]", "[{tags: {add: [vip]}}]"))
    await desk.model("SELECT 1 AS ticket_id")
    report = await turn(desk, lambda: desk.edit(1, tags=["theirs"]))
    assert report.status == "ok"
    assert desk.tickets("tags")[1] == ["theirs", "vip"]
    await desk.model("SELECT i AS ticket_id FROM range(2, 51) t(i)")
    report = await turn(desk)
    assert (report.status, report.syncs[0].delivery and report.syncs[0].delivery.calls) == ("ok", 2)


async def test_an_undo_leaves_what_somebody_changes_meanwhile(desk: Desk) -> None:
    await desk.model("SELECT 1 AS ticket_id, 'high' AS priority")
    run = (await turn(desk)).run_id
    from oploop.stages.undoing import Wish, plan_undo

    async with desk.workspace() as ws:
        plans = await plan_undo(ws, Wish((run,)))
        desk.edit(1, priority="urgent")
        report = await loop.undo(ws, (run,), plans)
    assert (report.status, desk.tickets("priority")[1]) == ("failed", "urgent")


async def test_a_plan_says_why_its_updates_go_one_by_one(desk: Desk) -> None:
    desk.sync(BOTH)
    await desk.model(LOW)
    await turn(desk)
    await desk.model(HIGH)
    async with desk.workspace(read_only=True) as ws:
        (report,) = [await loop.plan_sync(ws, await ws.bound(s), Options()) for s in ws.project.syncs.values()]
        lines = sync_lines(report, ws.warehouse, Out(), every=False)
    assert any("cost    5 calls" in line and "updates one by one" in line for line in lines), lines
