"""The plan is data: what a sync would do, what it costs, what stops it. Two readers: people, and `deliver`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

from oploop.activate import diff as d
from oploop.activate import volumes
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.guardrails import SMALL, of_the_model, over_count, over_share, pass_word, passes
from oploop.apps.budget import Budget, DayLeft, at_least
from oploop.project import Limit, Mode
from oploop.records import CallKind, CallTime, FieldType, Finding, Op, Operation
from oploop.warehouse.base import Warehouse, literal, quote_table, roomy

#: Up to so many different values of a field, a plan shows which becomes which.
FEW = 12
#: Modes that would make records anew if what they remember were lost.
FORGETFUL = (Mode.CREATE, Mode.APPEND)
#: What was measured of an object's calls, by operation and kind.
CallTimes: TypeAlias = Mapping[tuple[Op, CallKind], CallTime]
#: Seconds an API call is taken to last where nothing was measured yet, and the app says nothing.
CALL_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """What a plan does to one field: how many records, and the commonest changes or the shift of the median."""

    label: str
    count: int
    overwrites: int  #: of them, values that somebody else set: this sync never sent the field there
    moves: tuple[tuple[str, str, int], ...] = ()  #: (before, after, how many), for fields with few values
    median: tuple[float | None, float | None] | None = None
    exact: bool = True  #: whether the medians are; those of very many values are about right


@dataclass(frozen=True, slots=True)
class Estimate:
    """API calls of a plan, and seconds under the budget. `day`: the account's calls of today, where the app told them."""

    calls: int
    seconds: float
    day: DayLeft | None = None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calls": self.calls, "seconds": self.seconds}
        if self.day is not None:
            at = datetime.fromtimestamp(self.day.at, UTC)
            found["today"] = {
                "limit": self.day.limit,
                "left": self.day.remaining,
                "kept": self.day.kept,
                "as_of": at.isoformat(),
            }
        return found


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """All that a sync would do. `findings` with `stop` keep it from being sent."""

    diff: d.Diff
    create: int
    update: int
    archive: int
    remove: int
    fields: tuple[FieldSummary, ...]
    held_reasons: tuple[tuple[str, int], ...]
    findings: tuple[Finding, ...]
    estimate: Estimate
    first: tuple[str, ...]  #: fields that were never delivered to this object; all of them on a first delivery
    read_at: datetime | None = None
    undoes: tuple[str, ...] = ()  #: the runs that it takes back, if it is an undo

    @property
    def bound(self) -> BoundSync:
        return self.diff.bound

    @property
    def changes(self) -> int:
        return self.create + self.update + self.removes

    @property
    def removes(self) -> int:
        """Records that are taken away: archived or removed."""
        return self.archive + self.remove

    @property
    def held(self) -> int:
        return self.diff.count("held")

    @property
    def stops(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.stop)


def make_plan(
    diff_: d.Diff,
    warehouse: Warehouse,
    *,
    budget: Budget | None,
    call_seconds: CallTimes | None,
    allow: Collection[str] = (),
) -> SyncPlan:
    """Summarise a plan table, price it and hold it against the guardrails.

    `call_seconds`: what was measured of the object's calls. `allow`: guardrails that the user lets pass this once: "first",
    "changes", "held=120", "changes=64%".
    """
    bound = diff_.bound
    known = diff_.known or d.look(bound, warehouse)
    before = delivered_before(bound, warehouse, known.names)
    if bound.appends:  # it keeps no state of its fields, but its rows' keys
        before = before and known.appended
    first = tuple(
        f.label for f in bound.fields if not before or not (bound.appends or f.field.name in known.state_fields)
    )
    whole = not before or 0 < len(first) == len(bound.fields)
    findings = [*_stopping_checks(diff_, warehouse), *_guardrails(diff_, first, whole, allow)]
    if any(f.check == "first-run" for f in findings) and _begun(bound, warehouse, known.names):
        findings = [_broken_off(f) if f.check == "first-run" else f for f in findings]
    findings += of_the_model(diff_, warehouse, known.names, allow)
    price = partial(_priced, diff_, warehouse, budget, call_seconds, fields=diff_.changes > 0)
    with volumes.in_little_memory(warehouse, len(bound.fields), diff_.changes):
        priced = roomy(warehouse, price)
    return replace(priced, held_reasons=tuple(d.held_reasons(diff_, warehouse)), findings=tuple(findings), first=first)


def undo_plan(
    diff_: d.Diff,
    warehouse: Warehouse,
    *,
    budget: Budget | None,
    call_seconds: CallTimes | None,
    undoes: tuple[str, ...],
) -> SyncPlan:
    """The plan of an undo's plan table. No guardrail holds it: a person asked for just this, and sees it first."""
    return replace(_priced(diff_, warehouse, budget, call_seconds, fields=diff_.rows > 0), undoes=undoes)


