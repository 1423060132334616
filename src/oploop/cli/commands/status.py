"""`oploop status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.cli.overview import Overview
    from oploop.workspace import Workspace


@make("status", example="oploop status\noploop status -o json --limit 1")
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="So many runs.")
@click.option("--env", "environment", metavar="NAME", help="Only runs of this environment.")
def command(cli: Cli, limit: int, environment: str | None) -> int:
    """Show the last runs, reads and deliveries.

    Also what is parked, deliveries that were cut off, and who holds the warehouse; while another process holds it,
    what the state beside it tells. Changes nothing.
    """

    async def work(ws: Workspace) -> int:
        from oploop.cli.overview import look

        overview = look(ws, limit, environment)
        cli.out.data(overview.as_json())
        if not cli.out.json:
            _print(cli, ws, overview)
        return 0

    return with_workspace(cli, work, environment=environment or "dev", read_only=True)


def _print(cli: Cli, ws: Workspace, o: Overview) -> None:
    from oploop.cli.out import columns

    out, now = cli.out, ws.runtime.now()
    if o.holder is not None:
        out.line(f"{out.mark(None)} the warehouse is held by {o.holder}; what follows is from the state beside it")
        out.line()
    out.line(out.bold("runs"))
    out.lines(columns([_run(cli, r, now) for r in o.runs], indent=2))
    if not o.runs:
        out.line("  none yet; oploop run makes one")
    for title, rows in (("reads", _reads(o, now)), ("syncs", _syncs(cli, o, now))):
        if rows:
            out.line()
            out.line(out.bold(title))
            out.lines(columns(rows, indent=2, right=[1] if title == "reads" else []))
    for d in o.unfinished:
        out.line()
        out.line(f"{out.mark(None)} {d['sync']} of run {d['run_id']}: {d['says']}")


def _run(cli: Cli, r: dict[str, Any], now: Any) -> list[str]:
    from oploop.cli import show

    ok = {"ok": True, "running": None}.get(r["status"], False)
    took = show.seconds(r["seconds"]) if r["seconds"] is not None else ""
    sent = f"{r['delivered']:,} sent" if r["delivered"] else ""
    return [
        f"{cli.out.mark(ok)} {r['run_id']}",
        r["environment"],
        r["status"],
        show.ago(r["started_at"], now),
        took,
        sent,
    ]


def _reads(o: Overview, now: Any) -> list[list[str]]:
    from oploop.cli import show

    rows = []
    for s in o.streams:
        count = show.count(s["rows"], "row") if s["rows"] is not None else ""
        when = f"read {show.ago(s['read_at'], now)}" if s["read_at"] is not None else "never read to its end"
        rows.append([s["stream"], count, when + (", a read is unfinished" if s["unfinished"] else "")])
    return rows


def _syncs(cli: Cli, o: Overview, now: Any) -> list[list[str]]:
    from oploop.cli import show

    rows = []
    for s in o.syncs:
        ok = {"ok": True, "nothing": True, "planned": None, None: None}.get(s["status"], False)
        status = {"nothing": "nothing to send", None: "never ran"}.get(s["status"], s["status"])
        if ok and (s["rejected"] or s["unknown"] or s["failed"]):
            ok, status = False, "in part" if s["delivered"] else "failed"  # as the run said
        counts = [f"{s[k]:,} {word}" for k, word in _COUNTS if s[k]]
        when = show.ago(s["at"], now) if s["at"] is not None else ""
        helps = _helps(s, now)
        rows.append([f"{cli.out.mark(ok)} {s['sync']}", s["object"], status, when, " · ".join(counts), helps])
    return rows


def _helps(s: dict[str, Any], now: Any) -> str:
    """What a person can do about it."""
    from oploop.cli import show

    if s["paused"] is not None:
        return f"paused {show.ago(s['paused'], now)}: oploop resume {s['sync']}"
    if s["held"] or s["parked"]:
        return f"look: oploop held {s['sync']}"
    return ""


_COUNTS = (
    ("delivered", "sent"),
    ("rejected", "rejected"),
    ("unknown", "unknown"),
    ("failed", "failed"),
    ("held", "held"),
    ("parked", "parked"),
)
