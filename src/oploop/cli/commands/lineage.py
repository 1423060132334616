"""`oploop lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.workspace import Workspace


@make(
    "lineage",
    example="oploop lineage mart.account_health\noploop lineage mart.account_health.health\noploop lineage ticket_priority",
)
@click.argument("name", metavar="MODEL[.COLUMN]|SYNC")
@options.environment
@options.wait
def command(cli: Cli, name: str, environment: str, wait: float | None) -> int:
    """Show what a model, a column or a sync is made from.

    Upstream as a tree down to raw tables; downstream the fields of apps that are written from it.
    """

    async def work(ws: Workspace) -> int:
        from oploop.cli.family import ancestry
        from oploop.cli.progress import Progress

        with Progress(cli.out, ws.runtime.monotonic, "loading the models") as progress:
            progress.say("loading the models")
            if ws.project.models.engine != "none":
                await ws.modeling()
            found = ancestry(ws, name)
        cli.out.data(found)
        if not cli.out.json:
            _print(cli, found)
        return 0

    return with_workspace(cli, work, environment=environment, read_only=True, wait=wait)


def _print(cli: Cli, found: dict[str, Any]) -> None:
    from oploop.cli.out import columns

    out = cli.out
    for tree in found["upstream"]:
        head = out.bold(tree["name"]) + (f"   {out.dim(tree['note'])}" if tree.get("note") else "")
        out.line(head)
        out.lines(_branches(tree["from"], ""))
    if not found["used_by"] and found["kind"] != "sync":
        out.line()
        out.line("no sync writes anything of it to an app")
    if found["used_by"]:
        out.line()
        out.line(out.bold("written to"))
        rows = [(f"{u['object']}", u["field"], f"← {u['column']}", f"sync {u['sync']}") for u in found["used_by"]]
        out.lines(columns(rows, indent=2))


def _branches(nodes: list[dict[str, Any]], lead: str) -> list[str]:
    lines = []
    for i, n in enumerate(nodes):
        last = i == len(nodes) - 1
        note = f"   {n['note']}" if n.get("note") else ""
        lines.append(f"{lead}{'└─ ' if last else '├─ '}{n['name']}{note}")
        lines += _branches(n["from"], lead + ("   " if last else "│  "))
    return lines
