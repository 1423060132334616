"""Read-back: what the app holds now of what we sent. Confirmed, altered, drifted, ignored or gone, per record.

A record is looked at once a read supersedes its acknowledgement (`activate.sql.superseded`). The first such look
settles it: what the app made of our value (trimmed, lower-cased, rounded) becomes `stored` and is no difference from
then on. A later look that shows something else than `stored` is drift: somebody changed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from oploop.errors import OploopError
from oploop.records import Batch, Canonical, FieldType
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: Fetches records by the app's own ids and loads them into the raw table; handed in by the loop.
Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Batch]]

STATUSES = ("confirmed", "altered", "ignored", "drifted", "gone")


@dataclass(frozen=True, slots=True)
class Watched:
    """A mapped field that can be read back: its name and label, where it stands, how it is compared."""

    name: str
    label: str
    now: str  #: expression over the raw table `r`
    sql_type: str
    type: FieldType
    canonical: Canonical = Canonical.EXACT


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: one sync's records in one object of an app. `vouched`: see `activate.sql.Known`."""

    sync: str
    app: str
    object: str
    raw_table: str
    id_column: str
    state_table: str
    fields: tuple[Watched, ...]
    vouched: datetime | None


@dataclass(slots=True)
class ReadBack:
    """Counts by status over the records that the sync's last delivery touched; `waiting`: no read has shown them yet."""

    sync: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    fetched: int = 0
    error: OploopError | None = None

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)


def last_run(target: Target, warehouse: Warehouse) -> str | None:
    """The last run that delivered something of this sync."""
    rows = warehouse.rows(f"SELECT max(run_id) FROM {target.state_table} WHERE sync = ?", (target.sync,))
    return rows[0][0] if rows else None


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
    return [r[0] for r in rows]


async def read_back(
    target: Target, warehouse: Warehouse, *, fetch: Fetch | None, now: datetime, within_run: bool, limit: int = 1_000
) -> ReadBack:
    """Look at what a sync's last delivery left in the app, and write what was seen into the ledger.

    `within_run`: right after the delivery, so that a difference is the app's own doing and no person's. `fetch`
    brings at most `limit` records that the reads cannot vouch for yet. An app that cannot be asked is no failure
    of the run: it is said, and the next read looks again.
    """
    result = ReadBack(target.sync, last_run(target, warehouse))
    if result.run_id is None:
        return result
    if fetch is not None:
        ids = to_fetch(target, warehouse, result.run_id, limit=limit)
        try:
            if ids:
                result.fetched = len(ids)
                await fetch(ids)
        except OploopError as e:
            result.error = e
    settle(target, warehouse, now=now, within_run=within_run)
    rows = warehouse.rows(
        f"SELECT COALESCE(status, 'waiting'), count(*) FROM oploop_looked WHERE run_id = {literal(result.run_id)} GROUP BY 1"
    )
    result.counts = dict(rows)
    result.waiting = result.counts.pop("waiting", 0)
    return result


def settle(target: Target, warehouse: Warehouse, *, now: datetime, within_run: bool) -> None:
    """Compare all of a sync's records with the app's; note outcomes and what is stored now."""
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_looked AS {_look(target, within_run=within_run)}")
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    confirmed = f"CASE WHEN l.status = 'confirmed' THEN {at} END"
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.change_outcomes SELECT l.run_id, l.sync, l.number, o.seq + 1, l.status, l.message, NULL, "
            f"l.remote_id, NULL, {confirmed}, {at} FROM oploop_looked l JOIN (SELECT run_id, sync, number, max(seq) AS seq, "
            "arg_max(status, seq) AS status FROM oploop.change_outcomes GROUP BY 1, 2, 3) o ON o.run_id = l.run_id "
            "AND o.sync = l.sync AND o.number = l.number WHERE l.status IS NOT NULL AND l.status <> o.status"
        )
        _store(target, warehouse, at)
        _park_ignored(target, warehouse, at)


