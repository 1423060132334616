"""`oploop plan`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.project import Sync
    from oploop.report import RunReport, SyncReport
    from oploop.workspace import Workspace


@make("plan", example="oploop plan --env prod --select ticket_priority\noploop plan --env prod --save friday.plan")
@options.environment
@options.selection
@options.one_record
@click.option("--all", "every", is_flag=True, help="List every change, not a few.")
@click.option("--build", is_flag=True, help="Build the models first.")
@click.option(
    "--save", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Keep the plan for oploop apply."
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 3 when there is something to send.")
@options.allow
@options.first_run
@options.rekey
@options.yes("Count a first delivery as allowed.")
@options.wait
def command(cli: Cli, environment: str, **given: Any) -> int:
    """Show what a run would send; send nothing.

    Compares the models as they stand with what the apps held when they were last read. The warehouse is opened for
    reading only (unless --build or --rekey; what --rekey would take over is taken back at the end). Exit 1 when a run
    would be stopped by a limit, a check or a failed model; a first delivery that waits for permission is no failure.
    """

    if given["rekey"] and given["save"] is not None:
        raise click.UsageError("--rekey does not go with --save: oploop run --rekey takes the key over")

    async def work(ws: Workspace) -> int:
        with ExitStack() as stack:
            if given["rekey"]:
                stack.enter_context(_trial(ws))
            return await look(ws)

    async def look(ws: Workspace) -> int:
        from oploop.cli.progress import Progress

        with Progress(cli.out, ws.runtime.monotonic, "planning") as progress:
            reports, failed = await _plan(cli, ws, given, progress)
        if given["save"] is not None:
            from oploop import loop

            loop.save_plan(ws, reports, given["save"])
        stopped = [r for r in reports if _truly_stopped(r)]
        changes = sum(r.plan.changes for r in reports if r.plan is not None)
        _json(cli, ws, reports, bool(stopped or failed), given["every"])
        _print(cli, ws, reports, given)
        if stopped or failed:
            return 1
        return 3 if given["detailed_exitcode"] and changes else 0

    writes = bool(given["build"] or given["rekey"])
    return with_workspace(cli, work, environment=environment, read_only=not writes, wait=given["wait"])


@contextmanager
def _trial(ws: Workspace) -> Iterator[None]:
    """Whatever is written to the warehouse meanwhile is taken back."""

    class TakeBackError(Exception):
        pass

    with suppress(TakeBackError), ws.warehouse.transaction():
        yield
        raise TakeBackError


async def _plan(cli: Cli, ws: Workspace, given: dict[str, Any], progress: Any) -> tuple[list[SyncReport], bool]:
    """Plan the selected syncs; whether a build that was asked for failed."""
    from oploop.report import RunReport
    from oploop.selection import Selection
    from oploop.stages.ordering import waves
    from oploop.stages.planning import Options, plan_sync
    from oploop.stages.reading import bind_all, check_plan

    allow = options.parse_allow(given["allow"], ws.project.syncs)
    chosen = Options(
        Selection(given["select"], given["exclude"]),
        given["key"],
        given["limit"],
        allow=allow,
        yes=given["yes"],
        backfill=given["backfill"],
        first_run=given["first_run"],
        rekey=options.parse_rekey(given["rekey"], ws.project.syncs),
    )
    syncs = ws.pick(chosen.selection)
    run = RunReport("", ws.environment)
    if given["build"]:
        await _build(cli, ws, syncs, run, chosen.rekey, progress)
    bound = await bind_all(ws, syncs, run, chosen.rekey)
    await check_plan(ws, bound)
    reports: list[SyncReport] = []
    for b in (b for wave in waves(bound) for b in wave):
        progress.say(f"planning {b.name}")
        reports.append(await plan_sync(ws, b, chosen, before=reports))
    broken = any(m.status.value in ("failed", "skipped") for m in run.models)
    return sorted([*run.syncs, *reports], key=lambda r: r.sync), broken


async def _build(
    cli: Cli, ws: Workspace, syncs: list[Sync], run: RunReport, rekey: frozenset[str], progress: Any
) -> None:
    from oploop.cli.show_run import build_lines
    from oploop.stages.reading import build, check_before_build, unit_tests

    await check_before_build(ws, syncs, rekey)
    began = ws.runtime.monotonic()
    run.unit_tests = await unit_tests(ws, progress.tell)
    run.models = await build(ws, ws.runtime.new_id(), progress.tell)
    lines = build_lines(cli.out, run.models, ws.runtime.monotonic() - began, 9, run.unit_tests)
    with progress.paused():
        cli.out.lines(lines)


def _truly_stopped(r: SyncReport) -> bool:
    """Whether more than a missing permission for a first delivery stops it."""
    if r.plan is None:
        return True
    first = [f.message for f in r.plan.stops if f.check in ("first", "first-run")]
    return any(why not in first for why in r.stopped)


def _json(cli: Cli, ws: Workspace, reports: list[SyncReport], stopped: bool, every: bool) -> None:
    from oploop.activate import plan as planning

    if not cli.out.json:
        return
    syncs = []
    for r in reports:
        body = planning.as_json(r.plan, ws.warehouse, all_changes=every) if r.plan is not None else r.as_json()
        syncs.append({**body, "status": r.status, "stopped": r.stopped, "allow": r.allow, "paused": r.paused})
    cli.out.data(
        {"run_id": None, "environment": ws.environment, "status": "stopped" if stopped else "ok", "syncs": syncs}
    )


def _print(cli: Cli, ws: Workspace, reports: list[SyncReport], given: dict[str, Any]) -> None:
    from oploop.cli.show_plan import header, sync_lines

    if cli.out.json:
        return
    if not reports:
        cli.out.line(_none(ws))
        return
    head = header(ws, reports)
    if head:
        cli.out.line(cli.out.dim(head))
    for r in reports:
        cli.out.line()
        cli.out.lines(sync_lines(r, ws.warehouse, cli.out, every=given["every"]))
    cli.out.line()
    cli.out.line(_last(ws, reports, given))


def _none(ws: Workspace) -> str:
    """Why no sync was planned."""
    if not ws.project.syncs:
        return "no syncs yet: oploop new sync MODEL APP.OBJECT drafts one; oploop apps lists what can be written"
    off = sorted(s.name for s in ws.project.syncs.values() if not s.enabled)
    named = f"; not enabled: {', '.join(off)} (--select names one)" if off else ""
    return f"no sync is left to plan{named}"


def _last(ws: Workspace, reports: list[SyncReport], given: dict[str, Any]) -> str:
    """What was done (nothing) and what can be done next."""
    from oploop.cli.show_plan import EXAMPLES

    words = options.selecting(given["select"], given["exclude"])
    words += "".join(f" --rekey {shlex.quote(name)}" for name in given["rekey"])
    parts = ["Nothing sent."]
    if not given["every"] and any(r.plan.changes > EXAMPLES for r in reports if r.plan is not None):
        parts.append("all: --all")
    able = [r for r in reports if r.plan is not None and r.plan.changes and not _truly_stopped(r) and r.paused is None]
    here = all(ws.delivers(r.object.partition(".")[0]) for r in able)
    if able and given["save"] is not None and here:
        parts.append(f"send: oploop apply --env {ws.environment} {shlex.quote(str(given['save']))}")
    elif able:
        parts.append(f"send: oploop run --env {ws.environment if here else 'prod'}{words}")
    return "   ".join(parts)
