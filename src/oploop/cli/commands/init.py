"""`oploop init`."""

from __future__ import annotations

from pathlib import Path

import click

from oploop.cli.command import Cli
from oploop.cli.command import command as make


@make("init", example="oploop init acme\noploop init acme --from-dbt dbt/target/manifest.json")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The project's name [default: the folder's].")
@click.option(
    "--from-dbt",
    "manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take up the models of a dbt project, by its manifest.json.",
)
def command(cli: Cli, folder: Path, name: str | None, manifest: Path | None) -> int:
    """Make a new project folder.

    Writes a small, commented oploop.yml and the folders of models, syncs and tests. Nothing that exists is overwritten.
    With --from-dbt the models stay with dbt: oploop.yml lists them and what dbt knows of its sources.
    """
    from oploop.cli.commands.schema import write_schemas
    from oploop.cli.show import count
    from oploop.errors import FixConfig
    from oploop.project import init_project, read_manifest
    from oploop.project.schema import FOLDER as SCHEMAS

    target = (cli.folder / folder if cli.folder is not None else folder).absolute()
    dbt = read_manifest(manifest) if manifest is not None else None
    try:
        written = init_project(target, name or target.resolve().name, dbt)
    except FixConfig as e:
        if name is None and "is no project's name" in e.message:
            e.mend = "give it one: --name NAME, of letters, digits, _ . - and spaces"
        raise
    files = [p.relative_to(target).as_posix() for p in written if p.name != ".gitkeep"]
    files += [f"{SCHEMAS}/{name}" for name in write_schemas(target)]
    models = [m.table for m in dbt.standing()] if dbt is not None else []
    cli.out.data({"folder": str(target), "files": files, "models": models})
    cli.out.line(f"{cli.out.mark(True)} {cli.out.bold(str(folder))}: {', '.join(files)}")
    if dbt is not None:
        cli.out.line(
            f"  {count(len(models), 'model')} of dbt's {dbt.name}; draft a sync from one: oploop new sync MODEL APP.OBJECT"
        )
    cli.out.line("next: oploop connect APP adds an app and tries it; then oploop doctor")
    cli.out.line("      (oploop apps lists the apps; oploop demo shows a whole project at work)")
    return 0
