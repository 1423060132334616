"""Jobs that an app may still be at: calls of which it kept a note, and whose end nobody heard.

Until the app says that such a job is over, nothing of it is sent again, whatever a read shows: it could still do what it was
given. Each run asks; what the app then tells of its changes is taken into the ledger like an answer that came late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import orjson

from oploop.activate import volumes, waiting
from oploop.activate.spreading import STATUS
from oploop.apps.base import App
from oploop.apps.defects import defect
from oploop.errors import OploopError
from oploop.records import Change, Op, Outcome, Receipt, Replay
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, literal, quote_table

if TYPE_CHECKING:
    from oploop.activate.begun import Begun
    from oploop.activate.bound import BoundSync

#: What begins the names of the tables that tell the records of such jobs apart.
TABLES = "oploop_state.job_"


@dataclass(frozen=True, slots=True)
class Job:
    """A job that may still be at work: changes `first`..`last` of a run; `table` has the values of their `keys`."""

    run_id: str
    sync: str
    op: Op
    note: str
    first: int
    last: int
    table: str
    keys: list[str]


class Watched:
    """A delivery's steps; those whose jobs may go on are kept in `open` as they are gone through."""

    def __init__(self, steps: Iterable[JournalStep]) -> None:
        self._steps = steps
        self.open: list[JournalStep] = []

    def __iter__(self) -> Iterator[JournalStep]:
        self.open.clear()
        for step in self._steps:
            if step.note is not None and step.outcome in (None, Outcome.UNKNOWN):
                self.open.append(step)
            yield step

    def among(self, number: str) -> str:
        """The condition that a change, by its number, was given to one of these jobs."""
        return " OR ".join(f"{number} BETWEEN {s.first} AND {s.last}" for s in self.open) or "FALSE"


def keep(warehouse: Warehouse, begun: Begun, watched: Watched) -> None:
    """Note a delivery's jobs whose end nobody heard. Within the caller's transaction, while the plan table stands."""
    if not watched.open:
        return
    spec, table = begun.spec, begun.plan_table.replace(volumes.PLANS, TABLES)
    columns = ", ".join(["__number", "__remote", *(f"k{i}" for i in range(len(spec.keys)))])
    warehouse.execute(f"DROP TABLE IF EXISTS {quote_table(table)}")
    warehouse.execute(
        f"CREATE TABLE {quote_table(table)} AS SELECT {columns} FROM {quote_table(begun.plan_table)} "
        f"WHERE {watched.among('__number')}"
    )
    keys = orjson.dumps(spec.keys).decode()
    for s in watched.open:
        warehouse.execute(
            "INSERT INTO oploop.jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                begun.run_id,
                spec.sync,
                spec.sync,
                spec.app,
                spec.object,
                s.op.value,
                s.note,
                s.first,
                s.last,
                table,
                keys,
                s.began_at,
            ),
        )


def still_at_it(bound: BoundSync) -> str:
    """The condition on `oploop.parked` that a job may still do the change. What the ledger does not have by this key has another
    one since: it may be any job's of its run."""
    app, obj = literal(bound.sync.app), literal(bound.sync.object)
    elsewhere = (
        "SELECT 1 FROM oploop.change_log l WHERE l.run_id = j.run_id AND l.sync = j.sync AND l.key = parked.key "
        "AND NOT (l.number BETWEEN j.first AND j.last)"
    )
    return (
        f"EXISTS (SELECT 1 FROM oploop.jobs j WHERE j.app = {app} AND j.object = {obj} AND j.run_id = parked.run_id "
        f"AND NOT EXISTS ({elsewhere}))"
    )


def has(change: str) -> str:
    """The condition that a change of the ledger, an alias of `oploop.change_log`, was given to a job that may still be at work."""
    same = " AND ".join(f"j.{c} = {change}.{c}" for c in ("run_id", "sync", "app", "object"))
    return f"EXISTS (SELECT 1 FROM oploop.jobs j WHERE {same} AND {change}.number BETWEEN j.first AND j.last)"


