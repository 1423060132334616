"""The ledger: what the journal says of a delivery becomes rows of `oploop.changes`, state per field, identities, parked.

A delivery's plan table stands in the warehouse from before the first call until it is folded here, in one
transaction; with the journal it is all that is needed, so that a run that died is folded by the next one even when the
sync's file has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from importlib import resources

import orjson

from oploop.activate import appending, conflicts, rekeying, states, volumes, waiting
from oploop.activate import diff as d
from oploop.activate.bound import BoundSync
from oploop.activate.deliver import ON_ITS_WAY
from oploop.activate.jsontext import quick_after, quick_before
from oploop.activate.plan import SyncPlan
from oploop.activate.spreading import spread
from oploop.activate.unknowns import waits_for_person, was
from oploop.activate.waiting import SAID_SENT
from oploop.records import Op, Replay
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, literal, quote, quote_table, roomy

#: The message of a create that was acknowledged without the new record's id.
UNTOLD = "the app did not tell its id"
#: Changes that go into a new state by one statement.
SLICE = 245_760


@dataclass(frozen=True, slots=True)
class FoldSpec:
    """What folding needs to know of a sync, kept beside its plan table. `fields`: (name, SQL type) by position."""

    sync: str
    app: str
    object: str
    key_fields: str
    state_table: str
    fields: list[tuple[str, str]]
    before: str
    after: str
    careful: list[str]  #: kinds of change ("create", "update") that must not be sent a second time while it is unknown
    release: str | None = None
    blind: bool = False  #: the records cannot be read: their state is kept by the key
    labels: list[str] = field(default_factory=list)  #: the fields as the user calls them, by position
    ours: list[tuple[int, str, str]] = field(default_factory=list)  #: see `conflicts.ours_of`
    append: bool = False  #: each row once: what was sent is remembered by its key
    undoes: list[str] = field(default_factory=list)  #: runs that it takes back: what it puts back is parked
    keys: list[str] = field(default_factory=list)  #: the key's fields, by position


def ensure(warehouse: Warehouse) -> None:
    """Make oploop's own tables and views where they are missing."""
    volumes.ensure(warehouse)
    for statement in resources.files("oploop.activate").joinpath("schema.sql").read_text().split(";\n"):
        if statement.strip():
            warehouse.execute(statement)


def spec_of(bound: BoundSync, warehouse: Warehouse, release: str | None) -> FoldSpec:
    """The fold spec of a bound sync."""
    ops = {status: bound.op_of(status) for status in d.SENT}
    careful = [kind for kind, op in ops.items() if op in bound.object.operations and not _repeatable(bound, op)]
    return FoldSpec(
        sync=bound.name,
        app=bound.sync.app,
        object=bound.sync.object,
        key_fields=bound.key_names,
        state_table=states.state_table(bound),
        fields=[(f.field.name, warehouse.sql_type(f.field.type)) for f in bound.fields],
        before=quick_before(bound, warehouse),
        after=quick_after(bound, warehouse),
        careful=careful,
        release=release,
        blind=bound.blind,
        labels=[f.label for f in bound.fields],
        ours=conflicts.ours_of(bound),
        append=bound.appends,
        keys=[k.field.name for k in bound.keys],
    )


def spec_of_plan(plan: SyncPlan, warehouse: Warehouse, release: str | None) -> FoldSpec:
    """The fold spec of a plan."""
    spec = spec_of(plan.bound, warehouse, release)
    # what an undo does to a row that was appended is no row of the model: it stays remembered as sent
    return replace(spec, undoes=list(plan.undoes), append=spec.append and not plan.undoes)


def _repeatable(bound: BoundSync, op: Op) -> bool:
    """Whether a later run may send such a change again although the first may have been done.

    A key that names the old intent does not help then, except that an update or an upsert sets the same values again.
    """
    replay = bound.object.operations[op].replay
    return replay is Replay.SAFE or (replay is Replay.KEY and op is not Op.CREATE)


