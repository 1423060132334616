"""The whole demo, smaller: each thing that it shows is held against the generated records, worked out in plain Python."""

from __future__ import annotations

import asyncio
import copy
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from oploop.activate.plan import SyncPlan
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.demo import folder as folders
from oploop.demo.happenings import BY_HAND, PAYMENT
from oploop.demo.play import Played, play, serve
from oploop.demo.support import REASON_FIELD, REASON_TITLE
from oploop.errors import FixConfig, RetryLater
from oploop.report import RunReport
from oploop.runtime import Runtime
from oploop.trace import trace
from oploop.workspace import Event, Workspace
from tests.unit.demo import expected

SCALE = 0.1


@dataclass
class Recorder:
    """A Show and a Turn that keep what they are told."""

    lines: list[str] = field(default_factory=list)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    traced: list[str] = field(default_factory=list)

    def head(self, text: str) -> None:
        self.lines.append(text)

    line = command = head

    def done(self, text: str, seconds: float) -> None:
        self.lines.append(text)

    def table(self, rows: list[tuple[str, ...]]) -> None:
        self.lines += ["   ".join(row) for row in rows]

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        yield

    @contextmanager
    def turn(self, ws: Workspace) -> Iterator[Recorder]:
        yield self

    def tell(self, event: Event) -> None:
        assert event.kind != "failed"

    def confirm(self, plan: SyncPlan) -> bool:
        self.asked.append((plan.bound.name, plan.create, plan.update))
        return True

    def end(self, report: RunReport) -> None:
        self.lines.append(report.status)

    async def trace(self, ws: Workspace, target: str, key: str) -> None:
        found = await trace(ws, target, key)
        self.traced.append(str(found.as_json()))


@dataclass
class Show:
    """The demo as it was played once for all tests of this file."""

    played: Played
    recorder: Recorder
    before: dict[int, expected.Ranked]
    after: dict[int, expected.Ranked]
    tickets: dict[int, dict[str, Any]]  #: as Zendesk holds them at the end

    def sent(self, turn: int) -> dict[int, dict[str, Any]]:
        """What the ledger has of a turn, by ticket."""
        with duckdb.connect(str(self.played.folder / "warehouse.duckdb"), read_only=True) as db:
            rows = db.execute(
                "SELECT key, op, before, after, why, status, error, app || '.' || object AS target FROM oploop.changes "
                "WHERE run_id = ?",
                [self.played.turns[turn].run_id],
            )
            names = [d[0] for d in rows.description]
            found = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
        for row in found:
            row |= {k: orjson.loads(row[k]) for k in ("before", "after", "why")}
        return {int(row["key"]): row for row in found}

    def open_of(self, role: str) -> list[int]:
        company = self.played.company
        return [t["id"] for t in company.open_tickets_of(company.actor(role))]


def after_what_happened(played: Played, held: dict[int, dict[str, Any]]) -> dict[int, expected.Ranked]:
    """The same company with the payment, the cancellation and the new tickets (`held`: as Zendesk has them)."""
    company, now = played.company, datetime.now(UTC)
    stripe, zendesk = copy.deepcopy(company.records["stripe"]), copy.deepcopy(company.records["zendesk"])
    payer, leaver = company.actor("payer"), company.actor("leaver")
    stripe["charges"].append(
        {"id": "ch_new", "customer": payer.id, "amount": PAYMENT, "currency": "usd", "created": int(now.timestamp())}
    )
    for s in stripe["subscriptions"]:
        if s["customer"] == leaver.id:
            s["status"] = "canceled"
    made = next(h.tickets for h in played.happened if "write in" in h.told)
    for number, role in zip(made, ("regular", "newcomer", "caller"), strict=True):
        user = company.user_of[company.actor(role).id]
        zendesk["tickets"].append(
            {"requester_id": user, "id": number, "status": "new", "created_at": held[number]["created_at"]}
        )
    return expected.tickets(stripe, zendesk, company.records["segment"]["events"])


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Show:
    folder, recorder = tmp_path_factory.mktemp("demo") / "acme", Recorder()
    played = asyncio.run(play(folder, show=recorder, runtime=Runtime(), scale=SCALE))
    records = played.company.records
    before = expected.tickets(records["stripe"], records["zendesk"], records["segment"]["events"])
    kept = orjson.loads(gzip.decompress((folder / ".oploop/sandboxes/zendesk.json.gz").read_bytes()))
    tickets = {t["id"]: t for t in kept["tickets"]}
    return Show(played, recorder, before, after_what_happened(played, tickets), tickets)


def reason_of(ticket: dict[str, Any]) -> str | None:
    return next(f["value"] for f in ticket["custom_fields"] if f["id"] == REASON_FIELD)


