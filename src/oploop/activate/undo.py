"""Undo: the ledger's changes turned round, as a plan table like any other.

A field goes back to what it was before the runs that are undone, if the app still holds what they left there; a record
that they made is removed, one that they removed is made anew, where the app can. What cannot be undone is named, and so is
what a job may still change.
Columns of the plan table beyond those of a diff: `z0`, `z1` .. the JSON text of the value that is taken back, to be
parked; `__z` that of a whole create; `{}` for a record that is brought back, so that it does not leave again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from oploop.activate import diff as d
from oploop.activate import jobs, keys, states, volumes
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.plan import CallTimes, SyncPlan, undo_plan
from oploop.activate.sql import Known
from oploop.activate.waiting import noted, pointer
from oploop.apps.transport import Budget
from oploop.records import Canonical, Field, FieldType, JsonPath, Object, Op
from oploop.warehouse.base import Warehouse, literal, quote, quote_table
from oploop.warehouse.forms import canonical

#: What never changed anything in the app, so that there is nothing to undo.
NOTHING_DONE = "('rejected', 'failed', 'deferred', 'ignored')"

#: Of a change by its outcomes: it did something. One that failed at first was never made, whatever a look said of its record.
DID = f"status NOT IN {NOTHING_DONE} AND said <> 'failed'"

#: The ledger's column, as JSON text, that names the fields of a change.
_SENT_FIELDS = "CASE WHEN op = 'remove' THEN before ELSE after END"

GONE = "the record is no longer in the app"
CHANGED = "changed since by somebody"
UNSEEN = "the app does not show what it holds"
LATER = "a later run sent it anew"
ARCHIVED = "archived: bring it back in the app"
AGAIN = "it is in the app again"
CLEAR = "was empty before, and cannot be cleared"
NO_ID = "the app never told its id"
AT_WORK = "a job that may still be at work has it: undo again when the app has said that it is over"
UPSERTED = "made by the app's own upsert, which does not tell whether it was there before"


@dataclass(frozen=True, slots=True)
class Touched:
    """What some runs changed under one sync's name of then."""

    sync: str
    app: str
    object: str
    changes: int
    first_sent: datetime
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """Something that is not undone, and why; `field` None: the whole record."""

    key: str
    field: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would send for one sync, and what it leaves: counts by reason, commonest first, and the rows."""

    plan: SyncPlan
    reasons: tuple[tuple[str, int], ...]
    left: tuple[Left, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be undone: these runs; only this key (as it is shown), only so many changes."""

    runs: tuple[str, ...]
    key: str | None = None
    limit: int | None = None


def runs_since(warehouse: Warehouse, since: datetime) -> tuple[str, ...]:
    """Runs that sent something at or after a time, oldest first."""
    if not warehouse.columns("oploop.change_outcomes"):
        return ()
    rows = warehouse.rows("SELECT DISTINCT run_id FROM oploop.change_outcomes WHERE sent_at >= ? ORDER BY 1", (since,))
    return tuple(r[0] for r in rows)


def runs_named(warehouse: Warehouse, prefix: str) -> tuple[str, ...]:
    """Runs in the ledger whose id begins so."""
    if not warehouse.columns("oploop.change_log"):
        return ()
    begins = f"substr(run_id, 1, {len(prefix)}) = {literal(prefix)}"
    return tuple(
        r[0] for r in warehouse.rows(f"SELECT DISTINCT run_id FROM oploop.change_log WHERE {begins} ORDER BY 1")
    )


