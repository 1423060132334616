"""Guardrails that compare a sync's model with what it was in the last run that came to its end.

A model that is empty, or much smaller, or full of NULLs where it had values, is more often broken than right; what
such a model makes of the apps is hard to take back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from oploop.activate import diff as d
from oploop.project import Limit
from oploop.records import Finding
from oploop.warehouse.base import Warehouse, literal

#: Under so many changes, or rows, a percentage says nothing (2 of 4 is half) and is not looked at.
SMALL = 50
#: What `--allow SYNC:...` takes; all but the first two also with a most, as in `changes=64%`.
GUARDRAILS = ("first", "first-run", "changes", "held", "removes", "rows", "nulls")
#: Statuses of `oploop.sync_runs` of a run that came to its end.
_ENDED = "('ok', 'nothing')"


def of_the_model(diff_: d.Diff, warehouse: Warehouse, names: Sequence[str], allow: Collection[str]) -> list[Finding]:
    """Findings on the model's size and NULLs. `names`: the sync's, and those that its file had before."""
    if not diff_.whole:  # one record says nothing of the model
        return []
    return [*_fewer(diff_, warehouse, names, allow), *_nulls(diff_, warehouse, names, allow)]


def _fewer(diff_: d.Diff, warehouse: Warehouse, names: Sequence[str], allow: Collection[str]) -> list[Finding]:
    last = _last_rows(diff_, warehouse, names)
    limit, now = diff_.bound.sync.limits.rows, diff_.rows
    if not last or now >= last or not (now == 0 or last >= SMALL):
        return []
    lost = last - now
    over = over_count(limit, lost) or over_share(limit, lost / last)
    if over is None:
        return []
    message = f"rows {over} fewer: {last:,} in the last run, {now:,} now"
    return [Finding(diff_.bound.name, "rows", message, lost, stop=not passes("rows", over, allow))]


def _last_rows(diff_: d.Diff, warehouse: Warehouse, names: Sequence[str]) -> int | None:
    if not warehouse.columns("oploop.sync_runs"):
        return None
    rows = warehouse.rows(
        f"SELECT rows FROM oploop.sync_runs WHERE sync IN ({', '.join(map(literal, names))}) AND status IN {_ENDED} "
        f"AND object = {literal(diff_.bound.app_object)} AND rows IS NOT NULL ORDER BY run_id DESC LIMIT 1"
    )
    return int(rows[0][0]) if rows else None


def _nulls(diff_: d.Diff, warehouse: Warehouse, names: Sequence[str], allow: Collection[str]) -> list[Finding]:
    if diff_.rows < SMALL or not warehouse.columns("oploop.field_nulls"):
        return []
    last = _last_nulls(diff_, warehouse, names)
    found = []
    for label, nulls in diff_.nulls.items():
        if label not in last:
            continue
        then, now = last[label], nulls / diff_.rows
        over = over_share(diff_.bound.sync.limits.nulls, now - then)
        if over is not None:
            message = f"nulls {over} more in {label}: {then:.0%} of the rows in the last run, {now:.0%} now"
            stop = not passes("nulls", over, allow)
            found.append(Finding(diff_.bound.name, "nulls", message, nulls, field=label, stop=stop))
    return found


def _last_nulls(diff_: d.Diff, warehouse: Warehouse, names: Sequence[str]) -> dict[str, float]:
    """Per field the share of NULLs in the last run that noted it."""
    rows = warehouse.rows(
        "SELECT field, rows, nulls FROM (SELECT field, rows, nulls, row_number() OVER (PARTITION BY field ORDER BY run_id DESC) "
        f"AS latest FROM oploop.field_nulls WHERE sync IN ({', '.join(map(literal, names))})) AS f WHERE latest = 1"
    )
    return {field: nulls / total for field, total, nulls in rows if total >= SMALL}


def over_count(limit: Limit, seen: int) -> str | None:
    """What was seen against a limit's count, when it is over it: "120 > 100"."""
    return f"{seen} > {limit.count}" if limit.count is not None and seen > limit.count else None


def over_share(limit: Limit, seen: float) -> str | None:
    """What was seen against a limit's share, when it is over it: "64% > 20%"."""
    if limit.share is None or seen <= limit.share:
        return None
    found, most = f"{seen:.0%}", f"{limit.share:.0%}"
    return f"{found} > {most}" if found != most else f"{seen:.2%} > {limit.share:.2%}"


def passes(guardrail: str, over: str, allow: Collection[str]) -> bool:
    """Whether the user lets a guardrail pass: by its name alone, or up to what was seen (`changes=64%`, `held=120`)."""
    seen = over.split()[0]
    for word in allow:
        name, _, most = word.partition("=")
        if name == guardrail and (not most or _at_most(seen, most)):
            return True
    return False


def _at_most(seen: str, most: str) -> bool:
    same_kind = seen.endswith("%") == most.endswith("%")
    return same_kind and float(seen.rstrip("%")) <= float(most.rstrip("%"))


def pass_word(finding: Finding) -> str:
    """What lets a guardrail's finding pass once, and no further than what was seen: `first`, `changes=64%`."""
    if finding.check not in GUARDRAILS[2:]:
        return finding.check
    seen = finding.message.split()[1]
    return f"{finding.check}={math.ceil(float(seen[:-1]))}%" if seen.endswith("%") else f"{finding.check}={seen}"
