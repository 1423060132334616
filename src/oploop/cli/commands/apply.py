"""`oploop apply`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.report import RunReport
    from oploop.workspace import Workspace


@make("apply", example="oploop plan --env prod --save friday.plan\noploop apply --env prod friday.plan")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@options.environment
@click.option("--strict", is_flag=True, help="Send nothing unless everything is still as saved.")
@options.allow
@options.wait
def command(cli: Cli, file: Path, environment: str, **given: Any) -> int:
    """Send a plan that was saved with plan --save.

    Plans anew, sends the changes that are still as saved, and lists the others; exit 1 if there are any. Changes that
    came up since are not sent.
    """

    async def work(ws: Workspace) -> RunReport:
        from oploop import loop
        from oploop.cli.progress import Progress
        from oploop.cli.run_view import RunView

        allow = options.parse_allow(given["allow"], ws.project.syncs)
        with Progress(cli.out, ws.runtime.monotonic, "asking the apps") as progress:
            again = f"oploop apply --env {ws.environment} {shlex.quote(str(file))}"
            view = RunView(cli, ws, progress, list(ws.project.syncs.values()), again)
            report = await loop.apply(ws, file, loop.Options(allow=allow, yes=True), view.tell, strict=given["strict"])
        view.end(report)
        return report

    return with_workspace(cli, work, environment=environment, moves_rows=True, wait=given["wait"]).exit_code
