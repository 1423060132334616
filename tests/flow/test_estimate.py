"""What a plan says of calls and time, beside what its delivery takes, on the real sandboxes under limits that are small.

App and sandbox live by clocks on which some seconds pass in one of ours; a sandbox's is a little quicker, so that its limits refuse no call
that took a few milliseconds less than the one before it. A first delivery is measured; what the plan of the next
one says is held against that delivery. Time is held to where a limit of calls governs it, not this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from oploop import loop
from oploop.apps.http.sandbox import OBJECTS, HttpSandbox
from oploop.apps.hubspot import HubSpotSandbox
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.sandbox import Sandbox
from oploop.apps.slack.sandbox import SlackSandbox
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.loop import Options
from oploop.project import load_project
from oploop.report import SyncReport
from oploop.runtime import Runtime
from oploop.stages.undoing import Wish, plan_undo
from oploop.workspace import Workspace

#: A machine that stands still for a while may spoil so many deliveries less one.
TRIES = 3
#: When a call lasts longer than this share of the delivery, the machine governs it.
BUSY = 0.05
#: How much quicker the sandbox's clock is.
QUICKER = 1.25


@dataclass(frozen=True)
class Case:
    """A sandbox with a small limit, and a sync of which as many rows as one likes are new or changed."""

    sandbox: Callable[[Runtime], Sandbox]
    block: dict[str, Any]
    sync: str
    rows: str  #: columns of the model, of a number `i` and a turn `t`
    first: int
    later: int
    speed: float = 1.0
    limited: bool = True  #: whether the limit of calls, and not the machine, tells how long it takes
    load: Callable[[Sandbox], None] = lambda _: None
    anew: bool = True  #: later rows are new ones; else the same ones with other values


def tickets(box: Sandbox) -> None:
    box.load("tickets", [{"id": i, "subject": f"T {i}", "status": "open", "priority": None} for i in range(1, 1201)])
    box.advance(120)


def zendesk(runtime: Runtime) -> Sandbox:
    return ZendeskSandbox(runtime=runtime, rate_limit=10)


TICKETS = "model: main.rows\nto: zendesk.tickets\nmode: update\nkey: {id: id}\nfields: [external_id]\n"
LIMITED = {"calls": 20, "per": 60}
TENS = {"imports": {**OBJECTS["imports"], "upsert": {**OBJECTS["imports"]["upsert"], "batch": 10}}}
CASES = {
    "zendesk: jobs of 100 under a limit a minute": Case(
        zendesk, {"rate_limit": 10}, TICKETS, "i + 1 AS id, 'x' || i || '-' || t AS external_id", 250, 1_200, 60.0,
        load=tickets, anew=False,
    ),
    "hubspot: batches of 100 under a limit of ten seconds": Case(
        lambda runtime: HubSpotSandbox(runtime=runtime, rate_limit=5), {"rate_limit": 5},
        "model: main.rows\nto: hubspot.contacts\nkey: {email: email}\nfields: [firstname]\n",
        "'p' || i || '@acme.example' AS email, 'P ' || i AS firstname", 150, 1_450, 12.0,
    ),
    "salesforce: collections of 200": Case(
        lambda runtime: SalesforceSandbox(runtime=runtime), {},
        "model: main.rows\nto: salesforce.Account\nkey: {Billing_Id__c: id}\nfields: {Name: name}\n",
        "'b' || i AS id, 'Haus ' || i AS name", 250, 900, limited=False,
    ),
    "salesforce: a job": Case(
        lambda runtime: SalesforceSandbox(runtime=runtime), {},
        "model: main.rows\nto: salesforce.Account\nkey: {Billing_Id__c: id}\nfields: {Name: name}\n",
        "'b' || i AS id, 'Haus ' || i AS name", 2_001, 2_100, limited=False,
    ),
    "slack: messages, one a second to a channel": Case(
        lambda runtime: SlackSandbox(runtime=runtime, messages_per_second=2), {},
        "model: main.rows\nto: slack.messages\nmode: append\nkey: [id]\nfields: {channel: channel, text: text}\n",
        "i AS id, CASE WHEN i % 3 = 0 THEN '#general' ELSE '#ops' END AS channel, 'm ' || i AS text", 5, 27, 6.0,
    ),
    "http: singles": Case(
        lambda runtime: HttpSandbox(runtime=runtime, limit=20), {"limit": LIMITED},
        "model: main.rows\nto: http.accounts\nkey: email\nfields: [name]\n",
        "'p' || i || '@x' AS email, 'P ' || i AS name", 6, 55, 50.0,
    ),
    "http: batches of 10": Case(
        lambda runtime: HttpSandbox(runtime=runtime, limit=20), {"limit": LIMITED, "objects": TENS},
        "model: main.rows\nto: http.imports\nkey: email\nfields: [name]\n",
        "'p' || i || '@x' AS email, 'P ' || i AS name", 15, 250, 50.0,
    ),
    "stripe: singles under a limit a second": Case(
        lambda runtime: StripeSandbox(runtime=runtime, rate_limit=25), {"rate_limit": 10},
        "model: main.rows\nto: stripe.customers\nkey: email\nfields: [name]\n",
        "'p' || i || '@x.example' AS email, 'P ' || i AS name", 5, 34, 3.0,
    ),
}  # fmt: skip


def sped_up(speed: float, budgets: Path) -> Runtime:
    """A clock on which `speed` seconds pass in one."""
    began, day = time.monotonic(), datetime.now(UTC)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / speed)

    return Runtime(
        now=lambda: day + timedelta(seconds=(time.monotonic() - began) * speed),
        monotonic=lambda: time.monotonic() * speed,
        sleep=sleep,
        budgets=budgets,
    )


class Desk:
    """A project on a case's sandbox."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder, self.turns = case, folder, 0
        (folder / "budgets").mkdir()
        self.runtime = sped_up(case.speed, folder / "budgets")
        self.box = case.sandbox(sped_up(case.speed * QUICKER, folder / "budgets"))
        self.app = case.sync.partition("to: ")[2].partition(".")[0]

    def set_up(self, url: str) -> None:
        self.case.load(self.box)
        block = {"type": self.app, **self.box.default_config(url), **self.case.block}
        project = {"name": "acme", "models": {"engine": "none"}, "apps": {self.app: block}}
        (self.folder / "oploop.yml").write_bytes(orjson.dumps(project))
        (self.folder / "syncs").mkdir()
        (self.folder / "syncs/rows.yml").write_text(f"{self.case.sync}limits: {{changes: 100%}}\n")

    def workspace(self) -> Workspace:
        return Workspace(load_project(self.folder, {}), "prod", self.runtime, "test")

    async def turn(self, rows: int) -> tuple[str, SyncReport]:
        """One run, of so many rows."""
        self.turns += 1
        async with self.workspace() as ws:
            columns = f"SELECT {self.case.rows} FROM range({rows}) r(i), (SELECT {self.turns} AS t)"
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.rows AS {columns}")
            report = await loop.run(ws, Options(yes=True, first_run=True, backfill=True))
        [sync] = report.syncs
        assert (sync.error, sync.stopped) == (None, []), report
        assert sync.delivery is not None
        assert sync.plan is not None
        assert sync.delivery.delivered == sync.plan.changes > 0
        return report.run_id, sync