def touched(warehouse: Warehouse, runs: Sequence[str]) -> list[Touched]:
    """What runs changed, by sync; changes that did nothing left out."""
    if not runs:
        return []
    names = ", ".join(map(literal, runs))
    outcomes = f"SELECT * FROM ({volumes.OUTCOME_OF_EACH}) AS e WHERE run_id IN ({names})"
    rows = warehouse.rows(
        f"SELECT l.sync, l.app, l.object, count(*), min(o.sent_at) FROM oploop.change_log l JOIN ({outcomes}) o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"WHERE l.run_id IN ({names}) AND o.status NOT IN {NOTHING_DONE} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    out = []
    for sync, app, obj, changes, first in rows:
        labels = warehouse.rows(
            f"SELECT DISTINCT {warehouse.json_keys(_SENT_FIELDS)} AS label FROM oploop.change_log "
            f"WHERE run_id IN ({names}) AND sync = ? AND app = ? AND object = ? ORDER BY 1",
            (sync, app, obj),
        )
        out.append(Touched(sync, app, obj, changes, first, tuple(r[0] for r in labels)))
    return out


def with_fields(
    bound: BoundSync,
    described: Mapping[str, Field],
    warehouse: Warehouse,
    labels: Sequence[str],
    owners: Mapping[str, str],
) -> tuple[BoundSync, dict[str, str]]:
    """The sync with the fields of these labels, also those that it no longer maps; and why others cannot be had.

    `owners`: labels of fields that other syncs write now.
    """
    by_label = {f.label: f for f in bound.fields}
    fields, missing = [], {}
    order = list(by_label)
    for label in sorted(labels, key=lambda x: order.index(x) if x in by_label else len(order)):
        found = by_label.get(label)
        if found is None and label in owners:
            missing[label] = f"now written by sync {owners[label]}"
            continue
        if found is None:
            field = described.get(label) or _dynamic(bound.object, label)
            if field is None or field.source is None or field.read_only:
                missing[label] = f"{bound.app_object} has no such field that could be written and read"
                continue
            now = warehouse.field_value(field.source, field.type, "r")
            found = BoundField(label, field, "NULL", None, "NULL", now, "theirs", "keep")
        fields.append(found)
    return replace(bound, fields=tuple(fields), undoing=True), missing


def _dynamic(obj: Object, label: str) -> Field | None:
    """A field whose name users make up."""
    for prefix, template in obj.dynamic.items():
        rest = label.removeprefix(prefix)
        if label.startswith(prefix) and rest:
            source = template.source
            if isinstance(source, JsonPath):
                source = JsonPath(source.column, (*source.path, rest))
            return replace(template, name=label, source=source)
    return None


def gather(bound: BoundSync, warehouse: Warehouse, names: Sequence[str], asked: Asked) -> list[str]:
    """The changes of the records in question into the temporary table `oploop_undo_log`; the records' ids.

    All changes of these records, also of other runs and syncs; `inside`: it is to be undone. `names`: the sync's, now and
    before.
    """
    runs, own = ", ".join(map(literal, asked.runs)), ", ".join(map(literal, names))
    of_runs = f"run_id IN ({runs}) AND sync IN ({own})"
    inside = f"(l.run_id IN ({runs}) AND l.sync IN ({own}))"
    key = ""
    if asked.key is not None:
        key = f" AND lower(replace(l.key, chr(31), ',')) = lower({literal(asked.key.strip())})"
    here = f"l.app = {literal(bound.sync.app)} AND l.object = {literal(bound.sync.object)}"
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_undo_some AS {_in_question(warehouse, of_runs, here)}")
    warehouse.execute(
        "CREATE OR REPLACE TEMP TABLE oploop_undo_all AS SELECT l.run_id, l.sync, l.number, l.key, l.op, o.status, "
        f"o.remote_id, {inside}{key} AS inside, EXISTS (SELECT 1 FROM oploop.undone u WHERE u.run_id = l.run_id) AS of_undo, "
        f"o.status = 'unknown' AND {jobs.has('l')} AS at_work "
        f"FROM oploop.change_log l JOIN ({volumes.outcomes_among('oploop_undo_some')}) o "
        "ON o.run_id = l.run_id AND o.sync = l.sync AND o.number = l.number "
        f"WHERE {here} AND {DID}"
    )
    of_them = "oploop_undo_all WHERE remote_id IN (SELECT remote_id FROM oploop_undo_all WHERE inside)"
    logged = volumes.among(warehouse, f"(SELECT run_id, sync, number FROM {of_them})")
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE oploop_undo_log AS SELECT u.*, l.before, l.after FROM (SELECT * FROM {of_them}) u "
        f"JOIN ({logged}) l ON l.run_id = u.run_id AND l.sync = u.sync AND l.number = u.number"
    )
    rows = warehouse.rows("SELECT DISTINCT remote_id FROM oploop_undo_log ORDER BY 1")
    return [r[0] for r in rows]


