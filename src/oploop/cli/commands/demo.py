"""`oploop demo`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oploop.cli import show as words
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.out import columns

if TYPE_CHECKING:
    from oploop.activate.plan import SyncPlan
    from oploop.cli.progress import Progress
    from oploop.cli.run_view import RunView
    from oploop.report import RunReport
    from oploop.workspace import Event, Workspace


@make("demo", example="oploop demo\noploop demo --folder ~/tries/acme\noploop demo --serve")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the project is made [default: ./acme-demo, or the current folder if it is a demo's].",
)
@click.option("--keep", is_flag=True, help="Leave the sandboxes running at the end, until Ctrl-C.")
@click.option("--serve", is_flag=True, help="Only start the sandboxes of an earlier demo again, with what they held.")
def command(cli: Cli, folder: Path | None, keep: bool, serve: bool) -> int:
    """Run the whole loop on a made-up company.

    Makes a project folder to go on with, starts stand-ins for Stripe, Zendesk and Segment on this machine, fills them,
    and turns the loop twice: it ranks the open tickets by what their senders pay and do. Takes less than a minute.
    """
    from oploop.demo import folder as folders
    from oploop.demo import play
    from oploop.runtime import Runtime

    at = folder or (Path() if serve and folders.is_demo(Path()) else folders.DEFAULT)
    runtime = Runtime()
    shown = DemoShow(cli, runtime)
    if serve:
        cli.interrupted = lambda: "the sandboxes have ended; what they held is kept"
        asyncio.run(play.serve(at, show=shown, runtime=runtime))
        return 0
    cli.interrupted = lambda: f"the sandboxes have ended; what is in {at} stays"
    asyncio.run(play.play(at, show=shown, runtime=runtime, keep=keep, finished=lambda p: cli.out.data(p.as_json())))
    return 0


class DemoTurn:
    """A turn as `oploop run` shows it; the demo itself says yes to the first delivery, once its plan has been shown."""

    def __init__(self, cli: Cli, ws: Workspace, progress: Progress, view: RunView) -> None:
        self._cli, self._ws, self._progress, self._view = cli, ws, progress, view

    def tell(self, event: Event) -> None:
        self._view.tell(event)

    def confirm(self, plan: SyncPlan) -> bool:
        from oploop.cli.show_plan import sync_lines
        from oploop.report import SyncReport

        out = self._cli.out
        report = SyncReport(plan.bound.name, plan.bound.app_object, plan=plan)
        with self._progress.paused():
            out.lines(f"    {line}" for line in sync_lines(report, self._ws.warehouse, out))
            out.line(out.dim("    A sync's first delivery asks for a yes. The demo says it: yes."))
        return True

    def end(self, report: RunReport) -> None:
        out = self._cli.out
        if not out.json:
            self._view.end(report)


class DemoShow:
    """The demo on a terminal, in the forms of the other commands; in JSON mode nothing but the result."""

    def __init__(self, cli: Cli, runtime: object) -> None:
        from oploop.runtime import Runtime

        assert isinstance(runtime, Runtime)
        self._cli, self._out, self._runtime = cli, cli.out, runtime
        self._begun = False

    def head(self, text: str) -> None:
        if self._begun:
            self._out.line()
        self._begun = True
        self._out.line(self._out.bold(text))

    def line(self, text: str = "") -> None:
        self._out.line(words.clean(text) if not text.startswith(" ") else "  " + words.clean(text.strip()))

    def done(self, text: str, seconds: float) -> None:
        self._out.line(f"{self._out.mark(True)} {text}  {words.seconds(seconds)}")

    def command(self, text: str) -> None:
        self._out.line(self._out.dim("$ ") + text)

    def table(self, rows: list[tuple[str, ...]]) -> None:
        cells = [tuple(words.clean(c) for c in row) for row in rows]
        self._out.lines(columns(cells, indent=2, gap=3))

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        from oploop.cli.progress import Progress

        with Progress(self._out, self._runtime.monotonic, text):
            yield

    @contextmanager
    def turn(self, ws: Workspace) -> Iterator[DemoTurn]:
        from oploop.cli.progress import Progress
        from oploop.cli.run_view import RunView
        from oploop.selection import Selection

        with Progress(self._out, ws.runtime.monotonic, "asking the apps") as progress:
            yield DemoTurn(self._cli, ws, progress, RunView(self._cli, ws, progress, ws.pick(Selection())))

    async def trace(self, ws: Workspace, target: str, key: str) -> None:
        from oploop.cli.progress import Progress
        from oploop.cli.show_trace import lines
        from oploop.trace import trace

        with Progress(self._out, ws.runtime.monotonic, "looking") as progress:
            found = await trace(ws, target, key, progress.say)
        if not self._out.json:
            self._out.lines(_without_rows(lines(self._out, found, ws.runtime.now(), "prod")))


def _without_rows(traced: list[str]) -> list[str]:
    """A trace without its source rows, which are many: the demo only says that there are some."""
    titles = [click.unstyle(line) for line in traced]
    if "source rows" not in titles or "what oploop did" not in titles:
        return traced
    first, last = titles.index("source rows"), titles.index("what oploop did")
    return [*traced[:first], "source rows  … (the command shows them)", "", *traced[last:]]