def keep_plan(plan: SyncPlan, warehouse: Warehouse, run_id: str, now: datetime, release: str | None = None) -> str:
    """Put a plan's changes into the warehouse for good, before the first of them is sent; the table's name."""
    bound = plan.bound
    table = f"oploop_state.{plan.diff.name}"
    spec = orjson.dumps(asdict(spec_of_plan(plan, warehouse, release))).decode()
    with warehouse.bulk(lasting=False), warehouse.transaction():
        if not plan.diff.stands:
            warehouse.execute(f"DROP TABLE IF EXISTS {quote_table(table)}")
            warehouse.execute(
                f"CREATE TABLE {quote_table(table)} AS SELECT {_kept(plan, warehouse)} FROM {quote_table(plan.diff.table)} "
                "WHERE __number IS NOT NULL"
            )
        warehouse.execute(
            "INSERT INTO oploop.deliveries VALUES (?, ?, ?, ?, ?)", (run_id, bound.name, table, spec, now)
        )
        rekeying.note(warehouse, bound, now)
        if bound.appends:
            appending.begin(warehouse, bound.name, now)
        for undid in plan.undoes:
            warehouse.execute("INSERT INTO oploop.undone VALUES (?, ?, ?, ?)", (run_id, undid, bound.name, now))
        if plan.undoes:
            waiting.pause(warehouse, bound.name, run_id, f"undone by run {run_id}", now)
    return table


def _kept(plan: SyncPlan, warehouse: Warehouse) -> str:
    """The columns of a plan table that delivery and ledger need: not those that only say why something is not sent.

    What no record holds before, as in a first load, is kept as a column that takes no room.
    """
    idle = {"__bad", "__value", "__left", "__rank"} | {
        f"{p}{i}" for i in range(len(plan.bound.fields)) for p in ("o", "__q")
    }
    idle |= {f"d{i}" for i in range(len(plan.bound.fields))} - {f"d{i}" for i, *_ in conflicts.ours_of(plan.bound)}
    befores = [f"b{i}" for i in range(len(plan.bound.fields))]
    empty: set[str] = set()
    if warehouse.columnar and befores:
        counts = ", ".join(f"count({b})" for b in befores)
        [held] = warehouse.rows(f"SELECT {counts} FROM {quote_table(plan.diff.table)} WHERE __number IS NOT NULL")
        empty = {b for b, n in zip(befores, held, strict=True) if not n}
    return ", ".join(
        f"NULL::INTEGER AS {c}" if c in empty else quote(c) for c in warehouse.columns(plan.diff.table) if c not in idle
    )


def unfolded(warehouse: Warehouse) -> list[tuple[str, FoldSpec, str, datetime]]:
    """Deliveries that were begun and never folded: (run_id, spec, plan table, when)."""
    if not warehouse.columns("oploop.deliveries"):
        return []
    rows = warehouse.rows("SELECT run_id, spec, plan_table, noted_at FROM oploop.deliveries ORDER BY noted_at")
    return [(r[0], _spec(r[1]), r[2], r[3]) for r in rows]


def _spec(text: str) -> FoldSpec:
    data = orjson.loads(text)
    data["fields"] = [(f[0], f[1]) for f in data["fields"]]
    return FoldSpec(**data)


def fold(
    warehouse: Warehouse,
    run_id: str,
    spec: FoldSpec,
    plan_table: str,
    planned_at: datetime,
    steps: Iterable[JournalStep],
    now: datetime,
) -> None:
    """Take a delivery's journal into the ledger, all or nothing, and let go of its plan table.

    `steps` may be gone through more than once; those without a receipt are unknown. A change that was tried several times
    counts by its last try. The plan table of a large delivery becomes a volume of the ledger.
    """
    roomy(warehouse, partial(_fold, warehouse, run_id, spec, plan_table, planned_at, steps, now))


