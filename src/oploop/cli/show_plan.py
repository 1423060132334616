"""A plan for people: what would be sent, what would not and why, what it costs, what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from oploop.activate import diff as diffing
from oploop.activate.guardrails import GUARDRAILS
from oploop.activate.plan import goes_singly
from oploop.cli import show
from oploop.cli.out import Out, columns, cut
from oploop.records import FieldType

if TYPE_CHECKING:
    from oploop.activate.plan import Estimate, FieldSummary, SyncPlan
    from oploop.project import Limit
    from oploop.report import SyncReport
    from oploop.warehouse.base import Warehouse
    from oploop.workspace import Workspace

#: Changes shown without --all.
EXAMPLES = 3
#: Statuses of rows that are not sent, and what they mean.
ASIDE = {
    "held": "",
    "kept": "edited by people",
    "missing": "not in the app",
    "gone": "deleted in the app",
    "parked": "see oploop held",
    "waiting": "for records that the run makes",
    "left": "left the model, but a row without a key keeps them",
    "seen": "there before this sync: never sent; --backfill sends them",
}


def header(ws: Workspace, reports: Sequence[SyncReport]) -> str:
    """How old what is compared is: the models, and the apps' records."""
    now, parts = ws.runtime.now(), []
    built = built_at(ws)
    if built is not None:
        parts.append(f"models as built {show.clock(built, now)}")
    read: dict[str, datetime | None] = {}
    for r in reports:
        if r.plan is not None and not r.plan.bound.blind:
            read[r.object] = r.plan.read_at
    parts += [f"{name} {'read ' + show.ago(at, now) if at else 'never read completely'}" for name, at in read.items()]
    return " · ".join(parts)


def built_at(ws: Workspace) -> datetime | None:
    """When the environment's models were last built; None when never, or when others build them."""
    from oploop.warehouse.base import literal

    if not ws.warehouse.columns("oploop.models"):
        return None
    rows = ws.warehouse.rows(f"SELECT max(noted_at) FROM oploop.models WHERE environment = {literal(ws.environment)}")
    at: datetime | None = rows[0][0]
    return at


def sync_lines(report: SyncReport, warehouse: Warehouse, out: Out, *, every: bool = False) -> list[str]:
    """All about one sync's plan. `every`: list all changes, not a few."""
    plan = report.plan
    if plan is None:
        why = str(report.error) if report.error is not None else "; ".join(report.stopped)
        return [f"{out.bold(report.sync)} → {report.object}", f"  {out.mark(False)} {show.clean(why)}"]
    body = [_counts(plan, out), *field_lines(plan), *_held(plan)]
    body += examples(plan, warehouse, None if every else EXAMPLES, out)
    body += _limits(report, plan, out)
    if plan.changes:
        looks = " · updates one by one: what somebody changes meanwhile is held" if goes_singly(plan) else ""
        body.append(cost_line(plan.estimate) + looks)
    return [_title(plan, out), *(f"  {line}" for line in body)]


def cost_line(estimate: Estimate) -> str:
    """Calls, time, and what is left of the account's day where that is known."""
    parts = [f"{show.count(estimate.calls, 'call')}, ~{show.seconds(max(estimate.seconds, 0.1))}"]
    day = estimate.day
    if day is not None:
        kept = f", {day.kept:,} kept for others" if day.kept else ""
        parts.append(f"quota left today {day.remaining:,} of {day.limit:,}{kept}")
        if day.kept and estimate.calls > day.ours:
            parts.append(f"{show.count(day.ours, 'call')} at the most, the rest is deferred")
    return f"cost    {' · '.join(parts)}"


def _title(plan: SyncPlan, out: Out) -> str:
    bound = plan.bound
    keys = ", ".join(bound.sync.key)
    blind = "   blind: the app's records cannot be read" if bound.blind else ""
    return f"{out.bold(bound.name)} → {bound.app_object}   {out.dim(f'{bound.sync.mode} · key {keys}{blind}')}"


def _counts(plan: SyncPlan, out: Out) -> str:
    if plan.diff.of_nothing:
        return "no row of the model has this key   nothing to send"
    later = " or left by --limit" if plan.diff.cut else ""
    parts = [show.count(plan.diff.rows, "row"), f"{plan.diff.same:,} same{later}"]
    parts += [out.bold(f"{n:,} {word}") for word, n in _sent(plan) if n]
    for status, means in ASIDE.items():
        n = plan.diff.count(status)
        if n:
            parts.append(f"{n:,} {status}" + (f" ({means})" if means else ""))
    if not plan.changes:
        parts.append("nothing to send")
    return "   ".join(parts)


def _sent(plan: SyncPlan) -> list[tuple[str, int]]:
    return [(status, plan.diff.count(status)) for status in diffing.SENT]


def field_lines(plan: SyncPlan) -> list[str]:
    """How often each field is sent, and how it moves."""
    rows = [(f.label, f"{f.count:,}", _what(f, plan)) for f in plan.fields if f.count]
    return columns(rows, right=[1])


