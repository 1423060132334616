"""An undo for people: what would be put back, what is left as it is and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oploop.cli import show
from oploop.cli.out import Out, columns
from oploop.cli.show_plan import EXAMPLES, cost_line, examples, field_lines

if TYPE_CHECKING:
    from oploop.report import SyncReport
    from oploop.warehouse.base import Warehouse


def sync_lines(report: SyncReport, warehouse: Warehouse, out: Out, *, every: bool = False) -> list[str]:
    """One sync's undo. `every`: all changes and all that is left, not a few."""
    title = f"{out.bold(report.sync)} → {report.object}"
    plan = report.plan
    if plan is None:
        return [title, *(f"  {out.mark(False)} {show.clean(why)}" for why in report.stopped)]
    parts = [
        f"{n:,} {word}"
        for n, word in ((plan.update, "put back"), (plan.remove, "remove"), (plan.create, "make anew"))
        if n
    ]
    body = ["   ".join(out.bold(p) for p in parts) if parts else "nothing to put back", *field_lines(plan)]
    body += examples(plan, warehouse, None if every else EXAMPLES, out)
    body += _left(report, every=every)
    if plan.changes:
        body.append(cost_line(plan.estimate))
    return [title, *(f"  {line}" for line in body)]


def _left(report: SyncReport, *, every: bool) -> list[str]:
    """Why something is not undone, with how often; and which."""
    lines = []
    for i, (reason, n) in enumerate(report.left_reasons):
        lines.append(f"{'left   ' if i == 0 else '       '} {n:,} {show.clean(reason)}")
        shown = [x for x in report.left if x.reason == reason][: None if every else EXAMPLES]
        rows = [(show.value(x.key, 36), show.clean(x.field or "")) for x in shown]
        lines += [f"          {line}" for line in columns(rows)]
    return lines
