"""`mode: append`: each row of the model once, ever. Its keys are remembered for good, apart from the ledger.

The first run of such a sync marks what exists as seen and sends none of it, unless it is told to backfill.
"""

from __future__ import annotations

from datetime import datetime

from oploop.activate import keys, references, sql
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.rules import bad_of, rules_of
from oploop.warehouse.base import Warehouse, literal, quote_table


def select(bound: BoundSync, warehouse: Warehouse, known: sql.Known, *, backfill: bool) -> list[str]:
    """The CTEs of the diff of an append sync, ending in `every`."""
    names = ", ".join(map(literal, known.names or (bound.name,)))
    done = "FALSE"
    joins = "FROM model m LEFT JOIN twice ON twice.dkey = m.__join"
    if known.appended:
        joins += (
            f" LEFT JOIN (SELECT DISTINCT {keys.in_form(bound, 'key')} AS key FROM oploop.appended WHERE sync IN ({names}) "
            f"AND app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)}) done ON done.key = m.__key"
        )
        done = "done.key IS NOT NULL"
    joins += references.joins(bound, known.refs)
    cols = ["m.*", "twice.dkey IS NOT NULL AS __twice", "NULL::VARCHAR AS __remote", f"{done} AS __done", "0 AS __hits"]
    cols += references.base_columns(bound, warehouse, known.refs)
    base = f"SELECT {', '.join(cols)} {joins}"
    sent = [_sent(f, i, warehouse) for i, f in enumerate(bound.fields)]
    fresh = "create" if known.appended or backfill else "seen"
    waiting = sql.waiting_arm(bound) if fresh == "create" else ""  # what is only marked need not wait
    more = "".join(f", {column}" for column in references.waited_for(bound))
    bad = bad_of(rules_of(bound))
    return [
        f"base AS ({base})",
        f"decided AS (SELECT base.*, {', '.join(sent) or 'NULL AS __none'} FROM base)",
        f"every AS (SELECT *, CASE WHEN __done THEN 'same' WHEN __bad > 0 THEN 'held' {waiting}ELSE '{fresh}' END AS __status, "
        f"FALSE AS __left{more} FROM (SELECT *, {bad} AS __bad FROM decided))",
    ]


def _sent(f: BoundField, i: int, warehouse: Warehouse) -> str:
    """A field of a new row: sent unless it is NULL."""
    kind, wanted = warehouse.sql_type(f.field.type), f"w{i} IS NOT NULL"
    made = ""
    if f.in_place:  # a list to which something is added, of which there is nothing yet
        made, wanted = f"{warehouse.list_merge('NULL', f.add, ())} AS w{i}, ", "TRUE" if f.add else "FALSE"
    return f"{made}NULL::{kind} AS b{i}, {wanted} AS c{i}, FALSE AS d{i}, TRUE AS o{i}"


def begun(warehouse: Warehouse, names: tuple[str, ...]) -> bool:
    """Whether a sync of one of these names has marked or sent its first rows."""
    if not warehouse.columns("oploop.append_syncs"):
        return False
    listed = ", ".join(map(literal, names))
    return bool(warehouse.rows(f"SELECT 1 FROM oploop.append_syncs WHERE sync IN ({listed}) LIMIT 1"))


def begin(warehouse: Warehouse, sync: str, now: datetime) -> None:
    """Note that a sync has begun: from now on a row that it does not know is new."""
    warehouse.execute(
        "INSERT INTO oploop.append_syncs SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM oploop.append_syncs WHERE sync = ?)",
        (sync, now, sync),
    )


def mark_seen(warehouse: Warehouse, bound: BoundSync, plan_table: str, run_id: str, now: datetime) -> None:
    """Mark the rows of a first plan as seen; they are never sent."""
    with warehouse.transaction():
        warehouse.execute(
            f"INSERT INTO oploop.appended SELECT ?, ?, ?, __key, 'seen', ?, ? FROM {quote_table(plan_table)} "
            "WHERE __status = 'seen'",
            (bound.name, bound.sync.app, bound.sync.object, run_id, now),
        )
        begin(warehouse, bound.name, now)
