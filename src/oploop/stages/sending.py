"""Deliver: the changes of a plan to the app, the receipts to the ledger."""

from __future__ import annotations

from oploop.activate import appending, conflicts, finishing, folding, ledger, rekeying, sync_runs, unknowns, volumes
from oploop.activate import deliver as delivering
from oploop.activate import diff as diffing
from oploop.activate import plan as planning
from oploop.activate.begun import Begun
from oploop.activate.delivered import Delivery
from oploop.activate.journal import Journal
from oploop.errors import RetryLater
from oploop.report import SyncReport
from oploop.stages.again import send_again
from oploop.stages.canary import deliver_canary
from oploop.stages.looking import verify
from oploop.warehouse.base import SqlError
from oploop.workspace import Event, Tell, Workspace, nobody

#: Seconds between two words of how far a delivery is.
TICK = 0.1


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


async def send(ws: Workspace, plan: planning.SyncPlan, run_id: str, tell: Tell) -> Delivery:
    """The changes into the warehouse, the delivery into the journal, the steps to the app, the receipts to the ledger."""
    b, now = plan.bound, ws.runtime.now()
    account = finishing.account_of(ws.app(b.sync.app), run_id) if unknowns.known_by_keys(b) else ""
    ws.app(b.sync.app).prepare(writes=True)  # while the plan is written
    table = ledger.keep_plan(plan, ws.warehouse, run_id, now, ws.release.name, account)
    ws.store.begin_delivery(run_id, b.name, table)
    done, told = 0, 0.0

    def progress(n: int) -> None:
        nonlocal done, told
        done += n
        at = ws.runtime.monotonic()
        if at - told >= TICK:  # of thousands of calls a second nobody sees each
            told = at
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
    begun = Begun(run_id, ledger.spec_of_plan(plan, ws.warehouse, ws.release.name), table, now)
    folding.fold(ws.warehouse, begun, ws.store.journal(run_id, b.name), ws.runtime.now())
    ws.store.end_delivery(run_id, b.name, (b.sync.app, b.object.name), result.times)
    return result