def _fold(
    warehouse: Warehouse,
    run_id: str,
    spec: FoldSpec,
    plan_table: str,
    planned_at: datetime,
    steps: Iterable[JournalStep],
    now: datetime,
) -> None:
    spread(warehouse, steps, plan_table, spec.keys)
    large = _is_large(warehouse)
    with warehouse.bulk(lasting=not large), warehouse.transaction():
        _append(warehouse, run_id, spec, plan_table, planned_at, now, large=large)
        if spec.append:
            _remember(warehouse, run_id, spec, plan_table, now)
        else:
            _merge_state(warehouse, run_id, spec, plan_table)
            _merge_records(warehouse, run_id, spec, plan_table, now)
            _forget_removed(warehouse, run_id, spec, plan_table)
        _park(warehouse, run_id, spec, plan_table, now)
        if spec.undoes:
            _park_undone(warehouse, run_id, spec, plan_table, now)
        target = (spec.sync, spec.app, spec.object)
        conflicts.park_tugs(warehouse, run_id, target, spec.ours, _joined(plan_table), now)
        warehouse.execute("DELETE FROM oploop.deliveries WHERE run_id = ? AND sync = ?", (run_id, spec.sync))
        if not large:
            warehouse.execute(f"DROP TABLE IF EXISTS {quote_table(plan_table)}")


def all_unknown(warehouse: Warehouse, run_id: str, sync: str, plan_table: str, at: datetime) -> list[JournalStep]:
    """A journal that says of every change of a plan table that it may have been sent."""
    [(last,)] = warehouse.rows(f"SELECT max(__number) FROM {quote_table(plan_table)}")
    return [JournalStep(run_id, sync, "lost", 1, last, 1, Op.UPSERT, at)] if last else []


def _joined(plan_table: str) -> str:
    return f"{quote_table(plan_table)} p JOIN oploop_outcomes o ON o.number = p.__number"


def _is_large(warehouse: Warehouse) -> bool:
    """Whether the delivery whose outcomes are `oploop_outcomes` becomes a volume of the ledger."""
    [(begun,)] = warehouse.rows("SELECT count(*) FROM oploop_outcomes")
    return warehouse.columnar and begun >= volumes.FROM


def _append(
    warehouse: Warehouse,
    run_id: str,
    spec: FoldSpec,
    plan_table: str,
    planned_at: datetime,
    now: datetime,
    *,
    large: bool,
) -> None:
    """The changes and what became of them, into the ledger."""
    volume = volumes.Volume(
        run_id, spec.sync, spec.app, spec.object, plan_table, spec.before, spec.after, planned_at, spec.release
    )
    if large:
        volumes.add(warehouse, volume)
    else:
        begun = "__number IN (SELECT number FROM oploop_outcomes)"
        warehouse.execute(f"INSERT INTO oploop.change_rows {volume.select()} WHERE {begun}")
    warehouse.execute(
        "INSERT INTO oploop.change_outcomes SELECT ?, ?, p.__number, 1, o.status, o.error, o.attempts, "
        f"COALESCE(o.new_id, p.__remote), o.sent_at, NULL, ? FROM {_joined(plan_table)}",
        (run_id, spec.sync, now),
    )


def _merge_state(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str) -> None:
    """What was acknowledged is now both sent and, until a read shows otherwise, stored."""
    states.ensure_state(warehouse, spec.state_table, spec.fields)
    # a new record whose id was not told is found by the next read; two changes of one record leave one state, the last
    rid = "p.__key" if spec.blind else "COALESCE(o.new_id, p.__remote)"
    done = f"{_joined(plan_table)} WHERE o.status = 'sent' AND {rid} IS NOT NULL AND p.__status IN ('create', 'update')"
    some = "".join(f", count(*) FILTER (WHERE p.c{i})" for i in range(len(spec.fields)))
    [(rows, records, *sent)] = warehouse.rows(f"SELECT count(*), count(DISTINCT {rid}){some} FROM {done}")
    sets, names, values = [], [], []
    for i, (name, _) in enumerate(spec.fields):
        if not sent[i]:  # the fields that nobody sends are left as they are
            continue
        for part, new in (("sent", f"w{i}"), ("stored", f"w{i}"), ("at", "acked_at")):
            column = states.state_column(name, part)
            sets.append(f"{column} = CASE WHEN d.c{i} THEN d.{new} ELSE s.{column} END")
            if part != "stored":
                names.append(column)
                values.append(f"d.{new}" if sent[i] == rows else f"CASE WHEN d.c{i} THEN d.{new} END")
    last = "" if rows == records else f" QUALIFY row_number() OVER (PARTITION BY {rid} ORDER BY p.__number DESC) = 1"

    def changes(some: str) -> str:
        return f"(SELECT p.*, o.acked_at, o.version AS receipt, {rid} AS rid FROM {done}{some}) d"

    columns = ", ".join(["remote_id", "sync", "run_id", "number", "acked_at", "receipt_version", "as_sent", *names])
    row = ", ".join(["d.rid, ?, ?, d.__number, d.acked_at, d.receipt, TRUE", *values])
    if not warehouse.rows(f"SELECT 1 FROM {spec.state_table} WHERE sync = {literal(spec.sync)} LIMIT 1"):
        into = f"INSERT INTO {spec.state_table} ({columns}) SELECT {row} FROM "
        for some in _slices(warehouse) if rows == records else [last]:  # the first delivery
            warehouse.execute(into + changes(some), (spec.sync, run_id))
        return
    warehouse.execute(
        f"MERGE INTO {spec.state_table} s USING {changes(last)} "
        "ON s.remote_id = d.rid AND s.sync = ? WHEN MATCHED THEN UPDATE SET run_id = ?, number = d.__number, log_sync = NULL, "
        f"{', '.join(['acked_at = d.acked_at, receipt_version = d.receipt, settled_at = NULL', *sets])} "
        f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({row})",
        (spec.sync, run_id, spec.sync, run_id),
    )


