"""The show: a made-up company, its apps as sandboxes, and two turns of the loop over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from oploop import loop
from oploop.activate.plan import SyncPlan
from oploop.demo import folder as folders
from oploop.demo.company import Company, make_company
from oploop.demo.happenings import Happening, happen
from oploop.demo.sandboxes import PAUSE, Sandboxes
from oploop.demo.support import REASON_TITLE
from oploop.errors import StopRun
from oploop.project import load_project
from oploop.report import RunReport
from oploop.runtime import Runtime
from oploop.workspace import Event, Workspace

SYNC = "ticket_priority"


class Turn(Protocol):
    """How one turn is shown: as `oploop run` shows it, but for the question, which the demo answers itself."""

    def tell(self, event: Event) -> None: ...

    def confirm(self, plan: SyncPlan) -> bool: ...

    def end(self, report: RunReport) -> None: ...


class Show(Protocol):
    """Where the demo is shown. The command line hands in its own, so that the demo looks as the commands do."""

    def head(self, text: str) -> None:
        """A part begins."""
        ...

    def line(self, text: str = "") -> None: ...

    def done(self, text: str, seconds: float) -> None:
        """Something is ready, and took so long."""
        ...

    def command(self, text: str) -> None:
        """What a person would type to see what follows."""
        ...

    def table(self, rows: list[tuple[str, ...]]) -> None: ...

    def busy(self, text: str) -> AbstractContextManager[None]:
        """While something takes its time."""
        ...

    def turn(self, ws: Workspace) -> AbstractContextManager[Turn]: ...

    async def trace(self, ws: Workspace, target: str, key: str) -> None: ...


@dataclass(slots=True)
class Played:
    """What came of it. `turns`: the reports of the two runs."""

    folder: Path
    company: Company
    turns: list[RunReport] = field(default_factory=list)
    happened: list[Happening] = field(default_factory=list)
    traced: str = ""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """What `oploop demo -o json` prints."""
        return {
            "folder": str(self.folder),
            "seconds": round(self.seconds, 3),
            "turns": [t.as_json() for t in self.turns],
            "happened": [{"app": h.app, "what": h.told, "tickets": list(h.tickets)} for h in self.happened],
            "traced": self.traced,
        }


async def play(
    folder: Path,
    *,
    show: Show,
    runtime: Runtime,
    scale: float = 1.0,
    keep: bool = False,
    finished: Callable[[Played], None] = lambda _: None,
) -> Played:
    """Make the folder and the company, turn the loop twice, explain one ticket, say what to try next.

    `scale` shrinks the company, for tests. `keep`: the sandboxes run on until Ctrl-C; `finished` is told before. Raises FixConfig when the folder
    is somebody's own, RetryLater when a sandbox does not start, StopRun when a turn did not go well.
    """
    began = runtime.monotonic()
    folders.check(folder)
    folders.clear(folder)
    async with _running(Sandboxes(folder, runtime), show) as sandboxes:
        company = await set_up(folder, sandboxes, show, runtime, scale)
        played = Played(folder, company)
        await first_turn(played, show, runtime)
        show.head("Meanwhile")
        played.happened = await happen(company, sandboxes.urls, runtime)
        show.table([(h.app, h.told) for h in played.happened])
        await sandboxes.let_time_pass(PAUSE)
        show.line("(and two minutes go by on the sandboxes' clocks: Zendesk's export withholds the last minute)")
        await second_turn(played, show, runtime)
        await explain(played, show, runtime)
        played.seconds = runtime.monotonic() - began
        try_next(played, show, keep=keep)
        finished(played)
        if keep:
            await asyncio.Event().wait()
    return played


@asynccontextmanager
async def _running(sandboxes: Sandboxes, show: Show) -> AsyncIterator[Sandboxes]:
    """Sandboxes, started and ended in sight: each takes seconds with a filled one."""
    async with AsyncExitStack() as stack:
        with show.busy("starting the sandboxes"):
            await stack.enter_async_context(sandboxes)
        yield sandboxes
        with show.busy("putting away what the sandboxes hold"):
            await stack.aclose()


async def set_up(folder: Path, sandboxes: Sandboxes, show: Show, runtime: Runtime, scale: float) -> Company:
    """The project's files, and the company in the sandboxes."""
    folders.make(folder, sandboxes.urls)
    show.head(f"Acme Boards, a made-up company, in {folder}")
    began = runtime.monotonic()
    with show.busy("making up a company"):
        company = make_company(runtime.now(), scale=scale)
        await sandboxes.fill(company)
    tickets = company.records["zendesk"]["tickets"]
    waiting = sum(t["status"] not in ("solved", "closed") for t in tickets)

    def count(app: str, kind: str) -> str:
        return f"{company.count(app, kind):,} {kind}"

    what = {
        "stripe": f"{count('stripe', 'customers')}, {count('stripe', 'charges')}, {count('stripe', 'refunds')}",
        "zendesk": f"{len(tickets):,} tickets, {waiting:,} of them open",
        "segment": f"{len({e['messageId'] for e in company.records['segment']['events']}):,} product events",
    }
    show.table([(app.title(), url, what[app]) for app, url in sandboxes.urls.items()])
    show.done("three sandboxes on this machine, filled", runtime.monotonic() - began)
    return company


