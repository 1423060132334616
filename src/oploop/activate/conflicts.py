"""Fields over which the model and people do not agree, as rows of `oploop.parked`, one for each field of a record.

`conflict: hold` parks a field as soon as a plan sees that somebody changed it. `conflict: ours` sends it again, and parks
it once that was done three times running.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from oploop.activate import states, volumes
from oploop.activate.bound import BoundSync
from oploop.activate.jsontext import json_member, lists
from oploop.activate.plan import SyncPlan
from oploop.activate.refbind import RAWT
from oploop.activate.waiting import pointer
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: So many times running a value is sent over what somebody made of it; then it is left.
TUG = 3

#: Statuses of a plan's rows whose fields are compared with what the app holds.
SEEN = ("update", "kept", "parked", "held")

_COLUMNS = "(sync, app, object, key, reason, wanted, message, run_id, noted_at, field)"


def park_conflicts(warehouse: Warehouse, plan: SyncPlan, run_id: str, now: datetime) -> None:
    """Park the fields with `conflict: hold` that somebody changed; release those that agree again."""
    b = plan.bound
    at, table = f"TIMESTAMPTZ {literal(now.isoformat())}", quote_table(plan.diff.table)
    mine = f"sync = {literal(b.name)} AND app = {literal(b.sync.app)} AND object = {literal(b.sync.object)} AND reason = 'conflict'"
    seen = f"__status IN {SEEN}"
    may = any(f.conflict == "hold" for f in b.fields) and any(plan.diff.count(status) for status in SEEN)
    if not may and not warehouse.rows(f"SELECT 1 FROM oploop.parked WHERE {mine} LIMIT 1"):
        return
    with warehouse.transaction():
        for i, f in enumerate(b.fields):
            if f.conflict != "hold":
                continue
            now_so = f"SELECT __key FROM {table} WHERE d{i} AND {seen}"
            here = f"{mine} AND field = {literal(f.label)}"
            if plan.diff.whole:
                warehouse.execute(
                    f"DELETE FROM oploop.parked WHERE {here} AND key NOT IN ({now_so} AND __key IS NOT NULL)"
                )
            held, wanted = (f"substr(COALESCE(CAST({c}{i} AS VARCHAR), 'empty'), 1, 60)" for c in ("b", "w"))
            says = f"'the app holds ' || {held} || ', the model wants ' || {wanted}"
            warehouse.execute(
                f"INSERT INTO oploop.parked {_COLUMNS} SELECT {literal(b.name)}, {literal(b.sync.app)}, {literal(b.sync.object)}, "
                f"__key, 'conflict', NULL, {says}, {literal(run_id)}, {at}, {literal(f.label)} FROM {table} "
                f"WHERE d{i} AND {seen} AND __key IS NOT NULL AND __key NOT IN (SELECT key FROM oploop.parked WHERE {here})"
            )
        labels = ", ".join(literal(f.label) for f in b.fields if f.conflict == "hold")
        warehouse.execute(f"DELETE FROM oploop.parked WHERE {mine}{f' AND field NOT IN ({labels})' if labels else ''}")


def note_left(warehouse: Warehouse, anew: SyncPlan, run_id: str, now: datetime) -> None:
    """Changes of this run that were refused since somebody had changed the record, and that the fields' rules leave at that, now
    that it was looked at again: it has drifted."""
    if not anew.diff.count("kept") and not anew.diff.count("parked"):
        return
    left = f"SELECT __remote FROM {quote_table(anew.diff.table)} WHERE __status IN ('kept', 'parked')"
    warehouse.execute(
        "INSERT INTO oploop.outcome_rows SELECT run_id, sync, number, seq + 1, 'drifted', error, NULL, remote_id, NULL, NULL, "
        f"TIMESTAMPTZ {literal(now.isoformat())} FROM (SELECT *, row_number() OVER (PARTITION BY remote_id ORDER BY number DESC) AS nth "
        f"FROM ({volumes.OUTCOME_OF_EACH}) AS o WHERE run_id = ? AND sync = ? AND status = 'failed' AND remote_id IN ({left})) AS n "
        "WHERE nth = 1",
        (run_id, anew.bound.name),
    )


def ours_of(bound: BoundSync) -> list[tuple[int, str, str]]:
    """(position, label, JSON text of the value sent) of the fields with `conflict: ours`, for folding."""
    as_json = lists(bound)
    return [
        (i, f.label, json_member(f"p.w{i}", as_json=f.label in as_json))
        for i, f in enumerate(bound.fields)
        if f.conflict == "ours"
    ]


def park_tugs(
    warehouse: Warehouse,
    run_id: str,
    target: tuple[str, str, str],
    ours: Sequence[Sequence[str | int]],
    sent: str,
    at: datetime,
) -> None:
    """Park fields that were sent over somebody's change three times running, always to the same value.

    `target`: sync, app, object; `sent`: the changes of this run `p` joined to their outcomes `o`. The ledger must have
    this run's changes already.
    """
    sync, app, obj = (literal(x) for x in target)
    now = f"TIMESTAMPTZ {literal(at.isoformat())}"
    for i, label, value in ours:
        where = pointer(str(label))
        fights = f"SELECT p.__key AS key, {value} AS wanted FROM {sent} WHERE o.status = 'sent' AND p.c{i} AND p.d{i}"
        if not warehouse.rows(f"SELECT 1 FROM ({fights}) AS f LIMIT 1"):
            continue
        before = (
            f"(SELECT run_id, sync, number FROM oploop.change_log l WHERE l.sync = {sync} AND l.app = {app} AND l.object = {obj} "
            f"AND l.key IN (SELECT key FROM ({fights}) AS g))"
        )
        past = (
            f"SELECT l.key, CAST(json_extract(CAST(l.after AS JSON), {where}) AS VARCHAR) AS value, "
            f"row_number() OVER (PARTITION BY l.key ORDER BY l.run_id DESC) AS n FROM ({volumes.among(warehouse, before)}) l "
            "JOIN oploop.change_outcomes c ON c.run_id = l.run_id AND c.sync = l.sync AND c.number = l.number "
            f"WHERE c.seq = 1 AND c.status = 'sent' AND json_exists(CAST(l.after AS JSON), {where})"
        )
        warehouse.execute(
            f"INSERT INTO oploop.parked {_COLUMNS} SELECT {sync}, {app}, {obj}, f.key, 'tug-of-war', f.wanted, "
            f"'sent {TUG} times running over what somebody made of it', {literal(run_id)}, {now}, {literal(str(label))} "
            f"FROM ({fights}) AS f JOIN (SELECT key FROM ({past}) AS h WHERE n <= {TUG + 1} GROUP BY key "
            f"HAVING count(*) = {TUG + 1} AND count(DISTINCT value) = 1) AS t ON t.key = f.key"
        )


def let_ours_win(warehouse: Warehouse, bound: BoundSync, where: str) -> None:
    """Of parked conflicts that a person releases: what we sent before is forgotten, so that the model's value is sent."""
    table = states.state_table(bound)
    present = warehouse.columns(table.replace('"', ""))
    keys = f"SELECT key FROM oploop.parked WHERE {where} AND reason = 'conflict'"
    for f in bound.fields:
        if f"{f.field.name}.at" not in present:
            continue
        mine = f"{keys} AND field = {literal(f.label)}"
        sets = ", ".join(f"{states.state_column(f.field.name, part)} = NULL" for part in ("sent", "stored", "at"))
        warehouse.execute(
            f"UPDATE {table} SET {sets} WHERE sync = {literal(bound.name)} AND remote_id IN ({_ids(bound, mine)})"
        )


def _ids(bound: BoundSync, keys: str) -> str:
    """The app's ids of records with some canonical keys."""
    ids = (
        f"SELECT remote_id FROM oploop.records WHERE app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)} "
        f"AND key_fields = {literal(bound.key_names)} AND canonical_key IN ({keys})"
    )
    if bound.raw_table is not None:
        key = " || chr(31) || ".join(k.now for k in bound.keys)
        ids += (
            f" UNION SELECT CAST({RAWT}.{quote(bound.id_column)} AS VARCHAR) FROM {quote_table(bound.raw_table)} AS {RAWT} "
            f"WHERE ({key}) IN ({keys})"
        )
    return ids
