"""Canary: the first changes of a delivery go ahead of the others, which follow only if the app made of them what was meant."""

from __future__ import annotations

from dataclasses import replace

from oploop.activate import diff as diffing
from oploop.activate import undo, waiting
from oploop.activate.plan import SyncPlan
from oploop.errors import OploopError, QuotaSpent
from oploop.report import SyncReport
from oploop.stages.again import Send, send_again
from oploop.stages.looking import target_of, verify
from oploop.stages.undoing import plan_runs
from oploop.verify import Unmeant, unmeant
from oploop.warehouse.base import quote_table
from oploop.workspace import Tell, Workspace

#: Differences that the message names.
SHOWN = 5


async def deliver_canary(ws: Workspace, report: SyncReport, run_id: str, tell: Tell, send: Send) -> None:
    """Send the canary, read it back, then send the rest; or put the canary back, and stop the sync.

    What the quota leaves of the canary, or of the look at it, is deferred with all that would have followed: the next run
    begins with a canary of its own.
    """
    plan = report.plan
    assert plan is not None
    first, rest = _split(ws, plan, plan.bound.sync.canary)
    report.delivery = await send(ws, first, run_id, tell)
    if report.delivery.error is not None and not report.delivery.deferred:  # what was not begun stays to be sent
        report.error = report.delivery.error
        report.status = "interrupted" if report.delivery.interrupted else "failed"
        return
    if report.delivery.delivered:
        await _look(ws, report, plan)
    wrong = _wrong(ws, plan, run_id, report, first.changes)
    if not wrong and rest.changes and report.read_back is not None and isinstance(report.read_back.error, QuotaSpent):
        report.delivery.error = report.delivery.error or report.read_back.error
    if not wrong and report.delivery.error is None:
        done = report.delivery.delivered
        if rest.changes:
            report.delivery = report.delivery.plus(await send(ws, rest, run_id, tell))
        if not report.saved:  # also what the canary found changed
            report.delivery = await send_again(ws, plan, report.delivery, run_id, tell, send)
        if report.delivery.delivered > done:
            await _look(ws, report, plan)
    sent = report.delivery
    report.error = sent.error
    report.status = "ok" if sent.error is None or sent.deferred else "interrupted" if sent.interrupted else "failed"
    if wrong:
        report.stop(f"canary: {wrong}")
        report.stopped.append(await _put_back(ws, report, run_id, tell, send))


async def _look(ws: Workspace, report: SyncReport, plan: SyncPlan) -> None:
    looked = await verify(ws, [plan.bound], within_run=True)
    report.read_back = looked[0] if looked else None


def _split(ws: Workspace, plan: SyncPlan, size: int) -> tuple[SyncPlan, SyncPlan]:
    """The first so many changes, and the others, as plans of their own; numbers stay as they are."""
    parts = []
    for suffix, which in (("_c", f"__number <= {size}"), ("_r", f"__number > {size}")):
        table = plan.diff.name + suffix
        ws.warehouse.execute(
            f"CREATE OR REPLACE TEMP TABLE {quote_table(table)} AS SELECT * FROM {quote_table(plan.diff.table)} WHERE {which}"
        )
        counts = dict(ws.warehouse.rows(f"SELECT __status, count(*) FROM {quote_table(table)} GROUP BY 1"))
        diff = replace(plan.diff, table=table, counts=counts)
        sent = {status: diff.count(status) for status in diffing.SENT}
        parts.append(
            replace(
                plan,
                diff=diff,
                create=sent["create"],
                update=sent["update"],
                archive=sent["archive"],
                remove=sent["remove"],
            )
        )
    return parts[0], parts[1]


def _wrong(ws: Workspace, plan: SyncPlan, run_id: str, report: SyncReport, first: int) -> str | None:
    """What the app made of the canary, the `first` so many changes, that was not meant, field by field; None when all is well
    as far as the quota let it be sent and looked at."""
    sent, looked = report.delivery, report.read_back
    assert sent is not None
    size = first - len(sent.changed) - sent.deferred_of(first)
    if sent.delivered < size:
        said = f": {sent.errors[0]}" if sent.errors else ""
        return f"{size - sent.delivered} of {size} changes did not arrive{said}"
    if looked is None or isinstance(looked.error, QuotaSpent):
        return None
    target = target_of(ws, plan.bound)
    found = unmeant(target, ws.warehouse, run_id, looked.looked) if target is not None else []
    if not found:
        return None
    shown = "; ".join(_says(u) for u in found[:SHOWN])
    return shown + (f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _says(u: Unmeant) -> str:
    key = diffing.show_key(u.key)
    if u.field is None:
        return f"{key}: {u.holds}"
    return f"{key} {u.field}: sent {u.sent or 'nothing'}, the app holds {u.holds or 'nothing'}"


async def _put_back(ws: Workspace, report: SyncReport, run_id: str, tell: Tell, send: Send) -> str:
    """Undo the canary, as a run of its own, which also pauses the sync; what to say of it."""
    plan, sent = report.plan, report.delivery
    assert plan is not None
    assert sent is not None
    b, again = plan.bound, ws.runtime.new_id()
    # before anything that may fail, and also where nothing can be put back
    waiting.pause(ws.warehouse, b.name, again, f"canary of run {run_id}", ws.runtime.now())
    try:
        found = await plan_runs(ws, b, undo.Asked((run_id,)), [f.label for f in b.fields], [b.name], tell)
    except OploopError as e:  # of the app, or of the warehouse
        return f"it was not put back: {e.message}; the others were not sent; later: oploop undo {run_id}; then: oploop resume {b.name}"
    back = found[0]
    ws.store.begin_run(again, ws.environment, f"canary of {run_id}")
    try:
        result = await send(ws, back, again, tell) if back.changes else None
    except BaseException:
        ws.store.end_run(again, "failed", {})
        raise
    broke_off = result is not None and result.error is not None and not result.deferred
    ws.store.end_run(again, "failed" if broke_off else "ok", {})
    done = result.delivered if result is not None else 0
    left = f", {sum(n for _, n in found[1])} could not be" if found[1] else ""
    if result is not None and result.error is not None:
        left += f", as {result.error.message}: later oploop undo {run_id}"
    return f"{done} of {sent.delivered} were put back{left} (run {again}); the others were not sent; then: oploop resume {b.name}"