def test_the_first_turn_ranks_every_open_ticket(show: Show) -> None:
    held = {t["id"]: t["priority"] for t in show.played.company.records["zendesk"]["tickets"]}
    sent = show.sent(0)
    assert len(sent) == len(show.before) == 60
    for number, want in show.before.items():
        after = sent[number]["after"]
        assert after.pop(REASON_TITLE) == want.reason
        assert after == ({} if held[number] == want.priority else {"priority": want.priority})
        assert sent[number]["target"] == "zendesk.tickets"
        assert sent[number]["op"] == "update"
    first = show.played.turns[0].as_json()["syncs"][0]
    assert (first["delivered"], first["rejected"], first["held"]) == (60, 0, 0)
    assert first["read_back"]["confirmed"] == 60
    assert show.recorder.asked == [("ticket_priority", 0, 60)]


def test_the_ledger_says_why(show: Show) -> None:
    records = show.played.company.records
    health = expected.health(records["stripe"], records["segment"]["events"])
    for number, row in show.sent(0).items():
        want = show.before[number]
        assert row["why"]["score"] == want.score
        if want.account is not None:
            account = health[want.account]
            assert float(row["why"]["last_year"]) == float(account.last_year)
            assert row["why"]["coefficient"] == pytest.approx(account.coefficient)
            assert row["why"]["health"] == account.health


def test_the_second_turn_sends_just_what_follows(show: Show) -> None:
    sent = show.sent(1)
    follows = {n for n, want in show.after.items() if show.before.get(n) != want}
    made = {n for h in show.played.happened for n in h.tickets} - show.before.keys()
    assert follows == {*show.open_of("payer"), *show.open_of("leaver"), *made}
    assert sent.keys() == follows
    for number, row in sent.items():
        assert row["after"][REASON_TITLE] == show.after[number].reason
    assert all(row["status"] == "confirmed" for row in sent.values())
    for number in show.open_of("payer"):
        assert (sent[number]["before"]["priority"], sent[number]["after"]["priority"]) == ("normal", "high")
    for number in show.open_of("leaver"):
        assert (sent[number]["before"]["priority"], sent[number]["after"]["priority"]) == ("urgent", "normal")
    assert show.recorder.asked == [("ticket_priority", 0, 60)]  # nothing is asked twice


def test_the_agents_change_is_drift_and_stays(show: Show) -> None:
    (by_hand,) = show.open_of("caller")
    assert show.tickets[by_hand]["priority"] == BY_HAND != show.before[by_hand].priority
    assert by_hand not in show.sent(1)
    assert show.sent(0)[by_hand]["status"] == "drifted"
    second = show.played.turns[1].as_json()
    assert second["verified"][0]["confirmed"] == 59
    assert second["verified"][0]["drifted"] == 1
    assert second["syncs"][0]["kept"] == 1
    assert any(f"ticket {by_hand}: we set low, somebody made it {BY_HAND}" in line for line in show.recorder.lines)


def test_zendesk_holds_it_all_in_the_end(show: Show) -> None:
    (by_hand,) = show.open_of("caller")
    for number, want in show.after.items():
        ticket = show.tickets[number]
        assert reason_of(ticket) == want.reason
        if number != by_hand:
            assert ticket["priority"] == want.priority
    untouched = [t for n, t in show.tickets.items() if n not in show.after]
    assert untouched
    assert all(reason_of(t) is None for t in untouched)


def test_one_ticket_is_explained(show: Show) -> None:
    assert show.played.traced in {str(n) for n in show.open_of("payer")}
    (text,) = show.recorder.traced
    assert show.after[int(show.played.traced)].reason in text


def test_models_and_checks_are_all_well(show: Show) -> None:
    for turn in show.played.turns:
        models = turn.as_json()["models"]
        assert {m["model"] for m in models} >= {"staging.events", "mart.spend", "mart.ticket_priority"}
        assert all(c["ok"] for m in models for c in m["checks"])


async def test_the_sandboxes_start_again_with_what_they_held(show: Show) -> None:
    """A turn after `oploop demo --serve` finds nothing new, as what they held was kept. The models' unit tests hold."""
    from oploop import loop
    from oploop.project import load_project

    recorder = Recorder()
    serving = asyncio.create_task(serve(show.played.folder, show=recorder, runtime=Runtime()))
    try:
        while not any("until Ctrl-C" in line for line in recorder.lines):
            assert not serving.done(), serving.exception()
            await asyncio.sleep(0.05)
        async with Workspace(load_project(show.played.folder), "prod", Runtime()) as ws:
            assert [(t.name, t.message) for t in ws.modeler.test() if not t.ok] == []
            report = await loop.run(ws, loop.Options())
        assert report.status == "ok", report.as_json()
        assert report.syncs[0].plan is not None
        assert report.syncs[0].plan.changes == 0
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_sandbox_whose_port_is_taken_says_so(show: Show) -> None:
    ports = folders.ports(show.played.folder)
    with ZendeskSandbox().running(ports["zendesk"]), pytest.raises(RetryLater, match=r"zendesk .* port .* is in use"):
        await serve(show.played.folder, show=Recorder(), runtime=Runtime())


async def test_somebody_elses_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    recorder = Recorder()
    with pytest.raises(FixConfig, match="not empty"):
        await play(tmp_path, show=recorder, runtime=Runtime())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert not recorder.lines