def _look(target: Target, *, within_run: bool) -> str:
    """One row a record: its status (NULL: no read has shown it yet) and what it holds."""
    table, fields = target.state_table, target.fields
    nows = ", ".join(f"{f.now} AS n{i}" for i, f in enumerate(fields))
    app = f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR) AS rid, r._version, r._extracted_at, r._deleted, {nows} FROM {quote_table(target.raw_table)} AS r"
    seen = "(a._version >= COALESCE(s.receipt_version, 0) AND a._extracted_at > s.acked_at)"
    if target.vouched is not None:
        seen = f"({seen} OR s.acked_at < TIMESTAMPTZ {literal(target.vouched.isoformat())})"
    seen = f"COALESCE({seen}, FALSE)"

    def known(f: Watched) -> str:
        return f"s.{quote(f.name + '.at')} IS NOT NULL"

    def some(test: Callable[[int, Watched], str]) -> str:
        return "(" + (" OR ".join(f"({known(f)} AND {test(i, f)})" for i, f in enumerate(fields)) or "FALSE") + ")"

    unlike_sent = some(lambda i, f: f"a.n{i} IS DISTINCT FROM s.{quote(f.name + '.sent')}")
    unlike_stored = some(lambda i, f: f"a.n{i} IS DISTINCT FROM s.{quote(f.name + '.stored')}")
    by_a_person = some(
        lambda i, f: (
            f"a.n{i} IS DISTINCT FROM s.{quote(f.name + '.sent')} "
            f"AND NOT COALESCE({_alike(f'a.n{i}', 's.' + quote(f.name + '.sent'))}, FALSE)"
        )
    )
    ignored = (
        some(lambda i, f: f"a.n{i} IS DISTINCT FROM s.{quote(f.name + '.sent')}")
        + " AND NOT "
        + some(
            lambda i, f: (
                f"a.n{i} IS DISTINCT FROM s.{quote(f.name + '.sent')} AND CAST(a.n{i} AS VARCHAR) IS DISTINCT FROM "
                f"(CAST(l.before AS JSON) ->> {literal('$.' + chr(34) + f.label + chr(34))})"
            )
        )
    )
    first = f"WHEN {unlike_stored} AND NOT {by_a_person} THEN 'altered'"
    if within_run:
        first = f"WHEN {unlike_stored} AND ({ignored}) THEN 'ignored' WHEN {unlike_stored} THEN 'altered'"
    status = (
        f"CASE WHEN NOT {seen} THEN NULL WHEN a._deleted THEN 'gone' "
        f"WHEN s.settled_at IS NULL THEN CASE WHEN NOT {unlike_sent} THEN 'confirmed' {first} ELSE 'drifted' END "
        f"WHEN {unlike_stored} THEN 'drifted' WHEN {unlike_sent} THEN 'altered' ELSE 'confirmed' END"
    )
    cols = ", ".join(f"a.n{i}" for i in range(len(fields)))
    return (
        f"SELECT s.remote_id, s.sync, s.run_id, s.number, s.settled_at, {status} AS status, NULL::VARCHAR AS message, "
        f"l.key, l.after, {cols} FROM {table} s LEFT JOIN ({app}) a ON a.rid = s.remote_id "
        "LEFT JOIN oploop.change_log l ON l.run_id = s.run_id AND l.sync = s.sync AND l.number = s.number "
        f"WHERE s.sync = {literal(target.sync)}"
    )


def _alike(a: str, b: str) -> str:
    """What an app makes of a value by itself: other case, trimmed blanks, a cut end, a rounded number."""
    x, y = (f"lower(trim(CAST({v} AS VARCHAR)))" for v in (a, b))
    return f"({x} = {y} OR (length({x}) > 0 AND starts_with({y}, {x})) OR round(TRY_CAST({a} AS DOUBLE), 2) = round(TRY_CAST({b} AS DOUBLE), 2))"


def _store(target: Target, warehouse: Warehouse, at: str) -> None:
    """The first look settles a record: `stored` is what the app shows."""
    sets = ", ".join(
        f"{quote(f.name + '.stored')} = CASE WHEN s.{quote(f.name + '.at')} IS NOT NULL THEN l.n{i} ELSE s.{quote(f.name + '.stored')} END"
        for i, f in enumerate(target.fields)
    )
    warehouse.execute(
        f"UPDATE {target.state_table} AS s SET settled_at = {at}, {sets} FROM oploop_looked l WHERE l.remote_id = s.remote_id "
        "AND l.sync = s.sync AND s.settled_at IS NULL AND l.status IN ('confirmed', 'altered', 'ignored')"
    )
    warehouse.execute(
        f"UPDATE {target.state_table} AS s SET settled_at = {at} FROM oploop_looked l WHERE l.remote_id = s.remote_id "
        "AND l.sync = s.sync AND s.settled_at IS NULL AND l.status IN ('drifted', 'gone')"
    )


def _park_ignored(target: Target, warehouse: Warehouse, at: str) -> None:
    """A value that the app keeps ignoring is not sent again until the model wants another."""
    warehouse.execute(
        f"INSERT INTO oploop.parked SELECT l.sync, ?, ?, l.key, 'ignored', l.after, 'the app keeps its own value', l.run_id, {at} "
        "FROM oploop_looked l WHERE l.status = 'ignored' AND l.key IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM oploop.parked p WHERE p.sync = l.sync AND p.key = l.key)",
        (target.app, target.object),
    )


__all__ = ["Fetch", "ReadBack", "Target", "Watched", "last_run", "read_back", "settle", "to_fetch"]
