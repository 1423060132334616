"""Creates that never told their record's id, and whose record a read shows: that is who it is, and ours (decision 0062).

It does where the one record of its key holds all that was sent, and something beyond the key among it: by its key alone it could be
one that somebody made.
"""

from __future__ import annotations

from datetime import datetime

from oploop.activate import jobs, volumes
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.refbind import RAWT
from oploop.activate.unknowns import any_unknown, findable, key_of, was
from oploop.activate.waiting import noted, pointer, take_sent
from oploop.records import DELETED, Canonical, FieldType
from oploop.warehouse.base import Warehouse, literal, quote, quote_table
from oploop.warehouse.forms import canonical

#: The temporary table of what was found.
FOUND = "oploop_found"


def take_found(warehouse: Warehouse, bound: BoundSync, now: datetime) -> None:
    """Take such creates of a sync into ledger, state and identities, as if the answer had told the id."""
    if not findable(bound) or bound.raw_table is None or not warehouse.columns(bound.raw_table):
        return
    if not any_unknown(warehouse, bound):  # as mostly
        return
    own = f"parked.sync = {literal(bound.name)} AND parked.reason = 'unknown' AND {was('create')}"
    if warehouse.rows("SELECT 1 FROM oploop.jobs LIMIT 1"):
        own += f" AND NOT {jobs.still_at_it(bound)}"
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {FOUND} AS {_found(warehouse, bound, own)}")
    if not warehouse.rows(f"SELECT 1 FROM {FOUND} LIMIT 1"):
        return
    at = f"TIMESTAMPTZ {literal(now.isoformat())}"
    with warehouse.transaction():
        warehouse.execute(
            "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, 'sent', NULL, NULL, rid, NULL, NULL, "
            f"{at} FROM {FOUND}"
        )
        take_sent(warehouse, bound, FOUND, at)
        if not bound.appends:
            jobs.identify(warehouse, bound, f"SELECT key, rid, run_id FROM {FOUND}", at)
        mine = f"sync = {literal(bound.name)} AND reason = 'unknown'"
        warehouse.execute(f"DELETE FROM oploop.parked WHERE {mine} AND key IN (SELECT key FROM {FOUND})")


def _found(warehouse: Warehouse, bound: BoundSync, own: str) -> str:
    """The creates, each with its record's id `rid`. `own`: which of what is parked they are."""
    change = "l.run_id = parked.run_id AND l.key = parked.key AND l.app = parked.app AND l.object = parked.object"
    asked = (
        f"(SELECT l.run_id, l.sync, l.number FROM oploop.change_log l JOIN oploop.parked ON {change} "
        f"WHERE {own} AND l.op = 'create')"
    )
    key = key_of(bound, warehouse)
    nows = "".join(f", {f.now} AS n{i}" for i, f in enumerate(bound.fields) if f.now is not None)
    shown = (
        f"SELECT {key} AS key, CAST({RAWT}.{quote(bound.id_column)} AS VARCHAR) AS rid{nows} "
        f"FROM {quote_table(bound.raw_table or '')} AS {RAWT} WHERE NOT {RAWT}.{DELETED} "
        f"AND {key} IN (SELECT parked.key FROM oploop.parked WHERE {own}) QUALIFY count(*) OVER (PARTITION BY {key}) = 1"
    )
    return (
        "SELECT l.run_id, l.sync, l.number, l.key, l.after, o.seq, COALESCE(o.sent_at, l.planned_at) AS sent_at, a.rid "
        f"FROM ({volumes.among(warehouse, asked)}) l JOIN ({volumes.outcomes_among(asked)}) o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"JOIN ({shown}) a ON a.key = l.key WHERE o.remote_id IS NULL AND l.op = 'create' "
        f"AND o.status IN ('sent', 'unknown') AND {_as_sent(warehouse, bound)}"
    )


def _as_sent(warehouse: Warehouse, bound: BoundSync) -> str:
    """Whether the record `a` holds all that the change `l` sent, as far as the app shows it, and something of it is not the key."""
    keys = {k.field.name for k in bound.keys}
    shown = [(i, f) for i, f in enumerate(bound.fields) if f.now is not None]
    sent = {i: f"json_exists(CAST(l.after AS JSON), {pointer(f.label)})" for i, f in shown}
    same = {i: f"({_same(warehouse, i, f)})" for i, f in shown}
    every = [f"(NOT {sent[i]} OR {same[i]})" for i, _ in shown]
    some = [f"({sent[i]} AND a.n{i} IS NOT NULL AND {same[i]})" for i, f in shown if f.field.name not in keys]
    return f"({' AND '.join([*every, '(' + (' OR '.join(some) or 'FALSE') + ')'])})"


def _same(warehouse: Warehouse, i: int, f: BoundField) -> str:
    now, then = f"a.n{i}", noted("l.after", f.label, f.field.type, warehouse.sql_type(f.field.type))
    if f.field.type is FieldType.TEXT and f.field.canonical is not Canonical.EXACT:
        now, then = (canonical(e, f.field.canonical) for e in (now, then))
    return f"{now} IS NOT DISTINCT FROM {then}"
