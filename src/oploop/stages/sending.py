"""Deliver: the changes of a plan to the app, the receipts to the ledger; also of deliveries that died."""

from __future__ import annotations

from collections.abc import Iterable

from oploop.activate import appending, conflicts, finishing, folding, ledger, rekeying, sync_runs, volumes
from oploop.activate import deliver as delivering
from oploop.activate import diff as diffing
from oploop.activate import plan as planning
from oploop.activate.begun import Begun
from oploop.activate.journal import Journal
from oploop.activate.settling import noted, settle
from oploop.errors import OploopError, RetryLater
from oploop.report import SyncReport
from oploop.stages.again import send_again
from oploop.stages.canary import deliver_canary
from oploop.stages.looking import verify
from oploop.state import JournalStep
from oploop.warehouse.base import SqlError
from oploop.workspace import Event, Tell, Workspace, nobody


async def recover(ws: Workspace, *, finish: bool = False) -> list[str]:
    """Take deliveries of runs that died into the ledger, from their journal; what has no receipt is unknown, unless the app
    can still tell what became of it. With `finish`, as in a run, calls of which nobody else could tell are made once more where
    the app knows them by their keys: those of a run in the same environment, as another's models are not meant for this one's apps."""
    done = []
    for begun in ledger.unfolded(ws.warehouse):
        run_id, spec = begun.run_id, begun.spec
        run = ws.store.run(run_id)
        steps: Iterable[JournalStep] = ws.store.journal(run_id, spec.sync)
        if run is None:  # the state was lost: anything may have been sent
            steps = ledger.all_unknown(ws.warehouse, begun)
        if any(map(noted, steps)) and spec.app in ws.project.apps:
            settled = await settle(ws.app(spec.app), ws.warehouse, spec, begun.plan_table, steps, ws.runtime.now())
            ws.store.write_steps(settled)
        elif finish and run is not None and run.environment == ws.environment:
            ws.store.write_steps(await _finish(ws, begun, steps))
        folding.fold(ws.warehouse, begun, steps, ws.runtime.now())
        ws.store.end_delivery(run_id, spec.sync)
        done.append(f"{spec.sync} of run {run_id}")
    volumes.sweep(ws.warehouse)
    for left in ws.store.open_deliveries():  # folded, and the run died before it could say so
        ws.store.end_delivery(left.run_id, left.sync)
    return done


async def _finish(ws: Workspace, begun: Begun, steps: Iterable[JournalStep]) -> list[JournalStep]:
    """See `finishing`. A sync whose file has changed, or that sends nothing now, is left alone."""
    sync = ws.project.syncs.get(begun.spec.sync)
    if not begun.spec.careful or sync is None or not ws.delivers(sync.app) or all(s.ended_at for s in steps):
        return []
    try:
        bound = await ws.bound_alone(sync)
    except OploopError:
        return []
    if not finishing.may(bound, begun, ws.warehouse):
        return []
    return await finishing.finish(ws.app(sync.app), ws.warehouse, bound, begun, steps, ws.runtime)


async def deliver(ws: Workspace, report: SyncReport, run_id: str, tell: Tell = nobody) -> None:
    """Send one planned sync, fold it into the ledger, and read back what it sent."""
    plan = report.plan
    if report.status == "paused":
        return
    if plan is None or report.status == "stopped":
        if plan is not None:
            sync_runs.note_sync_run(ws.warehouse, plan, run_id, "stopped", {}, ws.runtime.now())
        return
    b = plan.bound
    if not ws.delivers(b.sync.app):
        return
    if plan.diff.count("seen"):
        rekeying.note(ws.warehouse, b, ws.runtime.now())
        appending.mark_seen(ws.warehouse, b, plan.diff.table, run_id, ws.runtime.now())
    elif b.appends:
        appending.begin(ws.warehouse, b.name, ws.runtime.now())
    conflicts.park_conflicts(ws.warehouse, plan, run_id, ws.runtime.now())
    held = diffing.held_rows(plan.diff, ws.warehouse) if plan.held else []
    if plan.changes == 0:
        report.status = "nothing"
    else:
        await _deliver_alone(ws, report, plan, run_id, tell)
    counts = report.as_json()
    sync_runs.note_sync_run(ws.warehouse, plan, run_id, report.status, counts, ws.runtime.now(), held)


async def _deliver_alone(ws: Workspace, report: SyncReport, plan: planning.SyncPlan, run_id: str, tell: Tell) -> None:
    """Deliver a sync while no other process does."""
    lease = f"deliver:{report.sync}"
    try:
        ws.store.take_lease(lease, ws.command)
    except RetryLater as e:
        report.stop(e.message)
        return
    try:
        with volumes.in_little_memory(ws.warehouse, len(plan.bound.fields), plan.changes):
            if plan.bound.sync.canary and not plan.undoes:
                await deliver_canary(ws, report, run_id, tell, send)
            else:
                await _deliver(ws, report, plan, run_id, tell)
    finally:
        ws.store.drop_lease(lease)


async def _deliver(ws: Workspace, report: SyncReport, plan: planning.SyncPlan, run_id: str, tell: Tell) -> None:
    report.delivery = await send(ws, plan, run_id, tell)
    if not report.saved and not plan.undoes:
        report.delivery = await send_again(ws, plan, report.delivery, run_id, tell, send)
    report.status = "ok" if report.delivery.error is None or report.delivery.deferred else "failed"
    report.error = report.delivery.error
    if report.delivery.interrupted:
        report.status = "interrupted"
    elif report.delivery.delivered:
        try:
            looked = await verify(ws, [plan.bound], within_run=True)
            report.read_back = looked[0] if looked else None
        except SqlError as e:  # all was sent, and stands in the ledger; the next run looks at it
            report.status, report.error = "failed", e


async def send(ws: Workspace, plan: planning.SyncPlan, run_id: str, tell: Tell) -> delivering.Delivery:
    """The changes into the warehouse, the delivery into the journal, the steps to the app, the receipts to the ledger."""
    b, now = plan.bound, ws.runtime.now()
    table = ledger.keep_plan(plan, ws.warehouse, run_id, now, ws.release)
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
    begun = Begun(run_id, ledger.spec_of_plan(plan, ws.warehouse, ws.release), table, now)
    folding.fold(ws.warehouse, begun, ws.store.journal(run_id, b.name), ws.runtime.now())
    ws.store.end_delivery(run_id, b.name, (b.sync.app, b.object.name), result.times)
    return result