def _in_question(warehouse: Warehouse, of_runs: str, here: str) -> str:
    """The changes to look at, so that not all of a large ledger are: those of the runs, all of their records, and what a job has,
    which may tell no id yet."""
    ids = f"SELECT remote_id FROM oploop.change_outcomes WHERE {of_runs} AND remote_id IS NOT NULL"
    some = f"SELECT run_id, sync, number FROM oploop.change_outcomes WHERE ({of_runs}) OR remote_id IN ({ids})"
    if warehouse.rows("SELECT 1 FROM oploop.jobs LIMIT 1"):
        some += f" UNION SELECT run_id, sync, number FROM oploop.change_log l WHERE {here} AND {jobs.has('l')}"
    return f"SELECT DISTINCT run_id, sync, number FROM ({some}) AS s"


def make(
    bound: BoundSync,
    warehouse: Warehouse,
    asked: Asked,
    missing: Mapping[str, str],
    *,
    table: str,
    budget: Budget | None,
    call_seconds: CallTimes | None = None,
) -> UndoPlan:
    """The plan of what `gather` found, compared with the app as it was read last. Changes nothing."""
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_undo AS {_judged(bound, warehouse)}")
    n = range(len(bound.fields))
    keys = []
    for i, k in enumerate(bound.keys):
        part = f"split_part(__key, chr(31), {i + 1})" if len(bound.keys) > 1 else "__key"
        keys.append(f"TRY_CAST({part} AS {warehouse.sql_type(k.field.type)}) AS k{i}")
    values = [f"{p}{i}" for i in n for p in ("w", "b", "c")]
    values += [f"FALSE AS {p}{i}" for i in n for p in ("d", "o")] + [f"z{i}" for i in n]
    values += ["__stamp"] if bound.stamp is not None else []
    cap = f" AND __number <= {int(asked.limit)}" if asked.limit is not None else ""
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {quote_table(table)} AS SELECT * FROM (SELECT row_number() OVER (ORDER BY __status, __key) "
        f"AS __number, __key, {', '.join(keys)}, __remote, __status, 0 AS __bad, NULL::VARCHAR AS __value, "
        f"NULL::VARCHAR AS __why, __z, {', '.join(values)} FROM oploop_undo WHERE __reason IS NULL AND __sent) WHERE TRUE{cap}"
    )
    counts = dict(warehouse.rows(f"SELECT __status, count(*) FROM {quote_table(table)} GROUP BY 1"))
    diff = d.Diff(bound, table, (), sum(counts.values()), counts, whole=False)
    reasons, left = _left(bound, warehouse, missing)
    return UndoPlan(
        undo_plan(diff, warehouse, budget=budget, call_seconds=call_seconds, undoes=asked.runs), reasons, left
    )