def _slices(warehouse: Warehouse) -> list[str]:
    """Conditions for so many changes after each other that a join of them with their outcomes stays in little memory."""
    [(last,)] = warehouse.rows("SELECT max(number) FROM oploop_outcomes")
    return [
        f" AND p.__number BETWEEN {n} AND {n + SLICE - 1} AND o.number BETWEEN {n} AND {n + SLICE - 1}"
        for n in range(1, (last or 1) + 1, SLICE)
    ]


def _merge_records(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str, now: datetime) -> None:
    """Who is who: the ids of records that were created, so that the next run knows them before any read does."""
    new = f"{_joined(plan_table)} WHERE o.status = 'sent' AND o.new_id IS NOT NULL AND p.__status = 'create'"
    warehouse.execute(  # one that was deleted in the app and is made again takes the place of the old one
        "DELETE FROM oploop.records WHERE app = ? AND object = ? AND key_fields = ? "
        f"AND canonical_key IN (SELECT p.__key FROM {new})",
        (spec.app, spec.object, spec.key_fields),
    )
    warehouse.execute(
        f"INSERT INTO oploop.records SELECT ?, ?, ?, p.__key, o.new_id, ?, ? FROM {new}",
        (spec.app, spec.object, spec.key_fields, run_id, now),
    )


def _forget_removed(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str) -> None:
    """What the app acknowledged as removed is no record of ours any more; that it was one is kept."""
    if not warehouse.rows(f"SELECT 1 FROM {quote_table(plan_table)} WHERE __status IN ('archive', 'remove') LIMIT 1"):
        return
    gone = f"{_joined(plan_table)} WHERE o.status = 'sent' AND p.__status IN ('archive', 'remove')"
    warehouse.execute(
        f"INSERT INTO oploop.removed SELECT ?, ?, p.__remote, p.__key, p.__status, ?, ?, p.__number, o.acked_at FROM {gone}",
        (spec.app, spec.object, spec.sync, run_id),
    )
    warehouse.execute(
        f"DELETE FROM oploop.records WHERE app = ? AND object = ? AND remote_id IN (SELECT p.__remote FROM {gone})",
        (spec.app, spec.object),
    )
    sid = "p.__key" if spec.blind else "p.__remote"
    warehouse.execute(f"DELETE FROM {spec.state_table} WHERE remote_id IN (SELECT {sid} FROM {gone})")


def _remember(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str, now: datetime) -> None:
    """The keys of rows that were appended."""
    warehouse.execute(
        f"INSERT INTO oploop.appended SELECT ?, ?, ?, p.__key, 'sent', ?, ? FROM {_joined(plan_table)} WHERE o.status = 'sent'",
        (spec.sync, spec.app, spec.object, run_id, now),
    )


