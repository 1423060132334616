"""After a run: people are told of it, by the apps that `alerts` names. What cannot be told is noted, and fails no run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from oploop.apps.defects import defect
from oploop.errors import FixConfig, OploopError
from oploop.project.alerts import Alert, On
from oploop.records import Notice
from oploop.report import RunReport, SyncReport, read_back_text
from oploop.workspace import Event, Tell, Workspace


@dataclass(slots=True)
class Told:
    """What there is to tell: the report of a run, as far as it came, and the error that ended it in the middle."""

    report: RunReport | None = None
    error: Exception | None = None


@asynccontextmanager
async def alerted(ws: Workspace, tell: Tell) -> AsyncIterator[Told]:
    """Tells of the run in its body when that is over, also when it ended with an error."""
    told = Told()
    refuse(ws)
    try:
        yield told
    except Exception as e:
        told.error = e
        await alert(ws, told, tell)
        raise
    await alert(ws, told, tell)


def refuse(ws: Workspace) -> None:
    """FixConfig, with the place, for an alert to an app that cannot tell anybody anything."""
    for a in ws.project.alerts:
        app = ws.app(a.to)
        if not app.notifies:
            raise FixConfig(f"{a.to} sends no alerts", mend="name an app that does, as slack", place=a.place)


async def alert(ws: Workspace, told: Told, tell: Tell) -> None:
    """Send each alert that the run gives reason for; only where this environment may write to the app."""
    for a in ws.project.alerts:
        notice = notice_of(a, told, ws.project.name, ws.environment)
        if notice is None or not ws.delivers(a.to):
            continue
        try:
            await ws.app(a.to).notify(a.channel, notice)
        except Exception as e:  # a mistake of the app's own too: the run itself is over
            why = e if isinstance(e, OploopError) else defect(f"telling {a.to}", e)
            tell(Event("alert", "note", f"{a.to} {a.channel} could not be told: {why}"))


def notice_of(a: Alert, told: Told, project: str, environment: str) -> Notice | None:
    """What an alert tells; None where there is nothing that it asks for."""
    report, told_of_failure = told.report, On.FAILED in a.on or On.DIGEST in a.on
    if told.error is not None or report is None:
        return _broken_off(told, f"{project} ({environment})") if told_of_failure else None
    bad, held = troubles(report), [s for s in report.syncs if s.plan is not None and s.plan.held]
    lines = list(bad) if told_of_failure else []
    if On.DIGEST in a.on:
        seen = read_back_text(report.verified)
        lines += [f"last run: {seen}"] if seen is not None else []
        lines += [sync_line(s) for s in report.syncs if not _bad(s)]
    elif On.HELD in a.on:
        lines += [f"{s.sync}: {s.plan.held:,} held" for s in held if s.plan is not None]
    if not lines and On.DIGEST not in a.on:
        return None
    undone = f", an undo of {', '.join(report.undoes)}" if report.undoes else ""
    title = f"{project} ({environment}): run {report.run_id}{undone} {report.status}"
    return Notice(title, lines or ["nothing to do"])


def _broken_off(told: Told, where: str) -> Notice:
    """What is told of a run that an error ended: what it was, and what had been sent by then."""
    own = isinstance(told.error, OploopError)
    why = str(told.error) if own else f"{type(told.error).__name__}: a defect of oploop; its output tells more"
    report = told.report
    if report is None or not any(s.stage == "deliver" for s in report.stages):
        return Notice(f"{where}: the run ended before anything was sent", [why])
    sent = [sync_line(s) for s in report.syncs if s.delivery is not None]
    return Notice(f"{where}: run {report.run_id} broke off in the middle", [why, *sent])


def troubles(report: RunReport) -> list[str]:
    """What failed or was stopped, one line each."""
    lines = [f"{s.app}.{s.stream} was not read: {s.error}" for s in report.extracted if s.error is not None]
    lines += [f"model {m.model} failed: {m.message}" for m in report.models if m.status.value == "failed"]
    return lines + [sync_line(s) for s in report.syncs if _bad(s)]


def _bad(s: SyncReport) -> bool:
    sent = s.delivery
    refused = sent is not None and bool(sent.rejected or sent.unknown or sent.failed)
    return s.status in ("stopped", "failed") or refused


def sync_line(s: SyncReport) -> str:
    """One sync: what was sent, held, rejected, and why it stopped."""
    counts = [] if s.delivery is None else [(s.delivery.delivered, "sent"), (s.delivery.rejected, "rejected")]
    if s.delivery is not None:
        counts += [(s.delivery.unknown, "unknown"), (s.delivery.failed, "failed"), (s.deferred, "deferred")]
    counts += [(s.plan.held if s.plan is not None else 0, "held")]
    parts = [f"{n:,} {what}" for n, what in counts if n] or ["nothing to send"]
    if s.status in ("stopped", "failed", "paused"):
        why = "; ".join(s.stopped) or str(s.error or s.paused or (s.delivery.error if s.delivery is not None else ""))
        parts.insert(0, f"{s.status.upper()} {why}".strip())
    return f"{s.sync} → {s.object}: {' · '.join(parts)}"
