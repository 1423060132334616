"""`oploop held`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.workspace import Workspace


@make("held", example="oploop held\noploop held --env prod\noploop held ticket_priority --limit 20")
@click.argument("sync", required=False)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="So many rows of each."
)
@click.option("--env", "environment", metavar="NAME", help="Only what runs of this environment held or parked.")
@options.wait
def command(cli: Cli, sync: str | None, limit: int, environment: str | None, wait: float | None) -> int:
    """List rows that are held back, and why.

    Held rows broke a rule in their sync's last run: the others went on, and a held row goes too once its data is
    mended. Parked ones are not sent again until something changes: what the app rejected or ignores, and what may or
    may not have arrived.
    """

    async def work(ws: Workspace) -> int:
        from oploop.selection import Selection

        names = [s.name for s in ws.pick(Selection((sync,) if sync else ()))]
        found = _held(ws, names, limit, environment)
        cli.out.data({"held": found["held"], "parked": found["parked"], "counts": found["counts"]})
        _print(cli, ws, found, limit)
        return 0

    return with_workspace(cli, work, environment=environment or "dev", read_only=True, wait=wait)


def _of_environment(ws: Workspace, environment: str | None) -> str:
    """A condition on `run_id`: the runs of an environment, by the ledger and, of those that failed, by the state."""
    from oploop.warehouse.base import literal

    if environment is None:
        return "TRUE"
    noted = f"run_id IN (SELECT run_id FROM oploop.runs WHERE environment = {literal(environment)})"
    known = [literal(r.run_id) for r in ws.state.runs(1_000) if r.environment == environment]
    return f"({noted} OR run_id IN ({', '.join(known)}))" if known else noted


def _held(ws: Workspace, names: list[str], limit: int, environment: str | None) -> dict[str, Any]:
    """{"held": rows, "parked": rows, "counts": {sync: {"held", "parked"}}}; rows are maps."""
    out: dict[str, Any] = {"held": [], "parked": [], "counts": {n: {"held": 0, "parked": 0} for n in names}}
    if not ws.warehouse.columns("oploop.held"):
        return out
    of = _of_environment(ws, environment)
    has_why = "why" in ws.warehouse.columns("oploop.held")  # likewise
    has_field = "field" in ws.warehouse.columns("oploop.parked")  # not in a file that an earlier release made
    for name in names:
        for kind, select in (
            (
                "held",
                f"SELECT key, reason, field, run_id, noted_at, {'why' if has_why else 'NULL AS why'} FROM oploop.held WHERE sync = ? AND {of} ORDER BY reason, key",
            ),
            (
                "parked",
                f"SELECT key, reason, message, run_id, noted_at, {'field' if has_field else 'NULL AS field'} FROM oploop.parked WHERE sync = ? AND {of} ORDER BY noted_at DESC, key",
            ),
        ):
            head, *_ = select.partition(" FROM ")
            words = ["sync", *(w.split()[-1] for w in head.removeprefix("SELECT ").split(","))]
            rows = ws.warehouse.rows(f"{select} LIMIT {limit}", (name,))
            out[kind] += [dict(zip(words, (name, *r), strict=True)) for r in rows]
            total = ws.warehouse.rows(f"SELECT count(*) FROM oploop.{kind} WHERE sync = ? AND {of}", (name,))
            out["counts"][name][kind] = total[0][0]
    for row in out["held"]:
        row["why"] = json.loads(row["why"]) if row["why"] else None
    return out


def _print(cli: Cli, ws: Workspace, found: dict[str, Any], limit: int) -> None:
    from oploop.cli import show
    from oploop.cli.out import columns

    out, now, shown = cli.out, ws.runtime.now(), False
    for name, counts in found["counts"].items():
        for kind in ("held", "parked"):
            rows = [r for r in found[kind] if r["sync"] == name]
            if not rows:
                continue
            if shown:
                out.line()
            shown = True
            when = (
                f"in its last run, {show.ago(rows[0]['noted_at'], now)}"
                if kind == "held"
                else "until something changes"
            )
            out.line(f"{out.bold(name)}   {counts[kind]:,} {kind} {when}")
            out.lines(columns([_row(r, kind, now) for r in rows], indent=2))
            if kind == "parked":
                out.lines(f"  send again: {line}" for line in _helps(name, rows))
            if counts[kind] > limit:
                out.line(f"  … and {counts[kind] - limit:,} more: --limit {counts[kind]}")
    if not shown:
        out.line("nothing is held and nothing is parked")


#: What a parked change waits for.
WAITS = {
    "rejected": "the app refused it; waits until the model wants another value",
    "ignored": "the app keeps its own value; waits until the model wants another one",
    "unknown": "may or may not have arrived; waits until a read shows it",
    "undone": "an undo took it back; waits until the model wants another value",
    "conflict": "somebody changed it in the app; waits for a decision",
    "tug-of-war": "sent three times running, and changed back each time; waits for a decision",
}
#: What releases it, after the sync's name.
HELPS = {"unknown": "--reason unknown --not-sent (or --sent)"}


def _helps(sync: str, rows: list[dict[str, Any]]) -> list[str]:
    """The command that releases what is parked, for each reason of these rows."""
    reasons = sorted({r["reason"] for r in rows})
    return [f"oploop retry {sync} {HELPS.get(r, f'--reason {r}')}" for r in reasons]


def _row(r: dict[str, Any], kind: str, now: Any) -> list[str]:
    from oploop.activate.waiting import SAID_SENT
    from oploop.cli import show

    key = show.value(r["key"], 40) if r["key"] is not None else "(no key)"
    if kind == "held":
        why = r["why"] or {}
        because = " · ".join(f"{name} {show.value(v, 40)}" for name, v in why.items())
        return [key, show.value(r["reason"], 110), because]
    said = f": {show.value(r['message'], 90)}" if r["message"] else ""
    if r["field"]:
        said = f" {show.value(r['field'], 40)}{said}"
    waits = "" if str(r["message"]).startswith(SAID_SENT) else WAITS.get(r["reason"], "")
    return [key, f"{r['reason']}{said}", show.ago(r["noted_at"], now), waits]
