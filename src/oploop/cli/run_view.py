"""A run as it is watched: a line when a stage or a sync ends, questions where a person must decide, the last line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from oploop.cli import show, show_run
from oploop.cli.command import Cli
from oploop.cli.progress import Progress
from oploop.cli.show_plan import sync_lines as plan_lines
from oploop.report import RunReport, SyncReport

if TYPE_CHECKING:
    from oploop.activate.plan import SyncPlan
    from oploop.project import Sync
    from oploop.workspace import Event, Workspace


class RunView:
    """Prints a run's lines as they come; knows what to say when it is interrupted."""

    def __init__(
        self, cli: Cli, ws: Workspace, progress: Progress, syncs: Sequence[Sync], again: str | None = None
    ) -> None:
        """`again`: the command as the user would type it once more, for what is allowed once."""
        self._again = again or f"oploop run --env {ws.environment}"
        self._cli, self._ws, self._progress = cli, ws, progress
        self._width = max([len("extract"), *(len(s.name) for s in syncs)])
        self._shown: set[str] = set()
        self._under_way = ""
        cli.interrupted = self._interrupted

    def tell(self, event: Event) -> None:
        """Take in an event of the loop."""
        self._progress.tell(event)
        if event.stage == "deliver" and event.kind == "tick":
            self._under_way = event.text
        if event.kind not in ("done", "failed") or not isinstance(event.report, RunReport):
            return
        lines = self._lines(event, event.report)
        if lines and not self._cli.out.json:
            with self._progress.paused():
                self._cli.out.lines(lines)

    def _lines(self, event: Event, report: RunReport) -> list[str]:
        out, width = self._cli.out, self._width
        if event.kind == "failed":
            return []  # the error that ends the run says why
        match event.stage:
            case "extract":
                return show_run.extract_lines(out, report.extracted, event.seconds, width)
            case "build":
                if self._ws.project.models.engine == "none":
                    return []
                return show_run.build_lines(out, report.models, event.seconds, width, report.unit_tests)
            case "verify":
                return show_run.verify_lines(out, report.verified, event.seconds, width)
            case "sync":
                self._shown.add(event.text)
                self._under_way = ""
                found = next(s for s in report.syncs if s.sync == event.text)
                return self._sync(found, report)
        return []

    def _sync(self, s: SyncReport, report: RunReport) -> list[str]:
        return show_run.sync_lines(self._cli.out, s, report.environment, self._width, self._again)

    def end(self, report: RunReport) -> None:
        """What is left to say when all is done."""
        out = self._cli.out
        out.data(report.as_json())
        for s in report.syncs:
            if s.sync not in self._shown:
                out.lines(self._sync(s, report))
        for what in report.recovered:
            out.line(f"{out.mark(None)} took up the delivery of {what}, which had been cut off")
        if not report.sends:
            out.line(f"{report.environment} does not deliver; look: oploop plan   send: oploop run --env prod")
        out.line(show_run.last_line(out, report))
        if any(s.delivery is not None and s.delivery.delivered for s in report.syncs):
            env = f" --env {report.environment}" if report.environment != "dev" else ""
            out.line(out.dim(f"undo: oploop undo{env} {report.run_id}"))

    def confirm(self, plan: SyncPlan) -> bool:
        """Show a first delivery and ask for it; no where nobody can answer."""
        if not sys.stdin.isatty() or self._cli.out.json:
            return False
        with self._progress.paused():
            report = SyncReport(plan.bound.name, plan.bound.app_object, plan=plan)
            self._cli.out.line()
            self._cli.out.lines(plan_lines(report, self._ws.warehouse, self._cli.out))
            return click.confirm(f"This is the first delivery of {plan.bound.name}. Send it?", err=True)

    def _interrupted(self) -> str:
        if self._under_way:
            name, _, counts = show.clean(self._under_way).partition(" ")
            return (
                f"{counts} changes of {name} were sent and are in the journal; the next oploop run takes them into the "
                "ledger and sends the rest"
            )
        if self._shown:
            return f"{', '.join(sorted(self._shown))} finished; the next oploop run does the rest"
        return "nothing was sent; what was read is kept"
