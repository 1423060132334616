"""`oploop extract`."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.cli.out import Out
    from oploop.extract import StreamRequest, StreamResult
    from oploop.workspace import Event, Workspace


@make("extract", example="oploop extract\noploop extract --select stripe --select zendesk.tickets")
@click.option(
    "--select", metavar="WORD", multiple=True, help="Only these streams: an app, app.stream or a glob. Repeatable."
)
@click.option("--exclude", metavar="WORD", multiple=True, help="Not these streams. Repeatable.")
@click.option("--full", is_flag=True, help="Read everything again, from the start.")
@options.wait
def command(cli: Cli, select: tuple[str, ...], exclude: tuple[str, ...], full: bool, wait: float | None) -> int:
    """Read the apps into raw tables.

    Reads the streams that oploop.yml asks for and those that show what the syncs write, each from where it was left.
    A stream that fails does not stop the others; what was read stays.
    """
    cli.interrupted = lambda: "what was read is kept, and the next extract goes on from there"

    async def work(ws: Workspace) -> list[StreamResult]:
        from oploop import loop
        from oploop.cli.progress import Progress
        from oploop.selection import Selection
        from oploop.stages.streams import stream_requests

        syncs = ws.pick(Selection())
        requests = stream_requests(ws, syncs)
        keep = _filter(requests, select, exclude)
        with Progress(cli.out, ws.runtime.monotonic, "asking the apps") as progress:
            # the syncs' models are not looked at, as they may be waiting for just this read
            await loop.whose_all(ws, {r.app.name for r in requests if keep(r)})
            progress.say("extract")

            def tell(event: Event) -> None:
                if event.kind != "note":  # what went wrong stands in the table, once
                    progress.tell(event)

            return await loop.extract(ws, syncs, tell, full=full, keep=keep)

    results = with_workspace(cli, work, moves_rows=True, wait=wait)
    from oploop.report import stream_json

    failed = [r for r in results if r.error is not None]
    extracted = {f"{r.app}.{r.stream}": stream_json(r) for r in results}
    cli.out.data({"status": "failed" if failed else "ok", "extracted": extracted})
    _print(cli.out, results)
    return 1 if failed else 0


def _filter(
    requests: list[StreamRequest], select: tuple[str, ...], exclude: tuple[str, ...]
) -> Callable[[StreamRequest], bool]:
    """Which requests are meant; FixConfig for a word that means none."""
    from oploop.errors import FixConfig, did_you_mean
    from oploop.selection import is_pattern

    names = [r.name for r in requests]
    sure = [("--select", w, "selects") for w in select]
    sure += [("--exclude", w, "means") for w in exclude if not is_pattern(w)]
    for option, word, does in sure:
        if not any(_means(word, n) for n in names):
            apps = {n.partition(".")[0] for n in names}
            raise FixConfig(f"{option} {word!r} {does} no stream", mend=did_you_mean(word, [*names, *apps]))
    return lambda r: (
        (not select or any(_means(w, r.name) for w in select)) and not any(_means(w, r.name) for w in exclude)
    )


def _means(word: str, name: str) -> bool:
    return word == name.partition(".")[0] or fnmatch.fnmatchcase(name, word)


def _print(out: Out, results: list[StreamResult]) -> None:
    from oploop.cli import show
    from oploop.cli.out import columns

    rows = [
        (
            f"{out.mark(r.error is None)} {r.app}.{r.stream}",
            f"{r.rows:,}",
            f"{r.deleted:,}" if r.deleted else "",
            show.seconds(r.seconds),
            show.clean(str(r.error)) if r.error is not None else "",
        )
        for r in results
    ]
    out.lines(columns(rows, head=("  stream", "new or changed", "deleted", "time", ""), right=[1, 2, 3]))
    out.lines(f"  {show.clean(note)}" for r in results for note in r.notes)
    if not results:
        out.line("nothing to read: no app in oploop.yml has read: [...], and no sync writes to one")
