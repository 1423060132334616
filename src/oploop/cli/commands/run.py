"""`oploop run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.report import RunReport
    from oploop.workspace import Workspace


@make(
    "run", example="oploop run --env prod\noploop run --env prod --select ticket_priority --allow ticket_priority:first"
)
@options.environment
@options.selection
@options.one_record
@click.option("--full", is_flag=True, help="Read everything again, from the start.")
@options.allow
@options.first_run
@options.rekey
@options.yes("Allow first deliveries without asking.")
@options.wait
def command(cli: Cli, environment: str, **given: Any) -> int:
    """Turn the whole loop: extract, build, verify, plan, deliver.

    Only prod delivers; in other environments a run ends with the plan, unless the app is on this machine. Exit 1 when
    something failed, was rejected or stopped; what had nothing to do with it is done all the same.
    """

    async def work(ws: Workspace) -> RunReport:
        from oploop import loop
        from oploop.cli.progress import Progress
        from oploop.cli.run_view import RunView
        from oploop.selection import Selection

        allow = options.parse_allow(given["allow"], ws.project.syncs)
        selection = Selection(given["select"], given["exclude"])
        with Progress(cli.out, ws.runtime.monotonic, "asking the apps") as progress:
            view = RunView(
                cli,
                ws,
                progress,
                ws.pick(selection),
                f"oploop run --env {ws.environment}{options.selecting(given['select'], given['exclude'])}",
            )
            chosen = loop.Options(
                selection,
                given["key"],
                given["limit"],
                given["full"],
                allow,
                given["yes"],
                backfill=given["backfill"],
                first_run=given["first_run"],
                rekey=options.parse_rekey(given["rekey"], ws.project.syncs),
                confirm=view.confirm,
            )
            report = await loop.run(ws, chosen, view.tell)
        view.end(report)
        return report

    return with_workspace(cli, work, environment=environment, moves_rows=True, wait=given["wait"]).exit_code
