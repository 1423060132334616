"""The loop on one page: extract, model, verify, validate and diff, plan, deliver, verify.

Each stage takes what the one before it made and returns what the next one needs (design: the data's way). Nothing is
planned while delivering, nothing is sent while planning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from oploop.activate import deliver as delivering
from oploop.activate import diff as diffing
from oploop.activate import ledger, saved, sql
from oploop.activate import plan as planning
from oploop.activate.bind import BoundSync
from oploop.activate.journal import Journal
from oploop.apps.base import App
from oploop.apps.transport import Budget
from oploop.errors import FixConfig, OploopError
from oploop.extract import StreamRequest, StreamResult, load_fetched
from oploop.extract import extract as extract_streams
from oploop.model.base import ModelResult, ModelStatus
from oploop.project import Sync
from oploop.records import Batch
from oploop.report import RunReport, StageReport, SyncReport
from oploop.verify import Fetch, ReadBack, Target, Watched, read_back
from oploop.workspace import Event, Selection, Tell, Workspace, nobody

#: Records of a sync that are fetched back by key at the end of a run; the others are seen by later reads.
READ_BACK = 1_000
#: Which streams to read, of those that a run would.
Keep: TypeAlias = Callable[[StreamRequest], bool]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of a run. `allow`: sync -> guardrails that may be passed this once."""

    selection: Selection = field(default_factory=Selection)
    key: str | None = None
    limit: int | None = None
    full: bool = False
    allow: Mapping[str, frozenset[str]] = field(default_factory=dict)
    yes: bool = False
    confirm: Callable[[planning.SyncPlan], bool] = lambda _: False


async def run(ws: Workspace, options: Options, tell: Tell = nobody) -> RunReport:
    """One whole turn of the loop. Errors of one stream, model or sync stop what depends on it and nothing else."""
    report = RunReport(ws.runtime.new_id(), ws.environment)
    began = ws.runtime.monotonic()
    syncs = options.selection.pick(ws.project)
    ws.store.begin_run(report.run_id, ws.environment, ws.command)
    try:
        report.recovered = recover(ws)
        await preflight(ws, syncs)
        async with stage(ws, report, "extract", tell):
            report.extracted = await extract(ws, syncs, tell, full=options.full)
        async with stage(ws, report, "build", tell):
            report.models = await build(ws, report.run_id, tell)
        bound = await bind_all(ws, syncs, report, tell)
        async with stage(ws, report, "verify", tell):
            report.verified = await verify(ws, bound, within_run=False)
        async with stage(ws, report, "plan", tell):
            reports = [await plan_sync(ws, b, options, report) for b in bound]
        report.syncs += reports
        report.sends = all(ws.delivers(b.sync.app) for b in bound)
        async with stage(ws, report, "deliver", tell):
            for sync_report in reports:
                await deliver(ws, sync_report, report.run_id, tell)
                tell(Event("sync", "done", sync_report.sync, report=report))
    except BaseException:
        ws.store.end_run(report.run_id, "failed", report.as_json())
        raise
    report.seconds = ws.runtime.monotonic() - began
    finish(ws, report)
    return report


def save_plan(ws: Workspace, reports: Sequence[SyncReport], path: Path) -> None:
    """Write the plans of some syncs to a file for `apply`."""
    plans = [r.plan for r in reports if r.plan is not None]
    saved.save(path, ws.project.name, ws.environment, ws.runtime.now(), plans, ws.warehouse)


