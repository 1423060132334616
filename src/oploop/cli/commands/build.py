"""`oploop build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from oploop.cli.out import Out
    from oploop.model.base import ModelResult
    from oploop.workspace import Workspace


@make("build", example="oploop build --env prod\noploop build --select mart.account_health")
@options.environment
@click.option("--select", metavar="MODEL", multiple=True, help="Only this model and what it depends on. Repeatable.")
@options.wait
def command(cli: Cli, environment: str, select: tuple[str, ...], wait: float | None) -> int:
    """Build the models and run their checks.

    Brings the environment's models up to date with their files and with the raw data. The models' unit tests run first,
    unless these models have passed them already; if one fails, nothing is built. A model whose blocking check
    fails stops its syncs, and only its, until it is mended.
    """
    cli.interrupted = lambda: "models that were finished stay built; build again for the others"

    async def work(ws: Workspace) -> tuple[int, list[ModelResult]]:
        from oploop import loop
        from oploop.cli.progress import Progress

        await _known(ws, select)
        with Progress(cli.out, ws.runtime.monotonic, "loading the models") as progress:
            tests = await loop.unit_tests(ws, progress.tell)
            return tests, await loop.build(ws, ws.runtime.new_id(), progress.tell, select)

    tests, models = with_workspace(cli, work, environment=environment, wait=wait)
    from oploop.model.base import ModelStatus
    from oploop.report import model_json

    bad = any(m.status in (ModelStatus.FAILED, ModelStatus.SKIPPED) for m in models)
    cli.out.data(
        {
            "status": "failed" if bad else "ok",
            "environment": environment,
            "models": [model_json(m) for m in models],
            "unit_tests": tests,
        }
    )
    _print(cli.out, models, environment, tests)
    return 1 if bad else 0


async def _known(ws: Workspace, select: tuple[str, ...]) -> None:
    from oploop.errors import FixConfig, did_you_mean

    if not select:
        return
    known = {m.name for m in (await ws.modeling()).models()}
    for word in select:
        if word not in known:
            raise FixConfig(f"there is no model {word!r}", mend=did_you_mean(word, known))


def _print(out: Out, models: list[ModelResult], environment: str, tests: int) -> None:
    from oploop.cli import show
    from oploop.cli.out import columns
    from oploop.cli.show_run import model_complaints
    from oploop.model.base import ModelStatus

    if not models:
        out.line("no models to build")
        return
    rows = []
    for m in models:
        ok = m.status not in (ModelStatus.FAILED, ModelStatus.SKIPPED)
        good = sum(1 for c in m.checks if c.ok)
        checks = f"{good} of {show.count(len(m.checks), 'check')} ok" if m.checks else ""
        rows.append((f"{out.mark(ok)} {m.model}", m.status.value, checks, show.seconds(m.seconds) if m.seconds else ""))
    out.lines(columns(rows, right=[3]))
    out.lines(f"    {line}" for m in models for line in model_complaints(m))
    bad = sum(1 for m in models if m.status in (ModelStatus.FAILED, ModelStatus.SKIPPED))
    checks_run = sum(len(m.checks) for m in models)
    tail = f", {bad} failed or skipped: their syncs send nothing until they are mended" if bad else ""
    what = [show.count(len(models), "model"), show.count(checks_run, "check")]
    what += [show.count(tests, "unit test")] if tests else []
    out.line(f"{', '.join(what[:-1])} and {what[-1]} in {environment}{tail}")