async def one_turn(played: Played, show: Show, runtime: Runtime) -> tuple[RunReport, list[tuple[Any, ...]]]:
    """A whole turn in prod, and what the ledger has of it: (ticket, before, after, reason)."""
    show.command("oploop run --env prod")
    async with Workspace(load_project(played.folder), "prod", runtime, command="oploop demo") as ws:
        with show.turn(ws) as turn:
            report = await loop.run(ws, loop.Options(confirm=turn.confirm), turn.tell)
        turn.end(report)
        played.turns.append(report)
        if report.status != "ok":
            raise StopRun(f"run {report.run_id} did not go well", mend=f"look: cd {played.folder} && oploop status")
        sent = ws.warehouse.rows(
            "SELECT key, before ->> 'priority', after ->> 'priority', after ->> ? FROM oploop.changes "
            "WHERE run_id = ? AND sync = ? ORDER BY CAST(key AS BIGINT)",
            (f'$."{REASON_TITLE}"', report.run_id, SYNC),
        )
        show_drift(ws, show)
    return report, sent


async def first_turn(played: Played, show: Show, runtime: Runtime) -> None:
    """Every open ticket gets its priority and the reason."""
    show.head("Turn 1: which ticket first?")
    await one_turn(played, show, runtime)


async def second_turn(played: Played, show: Show, runtime: Runtime) -> None:
    """Only what follows from what happened; the first turn is confirmed, the agent's change is left alone."""
    show.head("Turn 2: only what follows")
    _, sent = await one_turn(played, show, runtime)
    show.line("what it sent, from the ledger (oploop.changes):")
    show.table([(key, _move(before, after), reason or "") for key, before, after, reason in sent])
    played.traced = _most_telling(played, [key for key, *_ in sent])


def _move(before: str | None, after: str | None) -> str:
    if after is None:
        return "same priority"
    return f"{before or 'empty'} → {after}"


def _most_telling(played: Played, sent: list[str]) -> str:
    """The payer's ticket, if it was among those sent."""
    tickets = [str(t["id"]) for t in played.company.open_tickets_of(played.company.actor("payer"))]
    return next((t for t in tickets if t in sent), sent[0] if sent else tickets[0])


def show_drift(ws: Workspace, show: Show) -> None:
    """Tickets that somebody changed after we had set them."""
    found = ws.warehouse.rows(
        "SELECT c.key, c.after ->> 'priority', t.priority FROM oploop.changes c JOIN raw_zendesk.tickets t "
        "ON CAST(t.id AS VARCHAR) = c.key WHERE c.sync = ? AND c.status = 'drifted' ORDER BY 1",
        (SYNC,),
    )
    for key, sent, now in found:
        show.line(f"  ticket {key}: we set {sent}, somebody made it {now}; it stays (conflict: theirs)")


async def explain(played: Played, show: Show, runtime: Runtime) -> None:
    """One ticket's trace."""
    show.head("Why does a ticket hold its values?")
    show.command(f"oploop trace --env prod zendesk.tickets {played.traced}")
    project = load_project(played.folder)
    async with Workspace(project, "prod", runtime, command="oploop demo", read_only=True) as ws:
        await show.trace(ws, "zendesk.tickets", played.traced)


def try_next(played: Played, show: Show, *, keep: bool) -> None:
    """What to do with the folder."""
    show.head("What to try next")
    rows: list[tuple[str, ...]] = [(f"cd {played.folder}", "everything is in plain files: README.md says which")]
    if not keep:
        rows.append(("oploop demo --serve", "in another terminal: the sandboxes again, with what they held"))
    rows += [
        ("oploop run --env prod", "a turn with nothing new sends nothing"),
        ("oploop plan --env prod --select customer_health", "a sync that is off, to Stripe"),
        ("oploop lineage mart.spend.last_year", "where a number comes from, and where it goes"),
        ("oploop status --env prod", "the runs so far"),
    ]
    show.table(rows)
    show.done("two turns, all of it", played.seconds)
    if keep:
        show.line("the sandboxes run until Ctrl-C")


async def serve(folder: Path, *, show: Show, runtime: Runtime) -> None:
    """Start the sandboxes of a demo's folder again, with all that they held, until Ctrl-C."""
    async with _running(Sandboxes(folder, runtime, folders.ports(folder)), show) as sandboxes:
        show.table([(app.title(), url) for app, url in sandboxes.urls.items()])
        show.line("they run until Ctrl-C, and keep what they hold")
        await asyncio.Event().wait()