async def apply(ws: Workspace, path: Path, options: Options, tell: Tell = nobody, *, strict: bool = False) -> RunReport:
    """Send a saved plan: what is still equal is sent, the rest is listed; `strict` sends nothing if anything differs.

    The models are taken as they stand. The first delivery of a sync was allowed by saving and applying its plan.
    """
    plan_file = saved.load(path)
    if plan_file.project != ws.project.name or plan_file.environment != ws.environment:
        raise FixConfig(
            f"{path} is a plan of {plan_file.project} in {plan_file.environment}, this is {ws.project.name} in {ws.environment}",
            mend=f"use --env {plan_file.environment} in that project",
        )
    syncs = Selection(tuple(plan_file.syncs)).pick(ws.project) if plan_file.syncs else []
    report = RunReport(ws.runtime.new_id(), ws.environment)
    began = ws.runtime.monotonic()
    ws.store.begin_run(report.run_id, ws.environment, ws.command)
    try:
        report.recovered = recover(ws)
        await preflight(ws, syncs)
        bound = await bind_all(ws, syncs, report, tell)
        async with stage(ws, report, "plan", tell):
            reports = [await plan_saved(ws, b, options, report, plan_file.syncs[b.name]) for b in bound]
        report.syncs += reports
        differs = any(r.not_equal for r in reports)
        async with stage(ws, report, "deliver", tell):
            for sync_report in reports:
                if strict and differs:
                    sync_report.stopped.append("some changes are no longer as saved, and --strict sends all or nothing")
                    sync_report.status = "stopped"
                await deliver(ws, sync_report, report.run_id, tell)
                tell(Event("sync", "done", sync_report.sync, report=report))
    except BaseException:
        ws.store.end_run(report.run_id, "failed", report.as_json())
        raise
    report.seconds = ws.runtime.monotonic() - began
    finish(ws, report)
    return report


async def plan_saved(
    ws: Workspace, b: BoundSync, options: Options, run: RunReport, rows: list[list[str]]
) -> SyncReport:
    """Plan one sync anew, and keep of it what its saved plan has too."""
    report = await plan_sync(ws, b, replace(options, yes=True), run)
    assert report.plan is not None
    kept, report.not_equal = saved.restrict(report.plan.diff, ws.warehouse, rows)
    report.plan = planning.make_plan(
        kept, ws.warehouse, budget=budget_of(ws, b), call_seconds=None, allow={"first", *options.allow.get(b.name, ())}
    )
    return report


@asynccontextmanager
async def stage(ws: Workspace, report: RunReport, name: str, tell: Tell) -> AsyncIterator[None]:
    """Times a stage and tells of its begin and end."""
    began = ws.runtime.monotonic()
    tell(Event(name, "start"))
    status = "failed"
    try:
        yield
        status = "ok"
    finally:
        seconds = ws.runtime.monotonic() - began
        report.stages.append(StageReport(name, status, seconds))
        tell(Event(name, "done" if status == "ok" else "failed", seconds=seconds, report=report))


def finish(ws: Workspace, report: RunReport) -> None:
    """Note how a run ended, in the state and in the ledger."""
    ws.store.end_run(report.run_id, report.status, report.as_json())
    now = ws.runtime.now()
    row = ws.store.run(report.run_id)
    started = row.started_at if row is not None else now
    ws.warehouse.execute(
        "INSERT INTO oploop.runs VALUES (?, ?, ?, ?, ?, ?, NULL)",
        (report.run_id, report.environment, report.status, started, now, report.seconds),
    )


# -- before the first stage ---------------------------------------------------------------------------------------------


async def preflight(ws: Workspace, syncs: Sequence[Sync]) -> None:
    """Call each app once, so that a wrong credential or address stops the run before anything has changed."""
    names = [b.name for b in ws.project.apps.values() if b.read or any(s.app == b.name for s in syncs)]
    ws.stream_requests(syncs)  # unknown streams and objects are named before any call
    answers = await asyncio.gather(*(ws.app(n).check() for n in names), return_exceptions=True)
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, OploopError):
            raise answer.at(ws.project.apps[name].place)
        if isinstance(answer, BaseException):
            raise answer
    targets = {(s.app, s.object) for s in syncs}
    neighbours = [s for s in ws.project.syncs.values() if s.enabled and (s.app, s.object) in targets and s not in syncs]
    refuse_shared_fields([await ws.precheck(s) for s in [*neighbours, *syncs]])


