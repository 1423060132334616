"""The fold: a delivery's journal and its plan table become the ledger's rows, state per field, identities and what is parked, in
one transaction, so that it is done once whenever the run died."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from oploop.activate import conflicts, jobs, states, volumes
from oploop.activate.begun import Begun, FoldSpec
from oploop.activate.deliver import ON_ITS_WAY
from oploop.activate.smooth import Smooth, smooth_of
from oploop.activate.spreading import id_of, spread
from oploop.activate.waiting import UNTOLD
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, literal, quote, quote_table, roomy

#: Changes that go into a new state by one statement.
SLICE = 245_760
#: Rows of the state on their way to a new place.
MOVED = "oploop_moved"


def fold(
    warehouse: Warehouse,
    begun: Begun,
    steps: Iterable[JournalStep],
    now: datetime,
) -> None:
    """Take a delivery's journal into the ledger, all or nothing, and let go of its plan table.

    `steps` may be gone through more than once; those without a receipt are unknown. A change that was tried several times
    counts by its last try. The plan table of a large delivery becomes a volume of the ledger.
    """
    roomy(warehouse, partial(_fold, warehouse, begun, steps, now))


def _fold(
    warehouse: Warehouse,
    begun: Begun,
    steps: Iterable[JournalStep],
    now: datetime,
) -> None:
    spec, watched = begun.spec, jobs.Watched(steps)
    smooth = smooth_of(warehouse, begun, watched)
    if smooth is not None:
        with warehouse.bulk(lasting=False, ordered=False), warehouse.transaction():
            _fold_smooth(warehouse, begun, smooth, now)
        return
    spread(warehouse, watched, spec.keys)
    large = _is_large(warehouse)
    with warehouse.bulk(lasting=not large, ordered=False), warehouse.transaction():
        _append(warehouse, begun, now, large=large)
        if spec.append:
            _remember(warehouse, begun, now)
        else:
            _merge_state(warehouse, begun, large=large)
            _merge_records(warehouse, begun, now)
            _forget_removed(warehouse, begun)
        _park(warehouse, begun, watched, now)
        jobs.keep(warehouse, begun, watched)
        if spec.undoes:
            _park_undone(warehouse, begun, now)
        target = (spec.sync, spec.app, spec.object)
        conflicts.park_tugs(warehouse, begun.run_id, target, spec.ours, _joined(begun), now)
        warehouse.execute("DELETE FROM oploop.deliveries WHERE run_id = ? AND sync = ?", (begun.run_id, spec.sync))
        if not large:
            warehouse.execute(f"DROP TABLE IF EXISTS {quote_table(begun.plan_table)}")


def _fold_smooth(warehouse: Warehouse, begun: Begun, smooth: Smooth, now: datetime) -> None:
    """The fold of a delivery in which all went well: the plan table itself tells what became of it, and who is who."""
    spec = begun.spec
    _forget_records(warehouse, spec, f"SELECT __key FROM {quote_table(begun.plan_table)} WHERE __number IS NOT NULL")
    told = volumes.Told(spec.key_fields, smooth.remote_id, smooth.sent_at(), now)
    volumes.add(warehouse, replace(_volume(begun), told=told))
    _first_state(warehouse, begun, smooth)
    warehouse.execute("DELETE FROM oploop.deliveries WHERE run_id = ? AND sync = ?", (begun.run_id, spec.sync))


def _joined(begun: Begun) -> str:
    return f"{quote_table(begun.plan_table)} p JOIN oploop_outcomes o ON o.number = p.__number"


def _rid(spec: FoldSpec) -> str:
    """The app's id of a change's record, over `_joined`."""
    return f"COALESCE({id_of(spec.keys)}, p.__remote)"


def _is_large(warehouse: Warehouse) -> bool:
    """Whether the delivery whose outcomes are `oploop_outcomes` becomes a volume of the ledger."""
    [(count,)] = warehouse.rows("SELECT count(*) FROM oploop_outcomes")
    return warehouse.columnar and count >= volumes.FROM


def _append(
    warehouse: Warehouse,
    begun: Begun,
    now: datetime,
    *,
    large: bool,
) -> None:
    """The changes and what became of them, into the ledger."""
    spec, volume = begun.spec, _volume(begun)
    if large:
        volumes.add(warehouse, volume)
    else:
        sent = "__number IN (SELECT number FROM oploop_outcomes)"
        warehouse.execute(f"INSERT INTO oploop.change_rows {volume.select()} WHERE {sent}")
    for some in _slices(warehouse):
        warehouse.execute(
            "INSERT INTO oploop.outcome_rows SELECT ?, ?, p.__number, 1, o.status, o.error, o.attempts, "
            f"{_rid(spec)}, o.sent_at, NULL, ? FROM {_joined(begun)}{some}",
            (begun.run_id, spec.sync, now),
        )


def _volume(begun: Begun) -> volumes.Volume:
    """The delivery's plan table as a part of the ledger."""
    spec = begun.spec
    return volumes.Volume(
        begun.run_id,
        spec.sync,
        spec.app,
        spec.object,
        begun.plan_table,
        spec.before,
        spec.after,
        begun.planned_at,
        spec.release,
    )


