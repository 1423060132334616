"""`oploop init`."""

from __future__ import annotations

from pathlib import Path

import click

from oploop.cli.command import Cli
from oploop.cli.command import command as make


@make("init", example="oploop init acme")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The project's name [default: the folder's].")
def command(cli: Cli, folder: Path, name: str | None) -> int:
    """Make a new project folder.

    Writes a small, commented oploop.yml and the folders of models, syncs and tests. Nothing that exists is overwritten.
    """
    from oploop.project import init_project

    target = (cli.folder / folder if cli.folder is not None else folder).absolute()
    written = init_project(target, name or target.resolve().name)
    files = [p.relative_to(target).as_posix() for p in written if p.name != ".gitkeep"]
    cli.out.data({"folder": str(target), "files": files})
    cli.out.line(f"{cli.out.mark(True)} {cli.out.bold(str(folder))}: {', '.join(files)}")
    cli.out.line("next: add an app to oploop.yml, its secret to .env, then run oploop doctor")
    cli.out.line("      (oploop apps lists the apps; oploop demo shows a whole project at work)")
    return 0