def recover(ws: Workspace) -> list[str]:
    """Take deliveries of runs that died into the ledger, from their journal; what has no receipt is unknown."""
    done = []
    for run_id, spec, table, at in ledger.unfolded(ws.warehouse):
        ledger.fold(ws.warehouse, run_id, spec, table, at, ws.store.steps(run_id, spec.sync), ws.runtime.now())
        ws.store.end_delivery(run_id, spec.sync)
        done.append(f"{spec.sync} of run {run_id}")
    return done


# -- the stages ---------------------------------------------------------------------------------------------------------


async def extract(
    ws: Workspace, syncs: Sequence[Sync], tell: Tell = nobody, *, full: bool = False, keep: Keep = lambda _: True
) -> list[StreamResult]:
    """Read all wanted streams into their raw tables."""
    requests = [r for r in ws.stream_requests(syncs, full=full) if keep(r)]
    results = await extract_streams(
        requests,
        ws.warehouse,
        ws.runtime,
        ws.project.state_dir / "dlt",
        progress=lambda p: tell(Event("extract", "tick", f"{p.app}.{p.stream} {p.read:,}")),
    )
    for r in results:
        if r.error is not None:
            r.error.at(ws.project.apps[r.app].place)
            tell(Event("extract", "note", f"{r.app}.{r.stream}: {r.error}"))
    return list(results)


async def build(ws: Workspace, run_id: str, tell: Tell = nobody, select: Sequence[str] = ()) -> list[ModelResult]:
    """Bring the environment's models up to date; which of them failed is kept, as it stops their syncs until mended."""
    if ws.project.models.engine == "none":
        return []
    ws.modeler  # noqa: B018  loading it is part of the stage's time
    results = list(
        ws.modeler.build(ws.environment, select=select, progress=lambda text: tell(Event("build", "tick", text)))
    )
    now = ws.runtime.now()
    with ws.warehouse.transaction():
        for r in results:
            ws.warehouse.execute(
                "DELETE FROM oploop.models WHERE environment = ? AND model = ?", (ws.environment, r.model)
            )
            ws.warehouse.execute(
                "INSERT INTO oploop.models VALUES (?, ?, ?, ?, ?, ?)",
                (ws.environment, r.model, r.status.value, _why(r), run_id, now),
            )
    return results


def _why(r: ModelResult) -> str:
    failed = [c for c in r.checks if not c.ok and c.blocking]
    return r.message or "; ".join(f"audit {c.name} failed for {c.rows} rows" for c in failed)


async def bind_all(ws: Workspace, syncs: Sequence[Sync], report: RunReport, tell: Tell) -> list[BoundSync]:
    """Bind the syncs; one whose model was never built because it failed is reported, not raised."""
    bound = []
    broken = {m.model: m for m in report.models if m.status in (ModelStatus.FAILED, ModelStatus.SKIPPED)}
    for sync in syncs:
        try:
            bound.append(await ws.bound(sync))
        except FixConfig as e:
            if sync.model not in broken:
                raise
            why = f"model {sync.model} {broken[sync.model].status.value}: {_why(broken[sync.model])}"
            report.syncs.append(SyncReport(sync.name, f"{sync.app}.{sync.object}", "stopped", stopped=[why], error=e))
    return bound


def refuse_shared_fields(bound: Sequence[BoundSync]) -> None:
    """One field of one object has one owning sync."""
    owners: dict[tuple[str, str], str] = {}
    for b in bound:
        for f in b.fields:
            owner = owners.setdefault((b.app_object, f.field.name), b.name)
            if owner != b.name:
                raise FixConfig(
                    f"{b.app_object} field {f.label!r} is also written by sync {owner!r}",
                    mend="let one sync own it",
                    place=b.sync.place_of("fields", f.label),
                )


