"""Undo on a real Zendesk sandbox: what a run changed is put back where nobody changed it since, and stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oploop import loop
from oploop.activate.undo import AGAIN, AT_WORK
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.report import RunReport, SyncReport
from oploop.selection import Selection
from oploop.stages.undoing import Wish, plan_undo, runs_of
from tests.flow.conftest import Desk, ticket
from tests.flow.test_turns import RANKED, only, planned

CREATES = (
    "model: mart.calls\nto: zendesk.tickets\nmode: create\nkey: {external_id: code}\n"
    "fields: {subject: subject, description: subject, priority: priority}\n"
)


async def undo(desk: Desk, *runs: str, **wish: Any) -> RunReport:
    """Plan and do it."""
    async with desk.workspace() as ws:
        await loop.recover(ws)
        plans = await plan_undo(ws, Wish(tuple(runs), **wish))
        return await loop.undo(ws, runs, plans)


def alive(desk: Desk) -> list[dict[str, Any]]:
    return [t for t in desk.sandbox.dump("tickets") if t["status"] != "deleted"]


def left(report: SyncReport) -> dict[tuple[str, str | None], str]:
    return {(x.key, x.field): x.reason for x in report.left}


@pytest.fixture
def low(make_desk: Callable[..., Desk]) -> Desk:
    """Thirty tickets of low priority."""
    desk = make_desk(tickets=0)
    desk.load("tickets", [ticket(n, priority="low", tags=["old"]) for n in range(1, 31)])
    return desk


HIGH = "SELECT i AS ticket_id, 'high' AS priority FROM range(1, 31) t(i)"


async def of_calls(desk: Desk, many: int) -> None:
    """A sync that makes a ticket of each call, and so many calls."""
    desk.sync(CREATES)
    await desk.model(
        f"SELECT 'A-' || i AS code, 'Call ' || i AS subject, 'high' AS priority FROM range(1, {many + 1}) t(i)",
        "mart.calls",
    )


async def test_what_a_run_sent_is_put_back_and_the_next_run_does_not_bring_it_again(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    assert set(low.tickets("priority").values()) == {"high"}
    low.sandbox.advance(120)
    undone = await undo(low, first.run_id)
    assert (undone.status, planned(only(undone)), undone.exit_code) == ("ok", (0, 30), 0)
    assert set(low.tickets("priority").values()) == {"low"}
    assert only(undone).read_back.counts == {"confirmed": 30}  # type: ignore[union-attr]
    assert await low.rows("SELECT sync, run_id FROM oploop.paused") == [("tickets", undone.run_id)]

    writes = len(low.writes())
    low.sandbox.advance(120)
    paused = await low.turn()
    assert (only(paused).status, paused.exit_code) == ("paused", 0)
    await low.rows("DELETE FROM oploop.paused RETURNING *")
    for _ in range(2):
        low.sandbox.advance(120)
        report = only(await low.turn())
        assert report.plan.diff.counts == {"parked": 30}  # type: ignore[union-attr]
    assert len(low.writes()) == writes
    await low.model(HIGH.replace("'high'", "CASE WHEN i <= 3 THEN 'urgent' ELSE 'high' END"))
    assert planned(only(await low.turn())) == (0, 3)  # what the model wants something else for goes
    low.sandbox.advance(120)
    await low.model(HIGH)
    assert planned(only(await low.turn())) == (0, 3)  # and is free from then on
    assert sorted(k for (k,) in await low.rows("SELECT key FROM oploop.parked")) == sorted(map(str, range(4, 31)))


async def test_what_people_and_later_runs_changed_since_is_left(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.edit(5, priority="urgent")
    low.edit(6, subject="another field")
    low.sandbox.store.delete("tickets", 7)
    await low.model(HIGH.replace("'high'", "CASE WHEN i = 8 THEN 'normal' ELSE 'high' END"))
    low.sandbox.advance(120)
    await low.turn()
    low.sandbox.advance(120)
    undone = await undo(low, first.run_id)
    assert left(only(undone)) == {
        ("5", "priority"): "changed since by somebody",
        ("7", None): "the record is no longer in the app",
        ("8", "priority"): "a later run sent it anew",
    }
    assert planned(only(undone)) == (0, 27)
    found = low.tickets("priority")
    assert {n: p for n, p in found.items() if p != "low"} == {5: "urgent", 7: "high", 8: "normal"}


async def test_all_runs_since_go_back_to_before_the_first(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.sandbox.advance(120)
    await low.model(HIGH.replace("'high'", "CASE WHEN i > 20 THEN 'urgent' ELSE 'high' END"))
    second = await low.turn()
    low.sandbox.advance(120)
    undone = await undo(low, first.run_id, second.run_id)
    assert planned(only(undone)) == (0, 30)
    assert set(low.tickets("priority").values()) == {"low"}
    wanted = await low.rows("SELECT wanted, count(*) FROM oploop.parked WHERE reason = 'undone' GROUP BY 1 ORDER BY 1")
    assert wanted == [('"high"', 20), ('"urgent"', 10)]


async def test_an_undo_can_be_undone(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.sandbox.advance(120)
    undone = await undo(low, first.run_id)
    low.sandbox.advance(120)
    again = await undo(low, undone.run_id)
    assert planned(only(again)) == (0, 30)
    assert set(low.tickets("priority").values()) == {"high"}
    assert await low.rows("SELECT count(*) FROM oploop.parked") == [(0,)]
    assert await low.rows("SELECT undid FROM oploop.undone ORDER BY run_id") == [(first.run_id,), (undone.run_id,)]
    low.sandbox.advance(120)
    await low.rows("DELETE FROM oploop.paused RETURNING *")
    assert planned(only(await low.turn())) == (0, 0)


async def test_records_that_a_run_made_are_removed_and_come_again_when_that_is_undone(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(tickets=0)
    await of_calls(desk, 5)
    first = await desk.turn(Options(yes=True, first_run=True))
    assert planned(only(first)) == (5, 0)
    made = {t["external_id"]: t["id"] for t in desk.sandbox.dump("tickets")}
    desk.edit(made["A-2"], priority="low")
    desk.sandbox.advance(120)
    undone = await undo(desk, first.run_id)
    plan = only(undone).plan
    assert plan is not None
    assert (plan.remove, plan.changes) == (4, 4)
    assert left(only(undone)) == {("A-2", None): "changed since by somebody"}
    assert [t["external_id"] for t in alive(desk)] == ["A-2"]
    ops = await desk.rows(
        "SELECT op, after, count(*) FROM oploop.changes WHERE run_id > (SELECT min(run_id) FROM oploop.changes) GROUP BY 1, 2"
    )
    assert ops == [("remove", "{}", 4)]
    desk.sandbox.advance(120)
    await desk.rows("DELETE FROM oploop.paused RETURNING *")
    assert planned(only(await desk.turn())) == (0, 0)

    again = await undo(desk, undone.run_id)
    assert planned(only(again)) == (4, 0)
    found = {t["external_id"]: (t["subject"], t["priority"]) for t in alive(desk)}
    assert found == {f"A-{i}": (f"Call {i}", "low" if i == 2 else "high") for i in range(1, 6)}


async def test_a_record_whose_answer_was_lost_is_removed_once_a_read_shows_it_as_it_was_sent(
    make_desk: Callable[..., Desk],
) -> None:
    """One that holds something else may be somebody else's: it is known by its key only."""
    desk = make_desk(tickets=0)
    await of_calls(desk, 2)
    desk.sandbox.faults.append(Fault("POST /api/v2/tickets$", "lose", times=2))
    first = await desk.turn(Options(yes=True, first_run=True))
    made = {t["external_id"]: t["id"] for t in desk.sandbox.dump("tickets")}
    assert (only(first).as_json()["unknown"], sorted(made)) == (2, ["A-1", "A-2"])
    desk.edit(made["A-2"], priority="low")
    desk.sandbox.advance(120)
    assert planned(only(await desk.turn(Options(yes=True, first_run=True)))) == (0, 0)
    told = "SELECT key, status, remote_id FROM oploop.changes ORDER BY key"
    assert await desk.rows(told) == [("A-1", "sent", str(made["A-1"])), ("A-2", "unknown", None)]
    records = await desk.rows("SELECT canonical_key, remote_id, created_by FROM oploop.records")
    assert records == [("A-1", str(made["A-1"]), first.run_id)]
    undone = await undo(desk, first.run_id)
    assert only(undone).plan.remove == 1  # type: ignore[union-attr]
    assert left(only(undone)) == {("A-2", None): "the app never told its id"}
    assert [t["external_id"] for t in alive(desk)] == ["A-2"]


