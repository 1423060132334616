"""Read-back: what the app holds now of what we sent. Confirmed, altered, drifted, ignored or gone, per record.

A record is looked at once a read supersedes its acknowledgement (`activate.sql.superseded`). The first such look
settles what its last change sent: what the app made of our value (trimmed, lower-cased, rounded) becomes `stored` and
is no difference from then on. A later look that shows something else than `stored` is drift: somebody changed it.
"""

from __future__ import annotations

from datetime import datetime

from oploop.errors import OploopError
from oploop.verify.late import acknowledge, acknowledge_removed, settle_removed
from oploop.verify.nouns import STATUSES, Fetch, ReadBack, Target, Unmeant, Watched
from oploop.verify.settling import settle, unmeant
from oploop.warehouse.base import SqlError, Warehouse, literal


def last_run(target: Target, warehouse: Warehouse) -> str | None:
    """The last run that delivered something of this sync."""
    found = [  # in this form engines look only where the greatest can stand
        row
        for table in (target.state_table, "oploop.removed")
        for row in warehouse.rows(
            f"SELECT run_id FROM {table} WHERE sync = ? AND run_id IS NOT NULL ORDER BY run_id DESC LIMIT 1",
            (target.sync,),
        )
    ]
    return max((r[0] for r in found), default=None)


def to_fetch(target: Target, warehouse: Warehouse, run_id: str, *, limit: int) -> list[str]:
    """Ids of the records that a run delivered and that the stream's reads cannot vouch for yet; those that nobody has looked at first."""
    unseen = "TRUE"
    if target.vouched is not None:
        unseen = f"acked_at >= TIMESTAMPTZ {literal(target.vouched.isoformat())}"
    rows = warehouse.rows(
        f"SELECT remote_id FROM {target.state_table} WHERE sync = ? AND run_id = ? AND {unseen} "
        f"ORDER BY settled_at IS NOT NULL, number LIMIT {int(limit)}",
        (target.sync, run_id),
    )
    rows += warehouse.rows(
        f"SELECT remote_id FROM oploop.removed WHERE sync = ? AND run_id = ? ORDER BY number LIMIT {max(0, limit - len(rows))}",
        (target.sync, run_id),
    )
    return [r[0] for r in rows]


async def read_back(
    target: Target, warehouse: Warehouse, *, fetch: Fetch | None, now: datetime, within_run: bool, limit: int = 1_000
) -> ReadBack:
    """Look at what a sync's last delivery left in the app, and write what was seen into the ledger.

    `within_run`: right after the delivery, so that a difference is the app's own doing and no person's. `fetch`
    brings at most `limit` records that the reads cannot vouch for yet. An app that cannot be asked is no failure
    of the run: it is said, and the next read looks again; a warehouse that fails meanwhile is one (SqlError).
    """
    unknown = bool(warehouse.rows("SELECT 1 FROM oploop.change_outcomes WHERE status = 'unknown' LIMIT 1"))
    if unknown:
        acknowledge_removed(target, warehouse, now=now)
    result = ReadBack(target.sync, last_run(target, warehouse))
    if result.run_id is None:
        return result
    if fetch is not None:
        ids = to_fetch(target, warehouse, result.run_id, limit=limit)
        try:
            if ids:
                result.fetched = len(ids)
                await fetch(ids)
        except SqlError:  # it is our own warehouse that fails, and what was sent stays unseen
            raise
        except OploopError as e:
            result.error = e
    if unknown and not within_run:
        acknowledge(target, warehouse, now=now)
    result.looked = settle(target, warehouse, result.run_id, now=now, within_run=within_run)
    result.counts = _counts(target, warehouse, result.run_id, within_run=within_run)
    for status, n in settle_removed(target, warehouse, result.run_id, now=now).items():
        result.counts[status] = result.counts.get(status, 0) + n
    result.waiting = result.counts.pop("waiting", 0)
    return result


def _counts(target: Target, warehouse: Warehouse, run_id: str, *, within_run: bool) -> dict[str, int]:
    """A run's records by what the ledger has of them now; "waiting": no read has shown them yet."""
    run = literal(run_id)
    mine = f"FROM {target.state_table} s WHERE s.sync = {literal(target.sync)} AND s.run_id = {run}"
    outcomes, looked = f"oploop.change_outcomes WHERE run_id = {run}", ""
    if within_run:  # then mostly few have been looked at, and the ledger has all
        [(open_,)] = warehouse.rows(f"SELECT count(*) {mine} AND s.settled_at IS NULL")
        looked = " AND s.settled_at IS NOT NULL"
        outcomes += f" AND number IN (SELECT s.number {mine}{looked})"
    rows = warehouse.rows(
        "SELECT CASE WHEN s.settled_at IS NULL THEN 'waiting' ELSE o.status END, count(*) FROM "
        f"(SELECT s.settled_at, s.number, COALESCE(s.log_sync, s.sync) AS log_sync {mine}{looked}) s JOIN "
        f"(SELECT sync, number, arg_max(status, seq) AS status FROM {outcomes} GROUP BY 1, 2) o "
        "ON o.sync = s.log_sync AND o.number = s.number GROUP BY 1"
    )
    return {"waiting": open_, **dict(rows)} if within_run else dict(rows)


__all__ = [
    "STATUSES",
    "Fetch",
    "ReadBack",
    "Target",
    "Unmeant",
    "Watched",
    "last_run",
    "read_back",
    "settle",
    "to_fetch",
    "unmeant",
]