def _first_state(warehouse: Warehouse, begun: Begun, smooth: Smooth) -> None:
    """What was acknowledged is both sent and stored; of a sync that has no state yet."""
    spec, plan = begun.spec, quote_table(begun.plan_table)
    states.ensure_state(warehouse, spec.state_table, spec.fields)
    some = "".join(f", count(*) FILTER (WHERE {_said(spec, i, 'p')})" for i in range(len(spec.fields)))
    [(rows, *sent)] = warehouse.rows(f"SELECT count(*){some} FROM {plan} AS p")
    _, names, values = _values(spec, rows, sent)
    columns, row = _row(names, values)
    told = f"{smooth.acked_at()} AS acked_at, {smooth.version()} AS receipt, {smooth.remote_id} AS rid"
    warehouse.execute(
        f"INSERT INTO {spec.state_table} ({columns}) SELECT {row} FROM (SELECT *, {told} FROM {plan}) d",
        (spec.sync, begun.run_id),
    )


def _said(spec: FoldSpec, i: int, change: str) -> str:
    """Whether a `change` has said what a field is to hold. A new record is left empty where there is nothing to say."""
    left_empty = f"OR ({change}.__status = 'create' AND {change}.w{i} IS NULL)"
    return f"({change}.c{i} {left_empty})" if i in spec.emptied else f"{change}.c{i}"


def _values(spec: FoldSpec, rows: int, sent: Sequence[int]) -> tuple[list[str], list[str], list[str]]:
    """What of the fields goes into the state `s`, from changes `d`: (how it is set, columns of a new row, their values).

    `sent`: how many of the `rows` changes send each field, or leave it empty.
    """
    sets, names, values = [], [], []
    for i, (name, _) in enumerate(spec.fields):
        if not sent[i]:  # what no change says anything of is left as it is
            continue
        for part, new in (("sent", f"w{i}"), ("stored", f"w{i}"), ("at", "acked_at")):
            column = states.state_column(name, part)
            said = _said(spec, i, "d")
            sets.append(f"{column} = CASE WHEN {said} THEN d.{new} ELSE s.{column} END")
            if part != "stored":
                names.append(column)
                values.append(f"d.{new}" if sent[i] == rows else f"CASE WHEN {said} THEN d.{new} END")
    return sets, names, values


def _row(names: Sequence[str], values: Sequence[str]) -> tuple[str, str]:
    """A new row of the state: its columns, and their values from changes `d`, with sync and run as parameters."""
    columns = ["remote_id", "sync", "run_id", "number", "acked_at", "receipt_version", "as_sent"]
    row = ["d.rid, ?, ?, d.__number, d.acked_at, d.receipt, TRUE"]
    return ", ".join([*columns, *names]), ", ".join([*row, *values])


def _merge_state(warehouse: Warehouse, begun: Begun, *, large: bool) -> None:
    """What was acknowledged is now both sent and, until a read shows otherwise, stored."""
    spec = begun.spec
    states.ensure_state(warehouse, spec.state_table, spec.fields)
    # a new record whose id was not told is found by the next read; two changes of one record leave one state, the last
    rid = "p.__key" if spec.blind else _rid(spec)
    done = f"{_joined(begun)} WHERE o.status = 'sent' AND {rid} IS NOT NULL AND p.__status IN ('create', 'update')"
    different = _records(warehouse, begun, rid)
    said = [f"count(*) FILTER (WHERE {_said(spec, i, 'p')})" for i in range(len(spec.fields))]
    wanted = ", ".join(["count(*)", different, *said])
    parts = _slices(warehouse) if different == "count(*)" else [""]
    counts = [warehouse.rows(f"SELECT {wanted} FROM {done}{part}")[0] for part in parts]
    rows, records, *sent = map(sum, zip(*counts, strict=True))
    sets, names, values = _values(spec, rows, sent)
    last = "" if rows == records else f" QUALIFY row_number() OVER (PARTITION BY {rid} ORDER BY p.__number DESC) = 1"

    def changes(some: str) -> str:
        return f"(SELECT p.*, o.acked_at, o.version AS receipt, {rid} AS rid FROM {done}{some}) d"

    columns, row = _row(names, values)
    if not warehouse.rows(f"SELECT 1 FROM {spec.state_table} WHERE sync = {literal(spec.sync)} LIMIT 1"):
        into = f"INSERT INTO {spec.state_table} ({columns}) SELECT {row} FROM "
        for some in _slices(warehouse) if rows == records else [last]:  # the first delivery
            warehouse.execute(into + changes(some), (spec.sync, begun.run_id))
        return
    if not large and warehouse.apart(spec.state_table, _of(spec, changes(last))):
        _move_state(warehouse, begun, changes(last), sent)
        return
    warehouse.execute(
        f"MERGE INTO {spec.state_table} s USING {changes(last)} "
        "ON s.remote_id = d.rid AND s.sync = ? WHEN MATCHED THEN UPDATE SET run_id = ?, number = d.__number, log_sync = NULL, "
        f"{', '.join(['acked_at = d.acked_at, receipt_version = d.receipt, settled_at = NULL', *sets])} "
        f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({row})",
        (spec.sync, begun.run_id, spec.sync, begun.run_id),
    )


