"""Conflicts with people over several turns: a held one waits in `oploop.parked`, a tug-of-war ends there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from oploop import loop
from oploop.loop import Options
from oploop.runtime import Runtime
from oploop.stages.deciding import retry
from tests.apps.test_late_answers import Late
from tests.flow.conftest import SYNC, Desk
from tests.flow.test_turns import only

RANKED = "SELECT i AS ticket_id, 'low' AS priority, 'T' || i AS subject FROM range(1, 11) t(i)"
BOTH = SYNC.replace("[priority]", "[priority, subject]")


async def parked(desk: Desk) -> list[tuple[object, ...]]:
    return await desk.rows("SELECT key, field, reason, wanted FROM oploop.parked ORDER BY 1, 2, 3, 4")


async def turn(desk: Desk) -> dict[str, int]:
    """A turn when the export shows all that was done; what became of the rows."""
    desk.sandbox.advance(120)
    report = await desk.turn(Options(yes=True))
    (done,) = report.syncs
    assert done.plan is not None
    assert report.status == "ok"
    return done.plan.diff.counts


async def test_a_held_conflict_is_parked_and_released_in_either_direction(desk: Desk) -> None:
    desk.sync(BOTH + "conflict: hold\n")
    await desk.model(RANKED)
    await turn(desk)
    for n in (1, 2, 3):
        desk.edit(n, priority="high")
    assert await turn(desk) == {"parked": 3}
    assert await parked(desk) == [(str(n), "priority", "conflict", None) for n in (1, 2, 3)]
    said = await desk.rows("SELECT DISTINCT message FROM oploop.parked")
    assert said == [("the app holds high, the model wants low",)]

    desk.edit(1, priority="low")  # they came round
    await desk.model(f"{RANKED} WHERE i <> 2 UNION ALL SELECT 2, 'high', 'T2'")  # we did
    assert await turn(desk) == {"parked": 1}
    assert await parked(desk) == [("3", "priority", "conflict", None)]

    # the model moving alone decides nothing; the other fields of the record go on
    await desk.model(
        f"{RANKED} WHERE i NOT IN (2, 3) UNION ALL SELECT 2, 'high', 'T2' UNION ALL SELECT 3, 'urgent', 'New'"
    )
    desk.sandbox.advance(120)
    report = await desk.turn()
    assert report.syncs[0].plan is not None
    assert desk.tickets("priority", "subject")[3] == ("high", "New")
    assert await parked(desk) == [("3", "priority", "conflict", None)]

    async with desk.workspace() as ws:
        done = await retry(ws, list(ws.project.syncs.values()), key="3", reason=None, sent=None)
    assert done[0].released == {"conflict": 1}
    await turn(desk)
    assert desk.tickets("priority")[3] == "urgent"
    assert await parked(desk) == []


async def test_a_tug_of_war_ends_after_three_times_until_the_model_wants_something_else(desk: Desk) -> None:
    desk.sync(BOTH + "conflict: ours\n")
    await desk.model(RANKED)
    await turn(desk)
    for round_ in range(3):
        assert await parked(desk) == []
        desk.edit(4, priority="high")
        assert await turn(desk) == {"update": 1}, round_
        assert desk.tickets("priority")[4] == "low"
    assert await parked(desk) == [("4", "priority", "tug-of-war", '"low"')]

    desk.edit(4, priority="high")
    assert await turn(desk) == {"parked": 1}
    async with desk.workspace(read_only=True) as ws:
        (plan,) = [await loop.plan_sync(ws, await ws.bound(s), Options()) for s in ws.project.syncs.values()]
    assert plan.plan is not None
    assert plan.plan.diff.count("parked") == 1
    desk.edit(4, subject="theirs")  # another field of the record is no part of it
    assert await turn(desk) == {"update": 1}
    assert desk.tickets("priority", "subject")[4] == ("high", "T4")

    await desk.model(RANKED.replace("'low'", "CASE WHEN i = 4 THEN 'urgent' ELSE 'low' END"))
    assert await turn(desk) == {"update": 1}
    assert desk.tickets("priority")[4] == "urgent"
    assert await parked(desk) == []


async def test_values_that_move_are_no_tug_of_war(desk: Desk) -> None:
    desk.sync(SYNC + "conflict: ours\n")
    for wanted in ("low", "urgent", "low", "urgent", "low"):
        await desk.model(RANKED.replace("'low'", f"CASE WHEN i = 4 THEN '{wanted}' ELSE 'low' END"))
        await turn(desk)
        assert desk.tickets("priority")[4] == wanted
        desk.edit(4, priority="high")
    assert await parked(desk) == []


async def test_what_a_person_fills_in_where_a_new_record_was_left_empty_stays(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=0)
    desk.sync(
        "model: mart.tickets\nto: zendesk.tickets\nmode: upsert\nkey: {external_id: code}\non_null: clear\n"
        "fields: {subject: code, description: code, priority: priority, type: type}\n"
    )
    new = "SELECT 'A-' || i AS code, {} AS priority, NULL::VARCHAR AS type FROM range(1, 4) t(i)"
    await desk.model(new.format("NULL::VARCHAR"))
    desk.sandbox.advance(120)
    assert only(await desk.turn(Options(yes=True, first_run=True))).status == "ok"
    ids = sorted(desk.tickets("type"))
    desk.edit(ids[0], priority="high", type="task")
    assert await turn(desk) == {"kept": 1}
    await desk.model(new.format("CASE i WHEN 1 THEN 'low' WHEN 2 THEN 'urgent' END"))
    assert await turn(desk) == {"update": 2}
    assert desk.tickets("priority", "type") == {ids[0]: ("low", "task"), ids[1]: ("urgent", None), ids[2]: (None, None)}
    await desk.model(new.format("NULL::VARCHAR"))
    assert await turn(desk) == {"update": 2}  # what was sent is cleared
    assert set(desk.tickets("priority").values()) == {None}


async def test_what_somebody_changes_while_a_look_is_answered_is_seen_later(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=1)

    def edit() -> None:
        desk.sandbox.store.update("tickets", 1, {"priority": "low"})

    late = Late("show_many", edit)  # its answer ends when the edit is seconds old
    desk.runtime = Runtime(trace=late, monotonic=late.monotonic)
    await desk.model("SELECT 1 AS ticket_id, 'high' AS priority")
    report = only(await desk.turn())
    assert report.read_back is not None
    assert (late.met, report.read_back.counts) == (1, {"confirmed": 1})
    desk.sandbox.advance(120)
    desk.runtime = Runtime(now=lambda: datetime.now(UTC) + timedelta(seconds=120))  # so that the export vouches for it
    run = await desk.turn()
    assert [v.counts for v in run.verified] == [{"drifted": 1}]
    assert only(run).status == "nothing"
    assert desk.tickets("priority") == {1: "low"}
