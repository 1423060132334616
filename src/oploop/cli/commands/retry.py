"""`oploop retry`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace
from oploop.errors import FixConfig

if TYPE_CHECKING:
    from oploop.stages.deciding import Retried
    from oploop.workspace import Workspace

REASONS = ("rejected", "ignored", "unknown", "undone", "conflict", "tug-of-war")


@make("retry", example="oploop retry ticket_priority --reason rejected\noploop retry new_tickets --key 4711 --not-sent")
@click.argument("sync", required=False)
@click.option("--key", metavar="KEY", help="Only the change of this key.")
@click.option("--reason", type=click.Choice(REASONS), help="Only what is parked for this reason.")
@click.option("--not-sent", "not_sent", is_flag=True, help="Unknown ones were not done: the next run sends them.")
@click.option("--sent", is_flag=True, help="Unknown ones were done.")
@options.wait
def command(cli: Cli, sync: str | None, wait: float | None, **given: Any) -> int:
    """Release parked changes, so that the next run sends them if the model still wants them.

    Sends nothing itself; what a run left that died is taken into the ledger first. Of changes that may or may not have arrived it must be said which: --not-sent or --sent, after a
    look into the app; the ledger notes what was said.
    """
    if given["sent"] and given["not_sent"]:
        raise FixConfig("--sent and --not-sent exclude each other", mend="say one of them")

    async def work(ws: Workspace) -> int:
        from oploop import loop
        from oploop.activate import ledger
        from oploop.selection import Selection
        from oploop.stages.deciding import retry

        said = given["sent"] if given["sent"] or given["not_sent"] else None
        chosen = ws.pick(Selection((sync,) if sync else ()))
        await loop.recover(ws, only=())  # what a run left that died is parked only then
        for left in ledger.unfolded(ws.warehouse):
            cli.out.note(f"note: {left.spec.sync} of run {left.run_id} was cut off; the next oploop run of it goes on")
        done = await retry(ws, chosen, key=given["key"], reason=given["reason"], sent=said)
        cli.out.data({"syncs": [asdict(d) for d in done]})
        _print(cli, done)
        return 0

    return with_workspace(cli, work, wait=wait)


def _print(cli: Cli, done: list[Retried]) -> None:
    from oploop.cli import show

    told = False
    for d in done:
        total = sum(d.released.values())
        if total:
            parts = ", ".join(f"{n:,} {reason}" for reason, n in sorted(d.released.items()) if n)
            cli.out.line(f"{cli.out.bold(d.sync)}   released {parts}")
        if d.waiting:
            wait = f"{show.count(d.waiting, 'change')} wait{'s' if d.waiting == 1 else ''}"
            cli.out.line(f"{cli.out.bold(d.sync)}   {wait} until a read shows the record")
        if d.unknown:
            cli.out.line(
                f"{cli.out.bold(d.sync)}   {d.unknown:,} unknown left: say --not-sent or --sent, after a look into the app"
            )
        told = told or bool(total or d.waiting or d.unknown)
    cli.out.line("the next oploop run sends what the models still want" if told else "nothing of that is parked")