def open_jobs(warehouse: Warehouse, bound: BoundSync) -> list[Job]:
    """Jobs of the sync that may still be at work."""
    rows = warehouse.rows(
        "SELECT run_id, sync, op, note, first, last, keys_table, keys FROM oploop.jobs WHERE owner = ? AND app = ? AND object = ? "
        "ORDER BY noted_at, first",
        (bound.name, bound.sync.app, bound.sync.object),
    )
    return [Job(r[0], r[1], Op(r[2]), r[3], r[4], r[5], r[6], orjson.loads(r[7])) for r in rows]


def owners(warehouse: Warehouse, app: str, obj: str) -> list[str]:
    """The syncs, by their names now, whose jobs may still be at work on records of an object."""
    rows = warehouse.rows("SELECT DISTINCT owner FROM oploop.jobs WHERE app = ? AND object = ? ORDER BY 1", (app, obj))
    return [owner for (owner,) in rows]


async def ask(
    app: App,
    warehouse: Warehouse,
    bound: BoundSync,
    now: Callable[[], datetime],
    told: Callable[[OploopError], None] = lambda _: None,
) -> None:
    """Ask an app what became of the sync's jobs. One that it is still at, or that cannot be asked after now, stays as it is; what
    the app fails on itself is `told`."""
    for job in open_jobs(warehouse, bound):
        changes = list(_unknown(warehouse, job))
        receipts: Sequence[Receipt] = ()
        if changes:  # else a read, or a person, has said of all what became of them
            try:
                receipts = await app.settle(bound.sync.object, job.op, job.note, changes)
            except OploopError:
                continue
            except Exception as e:  # which would end each run of the sync
                told(defect(f"asking {app.name} after a job", e))
                continue
            if not receipts:
                continue
        with warehouse.transaction():
            _take(warehouse, bound, job, receipts, now())
            _forget(warehouse, job)


def _unknown(warehouse: Warehouse, job: Job) -> Iterator[Change]:
    """A job's changes of which nobody knows what became of them, by what tells their records apart."""
    columns = ", ".join(["t.__number", "t.__remote", *(f"t.k{i}" for i in range(len(job.keys)))])
    rows = warehouse.rows(
        f"SELECT {columns} FROM {quote_table(job.table)} t JOIN ({volumes.OUTCOME_OF_EACH}) o ON o.number = t.__number "
        f"WHERE o.run_id = ? AND o.sync = ? AND o.status = 'unknown' AND t.__number BETWEEN {job.first} AND {job.last} ORDER BY 1",
        (job.run_id, job.sync),
    )
    for r in rows:
        yield Change(r[0], job.op, dict(zip(job.keys, r[2:], strict=True)), {}, r[1])


def _take(warehouse: Warehouse, bound: BoundSync, job: Job, receipts: Sequence[Receipt], now: datetime) -> None:
    """What a job that is over did, into the ledger, the state and the identities; what of it is not told, the next read tells."""
    # a removal is seen by reads, as are changes that are known by another key now
    known = [k.field.name for k in bound.keys] == job.keys
    told = [r for r in receipts if _tells(job.op, r)] if known else []
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    heard = _hear(warehouse, job, told, at)
    warehouse.execute(
        "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, status, error, NULL, remote_id, NULL, NULL, "
        f"{at} FROM {heard}"
    )
    rid = "key" if bound.blind else "remote_id"
    waiting.take_sent(warehouse, bound, f"(SELECT *, {rid} AS rid FROM {heard} WHERE status = 'sent')", at)
    if not bound.appends:
        new = f"FROM {heard} WHERE status = 'sent' AND op = 'create' AND remote_id IS NOT NULL"
        identify(warehouse, bound, f"SELECT key, remote_id AS rid, run_id {new}", at)
    _release(warehouse, bound, job, heard, at)


def _tells(op: Op, receipt: Receipt) -> bool:
    if receipt.outcome is Outcome.OK:
        return op in (Op.CREATE, Op.UPDATE, Op.UPSERT)
    return receipt.outcome is not Outcome.UNKNOWN


