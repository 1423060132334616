"""Validate and diff: one statement that leaves a plan table with each row that is not the same.

Nothing here writes to the warehouse: the plan table is a temporary one until a delivery begins. Names are written into the
statements as literals: the driver imports pandas (0.2 s) at the first parameter, and `plan` should be quick.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from oploop.activate import appending, awaited, fresh, keys, leaving, references, sameness, sql, states, volumes
from oploop.activate.bound import BoundSync
from oploop.activate.convert import key_form
from oploop.activate.rules import Rule, besides, rules_of
from oploop.apps.columns import rows_of
from oploop.records import Change, FieldType, Stream
from oploop.warehouse.base import Warehouse, literal, quote_table, roomy
from oploop.warehouse.forms import canonical

if TYPE_CHECKING:
    import pyarrow as pa

#: Statuses of a plan table's rows that are sent.
SENT = ("create", "update", "archive", "remove")


@dataclass(frozen=True, slots=True)
class Diff:
    """A sync's plan table and what it counts. `counts`: rows by status, without those that are the same; `left`: how many
    of them are records whose rows have left the model; `nameless`: rows without a key, which keep those. `whole`: all
    rows of the model were looked at; `nulls`: of these, how many have no value for a field, by its label."""

    bound: BoundSync
    table: str
    rules: tuple[Rule, ...]
    rows: int
    counts: dict[str, int]
    left: int = 0
    nameless: int = 0
    whole: bool = True
    nulls: dict[str, int] = field(default_factory=dict)
    known: sql.Known | None = None  #: what the statement was made from
    #: a field with `conflict: hold` is sent over what was sent before, where updates can be conditional
    holding: bool = False
    limit: int | None = None  #: at most so many changes are in the table

    @property
    def cut(self) -> bool:
        """Whether changes may have been left for a later run: these do not count, so `same` may be less than it says."""
        return self.limit is not None and self.changes >= self.limit

    @property
    def stands(self) -> bool:
        """Whether the plan table stands in the warehouse already, as a delivery keeps it."""
        return "." in self.table

    @property
    def name(self) -> str:
        """The plan table's name without its schema."""
        return self.table.rpartition(".")[2]

    @property
    def same(self) -> int:
        return self.rows - sum(self.counts.values()) + self.left

    @property
    def changes(self) -> int:
        """How many are to be sent."""
        return sum(self.count(status) for status in SENT)

    @property
    def of_nothing(self) -> bool:
        """Whether only one key was asked for, which no row and no record that was left has."""
        return not self.whole and not self.rows and not self.counts

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)


def look(bound: BoundSync, warehouse: Warehouse, before: Sequence[Diff] = ()) -> sql.Known:
    """What the warehouse has about the sync's target and about what its fields refer to.

    `before`: the diffs of syncs that go first, whose new records are waited for.
    """
    state = warehouse.columns(states.state_table(bound).replace('"', ""))
    fields = frozenset(f.field.name for f in bound.fields if f"{f.field.name}.at" in state)
    has_records = _any_of(bound, warehouse, "oploop.records")
    former = states.former_names(bound, warehouse, state)
    names = (bound.name, *states.gone_names(bound, former))
    has_parked = bool(warehouse.columns("oploop.parked")) and bool(
        warehouse.rows(f"SELECT 1 FROM oploop.parked WHERE sync IN ({', '.join(map(literal, names))}) LIMIT 1")
    )
    unique = bound.stream is not None and [k.field.name for k in bound.keys] == list(bound.stream.primary_key)
    lag = bound.stream.lag if bound.stream is not None else 0.0
    relation = states.source(bound, sorted(fields), former, state) if state else ""
    if state and bound.blind and (its := keys.in_form(bound, "remote_id")) != "remote_id":
        relation = f"(SELECT * REPLACE ({its} AS remote_id) FROM {relation} AS k)"
    vouched = vouched_until(bound, warehouse)
    parked_fields = has_parked and "field" in warehouse.columns("oploop.parked")
    undone = _undone(bound, warehouse, names) if parked_fields else frozenset()
    return sql.Known(
        bool(state),
        has_records,
        has_parked,
        fields,
        unique,
        vouched,
        lag,
        relation,
        names,
        parked_fields,
        undone,
        _look_at_refs(bound, warehouse, before),
        has_removed=_any_of(bound, warehouse, "oploop.removed"),
        appended=bound.appends and appending.begun(warehouse, names),
    )