async def verify(ws: Workspace, bound: Sequence[BoundSync], *, within_run: bool) -> list[ReadBack]:
    """Look at what the syncs' last deliveries left in the apps; by key where the reads cannot vouch for it yet."""
    results = []
    for b in bound:
        ledger.forget_parked(ws.warehouse, b.sync.app, b.sync.object, diffing.vouched_until(b, ws.warehouse))
        target = target_of(ws, b)
        if target is None:
            continue
        now, fetch = ws.runtime.now(), fetcher(ws, b)
        results.append(
            await read_back(target, ws.warehouse, fetch=fetch, now=now, within_run=within_run, limit=READ_BACK)
        )
    return results


def target_of(ws: Workspace, b: BoundSync) -> Target | None:
    """What to look at for a sync; None when it is blind or has delivered nothing yet."""
    known = diffing.look(b, ws.warehouse)
    if b.raw_table is None or not known.has_state:
        return None
    watched = tuple(
        Watched(f.field.name, f.label, f.now, ws.warehouse.sql_type(f.field.type), f.field.type, f.field.canonical)
        for f in b.fields
        if f.now is not None and f.field.name in known.state_fields
    )
    return Target(
        b.name, b.sync.app, b.sync.object, b.raw_table, b.id_column, sql.state_table(b), watched, known.vouched
    )


def fetcher(ws: Workspace, b: BoundSync) -> Fetch:
    """Fetches a sync's records by the app's own ids and loads them into the raw table."""
    app: App = ws.app(b.sync.app)

    async def fetch(ids: Sequence[str]) -> Batch:
        batch = await app.fetch(b.sync.object, ids)
        assert b.stream is not None
        load_fetched(ws.warehouse, app.name, b.stream, batch)
        return batch

    return fetch


async def plan_sync(ws: Workspace, b: BoundSync, options: Options, run: RunReport | None = None) -> SyncReport:
    """Validate, diff and plan one sync; in a run, records are fetched first where the last read is too old to plan on."""
    report = SyncReport(b.name, b.app_object)
    if b.raw_table is not None and not ws.warehouse.columns(b.raw_table):
        raise FixConfig(
            f"{b.raw_table.removeprefix('raw_').removesuffix('__all')} was never read", mend="oploop extract"
        )
    report.stopped += gate(ws, b)
    if run is not None and not report.stopped:
        report.stopped += await freshen(ws, b, options, run)
    report.plan = plan_only(ws, b, options, "" if run is None else run.run_id)
    report.stopped += [f.message for f in report.plan.stops]
    report.allow = [f"{b.name}:{f.check}" for f in report.plan.stops]
    if report.stopped:
        only_first = all(f.check == "first" for f in report.plan.stops) and len(report.stopped) == len(
            report.plan.stops
        )
        if run is not None and only_first and options.confirm(report.plan):
            report.stopped, report.allow = [], []
        else:
            report.status = "stopped"
    return report


def plan_only(ws: Workspace, b: BoundSync, options: Options, run_id: str) -> planning.SyncPlan:
    """Diff and plan one sync as the warehouse stands; changes nothing, sends nothing."""
    table = diffing.plan_table_name(b.name, run_id or "look")
    diff = diffing.diff(b, ws.warehouse, table=table, key=options.key, limit=options.limit)
    allow = set(options.allow.get(b.name, frozenset())) | ({"first"} if options.yes else set())
    return planning.make_plan(diff, ws.warehouse, budget=budget_of(ws, b), call_seconds=None, allow=allow)


def budget_of(ws: Workspace, b: BoundSync) -> Budget | None:
    """The budget of the account that a sync writes to."""
    transport = ws.app(b.sync.app).transport
    return transport.budget if transport is not None else None


def gate(ws: Workspace, b: BoundSync) -> list[str]:
    """Why a sync may not send: its model, as last built, failed."""
    if not ws.warehouse.columns("oploop.models"):
        return []
    rows = ws.warehouse.rows(
        "SELECT status, message FROM oploop.models WHERE environment = ? AND model = ? AND status IN ('failed', 'skipped')",
        (ws.environment, b.sync.model),
    )
    return [
        f"model {b.sync.model} {status}: {message or 'something that it depends on failed'}" for status, message in rows
    ]


