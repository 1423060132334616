"""The loop on one page: extract, model, verify, validate and diff, plan, deliver, verify.

Each stage takes what the one before it made and returns what the next one needs (design: the data's way). Nothing is
planned while delivering, nothing is sent while planning. The stages themselves are in `stages/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from oploop.activate import saved
from oploop.activate.retention import retain
from oploop.activate.volumes import sweep
from oploop.errors import FixConfig, OploopError
from oploop.project import Sync
from oploop.report import RunReport, StageReport, SyncReport
from oploop.runtime import GRACE, heeding_signals
from oploop.selection import Selection
from oploop.stages.alerting import alerted
from oploop.stages.looking import verify
from oploop.stages.ordering import waves
from oploop.stages.planning import Options, plan_only, plan_saved, plan_sync
from oploop.stages.reading import bind_all, build, extract, preflight, prepare, unit_tests, whose_all
from oploop.stages.recovering import finish, recover
from oploop.stages.sending import deliver
from oploop.workspace import Event, Tell, Workspace, nobody


async def run(ws: Workspace, options: Options, tell: Tell = nobody) -> RunReport:
    """One whole turn of the loop. Errors of one stream, model or sync stop what depends on it and nothing else."""
    syncs = ws.pick(options.selection)
    async with alerted(ws, tell) as told, recorded(ws) as report:
        told.report = report
        prepare(ws, syncs)
        report.recovered = await recover(ws, only=(), tell=tell)
        await preflight(ws, syncs, options.rekey)
        if not await finish_all(ws, report, syncs, tell):
            return report
        async with stage(ws, report, "extract", tell):
            report.extracted = await extract(ws, syncs, tell, full=options.full)
        async with stage(ws, report, "build", tell):
            report.unit_tests = await unit_tests(ws, tell)
            report.models = await build(ws, report.run_id, tell)
        bound = await bind_all(ws, syncs, report, options.rekey)
        async with stage(ws, report, "verify", tell):
            report.verified = await verify(ws, bound, within_run=False, tell=tell)
        report.sends = all(ws.delivers(b.sync.app) for b in bound)
        for wave in waves(bound) or [[]]:
            if report.interrupted is not None:
                break
            async with stage(ws, report, "plan", tell):
                plans = [await plan_sync(ws, b, options, report, report.syncs) for b in wave]
            report.syncs += plans
            await deliver_all(ws, report, plans, tell)
    return report


async def apply(ws: Workspace, path: Path, options: Options, tell: Tell = nobody, *, strict: bool = False) -> RunReport:
    """Send a saved plan: what is still equal is sent, the rest is listed; `strict` sends nothing if anything differs.

    The models are taken as they stand. The first delivery of a sync was allowed by saving and applying its plan.
    """
    plan = saved.load(path)
    if (plan.project, plan.environment) != (ws.project.name, ws.environment):
        raise FixConfig(
            f"{path} is a plan of {plan.project} in {plan.environment}, this is {ws.project.name} in {ws.environment}",
            mend=f"use --env {plan.environment} in that project",
        )
    syncs = ws.pick(Selection(tuple(plan.syncs))) if plan.syncs else []
    async with alerted(ws, tell) as told, recorded(ws) as report:
        told.report = report
        report.recovered = await recover(ws, only={s.name for s in syncs}, tell=tell)
        await preflight(ws, syncs)
        bound = await bind_all(ws, syncs, report)
        async with stage(ws, report, "plan", tell):
            plans = [await plan_saved(ws, b, options, report, plan.syncs[b.name]) for b in bound]
        report.syncs += plans
        if strict and any(p.not_equal or p.plan is None for p in plans):
            for p in plans:
                p.stop("some changes are no longer as saved, and --strict sends all or nothing")
        await deliver_all(ws, report, plans, tell)
    return report


async def undo(ws: Workspace, runs: Sequence[str], plans: Sequence[SyncReport], tell: Tell = nobody) -> RunReport:
    """Send what `plan_undo` planned, as a run of its own: journal, ledger and recovery are those of any delivery."""
    async with alerted(ws, tell) as told, recorded(ws) as report:
        told.report = report
        report.undoes = tuple(runs)
        report.syncs += plans
        await deliver_all(ws, report, plans, tell)
    return report


async def deliver_all(ws: Workspace, report: RunReport, plans: Sequence[SyncReport], tell: Tell) -> None:
    """Send the planned syncs one after the other, since one account's limit is theirs together.

    Ctrl-C and SIGTERM let what is in flight end, and begin nothing new.
    """
    stop = ws.runtime.stop
    async with stage(ws, report, "deliver", tell):
        with heeding_signals(stop, lambda: tell(Event("deliver", "tick", STOPPING))):
            for plan in plans:
                if stop.asked and plan.status == "planned":
                    plan.status = "interrupted"
                else:
                    await deliver(ws, plan, report.run_id, tell)
                tell(Event("sync", "done", plan.sync, report=report))
    report.interrupted = stop.signal


async def finish_all(ws: Workspace, report: RunReport, syncs: Sequence[Sync], tell: Tell) -> bool:
    """See `stages.recovering.finish`; False where the run was asked to end meanwhile."""
    with heeding_signals(ws.runtime.stop, lambda: tell(Event("deliver", "tick", STOPPING))):
        report.recovered += await finish(ws, {s.name for s in syncs}, tell)
    report.interrupted = ws.runtime.stop.signal
    return report.interrupted is None


def save_plan(ws: Workspace, reports: Sequence[SyncReport], path: Path) -> None:
    """Write the plans of some syncs to a file for `apply`."""
    plans = [r.plan for r in reports if r.plan is not None]
    saved.save(path, ws.project.name, ws.environment, ws.runtime.now(), plans, ws.warehouse)


#: Said when a run is asked to end.
STOPPING = f"stopping: what is in flight has {GRACE:g} s to end; once more ends it at once"


@asynccontextmanager
async def recorded(ws: Workspace) -> AsyncIterator[RunReport]:
    """A run's report, noted in the state when it begins and ends, and in the ledger when it came to its end."""
    report = RunReport(ws.runtime.new_id(), ws.environment)
    started, began = ws.runtime.now(), ws.runtime.monotonic()
    ws.store.begin_run(report.run_id, ws.environment, ws.command)
    try:
        yield report
    except BaseException as e:
        if isinstance(e, OploopError) and e.exit_code == FixConfig.exit_code and not report.stages:
            ws.store.forget_run(report.run_id)  # a mistake that was found before anything began changes nothing
            raise
        status = "failed" if isinstance(e, Exception) else "interrupted"  # Ctrl-C is nobody's failure
        ws.store.end_run(report.run_id, status, report.as_json())
        raise
    report.seconds = ws.runtime.monotonic() - began
    ws.store.end_run(report.run_id, report.status, report.as_json())
    summary = orjson.dumps(report.as_json(), default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    ws.warehouse.execute(
        "INSERT INTO oploop.runs (run_id, environment, status, started_at, finished_at, seconds, summary) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (report.run_id, ws.environment, report.status, started, ws.runtime.now(), report.seconds, summary),
    )
    retain(ws.warehouse, ws.project.retention, ws.runtime.now())
    if any(s.plan is not None and s.plan.diff.stands for s in report.syncs):
        sweep(ws.warehouse)
    ws.warehouse.put_off("oploop.runs")


@asynccontextmanager
async def stage(ws: Workspace, report: RunReport, name: str, tell: Tell) -> AsyncIterator[None]:
    """Times a stage and tells of its begin and end."""
    began, status = ws.runtime.monotonic(), "failed"
    tell(Event(name, "start", report=report))
    try:
        yield
        status = "ok"
    finally:
        seconds = ws.runtime.monotonic() - began
        report.stages.append(StageReport(name, status, seconds))
        tell(Event(name, "done" if status == "ok" else "failed", seconds=seconds, report=report))


__all__ = [
    "Options",
    "apply",
    "bind_all",
    "build",
    "deliver",
    "extract",
    "finish",
    "plan_only",
    "plan_sync",
    "preflight",
    "recover",
    "run",
    "save_plan",
    "undo",
    "unit_tests",
    "verify",
    "waves",
    "whose_all",
]
