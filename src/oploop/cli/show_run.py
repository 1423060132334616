"""A run for people, line by line as it goes on."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from oploop.cli import show
from oploop.cli.out import Out, pad
from oploop.cli.show_plan import can_pass
from oploop.report import read_back_text

if TYPE_CHECKING:
    from oploop.extract import StreamResult
    from oploop.model.base import ModelResult
    from oploop.report import RunReport, SyncReport
    from oploop.verify import ReadBack

#: Where the third column (seconds, calls) begins.
THIRD = 58


def stage_line(out: Out, ok: bool | None, name: str, text: str, seconds: float | None, width: int) -> str:
    """ "✓ build    7 models, 22 checks                            1.3 s"."""
    tail = show.seconds(seconds) if seconds is not None else ""
    return f"{out.mark(ok)} {pad(pad(name, width) + '  ' + text, THIRD)}{'  ' if tail else ''}{tail}".rstrip()


def extract_lines(out: Out, results: list[StreamResult], seconds: float | None, width: int) -> list[str]:
    """One line for all apps, and one for each stream that failed."""
    rows: Counter[str] = Counter()
    deleted = sum(r.deleted for r in results)
    for r in results:
        rows[r.app] += r.rows
    failed = [r for r in results if r.error is not None]
    text = " · ".join(f"{app} {n:,}" for app, n in rows.items()) or "nothing to read"
    if deleted:
        text += f" · {deleted:,} deleted"
    lines = [stage_line(out, not failed, "extract", text, seconds, width)]
    lines += [f"    {r.app}.{r.stream}: {show.clean(str(r.error))}" for r in failed]
    return lines + [f"    {show.clean(n)}" for r in results for n in r.notes]


def build_lines(
    out: Out, models: list[ModelResult], seconds: float | None, width: int, unit_tests: int = 0
) -> list[str]:
    """One line for all models, and one for each that failed or was skipped, and each check that only warns."""
    from oploop.model.base import ModelStatus

    checks = sum(len(m.checks) for m in models)
    bad = [m for m in models if m.status in (ModelStatus.FAILED, ModelStatus.SKIPPED)]
    text = f"{show.count(len(models), 'model')}, {show.count(checks, 'check')}" if models else "no models"
    if unit_tests:
        text += f", {show.count(unit_tests, 'unit test')}"
    if bad:
        text += f", {len(bad)} failed or skipped"
    lines = [stage_line(out, not bad, "build", text, seconds, width)]
    return lines + [f"    {line}" for m in models for line in model_complaints(m)]


def model_complaints(m: ModelResult) -> list[str]:
    """What a build found wrong with a model."""
    from oploop.model.base import ModelStatus

    lines = []
    if m.status is ModelStatus.SKIPPED:
        lines.append(f"{m.model}: skipped, {m.message or 'as something that it depends on failed'}")
    for c in m.checks:
        if not c.ok:
            kind = "check" if c.blocking else "check (warns only)"
            named = re.fullmatch(r"[\d,]+ rows? fails? (.+)", c.message)  # with what the check was given
            name, said = (named[1], "") if named else (c.name, _said(c.message))
            lines.append(f"{m.model}: {kind} {name} failed for {show.count(c.rows, 'row')}{said}")
    if m.status is ModelStatus.FAILED and not lines:
        lines.append(f"{m.model}: {show.clean(m.message)}")
    return lines


def _said(message: str) -> str:
    return f": {show.clean(message)}" if message else ""


def verify_lines(out: Out, verified: list[ReadBack], seconds: float | None, width: int) -> list[str]:
    """What the apps hold now of what the last runs sent."""
    text = read_back_text(verified)
    if text is None:
        return []
    lines = [stage_line(out, True, "verify", f"last run: {text}", seconds, width)]
    return lines + [f"    {v.sync}: {show.clean(str(v.error))}" for v in verified if v.run_id and v.error is not None]


def sync_lines(out: Out, s: SyncReport, environment: str, width: int, again: str) -> list[str]:
    """One sync: what was sent and what was not; if it was stopped, how to look and what would allow it.

    `again`: the command that the user gave.
    """
    mark, text = _verdict(s, environment)
    calls = f"  {show.count(s.delivery.calls, 'call')}" if s.delivery is not None else ""
    lines = [f"{out.mark(mark)} {pad(pad(s.sync, width) + '  ' + text, THIRD)}{calls}".rstrip()]
    if s.status == "stopped":
        lines += _how_on(s, environment, again)
    if s.paused is not None:
        lines.append(f"    go on: oploop resume {s.sync}")
    if s.delivery is not None:
        whole = str(s.error or "")  # said below, with its mend
        lines += [f"    {show.value(e, 140)}" for e in s.delivery.errors if not whole.startswith(e)]
    if s.read_back is not None and s.read_back.error is not None:
        lines.append(f"    not read back: {show.clean(str(s.read_back.error))}")
    if s.error is not None and s.status == "failed":
        lines.append(f"    {show.clean(str(s.error))}")
    if s.not_equal:
        shown = ", ".join(show.clean(k) for k in s.not_equal[:8]) + (", …" if len(s.not_equal) > 8 else "")
        lines.append(f"    no longer as saved: {shown}")
    return lines


def _verdict(s: SyncReport, environment: str) -> tuple[bool | None, str]:
    if s.paused is not None:
        return None, f"{show.clean(s.paused)}; nothing sent"
    if s.status == "stopped":
        return False, f"STOPPED  {show.clean('; '.join(s.stopped))}{_mostly(s)}"
    parts = []
    if s.status == "planned" and s.plan is not None:
        parts.append(f"{show.count(s.plan.changes, 'change')} planned, not sent: {environment} does not deliver")
    elif s.delivery is not None:
        parts += _delivered(s)
    elif s.status != "interrupted":
        parts.append("nothing to send")
        if s.plan is not None and s.plan.diff.of_nothing:
            parts.append("no row of the model has this key")
    if s.deferred:
        parts.append(f"{s.deferred:,} deferred: the quota is used up")
    if s.not_begun:
        parts.append(f"{s.not_begun:,} not begun")
    if s.status == "interrupted":
        return None, f"interrupted: {', '.join(parts)}; the next run goes on"
    if s.plan is not None:
        parts += [
            f"{n:,} {word}"
            for word in ("held", "kept", "missing", "gone", "parked", "waiting", "left", "seen")
            if (n := s.plan.diff.count(word))
        ]
    if s.not_equal:
        parts.append(f"{len(s.not_equal):,} not sent")
    if s.status == "planned":
        return None, " · ".join(parts)
    return went_well(s), " · ".join(parts)


def _mostly(s: SyncReport) -> str:
    """The commonest move of too many changes: " (priority: normal → urgent 381)"."""
    if s.plan is None or not any(f.check == "changes" for f in s.plan.stops):
        return ""
    moves = [(n, f.label, a, b) for f in s.plan.fields for a, b, n in f.moves]
    if not moves:
        return ""
    n, label, before, after = max(moves, key=lambda m: m[0])
    return f" ({label}: {show.value(before, 24)} → {show.value(after, 24)} {n:,})"


def went_well(s: SyncReport) -> bool:
    """Whether a sync was neither stopped nor had a change that did not arrive."""
    sent = s.delivery
    return s.ok and not (sent and (sent.rejected or sent.unknown or sent.failed))


#: What a look says of records whose status it leaves as it was.
SEEN = {"sent": "of which the app shows nothing that was sent"}


def _delivered(s: SyncReport) -> list[str]:
    assert s.delivery is not None
    d = s.delivery
    parts = [f"{d.delivered:,} sent"]
    for n, word in (
        (d.rejected, "rejected"),
        (d.unknown, "unknown"),
        (d.failed, "failed, tried again by the next run"),
    ):
        if n:
            parts.append(f"{n:,} {word}")
    if d.left:
        parts.append(f"{d.left:,} left as somebody changed {'it' if d.left == 1 else 'them'} meanwhile")
    if s.read_back is not None:
        seen = [(status, n) for status, n in s.read_back.counts.items() if n]
        if [status for status, _ in seen] == ["confirmed"] and seen[0][1] == d.delivered:
            parts.append("all confirmed")
        else:
            parts += [f"{n:,} {SEEN.get(status, status)}" for status, n in seen]
    return parts


def _how_on(s: SyncReport, environment: str, again: str) -> list[str]:
    lines = [f"    look: oploop plan --env {environment} --select {s.sync}"]
    able = [a for a in s.allow if can_pass(a)]
    if able and len(able) == len(s.stopped):
        lines.append(f"    allow once: {again} {' '.join('--allow ' + a for a in able)}")
    return lines


def _ended(s: SyncReport) -> str:
    """How a sync is counted: once."""
    if s.status in ("stopped", "interrupted"):
        return s.status
    if s.not_equal and not s.error:
        return "not as saved"
    return "ok" if went_well(s) else "failed"


def last_line(out: Out, report: RunReport) -> str:
    """ "run 01JD8…  1 sync ok, 1 stopped, exit 1"."""
    ended = Counter(_ended(s) for s in report.syncs)
    parts = [f"{show.count(ended['ok'], 'sync')} ok"] if ended["ok"] or not report.syncs else []
    parts += [f"{ended[word]} {word}" for word in ("stopped", "not as saved", "interrupted", "failed") if ended[word]]
    return f"run {out.bold(report.run_id)}  {', '.join(parts)}, {show.seconds(report.seconds)}, exit {report.exit_code}"
