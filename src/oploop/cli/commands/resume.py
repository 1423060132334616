"""`oploop resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.workspace import Workspace


@make("resume", example="oploop resume ticket_priority")
@click.argument("sync")
@options.wait
def command(cli: Cli, sync: str, wait: float | None) -> int:
    """Let a paused sync send again.

    What an undo took back stays parked: the next run does not bring it back until the model wants something else, or
    oploop retry releases it.
    """

    async def work(ws: Workspace) -> int:
        from oploop.activate import waiting
        from oploop.cli import show
        from oploop.selection import Selection

        done = []
        for s in ws.pick(Selection((sync,))):
            ended = waiting.resume(ws.warehouse, s.name)
            done.append({"sync": s.name, "paused": False, "changed": ended is not None})
            since = f"; it was paused {show.ago(ended.since, ws.runtime.now())}" if ended is not None else ""
            cli.out.line(f"{s.name} is {'on again' + since if ended is not None else 'not paused'}")
            parked = waiting.count_parked(ws.warehouse, waiting.matching(s.name, None, "undone")).get("undone", 0)
            if parked:
                line = f"  {show.count(parked, 'undone change')} stay{'s' if parked == 1 else ''} parked"
                cli.out.line(f"{line}   send again: oploop retry {s.name} --reason undone")
        cli.out.data({"syncs": done})
        return 0

    return with_workspace(cli, work, wait=wait)
