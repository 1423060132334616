"""Canary on a real Zendesk sandbox: the first changes go ahead, and the others follow only if they are as meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig
from tests.flow.conftest import SYNC, Desk, ticket
from tests.flow.test_turns import only

HIGH = "SELECT i AS ticket_id, 'high' AS priority FROM range(1, 31) t(i)"


@pytest.fixture
def low(make_desk: Callable[..., Desk]) -> Desk:
    """Thirty tickets of low priority, and a sync with a canary of five."""
    desk = make_desk(tickets=0)
    desk.load("tickets", [ticket(n, priority="low") for n in range(1, 31)])
    desk.sync(SYNC + "canary: 5\n")
    return desk


def meddling(desk: Desk) -> None:
    """The app keeps the priority at normal, whatever it is sent."""
    real = desk.sandbox.store.update

    def update(kind: str, number: int, body: dict[str, Any]) -> Any:
        return real(kind, number, {**body, "priority": "normal"} if body.get("priority") == "high" else body)

    desk.sandbox.store.update = update  # type: ignore[method-assign]


async def test_the_others_follow_a_canary_that_is_as_meant(low: Desk) -> None:
    await low.model(HIGH)
    report = only(await low.turn())
    assert (report.status, report.delivery.delivered) == ("ok", 30)  # type: ignore[union-attr]
    assert report.read_back.counts == {"confirmed": 30}  # type: ignore[union-attr]
    assert set(low.tickets("priority").values()) == {"high"}
    changes = await low.rows("SELECT count(*), count(DISTINCT key), count(DISTINCT run_id) FROM oploop.changes")
    assert changes == [(30, 30, 1)]
    first = low.writes()[0]
    assert first.body.count(b"priority") == 5


async def test_a_canary_that_the_app_makes_something_else_of_is_put_back(low: Desk) -> None:
    meddling(low)
    await low.model(HIGH)
    run = await low.turn()
    report = only(run)
    assert (report.status, run.exit_code) == ("stopped", 1)
    assert report.stopped[0].startswith("canary: 1 priority: sent high, the app holds normal; ")
    assert "5 of 5 were put back" in report.stopped[1]
    assert set(low.tickets("priority").values()) == {"low"}
    assert await low.rows("SELECT count(*) FROM oploop.changes") == [(10,)]
    assert await low.rows("SELECT sync FROM oploop.paused") == [("tickets",)]
    low.sandbox.advance(120)
    assert only(await low.turn()).status == "paused"


async def test_a_canary_that_is_refused_stops_the_others(low: Desk) -> None:
    low.load("tickets", [ticket(11, priority="low", status="closed")])
    await low.model(HIGH)
    run = await low.turn()
    assert (only(run).status, run.exit_code) == ("stopped", 1)
    assert only(run).stopped[0].startswith("canary: 1 of 5 changes did not arrive: ")
    assert set(low.tickets("priority").values()) == {"low"}


async def test_a_canary_as_large_as_the_delivery(low: Desk) -> None:
    await low.model(HIGH + " WHERE i <= 3")
    report = only(await low.turn())
    assert (report.status, report.delivery.delivered) == ("ok", 3)  # type: ignore[union-attr]


def spent(low: Desk, match: str, skip: int = 0) -> None:
    """The account's quota is used up for an hour, as the app says from some call on."""
    low.sandbox.faults.append(Fault(match, "status", status=429, headers={"Retry-After": "3600"}, skip=skip, times=9))


@pytest.mark.parametrize(
    ("match", "skip", "sent"),
    [("PUT /api/v2/tickets", 0, 0), ("PUT /api/v2/tickets", 1, 5), ("GET /api/v2/tickets/show_many", 0, 5)],
    ids=["the canary", "the others", "the look at the canary"],
)
async def test_what_the_quota_leaves_is_deferred(low: Desk, match: str, skip: int, sent: int) -> None:
    await low.model(HIGH)
    spent(low, match, skip)
    run = await low.turn()
    report = only(run)
    assert (report.status, run.exit_code, report.deferred, report.not_begun) == ("ok", 0, 30 - sent, 0)
    assert list(low.tickets("priority").values()).count("high") == sent
    assert "QuotaSpent" in type(report.error).__name__
    low.sandbox.faults.clear()
    low.sandbox.advance(120)
    calls = len(low.writes())
    report = only(await low.turn())
    assert (report.status, report.deferred, report.delivery.delivered) == ("ok", 0, 30 - sent)  # type: ignore[union-attr]
    assert [e.body.count(b"priority") for e in low.writes()[calls:]] == [5, 25 - sent]  # a canary of its own
    assert set(low.tickets("priority").values()) == {"high"}


async def test_what_was_sent_of_a_canary_is_looked_at_though_the_rest_of_it_is_deferred(low: Desk) -> None:
    low.load("tickets", [ticket(n, priority="low") for n in range(31, 201)])
    low.sync(SYNC + "canary: 150\n")  # two calls
    meddling(low)
    await low.model(HIGH.replace("31", "201"))
    spent(low, "PUT /api/v2/tickets", 1)
    run = await low.turn()
    report = only(run)
    assert (report.status, run.exit_code, report.deferred) == ("stopped", 1, 100)
    assert " priority: sent high, the app holds normal; " in report.stopped[0]
    assert report.stopped[1].startswith("0 of 100 were put back, as ")  # nor can that be sent today
    assert f"later oploop undo {run.run_id} (run " in report.stopped[1]


@pytest.mark.parametrize("status", [429, 403], ids=["the quota", "the app"])
async def test_a_canary_that_cannot_be_looked_at_to_be_put_back(low: Desk, status: int) -> None:
    meddling(low)
    await low.model(HIGH)
    again = {"Retry-After": "3600"} if status == 429 else {}
    low.sandbox.faults.append(
        Fault("GET /api/v2/tickets/show_many", "status", status=status, headers=again, skip=1, times=9)
    )
    run = await low.turn()
    assert (only(run).status, run.exit_code) == ("stopped", 1)
    assert only(run).stopped[1].startswith("it was not put back: ")
    assert f"oploop undo {run.run_id}; then: oploop resume tickets" in only(run).stopped[1]
    assert await low.rows("SELECT sync FROM oploop.paused") == [("tickets",)]
    assert list(low.tickets("priority").values()).count("normal") == 5


async def test_a_run_that_cannot_put_a_canary_back_has_failed(low: Desk) -> None:
    meddling(low)
    await low.model(HIGH)
    low.sandbox.faults.append(Fault("PUT /api/v2/tickets", "status", status=403, skip=1, times=99))
    run = await low.turn()
    assert (only(run).status, run.exit_code) == ("stopped", 1)
    assert only(run).stopped[1].startswith("0 of 5 were put back, as ")
    async with low.workspace() as ws:
        [back] = [r for r in ws.store.runs() if r.command == f"canary of {run.run_id}"]
    assert back.status == "failed"


async def test_a_canary_that_cannot_be_is_refused_with_its_line(low: Desk) -> None:
    low.sync(SYNC + "canary: 1001\n")
    await low.model(HIGH)
    with pytest.raises(FixConfig, match=r"syncs/tickets.yml:6: canary: 1001 is more than are read back"):
        await low.turn()