async def freshen(ws: Workspace, b: BoundSync, options: Options, run: RunReport) -> list[str]:
    """Make sure that what a plan compares with is what the app holds now.

    If the target's stream was not read completely in this run and its last complete read is older than the sync's
    `max_read_age`, the records to be updated are fetched by key; a sync that could create stops, since a record that was
    not read looks like one that is not there.
    """
    if b.stream is None:
        return []
    result = next((s for s in run.extracted if (s.app, s.stream) == (b.sync.app, b.stream.name)), None)
    if result is not None and result.error is None:
        return []
    began = diffing.read_began(b, ws.warehouse)
    if began is None:
        return [f"{b.sync.app}.{b.stream.name} was never read completely"]
    if (ws.runtime.now() - began).total_seconds() <= b.sync.max_read_age:
        return []
    if b.create_op is not None:
        return [f"the last complete read of {b.app_object} is too old to tell what is not there"]
    plan = plan_only(ws, b, options, run.run_id)
    rows = ws.warehouse.rows(f"SELECT __remote FROM {plan.diff.table} WHERE __number IS NOT NULL ORDER BY __number")
    try:
        await fetcher(ws, b)([r[0] for r in rows])
    except OploopError as e:
        return [f"{b.app_object} cannot be read: {e}"]
    return []


async def deliver(ws: Workspace, report: SyncReport, run_id: str, tell: Tell = nobody) -> None:
    """Send one planned sync, fold it into the ledger, and read back what it sent."""
    plan = report.plan
    if plan is None or report.status == "stopped":
        if plan is not None:
            ledger.note_sync_run(ws.warehouse, plan, run_id, "stopped", {}, ws.runtime.now())
        return
    b = plan.bound
    if not ws.delivers(b.sync.app):
        return
    if plan.changes == 0:
        report.status = "nothing"
    else:
        report.delivery = await send(ws, plan, run_id, tell)
        report.status = "ok" if report.delivery.error is None else "failed"
        report.error = report.delivery.error
        if report.delivery.delivered:
            looked = await verify(ws, [b], within_run=True)
            report.read_back = looked[0] if looked else None
    counts = report.as_json()
    ledger.note_sync_run(ws.warehouse, plan, run_id, report.status, counts, ws.runtime.now())


async def send(ws: Workspace, plan: planning.SyncPlan, run_id: str, tell: Tell) -> delivering.Delivery:
    """The changes into the warehouse, the delivery into the journal, the steps to the app, the receipts to the ledger."""
    b, now = plan.bound, ws.runtime.now()
    table = ledger.keep_plan(plan, ws.warehouse, run_id, now)
    ws.store.begin_delivery(run_id, b.name, table)
    done = 0

    def progress(n: int) -> None:
        nonlocal done
        done += n
        tell(Event("deliver", "tick", f"{b.name} {done:,} of {plan.changes:,}"))

    deliverer = delivering.Deliverer(
        plan,
        ws.app(b.sync.app),
        run_id=run_id,
        table=table,
        warehouse=ws.warehouse,
        journal=Journal(ws.store.write_steps),
        runtime=ws.runtime,
        progress=progress,
    )
    result = await deliverer.run()
    spec = ledger.spec_of(b, ws.warehouse, None)
    ledger.fold(ws.warehouse, run_id, spec, table, now, ws.store.steps(run_id, b.name), ws.runtime.now())
    ws.store.end_delivery(run_id, b.name)
    return result


__all__ = [
    "Options",
    "apply",
    "build",
    "deliver",
    "extract",
    "plan_only",
    "plan_sync",
    "preflight",
    "recover",
    "run",
    "save_plan",
    "verify",
]