def _priced(
    diff_: d.Diff, warehouse: Warehouse, budget: Budget | None, call_seconds: CallTimes | None, *, fields: bool
) -> SyncPlan:
    """A plan table counted and priced, which nothing holds yet; `fields`: each field is summarised."""
    bound = diff_.bound
    counts = {status: diff_.count(status) for status in d.SENT}
    busiest = partial(_busiest, diff_, warehouse)
    return SyncPlan(
        diff=diff_,
        create=counts["create"],
        update=counts["update"],
        archive=counts["archive"],
        remove=counts["remove"],
        fields=_summaries(diff_, warehouse) if fields else (),
        held_reasons=(),
        findings=(),
        estimate=estimate(bound, counts, budget, call_seconds, busiest, holding=diff_.holding),
        first=(),
        read_at=d.read_began(bound, warehouse),
    )


#: How the finding begins that a sync which makes records finds no trace of itself.
FIRST_RUN = "first run of this sync, as far as is remembered"


def delivered_before(bound: BoundSync, warehouse: Warehouse, names: Sequence[str]) -> bool:
    """Whether a delivery to the sync's object ever came to its end; one that died half-way is still the first.

    Fields tell by themselves whether they were delivered; of a sync without any (pairs, members), and of one that appends, its own
    deliveries count, under each of its `names`; an append that only marked what exists as seen has come to its end.
    """
    if not warehouse.columns("oploop.sync_runs"):
        return False
    ended = "'ok', 'nothing'" if bound.appends else "'ok'"
    sql = f"SELECT 1 FROM oploop.sync_runs WHERE object = {literal(bound.app_object)} AND status IN ({ended})"
    if bound.appends or not bound.fields:
        sql += f" AND sync IN ({', '.join(map(literal, names))})"
    return bool(warehouse.rows(sql + " LIMIT 1"))


