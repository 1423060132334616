"""Guardrails on the model, over whole turns: what stops is not sent, what is allowed once is the new measure."""

from __future__ import annotations

from oploop.loop import Options
from tests.flow.conftest import SYNC, Desk

RANKED = "SELECT i AS ticket_id, CASE WHEN i % 10 = 0 THEN 'urgent' ELSE 'low' END AS priority FROM range(1, 251) t(i)"


async def test_an_empty_and_a_halved_model_stop_before_the_first_call(desk: Desk) -> None:
    await desk.model(RANKED)
    await desk.turn()
    writes = len(desk.writes())
    for limit, seen in ((0, "100%"), (90, "64%")):
        await desk.model(f"{RANKED.replace('low', 'high')} LIMIT {limit}")
        report = await desk.turn()
        (stopped,) = report.syncs
        assert (report.exit_code, stopped.status) == (1, "stopped")
        assert f"rows {seen} > 50% fewer: 250 in the last run, {limit} now" in stopped.stopped
        assert f"tickets:rows={seen}" in stopped.allow
    assert len(desk.writes()) == writes
    allowed = frozenset({"rows", "changes"})
    assert (await desk.turn(Options(allow={"tickets": allowed}))).status == "ok"
    assert (await desk.turn()).status == "ok"  # 90 rows are what it has now


async def test_nulls_that_rise_stop_and_are_noted_in_an_open_table(desk: Desk) -> None:
    desk.sync(SYNC + "on_null: clear\n")
    await desk.model(RANKED)
    await desk.turn()
    await desk.model(RANKED.replace("'low'", "CASE WHEN i > 100 THEN 'low' END"))
    report = await desk.turn(Options(allow={"tickets": frozenset({"changes"})}))
    (stopped,) = report.syncs
    assert stopped.stopped == ["nulls 36% > 20% more in priority: 0% of the rows in the last run, 36% now"]
    assert set(desk.tickets("priority").values()) == {"urgent", "low"}
    assert (await desk.turn(Options(allow={"tickets": frozenset({"changes", "nulls=36%"})}))).status == "ok"
    noted = await desk.rows("SELECT sync, field, rows, nulls FROM oploop.field_nulls ORDER BY run_id")
    assert noted == [("tickets", "priority", 250, 0), ("tickets", "priority", 250, 90)]
