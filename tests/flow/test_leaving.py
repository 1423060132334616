"""Rows that leave, and rows that are sent once, on real sandboxes."""

from __future__ import annotations

from collections.abc import Callable

from oploop.apps.segment.sandbox import SegmentSandbox
from oploop.loop import Options
from tests.flow.conftest import PROJECT, Desk

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


async def test_an_append_sends_each_row_once(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=0)
    segment = SegmentSandbox()
    block = f"  segment: {{write_key: wk_test_oploop, base_url: '{segment.start()}'}}\n"
    try:
        desk.project(PROJECT + block)
        desk.sync(
            "model: mart.tickets\nto: segment.track\nmode: append\nkey: {id: id}\n"
            "fields: {event: {value: Paid}, userId: who}\n"
        )
        turns = (("(1, 'a')", []), ("(1, 'b'), (2, 'b')", ["b"]), ("(2, 'c'), (3, 'd')", ["b", "d"]))
        for n, (rows, wanted) in enumerate(turns):
            await desk.model(f"SELECT * FROM (VALUES {rows}) AS t(id, who)")
            report = await desk.turn(Options(first_run=n == 0))
            assert report.exit_code == 0, report.syncs[0].stopped
            assert [e["userId"] for e in segment.dump("track")] == wanted
        assert await desk.rows("SELECT key, how FROM oploop.appended ORDER BY 1") == [
            ("1", "seen"),
            ("2", "sent"),
            ("3", "sent"),
        ]
    finally:
        segment.stop()


async def test_comments_are_appended_once_whatever_their_tickets(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(tickets=3)
    desk.sync(
        "model: mart.said\nto: zendesk.ticket_comments\nmode: append\nkey: [event_id]\n"
        "fields: {ticket_id: ticket, body: said, public: {value: false}}\n",
        "said",
    )
    (desk.folder / "syncs/tickets.yml").unlink()
    rounds: tuple[tuple[str, dict[int, list[str]]], ...] = (
        ("(1, 1, 'old')", {}),
        ("(1, 1, 'old'), (2, 1, 'it''s 🔥'), (3, 1, 'more'), (4, 2, 'b')", {1: ["it's 🔥", "more"], 2: ["b"]}),
        ("(3, 2, 'moved'), (4, 2, 'b'), (5, 3, 'c')", {1: ["it's 🔥", "more"], 2: ["b"], 3: ["c"]}),
    )
    for rows, wanted in rounds:
        await desk.model(f"SELECT * FROM (VALUES {rows}) AS t(event_id, ticket, said)", "mart.said")
        assert (await desk.turn(Options(first_run=True, yes=True))).exit_code == 0
        held = {n: [c["body"] for c in told] for n, told in desk.sandbox.store.comments.items()}
        assert held == wanted