def batches(operation: Operation, records: int) -> list[int]:
    """How many records each call takes: full batches, and the rest as one batch, or singly where that is no dearer."""
    sizes = [operation.batch] * (records // operation.batch)
    rest = records % operation.batch
    if rest:
        sizes += [1] * rest if rest <= operation.single_up_to else [rest]
    return sizes


def calls(operation: Operation, records: int) -> int:
    """API calls that so many records take."""
    return sum(1 if size == 1 else operation.calls for size in batches(operation, records))


def call_kind(bound: BoundSync, op: Op, operation: Operation, size: int) -> CallKind:
    """How a step of so many changes goes."""
    if operation is bound.object.operations[op].large:
        return CallKind.JOB
    return CallKind.SINGLE if size == 1 else CallKind.BATCH


def estimate(
    bound: BoundSync,
    counts: Mapping[str, int],
    budget: Budget | None,
    call_seconds: CallTimes | None,
    busiest: Callable[[str, str], int] = lambda status, field: 0,
    *,
    holding: bool = False,
) -> Estimate:
    """Calls, and the longer of two times: what the limits allow, and what the calls last with some in flight at once.

    `counts`: changes by status; `busiest`: the most changes of a status that have one value of a field; `holding`:
    see `Diff`.
    """
    total, working, last, least, times = 0, 0.0, 0.0, 0.0, call_seconds or {}
    for status, records in counts.items():
        if records:
            op = bound.op_of(status)
            operation = operation_of(bound, op, records, holding=holding)
            sizes = Counter(batches(operation, records))
            steps = {size: _step_time(bound, op, operation, size, times) for size in sizes}
            total += sum(round(n * steps[size].calls) for size, n in sizes.items())
            mean = sum(n * steps[size].seconds for size, n in sizes.items()) / sizes.total()
            working += mean * math.ceil(sizes.total() / operation.in_flight)
            last = max(last, mean)
            if (pace := operation.pace) is not None:
                least = max(least, at_least(busiest(status, pace.field), pace.calls, pace.window))
    least, day = max(least, budget.seconds_for(total)) if budget else least, budget.day_left() if budget else None
    return Estimate(total, round(max(working, least + last), 1), day)


def _step_time(bound: BoundSync, op: Op, operation: Operation, size: int, times: CallTimes) -> CallTime:
    """What a step of so many changes takes: as it was measured, else as the app says, else as most calls do.

    What takes one call always does; what is asked after until it ends (`Operation.calls`) takes as many as it took.
    """
    kind = call_kind(bound, op, operation, size)
    n = 1 if kind is CallKind.SINGLE else operation.calls
    known = times.get((op, kind))
    if known is None:
        return CallTime(operation.seconds if operation.seconds is not None else n * CALL_SECONDS, n)
    return CallTime(known.seconds, known.calls if n > 1 else n)


def _busiest(diff_: d.Diff, warehouse: Warehouse, status: str, field: str) -> int:
    """The most changes of a status that have the same value of a field."""
    for i, f in enumerate(diff_.bound.fields):
        if f.field.name == field:
            groups = (
                f"SELECT count(*) AS n FROM {quote_table(diff_.table)} WHERE __number IS NOT NULL "
                f"AND __status = {literal(status)} GROUP BY w{i}"
            )
            return int(warehouse.rows(f"SELECT COALESCE(max(n), 0) FROM ({groups}) AS g")[0][0])
    return 0


def _stopping_checks(diff_: d.Diff, warehouse: Warehouse) -> list[Finding]:
    name = diff_.bound.name
    return [
        Finding(name, "check", f"{says} ({rows} rows)", rows, stop=True) for says, rows in d.stopping(diff_, warehouse)
    ]


def _guardrails(diff_: d.Diff, first: tuple[str, ...], whole: bool, allow: Collection[str]) -> list[Finding]:
    """Findings of the guardrails. What a first delivery (of the `whole` sync, or of the fields that are `first`) may change is
    for the person to judge who allows it."""
    name, limits, found = diff_.bound.name, diff_.bound.sync.limits, []
    changes = diff_.changes
    if whole and diff_.bound.sync.mode in FORGETFUL and (changes or diff_.count("seen")):
        found.append(_first_run(diff_, allow))
    elif (whole or first) and changes:
        what = "first delivery of this sync" if whole else f"first delivery of {', '.join(first)}"
        found.append(
            Finding(
                name, "first", f"{what}: {changes:,} change{'s' * (changes != 1)}", changes, stop="first" not in allow
            )
        )
    if not whole:
        over = _over(limits.changes, changes, diff_.rows)
        if over:
            found.append(Finding(name, "changes", f"changes {over}", changes, stop=not passes("changes", over, allow)))
    removes = diff_.count("remove") + diff_.count("archive")
    over = _over(limits.removes, removes, diff_.rows)
    if over:
        found.append(Finding(name, "removes", f"removes {over}", removes, stop=not passes("removes", over, allow)))
    if removes and diff_.bound.sync.mode is Mode.MIRROR and diff_.rows == 0:
        found.append(Finding(name, "empty", "the model is empty: all that it mirrors would go", removes, stop=True))
    if diff_.count("left"):
        says = f"{diff_.count('left')} left the model, and are kept: {diff_.nameless} of its rows have no key"
        found.append(Finding(name, "nameless", says, diff_.count("left")))
    held = diff_.count("held")
    over = _over(limits.held, held, diff_.rows)
    if over:
        found.append(Finding(name, "held", f"held {over}", held, stop=not passes("held", over, allow)))
    return found


def _begun(bound: BoundSync, warehouse: Warehouse, names: Sequence[str]) -> bool:
    """Whether the ledger has changes of the sync."""
    if not warehouse.columns("oploop.change_log"):
        return False
    mine = f"app = {literal(bound.sync.app)} AND object = {literal(bound.sync.object)}"
    own = ", ".join(map(literal, names))
    return bool(warehouse.rows(f"SELECT 1 FROM oploop.change_log WHERE sync IN ({own}) AND {mine} LIMIT 1"))


def _broken_off(finding: Finding) -> Finding:
    """A first run of which something is remembered."""
    return replace(finding, message=finding.message.replace(FIRST_RUN, "the first run of this sync was broken off"))


def _first_run(diff_: d.Diff, allow: Collection[str]) -> Finding:
    """A sync that makes records and finds no trace of itself: it is new, or what it remembered was lost."""
    name, changes, seen = diff_.bound.name, diff_.changes, diff_.count("seen")
    what = f"{changes} changes" if changes else f"{seen} rows would be marked as seen, none sent"
    says = f"{FIRST_RUN}: {what}"
    return Finding(name, "first-run", says, changes, stop="first-run" not in allow)


def _over(limit: Limit, seen: int, rows: int) -> str | None:
    """What was seen against a limit, when it is over it."""
    of_rows = seen / rows if seen >= SMALL and rows else 0.0
    return over_count(limit, seen) or over_share(limit, of_rows)


def _summaries(diff_: d.Diff, warehouse: Warehouse) -> tuple[FieldSummary, ...]:
    """What becomes of each field: all are counted in one pass."""
    counts = []
    for i, f in enumerate(diff_.bound.fields):
        # adding overwrites nothing
        held = "FALSE" if f.in_place else f"b{i} IS NOT NULL AND CAST(b{i} AS VARCHAR) <> '[]'"
        counts += [f"count(*) FILTER (WHERE c{i})", f"count(*) FILTER (WHERE c{i} AND o{i} AND {held})"]
    if not counts:
        return ()
    [found] = warehouse.rows(f"SELECT {', '.join(counts)} FROM {quote_table(diff_.table)} WHERE __number IS NOT NULL")
    return tuple(
        _summary(f, i, found[2 * i], found[2 * i + 1], diff_, warehouse) for i, f in enumerate(diff_.bound.fields)
    )


def _summary(f: BoundField, i: int, count: int, overwrites: int, diff_: d.Diff, warehouse: Warehouse) -> FieldSummary:
    table, sent = quote_table(diff_.table), f"__number IS NOT NULL AND c{i}"
    median: tuple[float | None, float | None] | None = None
    exact = True
    moves: tuple[tuple[str, str, int], ...] = ()
    if count and f.field.type in (FieldType.INTEGER, FieldType.NUMBER) and f.ref is None:  # ids have no middle
        (before, exact), (after, _) = (warehouse.median(f"{v}{i}", count) for v in "bw")
        [median] = warehouse.rows(f"SELECT {before}, {after} FROM {table} WHERE {sent}")
    elif count and _few(f"SELECT w{i} AS v FROM {table} WHERE {sent}", warehouse):
        moves = tuple(
            (r[0], r[1], r[2])
            for r in warehouse.rows(
                f"SELECT COALESCE(CAST(b{i} AS VARCHAR), 'empty'), COALESCE(CAST(w{i} AS VARCHAR), 'empty'), count(*) "
                f"FROM {table} WHERE {sent} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 4"
            )
        )
    return FieldSummary(f.label, count, overwrites, moves, median, exact)


def _few(values: str, warehouse: Warehouse) -> bool:
    """Whether there are so few different values that they can be shown; mostly the first thousand tell that they are not."""
    for part in (f"{values} LIMIT 1000", values):
        [(different,)] = warehouse.rows(f"SELECT count(v) FROM (SELECT DISTINCT v FROM ({part}) AS p) AS d")
        if different > FEW:
            return False
    return True


def as_json(plan: SyncPlan, warehouse: Warehouse, *, all_changes: bool = False) -> dict[str, Any]:
    """A plan as `oploop plan -o json` prints it, with the first 1,000 changes or all."""
    return {
        "sync": plan.bound.name,
        "object": plan.bound.app_object,
        "rows": plan.diff.rows,
        "same": None if plan.diff.cut else plan.diff.same,  # nobody has counted it
        "planned": {status: plan.diff.count(status) for status in d.SENT},
        "held": plan.held,
        "held_reasons": [{"reason": r, "rows": n} for r, n in plan.held_reasons],
        "held_fields": dict(plan.bound.lost),
        "kept": plan.diff.count("kept"),
        "missing": plan.diff.count("missing"),
        "gone": plan.diff.count("gone"),
        "parked": plan.diff.count("parked"),
        "waiting": plan.diff.count("waiting"),
        "left": plan.diff.count("left"),
        "seen": plan.diff.count("seen"),
        "blind": plan.bound.blind,
        "findings": [{"check": f.check, "message": f.message, "stop": f.stop} for f in plan.findings],
        "changes": d.shown_changes(plan.diff, warehouse, None if all_changes else 1000),
        "estimate": plan.estimate.as_json(),
    }


def operation_of(bound: BoundSync, op: Op, records: int, *, holding: bool = False) -> Operation:
    """How the object takes so many records of an operation."""
    usual = _usual(bound, op, records)
    condition = usual.condition
    if condition is not None and conditional(bound, op, records, holding=holding):
        return condition.operation or usual
    return usual


def conditional(bound: BoundSync, op: Op, records: int, *, holding: bool = False) -> bool:
    """Whether updates are made only of records that are still as they were read: where that costs no call more, and, whatever
    it costs, where a field with `conflict: hold` is sent over what we sent before (`holding`)."""
    usual = _usual(bound, op, records)
    if op is not Op.UPDATE or usual.condition is None or not bound.guarded:
        return False
    dearer = usual.condition.operation
    return dearer is None or holding or calls(dearer, records) <= calls(usual, records)


def goes_singly(plan: SyncPlan) -> bool:
    """Whether `conflict: hold` makes updates cost more calls than they would."""
    if not plan.update or not plan.diff.holding:
        return False
    op = plan.bound.op_of("update")
    usual, now = _usual(plan.bound, op, plan.update), operation_of(plan.bound, op, plan.update, holding=True)
    return calls(now, plan.update) > calls(usual, plan.update)


def _usual(bound: BoundSync, op: Op, records: int) -> Operation:
    usual = bound.object.operations[op]
    large = usual.large
    if large is None or records <= usual.large_from or calls(large, records) >= calls(usual, records):
        return usual
    return large


__all__ = [
    "Estimate",
    "FieldSummary",
    "SyncPlan",
    "as_json",
    "batches",
    "call_kind",
    "calls",
    "conditional",
    "estimate",
    "goes_singly",
    "make_plan",
    "operation_of",
    "pass_word",
]