def _park_undone(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str, now: datetime) -> None:
    """What an undo took back is not brought back until the model wants something else: of updates field by field."""
    done, head = (
        f"FROM {_joined(plan_table)} WHERE o.status IN ('sent', 'unknown')",
        "SELECT ?, ?, ?, p.__key, 'undone'",
    )
    into = "INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at, field)"
    values = (spec.sync, spec.app, spec.object, None, run_id, now)
    warehouse.execute(f"{into} {head}, NULLIF(p.__z, ''), ?, ?, ?, NULL {done} AND p.__z IS NOT NULL", values)
    for i, label in enumerate(spec.labels):
        warehouse.execute(f"{into} {head}, p.z{i}, ?, ?, ?, {literal(label)} {done} AND p.z{i} IS NOT NULL", values)


def _park(warehouse: Warehouse, run_id: str, spec: FoldSpec, plan_table: str, now: datetime) -> None:
    """Rejected changes wait until the model wants something else; unknown ones that must not be doubled, until it is known.

    A record that was made without telling its id is not found by the next plan, until a read must have shown it.
    """
    # of what an undo took back only the fields that are sent, as only of those the model wants something else
    arms = " ".join(f"WHEN {literal(label)} THEN p.c{i}" for i, label in enumerate(spec.labels))
    its = f"CASE parked.field {arms} ELSE FALSE END" if arms else "FALSE"
    warehouse.execute(
        "DELETE FROM oploop.parked WHERE sync = ? AND app = ? AND object = ? AND EXISTS (SELECT 1 FROM "
        f"{_joined(plan_table)} WHERE p.__key = parked.key AND (parked.field IS NULL OR {its}))",
        (spec.sync, spec.app, spec.object),
    )
    careful = ", ".join(literal(kind) for kind in spec.careful) or "NULL"
    untold = "o.status = 'sent' AND o.new_id IS NULL AND p.__status = 'create'"
    if spec.blind or "create" not in spec.careful:
        untold = "FALSE"
    # of a run that died long ago a read of today tells what became of it: not when we noted it, but when it was done by then
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    done_by = f"LEAST(o.acked_at + INTERVAL '{ON_ITS_WAY:f} seconds', {at})"
    warehouse.execute(
        "INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at) "
        f"SELECT ?, ?, ?, p.__key, CASE WHEN {untold} THEN 'unknown' ELSE o.status END, "
        f"CASE WHEN o.status = 'rejected' THEN {spec.after} END, CASE WHEN {untold} THEN {literal(UNTOLD)} ELSE o.error END, ?, "
        f"CASE WHEN o.status = 'unknown' THEN {done_by} ELSE {at} END "
        f"FROM {_joined(plan_table)} WHERE o.status = 'rejected' OR ({untold}) OR (o.status = 'unknown' AND p.__status IN ({careful}))",
        (spec.sync, spec.app, spec.object, run_id),
    )


def forget_unknown(warehouse: Warehouse, bound: BoundSync, vouched: datetime | None) -> None:
    """Unknown changes that a complete read must have shown by now are unknown no more: the diff finds what they did, or sends
    them anew.

    `vouched`: see `sql.Known`. What an operation declares to settle later than the stream's lag waits for that; what no read
    can decide stays unknown until a person does; then the next such read tells who it is.
    """
    if vouched is None:
        return
    operations = bound.object.operations
    kinds = {"create": bound.create_op, "update": bound.update_op, "archive": Op.ARCHIVE, "remove": Op.REMOVE}
    for kind, op in kinds.items():
        if op is None or op not in operations:
            continue
        said = ""
        if kind == "create" and waits_for_person(bound):  # it was made, and a read shows which it is
            said = f" AND (message LIKE '{SAID_SENT}%' OR message = {literal(UNTOLD)})"
        elif operations[op].replay is Replay.NEVER and kind != "create":
            continue
        settled = vouched - timedelta(seconds=operations[op].settle or 0.0)
        warehouse.execute(
            f"DELETE FROM oploop.parked WHERE sync = ? AND reason = 'unknown' AND noted_at < ? AND {was(kind)}{said}",
            (bound.name, settled),
        )
