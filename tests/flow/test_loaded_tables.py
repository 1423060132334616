"""A stream that another tool loads: its table in the warehouse stands in for the app's API, the rest of the loop is the same."""

from __future__ import annotations

import pytest

from oploop.errors import FixConfig
from tests.flow.conftest import PROJECT, SYNC, Desk

TABLES = """\
    tables:
      tickets: {table: fivetran.ticket, key: ticket_key, version: _fivetran_synced, deleted: _fivetran_deleted, lag: 1s}
"""
MODEL = "SELECT i AS ticket_id, 'urgent' AS priority FROM range(1, 4) t(i)"
COLUMNS = "ticket_key, subject, priority, Updated_At, _fivetran_synced, _fivetran_deleted"


@pytest.fixture
def loaded(desk: Desk) -> Desk:
    """Tickets are loaded by another tool."""
    desk.project(PROJECT + TABLES)
    return desk


async def load(desk: Desk) -> None:
    """What the other tool does: the tickets as they stand in the app, by its own names."""
    rows, synced = [], desk.sandbox.now().isoformat()
    for t in desk.sandbox.dump("tickets"):
        stamp, gone = t["updated_at"], str(t["status"] == "deleted")
        priority = "NULL" if t["priority"] is None else f"'{t['priority']}'"
        rows.append(f"({t['id']}, '{t['subject']}', {priority}, TIMESTAMPTZ '{stamp}', TIMESTAMPTZ '{synced}', {gone})")
    async with desk.workspace() as ws:
        ws.warehouse.execute("CREATE SCHEMA IF NOT EXISTS fivetran")
        ws.warehouse.execute(
            f"CREATE OR REPLACE TABLE fivetran.ticket AS SELECT * FROM (VALUES {', '.join(rows)}) v({COLUMNS})"
        )


async def test_the_loop_turns_on_what_another_tool_loads(loaded: Desk) -> None:
    desk = loaded
    await desk.model(MODEL)
    await load(desk)
    report = await desk.turn()
    assert report.exit_code == 0
    assert {n: p for n, p in desk.tickets("priority").items() if p} == {1: "urgent", 2: "urgent", 3: "urgent"}
    assert [e.path for e in desk.sandbox.log if "incremental" in e.path] == []
    sent = len(desk.writes())
    await desk.turn()  # the table is as it was: what was sent is no difference
    assert len(desk.writes()) == sent
    desk.edit(2, priority="low")
    await load(desk)
    [sync] = (await desk.turn()).syncs
    assert sync.plan is not None
    assert sync.plan.diff.count("kept") == 1
    assert desk.tickets("priority")[2] == "low"


async def test_a_record_that_the_table_calls_deleted_is_gone(loaded: Desk) -> None:
    desk = loaded
    await desk.model(MODEL)
    await load(desk)
    await desk.turn()
    desk.sandbox.advance(60)
    desk.sandbox.store.delete("tickets", 2)
    await load(desk)
    await desk.turn()
    rows = await desk.rows("SELECT id, subject, priority FROM raw_zendesk.tickets ORDER BY id")
    assert [r[0] for r in rows if r[0] < 4] == [1, 3]
    assert rows[0] == (1, "Ticket 1", "urgent")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fivetran.ticket", "fivetran.tickets", "there is no table 'fivetran.tickets' in the warehouse"),
        ("fivetran.ticket", "raw_zendesk.tickets", "raw_zendesk.tickets is a table of oploop's own"),
        ("ticket_key", "ticket_kei", "fivetran.ticket has no column 'ticket_kei'"),
        ("_fivetran_synced", "changed", "fivetran.ticket has no column 'changed'"),
        ("      tickets:", "      tikets:", "zendesk has no stream 'tikets'"),
    ],
)
async def test_what_is_wrong_with_the_table_names_its_line(loaded: Desk, old: str, new: str, says: str) -> None:
    desk = loaded
    await desk.model(MODEL)
    await load(desk)
    desk.project(PROJECT + TABLES.replace(old, new))
    with pytest.raises(FixConfig, match=says) as e:
        await desk.turn()
    assert str(e.value.place) == "oploop.yml:11"


async def test_a_field_that_the_table_lacks_cannot_be_compared(loaded: Desk) -> None:
    desk = loaded
    desk.sync(SYNC.replace("[priority]", "{type: priority}"))
    await desk.model(MODEL)
    await load(desk)
    with pytest.raises(FixConfig, match="field 'type' is compared with what the app holds") as e:
        await desk.turn()
    assert str(e.value.place) == "syncs/tickets.yml:5"
