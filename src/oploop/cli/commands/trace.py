"""`oploop trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.workspace import Workspace


@make(
    "trace",
    example="oploop trace zendesk.tickets 35436\noploop trace zendesk.tickets https://acme.zendesk.com/agent/tickets/35436",
)
@click.argument("target", metavar="APP.OBJECT")
@click.argument("key", metavar="KEY-OR-URL")
@options.environment
@options.wait
def command(cli: Cli, target: str, key: str, environment: str, wait: float | None) -> int:
    """Explain why a record of an app holds its values.

    Per field: what the app held when it was last read, what the model wants, what was sent, and who wins; then the
    rows that the values come from, and all that oploop ever did to the record.
    """

    async def work(ws: Workspace) -> int:
        from oploop.cli.progress import Progress
        from oploop.cli.show_trace import lines
        from oploop.trace import trace

        with Progress(cli.out, ws.runtime.monotonic, "looking") as progress:
            found = await trace(ws, target, key, progress.say)
        cli.out.data(found.as_json())
        if not cli.out.json:
            cli.out.lines(lines(cli.out, found, ws.runtime.now(), environment))
        return 0

    return with_workspace(cli, work, environment=environment, read_only=True, wait=wait)