def _judged(bound: BoundSync, warehouse: Warehouse) -> str:
    """One row a record: what undoing would do with it (`__status`), what forbids it, and the fields."""
    cols = ["rec.remote_id AS __remote", "rec.key AS __key", f"{_status()} AS __status"]
    known = d.look(bound, warehouse)
    shapes = [_Shape(bound, warehouse, known, i) for i in range(len(bound.fields))]
    for s in shapes:
        cols += [f"{s.was} AS was{s.i}", f"a.n{s.i} AS b{s.i}", f"rec.in{s.i}", f"{s.why} AS why{s.i}"]
        cols += [f"{s.made} AS made{s.i}", f"rec.later{s.i}", f"{s.why_later} AS whylater{s.i}"]
        cols.append(f"CASE WHEN rec.undo{s.i} THEN NULL ELSE {s.taken} END AS taken{s.i}")
    cols += ["a.__stamp"] if bound.stamp is not None else []
    whole = "CASE WHEN rec.changes = 1 AND NOT rec.of_undo THEN rec.whole END AS __whole"
    cols.append(f"({_live_by_key(bound)}) AS __again")
    had_one = f"{keys.in_form(bound, 'rec.key')} IN (SELECT {keys.in_form(bound, 'key')} FROM ({_taken_away()}))"
    cols.append(f"(rec.first_op = 'create' AND {had_one}) AS __had_one")
    cols.append("(rec.at_work OR rec.key IN (SELECT key FROM oploop_undo_all WHERE at_work)) AS __at_work")
    cols += [whole, "rec.of_undo AS __of_undo", "(a.rid IS NOT NULL AND NOT a._deleted) AS __live"]
    inner = (
        f"SELECT {', '.join(cols)} FROM ({_records(bound)}) rec LEFT JOIN ({_app(bound)}) a ON a.rid = rec.remote_id"
    )
    if known.has_state:
        inner += f" LEFT JOIN {known.state} s ON s.remote_id = rec.remote_id"
    # each of these is worked out once a row, however often the next one names it
    ctes = f"seen AS ({inner}), judged AS (SELECT *, {_reason(bound)} AS __reason FROM seen), "
    ctes += f"settled AS ({_updates_of_what_stays(bound)})"
    outer = ["*"]
    for i in range(len(bound.fields)):
        # what a record was made of is removed with it; what it was removed with is made anew
        back = f"why{i} IS NULL AND was{i} IS DISTINCT FROM b{i}"
        sent = f"CASE __status WHEN 'update' THEN {back} WHEN 'create' THEN was{i} IS NOT NULL ELSE TRUE END"
        outer.append(f"(__status <> 'remove' AND in{i} AND {sent}) AS c{i}")
        outer.append(f"CASE WHEN __status = 'remove' THEN NULL ELSE was{i} END AS w{i}")
    some = " OR ".join(f"c{i}" for i in range(len(bound.fields))) or "FALSE"
    parks = [f"CASE WHEN __status = 'update' AND c{i} THEN taken{i} END AS z{i}" for i in range(len(bound.fields))]
    whole = "CASE WHEN __of_undo THEN NULL WHEN __status = 'remove' THEN COALESCE(__whole, '') WHEN __status = 'create' THEN '{}' END AS __z"
    return (
        f"WITH {ctes}, decided AS (SELECT {', '.join(outer)} FROM settled) "
        f"SELECT *, (__status <> 'update' OR {some}) AS __sent, {', '.join([whole, *parks])} FROM decided"
    )


def _updates_of_what_stays(bound: BoundSync) -> str:
    """Of a record that was made and cannot be removed, what was changed after that goes back to what it was made with.

    `__stays`: why the record itself stays.
    """
    n = range(len(bound.fields))
    later = " OR ".join(f"later{i}" for i in n) or "FALSE"
    stays = f"__status = 'remove' AND __reason NOT IN ({literal(GONE)}, {literal(AT_WORK)}) AND ({later})"
    instead = [f"CASE WHEN {stays} THEN made{i} ELSE was{i} END AS was{i}" for i in n]
    instead += [f"CASE WHEN {stays} THEN later{i} ELSE in{i} END AS in{i}" for i in n]
    instead += [f"CASE WHEN {stays} THEN whylater{i} ELSE why{i} END AS why{i}" for i in n]
    instead.append(f"CASE WHEN {stays} THEN 'update' ELSE __status END AS __status")
    instead.append(f"CASE WHEN {stays} THEN NULL ELSE __reason END AS __reason")
    return f"SELECT * REPLACE ({', '.join(instead)}), CASE WHEN {stays} THEN __reason END AS __stays FROM judged"


def _records(bound: BoundSync) -> str:
    """One row a record: the first and the last of its changes that are undone, per field too."""

    def at(end: str, value: str, cond: str = "inside") -> str:
        return f"arg_{end}(CASE WHEN {cond} THEN {value} END, run_id)"

    cols = [
        "remote_id",
        "max(key) FILTER (WHERE inside) AS key",
        f"{at('min', 'op')} AS first_op",
        f"{at('max', 'op')} AS last_op",
        "bool_or(inside AND op = 'archive') AS archived",
        "count(*) FILTER (WHERE inside) AS changes",
        f"{at('max', 'after')} AS whole",
        "bool_or(inside AND of_undo) AS of_undo",
        "bool_or(at_work) AS at_work",
    ]
    marked = ["*"]  # which fields a change has is read of its JSON once
    for i, f in enumerate(bound.fields):
        has = f"__has{i}"
        marked.append(f"json_exists(CAST({_SENT_FIELDS} AS JSON), {pointer(f.label)}) AS {has}")
        mine = f"inside AND {has}"
        later = f"{mine} AND op = 'update'"
        cols += [
            f"bool_or({mine}) AS in{i}",
            f"bool_or({later}) AS later{i}",
            f"{at('min', 'before', later)} AS made{i}",
            f"{at('min', 'before', mine)} AS first{i}",
            f"{at('max', 'after', mine)} AS last{i}",
            f"{at('max', 'status', mine)} AS said{i}",
            f"COALESCE({at('max', 'of_undo', mine)}, FALSE) AS undo{i}",
            f"max(run_id) FILTER (WHERE {mine}) AS run{i}",
            f"max(run_id) FILTER (WHERE NOT inside AND {has}) AS other{i}",
        ]
    log = f"SELECT {', '.join(marked)} FROM oploop_undo_log"
    return f"WITH marked AS ({log}) SELECT {', '.join(cols)} FROM marked GROUP BY remote_id"