def _hear(warehouse: Warehouse, job: Job, told: Sequence[Receipt], at: str) -> str:
    """The receipts beside the changes that are still unknown, as a temporary table; its name."""
    import pyarrow as pa

    schema = pa.schema([("n", pa.int64()), ("told", pa.string()), ("error", pa.string()), ("id", pa.string())])
    rows = [(r.number, STATUS[r.outcome], r.error, r.remote_id) for r in told]
    columns = [pa.array([r[i] for r in rows], f.type) for i, f in enumerate(schema)]
    warehouse.register("oploop_told", pa.Table.from_arrays(columns, schema=schema))
    run, sync = literal(job.run_id), literal(job.sync)
    asked = f"(SELECT {run} AS run_id, {sync} AS sync, n AS number FROM oploop_told)"
    try:
        warehouse.execute(
            "CREATE OR REPLACE TEMP TABLE oploop_heard AS SELECT l.run_id, l.sync, l.number, l.op, l.after, l.key, o.seq, "
            f"t.told AS status, t.error, COALESCE(t.id, o.remote_id) AS remote_id, {at} AS sent_at "
            f"FROM oploop_told t JOIN ({volumes.among(warehouse, asked)}) l ON l.number = t.n "
            f"JOIN ({volumes.OUTCOME_OF_EACH}) o ON o.number = l.number "
            f"WHERE o.run_id = {run} AND o.sync = {sync} AND o.status = 'unknown'"
        )
    finally:
        warehouse.unregister("oploop_told")
    return "oploop_heard"


def identify(warehouse: Warehouse, bound: BoundSync, made: str, at: str) -> None:
    """Who is who: the ids of records that were made, a select of (key, rid, run_id). Within the caller's transaction."""
    target = (bound.sync.app, bound.sync.object, bound.key_names)
    app, obj, fields = map(literal, target)
    mine = f"app = {app} AND object = {obj} AND key_fields = {fields}"
    volumes.forget_records(warehouse, f"{mine} AND canonical_key IN (SELECT key FROM ({made}) AS m)")
    warehouse.execute(
        f"INSERT INTO oploop.record_rows SELECT ?, ?, ?, key, rid, run_id, {at} FROM ({made}) AS m", target
    )


def _release(warehouse: Warehouse, bound: BoundSync, job: Job, heard: str, at: str) -> None:
    """Let go of what is known now. The job is over: what it did not tell, a read that begins from now on does."""
    run, sync = literal(job.run_id), literal(job.sync)
    mine = f"parked.sync = {literal(bound.name)} AND parked.reason = 'unknown' AND parked.run_id = {run}"
    warehouse.execute(
        f"UPDATE oploop.parked SET reason = 'rejected', wanted = h.after, message = h.error FROM {heard} h "
        f"WHERE {mine} AND h.key = parked.key AND h.status = 'rejected'"
    )
    unnamed = "status = 'sent' AND op = 'create' AND remote_id IS NULL"
    if bound.blind or bound.appends:
        unnamed = "FALSE"
    done = f"SELECT key FROM {heard} WHERE status <> 'rejected' AND NOT ({unnamed})"
    of_run = f"SELECT key FROM oploop.change_log WHERE run_id = {run} AND sync = {sync}"
    of_job = f"number BETWEEN {job.first} AND {job.last}"
    if bound.blind and job.op is not Op.CREATE and _harmless(bound, job.op):  # no read will tell
        done = f"{of_run} AND {of_job}"
    warehouse.execute(f"DELETE FROM oploop.parked WHERE {mine} AND key IN ({done})")
    named = f"SELECT key FROM {heard} WHERE {unnamed}"
    warehouse.execute(f"UPDATE oploop.parked SET message = {literal(waiting.UNTOLD)} WHERE {mine} AND key IN ({named})")
    others = f"{of_run} AND NOT ({of_job})"  # what has another key since may be the job's too
    warehouse.execute(f"UPDATE oploop.parked SET noted_at = {at} WHERE {mine} AND key NOT IN ({others})")


def _harmless(bound: BoundSync, op: Op) -> bool:
    operation = bound.object.operations.get(op)
    return operation is not None and operation.replay in (Replay.SAFE, Replay.KEY)


def _forget(warehouse: Warehouse, job: Job) -> None:
    warehouse.execute("DELETE FROM oploop.jobs WHERE keys_table = ? AND first = ?", (job.table, job.first))
    if not warehouse.rows("SELECT 1 FROM oploop.jobs WHERE keys_table = ? LIMIT 1", (job.table,)):
        warehouse.execute(f"DROP TABLE IF EXISTS {quote_table(job.table)}")