def _look_at_refs(bound: BoundSync, warehouse: Warehouse, before: Sequence[Diff]) -> dict[int, references.RefKnown]:
    """What the warehouse has about each reference of the sync."""
    found = {}
    for i, f in enumerate(bound.fields):
        if f.ref is not None:
            makers = tuple(
                f"(SELECT __key FROM {quote_table(x.table)} WHERE __status IN ('create', 'waiting'))"
                for x in before
                if x.bound.app_object == f.ref.target and x.bound.key_names == f.ref.by.name
            )
            made = bool(warehouse.columns("oploop.records"))
            vouched = _vouched(warehouse, f.ref.app, f.ref.stream)
            found[i] = references.RefKnown(made, vouched, makers)
    return found


def _any_of(bound: BoundSync, warehouse: Warehouse, table: str) -> bool:
    """Whether one of our tables has rows of the sync's object."""
    if not warehouse.columns(table):
        return False
    rows = warehouse.rows(
        f"SELECT 1 FROM {table} WHERE app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)} LIMIT 1"
    )
    return bool(rows)


def _undone(bound: BoundSync, warehouse: Warehouse, names: Sequence[str]) -> frozenset[str]:
    """Labels of the sync's fields that are parked in some record: taken back by an undo, or in a tug-of-war."""
    rows = warehouse.rows(
        f"SELECT DISTINCT field FROM oploop.parked WHERE reason IN {sql.BY_FIELD} AND sync IN ({', '.join(map(literal, names))})"
    )
    return frozenset(r[0] for r in rows) & {f.label for f in bound.fields}


def vouched_until(bound: BoundSync, warehouse: Warehouse) -> datetime | None:
    """All writes acknowledged before this time were seen by the last complete read of the target's stream."""
    return _vouched(warehouse, bound.sync.app, bound.stream) if bound.stream is not None else None


def _vouched(warehouse: Warehouse, app: str, stream: Stream) -> datetime | None:
    began = _read_began(warehouse, app, stream)
    return None if began is None else began - timedelta(seconds=stream.lag)


def read_began(bound: BoundSync, warehouse: Warehouse) -> datetime | None:
    """When the last complete read of the target's stream began; None when there was none."""
    return _read_began(warehouse, bound.sync.app, bound.stream) if bound.stream is not None else None


def _read_began(warehouse: Warehouse, app: str, stream: Stream) -> datetime | None:
    if not warehouse.columns("oploop.streams"):
        return None
    rows = warehouse.rows(
        f"SELECT complete_began FROM oploop.streams WHERE app = {literal(app)} AND stream = {literal(stream.name)}"
    )
    return rows[0][0] if rows else None


def diff(
    bound: BoundSync,
    warehouse: Warehouse,
    *,
    table: str,
    key: str | None = None,
    limit: int | None = None,
    before: Sequence[Diff] = (),
    backfill: bool = False,
    lasting: bool = False,
) -> Diff:
    """Run the statement into the temporary table `table`.

    `key`: only the row with this key (as the user writes it); `limit`: only the first so many changes, the others are
    left for a later run; `before`: see `look`; `backfill`: a first append sends what exists; `lasting`:
    it is to be delivered, so that a large plan of new records is written once, where it stays (else `volumes.sweep` drops it).
    """
    known, rules = look(bound, warehouse, before), rules_of(bound)
    if references.clears_own(bound):
        known = _who_comes(bound, warehouse, known, rules, table, backfill=backfill)
    only = canonical_key(bound, key, warehouse) if key is not None else None
    rows, nulls = count_nulls(bound, warehouse) if only is None else (_count_key(bound, warehouse, only), {})
    empty = only is None and not _looks_for_left(bound, known) and fresh.is_fresh(bound, warehouse, known)
    if empty and lasting and rows >= volumes.FROM:
        table = f"oploop_state.{table}"
        _write(bound, warehouse, fresh.statements(bound, warehouse, rules, table, nulls, limit))
    else:
        if empty:
            select = fresh.select(bound, warehouse, rules)
        else:
            select = _statement(bound, warehouse, known, rules, rows, only, backfill=backfill)
        if limit is not None:
            select = f"SELECT * FROM ({select}) AS t WHERE __number IS NULL OR __number <= {int(limit)}"
        warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {quote_table(table)} AS {select}")
    awaited.hold(bound, warehouse, known, table, len(rules), whole=only is None and limit is None)
    nameless = leaving.blocked_by(bound, warehouse) if _looks_for_left(bound, known) else 0
    found = Diff(
        bound,
        table,
        (*rules, *besides(bound)),
        rows,
        {},
        nameless=nameless,
        whole=only is None,
        nulls=nulls,
        known=known,
        holding=_holds(bound, warehouse, table),
        limit=limit,
    )
    return counted(found, warehouse)