async def test_a_row_that_was_taken_away_and_came_back_has_one_record(make_desk: Callable[..., Desk]) -> None:
    """By whichever run it came back, and whether a read has shown that yet, or never."""
    desk = make_desk(tickets=0)
    desk.sync(CREATES.replace("mode: create", "mode: mirror") + "limits: {removes: 9, changes: 100%, rows: 100%}\n")
    rows = "SELECT 'c' || i AS code, 'it' || i AS subject, {} AS priority FROM range(1, 7) t(i)"
    whole, apart = rows.format("'low'"), rows.format("'low'") + " WHERE i > 2"

    async def turn(select: str) -> RunReport:
        await desk.model(select, "mart.calls")
        desk.sandbox.advance(120)
        return await desk.turn()

    await turn(whole)
    gone = await turn(apart)
    back = await turn(rows.format("'high'"))
    assert planned(only(back)) == (2, 4)
    undone = await undo(desk, gone.run_id)
    assert left(only(undone)) == {("c1", None): AGAIN, ("c2", None): AGAIN}
    assert planned(only(undone)) == (0, 0)
    await desk.rows("DELETE FROM oploop.paused RETURNING *")

    undone = await undo(desk, gone.run_id, back.run_id)
    assert left(only(undone)) == {("c1", None): AGAIN, ("c2", None): AGAIN}
    assert planned(only(undone)) == (0, 4)
    assert sorted((t["external_id"], t["priority"]) for t in alive(desk)) == [
        *((f"c{i}", "high") for i in (1, 2)),
        *((f"c{i}", "low") for i in (3, 4, 5, 6)),
    ]