def _of(spec: FoldSpec, changes: str) -> str:
    """Which rows `t` of the state are those of some changes."""
    return f"t.sync = {literal(spec.sync)} AND t.remote_id IN (SELECT d.rid FROM {changes})"


def _move_state(warehouse: Warehouse, begun: Begun, changes: str, sent: Sequence[int]) -> None:
    """As a merge of some `changes` into the state, but their rows take new places, next to each other: where they stand apart an
    update would write whole columns. There the next look finds them, and the next change updates them.

    `sent`: how many changes send each field.
    """
    spec = begun.spec
    news = {
        "remote_id": "d.rid",
        "sync": literal(spec.sync),
        "run_id": literal(begun.run_id),
        "number": "d.__number",
        "acked_at": "d.acked_at",
        "receipt_version": "d.receipt",
        "settled_at": "CAST(NULL AS TIMESTAMPTZ)",
        "log_sync": "CAST(NULL AS VARCHAR)",
        "as_sent": "s.as_sent OR s.remote_id IS NULL",
    }
    for i, (name, _) in enumerate(spec.fields):
        for part, new in (("sent", f"w{i}"), ("stored", f"w{i}"), ("at", "acked_at")) if sent[i] else ():
            its = f"s.{states.state_column(name, part)}"
            value = f"CASE WHEN {_said(spec, i, 'd')} THEN d.{new} ELSE {its} END"
            if part == "stored":  # of a row that is as sent this says nothing, and takes room
                value = f"CASE WHEN {news['as_sent']} THEN NULL ELSE {value} END"
            news[f"{name}.{part}"] = value
    names = list(warehouse.columns(spec.state_table.replace('"', "")))
    values = ", ".join(f"{news.get(n, f's.{quote(n)}')} AS {quote(n)}" for n in names)
    there = warehouse.few(spec.state_table, _of(spec, changes))
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {MOVED} AS SELECT {values} FROM {changes} LEFT JOIN {there} s ON s.remote_id = d.rid"
    )
    warehouse.execute(
        f"DELETE FROM {spec.state_table} AS t WHERE {_of(spec, f'(SELECT remote_id AS rid FROM {MOVED}) AS d')}"
    )
    warehouse.execute(f"INSERT INTO {spec.state_table} SELECT * FROM {MOVED}")


def _records(warehouse: Warehouse, begun: Begun, rid: str) -> str:
    """How many records the changes are of, over `_joined`; `rid`: each one's id."""
    odd = "SELECT 1 FROM oploop_outcomes WHERE named IS DISTINCT FROM 0"
    odd += f" UNION ALL SELECT 1 FROM {quote_table(begun.plan_table)} WHERE __remote IS NOT NULL"
    if begun.spec.blind and not begun.spec.undoes:
        return "count(*)"  # a key is in a plan once: rows of a model that share one are held
    if begun.spec.blind or warehouse.rows(f"SELECT 1 FROM ({odd}) AS t LIMIT 1"):
        return f"count(DISTINCT {rid})"
    return "count(DISTINCT p.k0)"  # all ids are values of one field, which are quicker told apart than their texts


def _slices(warehouse: Warehouse) -> list[str]:
    """Conditions for so many changes after each other that a join of them with their outcomes stays in little memory."""
    [(last,)] = warehouse.rows("SELECT max(number) FROM oploop_outcomes")
    return [
        f" AND p.__number BETWEEN {n} AND {n + SLICE - 1} AND o.number BETWEEN {n} AND {n + SLICE - 1}"
        for n in range(1, (last or 1) + 1, SLICE)
    ]


def _merge_records(warehouse: Warehouse, begun: Begun, now: datetime) -> None:
    """Who is who: the ids of records that were created, so that the next run knows them before any read does."""
    spec = begun.spec
    told = id_of(spec.keys)
    new = f"{_joined(begun)} WHERE o.status = 'sent' AND {told} IS NOT NULL AND p.__status = 'create'"
    _forget_records(warehouse, spec, f"SELECT p.__key FROM {new}")
    for some in _slices(warehouse):
        warehouse.execute(
            f"INSERT INTO oploop.record_rows SELECT ?, ?, ?, p.__key, {told}, ?, ? FROM {new}{some}",
            (spec.app, spec.object, spec.key_fields, begun.run_id, now),
        )


