"""The ledger: what the journal says of a delivery becomes rows of `oploop.changes`, state per field, identities, parked.

A delivery's plan table stands in the warehouse from before the first call until it is folded here, in one
transaction; with the journal it is all that is needed, so that a run that died is folded by the next one even when the
sync's file has changed meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from importlib import resources

import orjson

from oploop.activate import appending, conflicts, jobs, rekeying, states, volumes, waiting
from oploop.activate import diff as d
from oploop.activate.begun import Begun, FoldSpec
from oploop.activate.bound import BoundSync
from oploop.activate.jsontext import quick_after, quick_before
from oploop.activate.plan import SyncPlan
from oploop.activate.unknowns import any_unknown, known_by_keys, waits_for_person, was
from oploop.activate.waiting import SAID_SENT, UNTOLD
from oploop.records import Op, Operation, Replay
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, literal, quote, quote_table


def ensure(warehouse: Warehouse) -> None:
    """Make oploop's own tables and views where they are missing."""
    volumes.ensure(warehouse)
    for statement in resources.files("oploop.activate").joinpath("schema.sql").read_text().split(";\n"):
        if statement.strip():
            warehouse.execute(statement)


def spec_of(bound: BoundSync, warehouse: Warehouse, release: str | None) -> FoldSpec:
    """The fold spec of a bound sync."""
    ops, operations = {status: bound.op_of(status) for status in d.SENT}, bound.object.operations
    careful = [kind for kind, op in ops.items() if op in operations and not operations[op].by_a_later_run(op)]
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
        again=known_by_keys(bound),
        emptied=[i for i, f in enumerate(bound.fields) if f.means_empty],
    )


def spec_of_plan(plan: SyncPlan, warehouse: Warehouse, release: str | None) -> FoldSpec:
    """The fold spec of a plan."""
    spec = spec_of(plan.bound, warehouse, release)
    # what an undo does to a row that was appended is no row of the model: it stays remembered as sent
    again = {} if plan.undoes else spec.again
    emptied = [] if plan.undoes else spec.emptied  # nor is what an undo leaves out the model's
    append = spec.append and not plan.undoes
    return replace(spec, undoes=list(plan.undoes), append=append, again=again, emptied=emptied)


def keep_plan(
    plan: SyncPlan, warehouse: Warehouse, run_id: str, now: datetime, release: str | None = None, account: str = ""
) -> str:
    """Put a plan's changes into the warehouse for good, before the first of them is sent; the table's name. `account`: see
    `finishing.account_of`."""
    bound = plan.bound
    table = f"oploop_state.{plan.diff.name}"
    spec = orjson.dumps(asdict(replace(spec_of_plan(plan, warehouse, release), account=account))).decode()
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


def unfolded(warehouse: Warehouse) -> list[Begun]:
    """Deliveries that were begun and never folded, oldest first."""
    if not warehouse.columns("oploop.deliveries"):
        return []
    rows = warehouse.rows("SELECT run_id, spec, plan_table, noted_at FROM oploop.deliveries ORDER BY noted_at")
    return [Begun(r[0], _spec(r[1]), r[2], r[3]) for r in rows]


def _spec(text: str) -> FoldSpec:
    data = orjson.loads(text)
    data["fields"] = [(f[0], f[1]) for f in data["fields"]]
    return FoldSpec(**data)


def all_unknown(warehouse: Warehouse, begun: Begun) -> list[JournalStep]:
    """A journal that says of every change of a plan table that it may have been sent."""
    [(last,)] = warehouse.rows(f"SELECT max(__number) FROM {quote_table(begun.plan_table)}")
    return [JournalStep(begun.run_id, begun.spec.sync, "lost", 1, last, 1, Op.UPSERT, begun.planned_at)] if last else []


def forget_unknown(warehouse: Warehouse, bound: BoundSync, vouched: datetime | None) -> None:
    """Unknown changes that a complete read must have shown by now are unknown no more: the diff finds what they did, or sends
    them anew.

    `vouched`: see `sql.Known`. What an operation declares to settle later than the stream's lag waits for that; what no read
    can decide stays unknown until a person does; then the next such read tells who it is. Nor can one decide what a job may
    still do.
    """
    if vouched is None or not any_unknown(warehouse, bound):  # mostly none; four deletes take longer than to see that
        return
    at_work = bool(warehouse.rows("SELECT 1 FROM oploop.jobs LIMIT 1"))
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
        warehouse.execute(
            f"DELETE FROM oploop.parked WHERE sync = ? AND reason = 'unknown' AND noted_at < {_settled(bound, kind, op, vouched)} "
            f"AND {was(kind)}{said}{f' AND NOT {jobs.still_at_it(bound)}' if at_work else ''}",
            (bound.name,),
        )


def _settled(bound: BoundSync, kind: str, op: Op, vouched: datetime) -> str:
    """Until when unknown changes must have been done to be seen by then, over `oploop.parked`: jobs, of which no note may be left,
    take longer than calls."""

    def before(operation: Operation) -> str:
        return f"TIMESTAMPTZ {literal((vouched - timedelta(seconds=operation.settle or 0.0)).isoformat())}"

    usual = bound.object.operations[op]
    if usual.large is None or (usual.large.settle or 0.0) <= (usual.settle or 0.0):
        return before(usual)
    by_jobs = (
        f"SELECT run_id FROM oploop.change_log WHERE app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)} "
        f"AND op = {literal(kind)} GROUP BY run_id HAVING count(*) > {usual.large_from}"
    )
    return f"(CASE WHEN run_id IN ({by_jobs}) THEN {before(usual.large)} ELSE {before(usual)} END)"