def steps_took(sync: SyncReport) -> set[float]:
    """How many calls steps took in the mean."""
    assert sync.delivery is not None
    return {t.calls for t in sync.delivery.times.values()}


@pytest.mark.parametrize("name", list(CASES))
async def test_the_plan_tells_calls_and_time_of_its_delivery(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    desk = Desk(case, tmp_path)
    with desk.box.running() as url:
        desk.set_up(url)
        _, sync = await desk.turn(case.first)
        rows, shares, asked, alike = case.first, list[float](), steps_took(sync), True
        for _ in range(TRIES):
            rows = rows + case.later if case.anew else case.later
            desk.box.log.clear()
            _, sync = await desk.turn(rows)
            assert sync.plan is not None
            assert sync.delivery is not None
            said, took = sync.plan.estimate, sync.delivery
            refused = sum(e.status == 429 for e in desk.box.log)
            if steps_took(sync) != asked:  # jobs went on for longer, or shorter, than the first ones
                alike = False  # and what is kept of them is a mean
                continue
            off = 0 if alike else round(said.calls * 0.1)
            assert said.calls - off <= took.calls <= said.calls + off + refused
            lasted = max(t.seconds for t in took.times.values())
            if not refused and lasted < took.seconds * BUSY:
                shares.append(round(said.seconds / took.seconds, 3))
            if not case.limited or (shares and abs(shares[-1] - 1) <= 0.1):
                return
    if len(shares) < 2:
        pytest.skip("this machine is too busy to tell the time")
    raise AssertionError(f"of the time that it took the plan said {shares}")


async def test_calls_that_ask_after_a_job_are_known_once_they_were_counted_also_by_an_undo(tmp_path: Path) -> None:
    case = replace(CASES["zendesk: jobs of 100 under a limit a minute"], block={}, speed=5.0)
    desk = Desk(replace(case, sandbox=lambda runtime: ZendeskSandbox(runtime=runtime, job_seconds=4.0)), tmp_path)
    with desk.box.running() as url:
        desk.set_up(url)
        run, first = await desk.turn(300)
        assert first.plan is not None
        assert first.delivery is not None
        assert first.plan.estimate.calls == 3 * 2, "nothing was known"
        async with desk.workspace() as ws:
            [back] = await plan_undo(ws, Wish((run,)))
        _, second = await desk.turn(290)
        assert (back.plan is not None, second.plan is not None) == (True, True)
        for plan in (second.plan, back.plan):
            assert plan.estimate.calls == pytest.approx(first.delivery.calls, rel=0.1)
            assert plan.estimate.seconds == pytest.approx(first.delivery.seconds, rel=0.1)
