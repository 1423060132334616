"""`oploop undo`."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace
from oploop.errors import FixConfig

if TYPE_CHECKING:
    from oploop.report import RunReport, SyncReport
    from oploop.workspace import Tell, Workspace

_AGO = re.compile(r"(\d{1,6})(s|m|min|h|d)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@make(
    "undo",
    example="oploop undo 01JD8XT4 --env prod --plan\noploop undo --env prod --since 2h --sync ticket_priority --yes",
)
@click.argument("run", required=False)
@options.environment
@click.option(
    "--since",
    metavar="TIME",
    help="All runs of the environment since: 2h, 30m, 3d, or a time like 2026-03-01T09:00 (UTC).",
)
@click.option("--sync", "syncs", metavar="SYNC", multiple=True, help="Only of this sync. Repeatable.")
@options.selection
@options.one_record
@click.option("--all", "every", is_flag=True, help="List everything, not a few.")
@click.option("--plan", "dry", is_flag=True, help="Only show what would be put back.")
@options.yes("Do it without asking.")
@options.wait
def command(cli: Cli, run: str | None, environment: str, **given: Any) -> int:
    """Put back what a run changed in the apps.

    A field goes back to what it was before the run where the app still holds what the run left there; records that the
    run made are removed, those that it removed are made anew, where the app can. All else is named, and left. The plan is
    shown first. Its syncs are paused then, and what was put back stays parked: oploop resume, oploop retry.
    """
    if (run is None) == (given["since"] is None):
        raise FixConfig("undo needs a run, or --since", mend="oploop status lists the runs")

    async def work(ws: Workspace) -> int:
        from oploop import loop
        from oploop.cli.progress import Progress
        from oploop.cli.run_view import RunView
        from oploop.selection import Selection
        from oploop.stages import undoing

        selection = Selection((*given["select"], *given["syncs"]), given["exclude"])
        with Progress(cli.out, ws.runtime.monotonic, "looking at the apps") as progress:
            await loop.recover(ws, tell=progress.tell)
            wish = undoing.Wish(_runs(ws, run, given["since"], progress.tell), selection, given["key"], given["limit"])
            reports = await undoing.plan_undo(ws, wish, progress.tell)
            with progress.paused():
                go = _shown(cli, ws, wish.runs, reports, given)
            if not go:
                return _not_sent(cli, ws, reports, given)
            view = RunView(cli, ws, progress, [ws.project.syncs[r.sync] for r in reports if r.plan is not None])
            report = await loop.undo(ws, wish.runs, reports, view.tell)
        view.end(report)
        _after(cli, ws, report)
        return report.exit_code

    return with_workspace(cli, work, environment=environment, moves_rows=True, wait=given["wait"])


def _runs(ws: Workspace, run: str | None, since: str | None, tell: Tell) -> tuple[str, ...]:
    from oploop.stages.undoing import runs_of, runs_since

    if run is not None:
        return runs_of(ws, run)
    return runs_since(ws, parse_since(str(since), ws.runtime.now()), tell)


def parse_since(text: str, now: datetime) -> datetime:
    """A time as a user writes it: how long ago, or an ISO time, UTC unless it says otherwise."""
    ago = _AGO.fullmatch(text.strip().lower())
    if ago:
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise FixConfig(f"--since {text!r} is no time", mend="write it like 2h, 30m, 3d or 2026-03-01T09:00") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _shown(cli: Cli, ws: Workspace, runs: tuple[str, ...], reports: list[SyncReport], given: dict[str, Any]) -> bool:
    """Show the plan; whether it is to be done."""
    from oploop.cli import show
    from oploop.cli.show_undo import sync_lines

    out = cli.out
    out.line(out.dim(f"undo of {show.count(len(runs), 'run')}: {', '.join(runs[:4])}{', …' if len(runs) > 4 else ''}"))
    for r in reports:
        out.line()
        out.lines(sync_lines(r, ws.warehouse, out, every=given["every"]))
    out.line()
    able = [
        r.sync for r in reports if r.plan is not None and r.plan.changes and ws.delivers(r.object.partition(".")[0])
    ]
    if not able or given["dry"]:
        return False
    if given["yes"]:
        return True
    if out.json or not sys.stdin.isatty():
        return False
    return click.confirm(f"Put this back, and pause {', '.join(able)}?", err=True)


def _not_sent(cli: Cli, ws: Workspace, reports: list[SyncReport], given: dict[str, Any]) -> int:
    """What to say, and the exit code, when nothing was done."""
    changes = sum(r.plan.changes for r in reports if r.plan is not None)
    stopped = any(r.status == "stopped" for r in reports)
    cli.out.data({"run_id": None, "environment": ws.environment, "syncs": [r.as_json() for r in reports]})
    if not changes:
        cli.out.line("Nothing to put back.")
        return 1 if stopped else 0
    if not any(ws.delivers(r.object.partition(".")[0]) for r in reports if r.plan is not None):
        cli.out.line(f"Nothing sent: {ws.environment} does not deliver.   do it: add --env prod")
    else:
        without = ", and without --plan" if given["dry"] else ""
        cli.out.line(f"Nothing sent.   do it: the same command with --yes{without}")
    return 0 if given["dry"] and not stopped else 1


def _after(cli: Cli, ws: Workspace, report: RunReport) -> None:
    done = [s.sync for s in report.syncs if s.delivery is not None]
    if not done:
        return
    rows = ws.warehouse.rows("SELECT DISTINCT sync FROM oploop.parked WHERE reason = 'undone'")
    parked = sorted({n for (n,) in rows} & set(done))  # none by an undo of an undo
    again = f"   send again: oploop retry {parked[0]} --reason undone" if parked else ""
    cli.out.line(f"paused: {', '.join(done)}   go on: oploop resume {done[0]}{again}")
