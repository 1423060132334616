"""Retention: what the ledger lets go of, in set-based statements at the end of a run."""

from __future__ import annotations

from datetime import datetime, timedelta

from oploop.activate import volumes
from oploop.project import Retention
from oploop.warehouse.base import Warehouse, literal, quote_table


def retain(warehouse: Warehouse, keep: Retention, now: datetime) -> None:
    """Delete what is older than the user keeps it.

    Never touched: keys of rows that were appended, identities, parked changes and the ones they stem from, each record's last
    change of a sync (state refers to it), the last run of a sync with each of its outcomes.
    """
    if keep.changes is not None:
        _changes(warehouse, _before(now, keep.changes))
    if keep.held is not None:
        last = "SELECT max(run_id) FROM oploop.sync_runs GROUP BY sync"
        warehouse.execute(
            f"DELETE FROM oploop.held_log WHERE noted_at < {_before(now, keep.held)} AND run_id NOT IN ({last})"
        )
    if keep.runs is not None:
        _runs(warehouse, _before(now, keep.runs))


def _before(now: datetime, seconds: float) -> str:
    return f"TIMESTAMPTZ {literal((now - timedelta(seconds=seconds)).isoformat())}"


def _changes(warehouse: Warehouse, before: str) -> None:
    kept = [
        f"SELECT run_id, COALESCE(log_sync, sync) AS sync, number FROM {quote_table(t)}"
        for t in warehouse.tables()
        if t.startswith("oploop_state.") and not t.startswith(volumes.PLANS) and "log_sync" in warehouse.columns(t)
    ]
    known = ""
    if kept:
        known = (
            f" AND NOT EXISTS (SELECT 1 FROM ({' UNION ALL '.join(kept)}) k "
            "WHERE k.run_id = l.run_id AND k.sync = l.sync AND k.number = l.number)"
        )
    with warehouse.transaction():
        warehouse.execute(
            "CREATE OR REPLACE TEMP TABLE oploop_old AS SELECT l.run_id, l.sync, l.number FROM oploop.change_log l "
            f"WHERE l.planned_at < {before}{known} "
            "AND NOT EXISTS (SELECT 1 FROM oploop.parked p WHERE p.run_id = l.run_id AND p.key = l.key)"
        )
        volumes.forget(warehouse, "oploop_old")
        for table in ("outcome_rows", "change_rows"):
            warehouse.execute(
                f"DELETE FROM oploop.{table} WHERE EXISTS (SELECT 1 FROM oploop_old x WHERE x.run_id = {table}.run_id "
                f"AND x.sync = {table}.sync AND x.number = {table}.number)"
            )


def _runs(warehouse: Warehouse, before: str) -> None:
    """What guardrails compare with stays: a sync that was delivered once is never a first delivery again."""
    with warehouse.transaction():
        for table, each in (("sync_runs", "sync, object, status"), ("field_nulls", "sync")):
            last = f"SELECT max(run_id) FROM oploop.{table} GROUP BY {each}"
            warehouse.execute(f"DELETE FROM oploop.{table} WHERE noted_at < {before} AND run_id NOT IN ({last})")
        warehouse.execute(f"DELETE FROM oploop.runs WHERE finished_at < {before}")