async def test_only_what_was_asked_for(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.sandbox.advance(120)
    assert planned(only(await undo(low, first.run_id, key="12"))) == (0, 1)
    assert low.tickets("priority")[12] == "low"
    assert planned(only(await undo(low, first.run_id, limit=4))) == (0, 4)
    async with low.workspace() as ws:
        none = await plan_undo(ws, Wish((first.run_id,), Selection(exclude=("tickets",))))
        assert none == []
        assert runs_of(ws, first.run_id[:20].lower()) == (first.run_id,)
        for wrong in ("01XYZ", ""):
            with pytest.raises(FixConfig, match="there is no run"):
                runs_of(ws, wrong)


async def test_lists_and_a_sync_that_no_longer_maps_the_field_or_was_renamed(low: Desk) -> None:
    low.sync(
        "model: mart.tickets\nto: zendesk.tickets\nmode: update\nkey: {id: ticket_id}\nfields: {tags: {add: [vip]}, priority: priority}\n"
    )
    await low.model(HIGH)
    first = await low.turn()
    assert set(map(tuple, low.tickets("tags").values())) == {("old", "vip")}
    low.sandbox.advance(120)
    (low.folder / "syncs" / "tickets.yml").rename(low.folder / "syncs" / "ranks.yml")
    low.sync(
        "model: mart.tickets\nto: zendesk.tickets\nmode: update\nkey: {id: ticket_id}\nfields: {tags: {add: [vip]}}\n",
        "ranks",
    )
    undone = await undo(low, first.run_id)
    assert (only(undone).sync, planned(only(undone))) == ("ranks", (0, 30))
    assert set(low.tickets("priority").values()) == {"low"}
    assert set(map(tuple, low.tickets("tags").values())) == {("old",)}
    low.edit(3, tags=["old", "more"])
    low.sandbox.advance(120)
    await low.rows("DELETE FROM oploop.paused RETURNING *")
    assert only(await low.turn()).plan.diff.counts == {"parked": 30}  # type: ignore[union-attr]


async def test_an_undo_that_was_cut_off_is_taken_up_like_any_delivery(
    low: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.sandbox.advance(120)

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr("oploop.activate.folding.fold", dies)
        with pytest.raises(KeyboardInterrupt):
            await undo(low, first.run_id)
    assert set(low.tickets("priority").values()) == {"low"}
    low.sandbox.advance(120)
    report = await low.turn()
    assert (len(report.recovered), only(report).status) == (1, "paused")
    await low.rows("DELETE FROM oploop.paused RETURNING *")
    assert only(await low.turn()).plan.diff.counts == {"parked": 30}  # type: ignore[union-attr]


async def test_what_the_app_refuses_to_take_back_is_rejected_and_told(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    low.sandbox.faults.append(Fault("update_many", "status", status=422, times=99))
    low.sandbox.faults.append(Fault("PUT /api/v2/tickets/", "status", status=422, times=99))
    undone = await undo(low, first.run_id)
    assert (undone.exit_code, only(undone).delivery.rejected) == (1, 30)  # type: ignore[union-attr]
    assert await low.rows("SELECT count(*) FROM oploop.parked WHERE reason = 'undone'") == [(0,)]


async def test_a_sync_that_is_gone_is_named(low: Desk) -> None:
    await low.model(RANKED)
    first = await low.turn()
    (low.folder / "syncs" / "tickets.yml").unlink()
    undone = await undo(low, first.run_id)
    assert (only(undone).status, only(undone).stopped) == (
        "stopped",
        ["there is no sync 'tickets' any more that writes zendesk.tickets; bring its file back to undo it"],
    )


async def test_the_ledger_tells_the_commit_and_the_run_what_it_did(low: Desk) -> None:
    await low.model(HIGH)
    first = await low.turn()
    [(summary,)] = await low.rows("SELECT CAST(summary AS JSON) ->> '/run_id' FROM oploop.runs")
    assert summary == first.run_id
    assert await low.rows("SELECT count(DISTINCT release), count(*) FROM oploop.changes") == [(0, 30)]  # no git here


@pytest.mark.parametrize("key", ["{external_id: code}", "[code]", "[code, subject]"])
async def test_rows_that_were_appended_are_removed_and_not_appended_again(
    make_desk: Callable[..., Desk], key: str
) -> None:
    desk = make_desk(tickets=0)
    append = CREATES.replace("mode: create", "mode: append").replace("{external_id: code}", key)
    desk.sync(f"{append}at_most_once: true\n")
    await desk.model(
        "SELECT 'A-' || i AS code, 'Call ' || i AS subject, 'high' AS priority FROM range(1, 6) t(i)", "mart.calls"
    )
    first = await desk.turn(Options(yes=True, first_run=True, backfill=True))
    assert planned(only(first)) == (5, 0)
    desk.sandbox.advance(120)
    undone = await undo(desk, first.run_id)
    assert only(undone).plan.remove == 5, left(only(undone))  # type: ignore[union-attr]
    assert alive(desk) == []
    await desk.rows("DELETE FROM oploop.paused RETURNING *")
    desk.sandbox.advance(120)
    assert planned(only(await desk.turn())) == (0, 0)
    assert alive(desk) == []


async def test_what_jobs_of_another_sync_do_is_asked_first(low: Desk) -> None:
    """Else their records wait for a run of that sync, though the app could tell that its jobs are over."""
    (low.folder / "syncs" / "subjects.yml").write_text(
        "model: mart.subjects\nto: zendesk.tickets\nmode: update\nkey: {id: ticket_id}\nfields: {subject: subject}\n"
    )
    await low.model(HIGH)
    await low.model("SELECT i AS ticket_id, 'news ' || i AS subject FROM range(1, 31) t(i)", "mart.subjects")
    first = await low.turn(Options(selection=Selection(("tickets",)), yes=True))
    low.sandbox.advance(120)
    low.sandbox.faults += [Fault("job_statuses", "cut", times=99)]
    second = await low.turn(Options(selection=Selection(("subjects",)), yes=True))
    assert only(second).delivery is not None
    assert only(second).delivery.unknown == 30
    assert await low.rows("SELECT DISTINCT owner FROM oploop.jobs") == [("subjects",)]
    undone = await undo(low, first.run_id)
    assert set(left(only(undone)).values()) == {AT_WORK}, "nobody can say whether the job is over"
    assert planned(only(undone)) == (0, 0)
    low.sandbox.faults.clear()
    undone = await undo(low, first.run_id)
    assert (left(only(undone)), planned(only(undone))) == ({}, (0, 30))
    assert set(low.tickets("priority").values()) == {"low"}
    assert await low.rows("SELECT count(*) FROM oploop.jobs") == [(0,)]
    assert low.tickets("subject")[7] == "news 7"