def _app(bound: BoundSync) -> str:
    assert bound.raw_table is not None
    nows = "".join(f", {f.now or f.nothing} AS n{i}" for i, f in enumerate(bound.fields))
    nows += f", {bound.stamped} AS __stamp" if bound.stamp is not None else ""
    return f"SELECT CAST(r.{quote(bound.id_column)} AS VARCHAR) AS rid, r._deleted{nows} FROM {quote_table(bound.raw_table)} AS r"


def _live_by_key(bound: BoundSync) -> str:
    """Whether a record of the key is in the app, by whatever id: what a later run made of a row that came back is as good as the
    one that was taken away. It may be known from its creation alone."""
    assert bound.raw_table is not None
    if not all(k.now for k in bound.keys):  # an append: each row is a record of its own
        return "FALSE"
    raw, rid = quote_table(bound.raw_table), f"CAST(r.{quote(bound.id_column)} AS VARCHAR)"
    key = " || chr(31) || ".join(f"({k.now})" for k in bound.keys)
    known = (
        f"SELECT {keys.in_form(bound, 'k.canonical_key')} FROM oploop.records k WHERE k.app = {literal(bound.sync.app)} AND k.object = {literal(bound.sync.object)} "
        f"AND k.key_fields = {literal(bound.key_names)} AND k.remote_id NOT IN (SELECT {rid} FROM {raw} AS r WHERE r._deleted)"
    )
    shown = f"SELECT {key} FROM {raw} AS r WHERE NOT r._deleted"
    return f"{keys.in_form(bound, 'rec.key')} IN (SELECT * FROM ({shown} UNION ALL {known}) x(k) WHERE k IS NOT NULL)"


def _taken_away() -> str:
    """Keys of records that were there before the runs that are undone, and that these took away."""
    ends = ", ".join(f"arg_{end}(op, run_id) AS {end}_op" for end in ("min", "max"))
    ops = f"SELECT remote_id, max(key) AS key, {ends} FROM oploop_undo_log WHERE inside GROUP BY remote_id"
    return f"SELECT key FROM ({ops}) WHERE min_op <> 'create' AND max_op = 'remove'"


def _status() -> str:
    return (
        "CASE WHEN rec.first_op = 'create' THEN 'remove' WHEN rec.last_op = 'remove' THEN 'create' "
        "WHEN rec.archived THEN 'archive' ELSE 'update' END"
    )


class _Shape:
    """The expressions of one field, over the record `rec`, the app's row `a` and the state `s`.

    `was`: before the first of its changes; `made`: before the first of its updates, as its record was made.
    """

    def __init__(self, bound: BoundSync, warehouse: Warehouse, known: Known, i: int) -> None:
        f, self.i = bound.fields[i], i
        sql_type = warehouse.sql_type(f.field.type)
        self.was = noted(f"rec.first{i}", f.label, f.field.type, sql_type)
        self.taken = f"CAST(json_extract(CAST(rec.last{i} AS JSON), {pointer(f.label)}) AS VARCHAR)"
        left = noted(f"rec.last{i}", f.label, f.field.type, sql_type)
        if f.field.name in known.state_fields:
            at, stored = (f"s.{states.state_column(f.field.name, p)}" for p in ("at", "stored"))
            left = f"CASE WHEN {at} IS NOT NULL AND rec.said{i} <> 'unknown' THEN {stored} ELSE {left} END"
        now, then = (_comparable(e, f.field.canonical, f.field.type) for e in (f"a.n{i}", left))
        self.made = noted(f"rec.made{i}", f.label, f.field.type, sql_type)
        since = (
            f"WHEN rec.other{i} > rec.run{i} THEN {literal(LATER)} "
            f"WHEN {now} IS DISTINCT FROM {then} THEN {literal(UNSEEN if f.field.source is None else CHANGED)}"
        )

        def why(touched: str, before: str) -> str:
            clear = "" if f.field.nullable else f" WHEN {before} IS NULL THEN {literal(CLEAR)}"
            return f"CASE WHEN NOT {touched} THEN NULL {since}{clear} END"

        self.why, self.why_later = why(f"rec.in{i}", self.was), why(f"rec.later{i}", self.made)