def _what(f: FieldSummary, plan: SyncPlan) -> str:
    """How a field moves: medians of numbers, the commonest moves of few values, how much of it overwrites."""
    bound = next(b for b in plan.bound.fields if b.label == f.label)
    parts = []
    if f.median is not None:
        before, after = (None if m is None else show.number(m) for m in f.median)
        name = "median" if f.exact else "median about"
        parts.append(f"{name} {before} → {after or 'empty'}" if before is not None else f"{name} {after}")
    if f.moves and (f.count <= 3 or f.moves[0][2] > 1):  # values that are all different say nothing
        lists = bound.field.type is FieldType.LIST
        moves = [f"{_text(a, lists)} → {_text(b, lists)} {n:,}" for a, b, n in f.moves[:3]]
        parts.append(", ".join(moves) + (", …" if len(f.moves) > 3 else ""))
    if bound.if_empty:
        parts.append("only where empty")
    if f.overwrites:
        parts.append(f"{f.overwrites:,} overwrite what others set")
    return "   ".join(parts)


def _text(v: str, a_list: bool) -> str:
    """A value as the plan has it: a list is JSON there."""
    return show.value(orjson.loads(v) if a_list and v.startswith("[") else v, 24)


def _held(plan: SyncPlan) -> list[str]:
    fields = [f"held  field {name!r} {show.clean(why)}" for name, why in plan.bound.lost.items()]
    if not plan.held:
        return fields
    shown = [f"{n:,} {show.value(reason, 90)}" for reason, n in plan.held_reasons]
    first, *rest = shown
    left = plan.held - sum(n for _, n in plan.held_reasons)
    more = [f"      {left:,} for other reasons"] if left > 0 else []
    return [*fields, f"held  {first}", *(f"      {line}" for line in rest), *more]


def examples(plan: SyncPlan, warehouse: Warehouse, limit: int | None, out: Out) -> list[str]:
    """Some changes, or all of them, one a line."""
    if not plan.changes:
        return []
    changes = diffing.shown_changes(plan.diff, warehouse, limit)
    rows = [_change(c) for c in changes]
    heads = ["e.g.  " if i == 0 and limit is not None else "      " for i in range(len(rows))]
    return [h + line for h, line in zip(heads, columns(rows, gap=3), strict=True)]


#: How an example says what is done with the whole record.
MARKS = {"create": " (new)", "archive": " (archived)", "remove": " (removed)"}


def _change(c: dict[str, Any]) -> list[str]:
    key = cut(show.clean(str(c["key"])), 36) + MARKS.get(c["op"], "")
    moves = []
    for label, f in c["fields"].items():
        before, after = show.value(f["before"], 28), show.value(f["after"], 48)
        shown = {"create": after, "archive": before, "remove": before}.get(c["op"], f"{before} → {after}")
        moves.append(f"{label} {shown}")
    return [key, "   ".join(moves)]


def _limits(report: SyncReport, plan: SyncPlan, out: Out) -> list[str]:
    """The guardrails with what was seen; then whatever stops the sync."""
    stops, limits = {f.check for f in plan.stops}, plan.bound.sync.limits
    parts = []
    seen_of = (
        ("changes", limits.changes, plan.changes),
        ("held", limits.held, plan.held),
        ("removes", limits.removes, plan.removes),
    )
    for name, limit, seen in seen_of:
        if (said := _seen(limit, seen, plan.diff.rows)) and not (name == "changes" and _is_first(plan)):
            parts.append(f"{name} {said} {out.style('over', fg='red') if name in stops else 'ok'}")
    lines = [f"limits  {' · '.join(parts)}"] if parts else []
    if report.paused is not None:
        lines.append(f"{out.mark(None)} {show.clean(report.paused)}   go on: oploop resume {report.sync}")
    firsts = {f.message for f in plan.stops if f.check in ("first", "first-run")}
    return lines + [
        f"{out.mark(None if why in firsts else False)} {show.clean(why)}{_allow(report, why)}" for why in report.stopped
    ]


def _is_first(plan: SyncPlan) -> bool:
    return len(plan.first) == len(plan.bound.fields)


def _seen(limit: Limit, seen: int, rows: int) -> str:
    """What was seen against a limit; nothing where it is not looked at."""
    from oploop.activate.guardrails import SMALL

    if limit.share is not None and seen > SMALL:
        return f"{show.percent(seen, rows)} (limit {limit.share:.0%})"
    return f"{seen:,} of {limit.count:,}" if limit.count is not None and seen else ""


def _allow(report: SyncReport, why: str) -> str:
    """How a stop is let pass once."""
    assert report.plan is not None
    words = {f.message: word for f, word in zip(report.plan.stops, report.allow, strict=False) if can_pass(word)}
    return f"   allow once: --allow {words[why]}" if why in words else ""


def can_pass(word: str) -> bool:
    """Whether `--allow` takes this word: a sync's own `stop: true` checks it does not."""
    return word.rpartition(":")[2].partition("=")[0] in GUARDRAILS