def _count_key(bound: BoundSync, warehouse: Warehouse, only: str) -> int:
    """How many rows of the model have this canonical key."""
    of_key = f"SELECT count(*) FROM ({sql.model_select(bound)}) AS t WHERE __key = {literal(only)}"
    return int(warehouse.rows(of_key)[0][0])


def _write(bound: BoundSync, warehouse: Warehouse, statements: Sequence[str]) -> None:
    """Write a large plan in as little memory as a small one, if that can be."""
    with warehouse.bulk(lasting=False), warehouse.bounded(volumes.memory(len(bound.fields))):
        for statement in statements:
            roomy(warehouse, partial(warehouse.execute, statement))


def _holds(bound: BoundSync, warehouse: Warehouse, table: str) -> bool:
    """Whether an update sends a field with `conflict: hold` that was sent before: what somebody makes of it is theirs."""
    held = [f"(c{i} AND NOT o{i})" for i in bound.guarded if bound.fields[i].conflict == "hold"]
    if not held:
        return False
    some = f"SELECT 1 FROM {quote_table(table)} WHERE __status = 'update' AND ({' OR '.join(held)}) LIMIT 1"
    return bool(warehouse.rows(some))


def _statement(
    bound: BoundSync,
    warehouse: Warehouse,
    known: sql.Known,
    rules: Sequence[Rule],
    rows: int,
    only: str | None,
    *,
    backfill: bool,
) -> str:
    """The select of the plan table. `rows`: of the model; `only`: just the row with this canonical key."""
    if bound.appends:
        parts = appending.select(bound, warehouse, known, backfill=backfill)
        return sql.append_select(bound, known, rules, parts, only)
    left = leaving.ctes(bound, warehouse, known, only) if _looks_for_left(bound, known) else []
    few = sameness.rest(bound, warehouse, known, rules, rows) if only is None and not left else None
    rest, asked = few or (None, known)
    select = sql.diff_select(bound, warehouse, asked, rules, only, left, rest)
    return select if rest is None or rest.rows else select + " LIMIT 0"  # there is nothing to look at


def _looks_for_left(bound: BoundSync, known: sql.Known) -> bool:
    return not bound.appends and leaving.looks_for_left(bound, known)


def _who_comes(
    bound: BoundSync, warehouse: Warehouse, known: sql.Known, rules: Sequence[Rule], table: str, *, backfill: bool
) -> sql.Known:
    """`known` with the rows that make records, now or once theirs are there: a field that refers to another is cleared."""
    first = f"{table}_first"
    select = _statement(bound, warehouse, known, rules, 0, None, backfill=backfill)
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {quote_table(first)} AS {select}")
    awaited.hold(bound, warehouse, known, first, len(rules), whole=True)
    coming = f"(SELECT __key FROM {quote_table(first)} WHERE __status IN ('create', 'waiting'))"
    return replace(known, refs={i: replace(ref, own=coming) for i, ref in known.refs.items()})


def counted(diff_: Diff, warehouse: Warehouse) -> Diff:
    """The same with its plan table counted."""
    rows = warehouse.rows(
        f"SELECT __status, count(*), count(*) FILTER (WHERE __left) FROM {quote_table(diff_.table)} GROUP BY 1"
    )
    return replace(diff_, counts={r[0]: r[1] for r in rows}, left=sum(r[2] for r in rows))


def count_nulls(bound: BoundSync, warehouse: Warehouse) -> tuple[int, dict[str, int]]:
    """The model's rows, and how many of them have no value for each field that is no constant, by its label."""
    moving = [f for f, m in zip(bound.fields, bound.sync.fields, strict=True) if m.source in ("column", "sql")]
    some = f"({bound.where})" if bound.where else "TRUE"
    model = f"FROM {quote_table(bound.model_table)} AS m WHERE {some}"
    empty = " OR ".join(f"({f.source}) IS NULL" for f in moving) or "FALSE"
    if warehouse.columnar and not warehouse.rows(f"SELECT 1 {model} AND ({empty}) LIMIT 1"):
        # what is kept of each part of a column tells that; to count values, engines read them
        return int(warehouse.rows(f"SELECT count(*) {model}")[0][0]), {f.label: 0 for f in moving}
    counts = ", ".join(["count(*)", *(f"count({f.source})" for f in moving)])
    [(rows, *given)] = warehouse.rows(f"SELECT {counts} {model}")
    return rows, {f.label: rows - n for f, n in zip(moving, given, strict=True)}