def _comparable(expr: str, form: Canonical, kind: FieldType) -> str:
    return expr if form is Canonical.EXACT or kind is not FieldType.TEXT else canonical(expr, form)


def _reason(bound: BoundSync) -> str:
    """What forbids to undo a record as a whole; NULL where nothing does."""
    operations, name = bound.object.operations, literal(f"{bound.app_object} takes no ")
    whys = ", ".join(f"CASE WHEN why{i} <> {literal(CLEAR)} THEN why{i} END" for i in range(len(bound.fields)))
    touched_since = f"COALESCE({whys}, NULL)" if whys else "NULL"
    remove = [f"WHEN NOT __live THEN {literal(GONE)}"]
    if Op.REMOVE not in operations:
        remove = [f"WHEN TRUE THEN {name} || 'removals, so what was made stays'"]
    elif bound.create_op is Op.UPSERT:
        remove = [f"WHEN TRUE THEN {literal(UPSERTED)}"]
    remove.append(f"WHEN __had_one THEN {literal(AGAIN)} ELSE {touched_since}")
    create = f"WHEN __live OR __again THEN {literal(AGAIN)}"
    if Op.CREATE not in operations:
        create = f"WHEN TRUE THEN {name} || 'new records, so what was removed stays away'"
    return (
        f"CASE WHEN __at_work THEN {literal(AT_WORK)} WHEN __status = 'remove' THEN CASE {' '.join(remove)} END WHEN __status = 'create' THEN CASE {create} END "
        f"WHEN __status = 'archive' THEN {literal(ARCHIVED)} ELSE CASE WHEN NOT __live THEN {literal(GONE)} END END"
    )


def _left(
    bound: BoundSync, warehouse: Warehouse, missing: Mapping[str, str]
) -> tuple[tuple[tuple[str, int], ...], tuple[Left, ...]]:
    whole = "COALESCE(__reason, __stays)"
    parts = [f"SELECT __key AS key, NULL AS field, {whole} AS reason FROM oploop_undo WHERE {whole} IS NOT NULL"]
    for i, f in enumerate(bound.fields):
        parts.append(
            f"SELECT __key, {literal(f.label)}, why{i} FROM oploop_undo WHERE __reason IS NULL AND __status = 'update' "
            f"AND why{i} IS NOT NULL AND was{i} IS DISTINCT FROM b{i}"  # else it is as it was already
        )
    for label, why in missing.items():
        parts.append(
            f"SELECT key, {literal(label)}, {literal(why)} FROM oploop_undo_log WHERE inside AND json_exists(CAST(after AS JSON), {pointer(label)})"
        )
    untold = f"CASE WHEN at_work THEN {literal(AT_WORK)} ELSE {literal(NO_ID)} END"
    parts.append(f"SELECT key, NULL, {untold} FROM oploop_undo_all WHERE inside AND remote_id IS NULL")
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE oploop_undo_left AS {' UNION '.join(parts)}")
    reasons = warehouse.rows("SELECT reason, count(*) FROM oploop_undo_left GROUP BY 1 ORDER BY 2 DESC, 1")
    rows = warehouse.rows("SELECT key, field, reason FROM oploop_undo_left ORDER BY 1, 2 LIMIT 1000")
    return tuple(reasons), tuple(Left(d.show_key(k) or "", f, r) for k, f, r in rows)
