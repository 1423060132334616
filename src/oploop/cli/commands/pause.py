"""`oploop pause`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.workspace import Workspace


@make("pause", example='oploop pause ticket_priority\noploop pause ticket_priority --reason "the scores look wrong"')
@click.argument("sync")
@click.option("--reason", metavar="TEXT", help="Why, for whoever sees it later.")
@options.wait
def command(cli: Cli, sync: str, reason: str | None, wait: float | None) -> int:
    """Let a sync send nothing until it is resumed.

    It is still planned and shown; runs skip it, and that is no failure. A glob, tag:T or app:A pauses several.
    """

    async def work(ws: Workspace) -> int:
        from oploop.activate import waiting
        from oploop.selection import Selection

        done = []
        for s in ws.pick(Selection((sync,))):
            new = waiting.pause(ws.warehouse, s.name, None, reason, ws.runtime.now())
            done.append({"sync": s.name, "paused": True, "changed": new})
            cli.out.line(f"{s.name} is paused{'' if new else ' already'}   go on: oploop resume {s.name}")
        cli.out.data({"syncs": done})
        return 0

    return with_workspace(cli, work, wait=wait)
