"""A project opened for a command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from oploop.cli.command import Cli
from oploop.cli.options import FOREVER

if TYPE_CHECKING:
    from oploop.apps.tracing import HttpTrace
    from oploop.project import Project
    from oploop.workspace import Workspace

T = TypeVar("T")


def load(cli: Cli) -> Project:
    """The project that the command is pointed at; its warnings are notes."""
    from pathlib import Path

    from oploop.project import find_project, load_project

    project = load_project(cli.folder if cli.folder is not None else find_project(Path.cwd()))
    for warning in project.warnings:
        cli.out.note(f"note: {warning}")
    return project


def with_workspace(
    cli: Cli,
    work: Callable[[Workspace], Awaitable[T]],
    *,
    environment: str = "dev",
    read_only: bool = False,
    moves_rows: bool = False,
    wait: float | None = None,
) -> T:
    """Open the project, do the work in one event loop, close all again; returns what the work did.

    `moves_rows`: the work reads apps or writes to them, so that it is worth while to ask the apps what they need of Arrow.
    """
    from oploop.apps.purse import machine_folder
    from oploop.lean import loaded
    from oploop.runtime import Runtime, term_as_interrupt
    from oploop.workspace import Workspace

    project = load(cli)
    if moves_rows:
        _without_numpy(project)

    async def whole() -> T:
        async with Workspace(
            project,
            environment,
            Runtime(budgets=machine_folder(), trace=trace),
            command=command_line(),
            read_only=read_only,
            wait=wait,
            on_wait=lambda text: cli.out.note(text.replace(f", waiting up to {FOREVER:g} s", ", waiting for it")),
        ) as ws:
            loaded()
            done = await work(ws)
            if ws.fields.kept and not cli.out.json:
                fields = "a custom field was" if ws.fields.kept == 1 else f"{ws.fields.kept} custom fields were"
                cli.out.note(f"note: {fields} added to fields.lock; commit it")
            return done

    with term_as_interrupt(), http_trace(cli) as trace:
        return asyncio.run(whole())


def _without_numpy(project: Project) -> None:
    """Load Arrow without numpy, where neither the models' engine nor an app may need it there."""
    from oploop.apps.registry import needs_numpy
    from oploop.lean import arrow_without_numpy

    if project.models.engine != "sqlmesh" and not needs_numpy(block.type for block in project.apps.values()):
        arrow_without_numpy()


@contextmanager
def http_trace(cli: Cli) -> Iterator[HttpTrace | None]:
    """Where `--trace-http` writes; None without it."""
    if cli.trace is None:
        yield None
        return
    from oploop.apps.tracing import HttpTrace

    trace = HttpTrace(cli.trace)
    try:
        yield trace
    finally:
        trace.close()


def command_line() -> str:
    """What this process was started as, for messages to others that wait for it."""
    words = sys.argv[1:] or ["…"]
    return " ".join(["oploop", *words[:6]])[:80]
