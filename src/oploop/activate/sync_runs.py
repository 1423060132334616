"""What is noted of a sync at the end of a run: `oploop.sync_runs`, the rows held, how full its fields were."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import chain

import pyarrow as pa

from oploop.activate import diff as d
from oploop.activate.plan import SyncPlan
from oploop.warehouse.base import Warehouse


def note_sync_run(
    warehouse: Warehouse,
    plan: SyncPlan,
    run_id: str,
    status: str,
    delivery: dict[str, float],
    now: datetime,
    held: Sequence[d.HeldRow] | None = None,
) -> None:
    """A row of `oploop.sync_runs`, and the rows that were held in this run: `held`, else those of the plan table."""
    with warehouse.transaction():
        warehouse.execute(
            f"INSERT INTO oploop.sync_runs VALUES ({', '.join('?' * 17)})",
            (
                run_id,
                plan.bound.name,
                plan.bound.app_object,
                status,
                plan.diff.rows if plan.diff.whole else None,
                plan.create,
                plan.update,
                plan.held,
                int(delivery.get("delivered", 0)),
                int(delivery.get("rejected", 0)),
                int(delivery.get("unknown", 0)),
                int(delivery.get("calls", 0)),
                delivery.get("seconds", 0.0),
                now,
                plan.archive,
                plan.remove,
                int(delivery.get("failed", 0)),
            ),
        )
        _note_held(warehouse, plan, run_id, now, d.held_rows(plan.diff, warehouse) if held is None else held)
        if plan.diff.whole and status in ("ok", "nothing"):
            rows = [(run_id, plan.bound.name, f, plan.diff.rows, n, now) for f, n in plan.diff.nulls.items()]
            if rows:
                marks = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
                warehouse.execute(f"INSERT INTO oploop.field_nulls VALUES {marks}", list(chain.from_iterable(rows)))


def _note_held(warehouse: Warehouse, plan: SyncPlan, run_id: str, now: datetime, rows: Sequence[d.HeldRow]) -> None:
    if not rows:
        return
    names = ("key", "reason", "field", "why")
    table = pa.table(
        {n: [getattr(r, n) for r in rows] for n in names}, schema=pa.schema([(n, pa.string()) for n in names])
    )
    warehouse.register("oploop_held_rows", table)
    try:
        warehouse.execute(
            "INSERT INTO oploop.held_log (run_id, sync, key, reason, field, noted_at, why) "
            "SELECT ?, ?, key, reason, field, ?, why FROM oploop_held_rows",
            (run_id, plan.bound.name, now),
        )
    finally:
        warehouse.unregister("oploop_held_rows")