def _forget_records(warehouse: Warehouse, spec: FoldSpec, keys: str) -> None:
    """One that was deleted in the app and is made again takes the place of the old one; `keys`: a select of those made."""
    mine = f"app = {literal(spec.app)} AND object = {literal(spec.object)} AND key_fields = {literal(spec.key_fields)}"
    if warehouse.rows(f"SELECT 1 FROM oploop.records WHERE {mine} LIMIT 1"):
        volumes.forget_records(warehouse, f"{mine} AND canonical_key IN ({keys})")


def _forget_removed(warehouse: Warehouse, begun: Begun) -> None:
    """What the app acknowledged as removed is no record of ours any more; that it was one is kept."""
    spec = begun.spec
    if not warehouse.rows(
        f"SELECT 1 FROM {quote_table(begun.plan_table)} WHERE __status IN ('archive', 'remove') LIMIT 1"
    ):
        return
    gone = f"{_joined(begun)} WHERE o.status = 'sent' AND p.__status IN ('archive', 'remove')"
    warehouse.execute(
        f"INSERT INTO oploop.removed SELECT ?, ?, p.__remote, p.__key, p.__status, ?, ?, p.__number, o.acked_at FROM {gone}",
        (spec.app, spec.object, spec.sync, begun.run_id),
    )
    mine = f"app = {literal(spec.app)} AND object = {literal(spec.object)}"
    volumes.forget_records(warehouse, f"{mine} AND remote_id IN (SELECT p.__remote FROM {gone})")
    sid = "p.__key" if spec.blind else "p.__remote"
    warehouse.execute(f"DELETE FROM {spec.state_table} WHERE remote_id IN (SELECT {sid} FROM {gone})")


def _remember(warehouse: Warehouse, begun: Begun, now: datetime) -> None:
    """The keys of rows that were appended."""
    spec = begun.spec
    warehouse.execute(
        f"INSERT INTO oploop.appended SELECT ?, ?, ?, p.__key, 'sent', ?, ? FROM {_joined(begun)} WHERE o.status = 'sent'",
        (spec.sync, spec.app, spec.object, begun.run_id, now),
    )


def _park_undone(warehouse: Warehouse, begun: Begun, now: datetime) -> None:
    """What an undo took back is not brought back until the model wants something else: of updates field by field."""
    spec = begun.spec
    done, head = (
        f"FROM {_joined(begun)} WHERE o.status IN ('sent', 'unknown')",
        "SELECT ?, ?, ?, p.__key, 'undone'",
    )
    into = "INSERT INTO oploop.parked (sync, app, object, key, reason, wanted, message, run_id, noted_at, field)"
    values = (spec.sync, spec.app, spec.object, None, begun.run_id, now)
    warehouse.execute(f"{into} {head}, NULLIF(p.__z, ''), ?, ?, ?, NULL {done} AND p.__z IS NOT NULL", values)
    for i, label in enumerate(spec.labels):
        warehouse.execute(f"{into} {head}, p.z{i}, ?, ?, ?, {literal(label)} {done} AND p.z{i} IS NOT NULL", values)


def _park(warehouse: Warehouse, begun: Begun, watched: jobs.Watched, now: datetime) -> None:
    """Rejected changes wait until the model wants something else; unknown ones that must not be doubled, or that a job may still
    do, until it is known.

    A record that was made without telling its id is not found by the next plan, until a read must have shown it.
    """
    spec = begun.spec
    # of what an undo took back only the fields that are sent, as only of those the model wants something else
    arms = " ".join(f"WHEN {literal(label)} THEN p.c{i}" for i, label in enumerate(spec.labels))
    its = f"CASE parked.field {arms} ELSE FALSE END" if arms else "FALSE"
    warehouse.execute(
        "DELETE FROM oploop.parked WHERE sync = ? AND app = ? AND object = ? AND EXISTS (SELECT 1 FROM "
        f"{_joined(begun)} WHERE p.__key = parked.key AND (parked.field IS NULL OR {its}))",
        (spec.sync, spec.app, spec.object),
    )
    careful = ", ".join(literal(kind) for kind in spec.careful) or "NULL"
    untold = f"o.status = 'sent' AND {id_of(spec.keys)} IS NULL AND p.__status = 'create'"
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
        f"FROM {_joined(begun)} WHERE o.status = 'rejected' OR ({untold}) "
        f"OR (o.status = 'unknown' AND (p.__status IN ({careful}) OR {watched.among('p.__number')}))",
        (spec.sync, spec.app, spec.object, begun.run_id),
    )
