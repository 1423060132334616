"""Records that were changed since they were read, and so were left alone by a conditional update: fetched within the run, and
the fields' rules asked again with what the app holds now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import pyarrow as pa

from oploop.activate import conflicts
from oploop.activate import diff as diffing
from oploop.activate.delivered import Delivery
from oploop.activate.plan import SyncPlan
from oploop.errors import OploopError
from oploop.records import Outcome
from oploop.runtime import Interrupted
from oploop.stages.looking import fetcher
from oploop.warehouse.base import quote_table
from oploop.workspace import Tell, Workspace

#: Sends a plan as a run's delivery: `stages.sending.send`.
Send: TypeAlias = Callable[[Workspace, SyncPlan, str, Tell], Awaitable[Delivery]]
#: How often a record is looked at again in one run; what somebody keeps changing waits for the next.
LOOKS = 3
#: Records fetched at once.
FETCH = 1_000


async def send_again(
    ws: Workspace, plan: SyncPlan, delivery: Delivery, run_id: str, tell: Tell, send: Send
) -> Delivery:
    """What became of a delivery once the records that it found changed were decided anew.

    What people changed is theirs by the rule of each field: sent over, left, or parked; the rest of the record goes on. What
    cannot be looked at stays to the next run.
    """
    after = plan.changes
    for turn in range(1, LOOKS + 1):
        ids = list(dict.fromkeys(delivery.changed))
        if not ids or delivery.error is not None:
            break
        try:
            for start in range(0, len(ids), FETCH):
                await fetcher(ws, plan.bound)(ids[start : start + FETCH])
        except Interrupted as e:
            delivery.error = e
            break
        except OploopError as e:
            delivery.errors.append(f"records that were changed meanwhile cannot be looked at: {e.message}")
            break
        anew = _anew(ws, plan, f"{plan.diff.name}_a{turn}", ids, after)
        conflicts.park_conflicts(ws.warehouse, anew, run_id, ws.runtime.now())
        conflicts.note_left(ws.warehouse, anew, run_id, ws.runtime.now())
        after += anew.changes
        delivery.outcomes[Outcome.CHANGED] -= len(ids)
        delivery.changed = []
        delivery.left += len(ids) - anew.changes
        if anew.changes:
            delivery = delivery.plus(await send(ws, anew, run_id, tell))
    return delivery


def _anew(ws: Workspace, plan: SyncPlan, table: str, ids: Sequence[str], after: int) -> SyncPlan:
    """A plan of these records alone, numbered from the last change of the run on."""
    whole = diffing.diff(plan.bound, ws.warehouse, table=f"{table}_all")
    ws.warehouse.register("oploop_changed", pa.table({"id": pa.array(ids, pa.string())}))
    try:
        sent = "__status = 'update'"
        number = f"CASE WHEN {sent} THEN {int(after)} + row_number() OVER (PARTITION BY {sent} ORDER BY __number) END"
        ws.warehouse.execute(
            f"CREATE OR REPLACE TEMP TABLE {quote_table(table)} AS SELECT * REPLACE ({number} AS __number) "
            f"FROM {quote_table(whole.table)} WHERE __remote IN (SELECT id FROM oploop_changed)"
        )
    finally:
        ws.warehouse.unregister("oploop_changed")
    found = diffing.counted(replace(whole, table=table, whole=False), ws.warehouse)
    return replace(plan, diff=found, create=0, update=found.count("update"), archive=0, remove=0)