def canonical_key(bound: BoundSync, key: str, warehouse: Warehouse) -> str:
    """A key as the user writes it (several fields separated by commas) in its canonical form."""
    parts = key.split(",") if len(bound.keys) > 1 else [key]
    forms = [canonical(literal(p.strip()), key_form(k.field)) for p, k in zip(parts, bound.keys, strict=False)]
    found = warehouse.rows("SELECT " + " || chr(31) || ".join(forms))[0][0]
    return "" if found is None else str(found)


def stopping(diff_: Diff, warehouse: Warehouse) -> list[tuple[str, int]]:
    """Checks with `stop: true` that failed, and for how many rows."""
    stops = {n: r for n, r in enumerate(diff_.rules, 1) if r.stop}
    return [(stops[bad].says, count) for bad, count in _by_rule(diff_, warehouse) if bad in stops]


def _by_rule(diff_: Diff, warehouse: Warehouse) -> list[tuple[int, int]]:
    rows = warehouse.rows(f"SELECT __bad, count(*) FROM {quote_table(diff_.table)} WHERE __bad > 0 GROUP BY 1")
    return [(r[0], r[1]) for r in rows]


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A row kept back, with the reason."""

    key: str | None
    reason: str
    field: str | None
    why: str | None = None  #: JSON of the sync's `explain` columns


def reason(rules: Sequence[Rule], bad: int, value: str | None) -> tuple[str, str | None]:
    """(why a row is held, which field), from the number of the rule that it broke."""
    rule = rules[bad - 1]
    return rule.says.replace("{}", f'"{show_key(value)}"'), None if rule.label in ("check", "") else rule.label


def held_rows(diff_: Diff, warehouse: Warehouse, limit: int | None = None) -> list[HeldRow]:
    """The held rows, by key: as many as the plan counts, each row of a key that is there twice."""
    cap = f" LIMIT {int(limit)}" if limit is not None else ""
    rows = warehouse.rows(
        f"SELECT __key, __bad, __value, CAST(__why AS VARCHAR) FROM {quote_table(diff_.table)} "
        f"WHERE __status = 'held' ORDER BY 1, 2, 3, 4{cap}"
    )
    held = []
    for key, bad, value, why in rows:
        says, field = reason(diff_.rules, bad, value)
        held.append(HeldRow(show_key(key), says, field, why))
    return held


def held_reasons(diff_: Diff, warehouse: Warehouse, limit: int = 5) -> list[tuple[str, int]]:
    """The commonest reasons and how many rows each holds."""
    if not diff_.count("held"):
        return []
    rows = warehouse.rows(
        f"SELECT __bad, __value, count(*) FROM {quote_table(diff_.table)} WHERE __status = 'held' "
        f"GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT {int(limit)}"
    )
    return [(reason(diff_.rules, bad, value)[0], n) for bad, value, n in rows]


def show_key(key: str | None) -> str | None:
    """A canonical key as it is shown: the parts of a compound one separated by commas."""
    return None if key is None else key.replace("\x1f", ",")


def change_columns(bound: BoundSync, parts: str) -> str:
    """The columns of a plan table that make a change; `parts`: which of w (wanted), b (before), c (is sent) of each field."""
    cols = ["__number", "__key", "__status", "__remote", *(f"k{i}" for i in range(len(bound.keys)))]
    cols += [f"{p}{i}" for i in range(len(bound.fields)) for p in parts]
    cols += [column for _, column in guards(bound) if column not in cols]
    return ", ".join(cols)


def guards(bound: BoundSync) -> list[tuple[str, str]]:
    """(the app's name, column of the plan table) of what a record must still hold for a conditional update to be made."""
    if bound.stamp is not None:
        return [(bound.stamp, "__stamp")]
    return [(bound.fields[i].field.name, f"b{i}") for i in bound.guarded]


def changes_of(bound: BoundSync, batch: pa.RecordBatch) -> list[Change]:
    """Rows of a plan table as Changes: the values in the types that `apps` expect (lists as lists, times as datetimes)."""
    ops = {status: bound.op_of(status) for status in SENT}
    once, none = frozenset(f.field.name for f in bound.fields if f.only_create), frozenset[str]()
    numbers, statuses, remotes = (batch.column(n).to_pylist() for n in ("__number", "__status", "__remote"))
    keys = rows_of(list(keys_of(bound, batch).items()), len(batch))
    fields = fields_of(bound, batch)
    read = as_read(bound, batch, fields) if bound.guarded else [{}] * len(batch)
    return [
        Change(number, ops[status], key, sent, remote, once if status == "create" else none, held)
        for number, status, key, sent, remote, held in zip(numbers, statuses, keys, fields, remotes, read, strict=True)
    ]


def as_read(bound: BoundSync, batch: pa.RecordBatch, sent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each record of the batch must still hold (see `Change.as_read`); `sent`: what is sent of it."""
    if bound.stamp is not None:
        stamps = batch.column("__stamp").to_pylist()
        return [{bound.stamp: s} if s is not None else {} for s in stamps]
    columns = {bound.fields[i].field.name: _typed(batch, f"b{i}", bound.fields[i].field.type) for i in bound.guarded}
    return [{n: held[row] for n, held in columns.items() if n in fields} for row, fields in enumerate(sent)]


def keys_of(bound: BoundSync, batch: pa.RecordBatch) -> dict[str, list[Any]]:
    """The values of the key's fields, row by row."""
    return {k.field.name: _typed(batch, f"k{i}", k.field.type) for i, k in enumerate(bound.keys)}


def fields_of(bound: BoundSync, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """What is sent of each row.

    A create carries the key's values as fields too, unless the app assigns them. Fields that no row of the batch sends
    are not even looked at.
    """
    always, at_times = [], []
    for i, f in enumerate(bound.fields):
        mask = batch.column(f"c{i}")
        if mask.true_count == len(mask):
            always.append((f.field.name, _typed(batch, f"w{i}", f.field.type)))
        elif mask.true_count:
            at_times.append((f.field.name, _typed(batch, f"w{i}", f.field.type), mask.to_pylist()))
    statuses, count = batch.column("__status").to_pylist(), len(batch)
    creates = statuses.count("create")
    found = rows_of(always, count) if creates < count else []
    if creates:
        keys = keys_of(bound, batch)
        made = [(n, keys[n]) for n in (k.field.name for k in bound.keys if not k.field.read_only)]
        new = rows_of([*made, *always], count)
        mixed = zip(statuses, new, found, strict=True) if found else ()
        found = [n if status == "create" else k for status, n, k in mixed] or new
    for name, wanted, mask in at_times:
        for fields, value, sent in zip(found, wanted, mask, strict=True):
            if sent:
                fields[name] = value
    return found


def _typed(batch: pa.RecordBatch, name: str, kind: FieldType) -> list[Any]:
    listed: list[Any] = batch.column(name).to_pylist()
    if kind in (FieldType.LIST, FieldType.JSON):
        return [None if v is None else orjson.loads(v) for v in listed]
    return listed


def shown_changes(diff_: Diff, warehouse: Warehouse, limit: int | None) -> list[dict[str, Any]]:
    """Changes as `-o json` shows them: {"key", "op", "fields": {label: {"before", "after"}}}."""
    bound, cap = diff_.bound, f" LIMIT {int(limit)}" if limit is not None else ""
    table = warehouse.query(
        f"SELECT {change_columns(bound, 'wbc')} FROM {quote_table(diff_.table)} WHERE __number IS NOT NULL ORDER BY __number{cap}"
    )
    out = []
    for row in table.to_pylist():
        fields = {
            f.label: {"before": _shown(row[f"b{i}"], f.field.type), "after": _shown(row[f"w{i}"], f.field.type)}
            for i, f in enumerate(bound.fields)
            if row[f"c{i}"] or (row["__status"] in ("archive", "remove") and row[f"b{i}"] is not None)
        }
        out.append({"key": show_key(row["__key"]), "op": row["__status"], "fields": fields})
    return out


def _shown(value: Any, kind: FieldType) -> Any:
    if value is not None and kind in (FieldType.LIST, FieldType.JSON):
        return orjson.loads(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def plan_table_name(sync: str, suffix: str) -> str:
    """A name for a sync's plan table, unlike that of any other sync ("a-b" and "a_b", "A" and "a")."""
    own = hashlib.blake2b(sync.encode(), digest_size=4).hexdigest()
    return f"plan_{re.sub(r'[^A-Za-z0-9_]', '_', sync)}_{own}_{suffix.lower()}"
