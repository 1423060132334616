"""`oploop new`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oploop.cli import options
from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import with_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oploop.activate.suggest import Draft
    from oploop.model.base import Names
    from oploop.workspace import Workspace


@make(
    "new",
    example="oploop new sync mart.ticket_priority zendesk.tickets\noploop new sync mart.accounts crm.accounts --key external_id=account_id",
)
@click.argument("what", type=click.Choice(["sync"]), metavar="sync")
@click.argument("model")
@click.argument("object_name", metavar="APP.OBJECT")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="The key, if no column is named like one; a COLUMN alone where both are called so, or of mode append. May be repeated.",
)
@click.option("--mode", help="The sync's mode [default: the one that does the least].")
@click.option("--name", metavar="NAME", help="The sync's name, and its file's [default: the model's].")
@click.option("--dry-run", is_flag=True, help="Print the file instead of writing it.")
@options.wait
def command(
    cli: Cli,
    what: str,
    model: str,
    object_name: str,
    keys: tuple[str, ...],
    mode: str | None,
    name: str | None,
    dry_run: bool,
    wait: float | None,
) -> int:
    """Write a first draft of a sync: a model's columns matched to an object's fields.

    Asks the app which fields it has. What matches by name is mapped; lists of values, and what matches nothing, stand
    beside it as comments.
    """

    from oploop.activate.suggest import as_yaml
    from oploop.errors import FixConfig

    label = name or model.rpartition(".")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", label):
        raise FixConfig(f"{label!r} is no sync's name", mend="use letters, digits, _ and -")
    given = dict(_pair(k) for k in keys)

    async def work(ws: Workspace) -> tuple[Draft, Path]:
        return await _draft(ws, model, object_name, given, mode), ws.project.root

    drafted, root = with_workspace(cli, work, read_only=True, wait=wait)
    text, path = as_yaml(drafted), root / "syncs" / f"{label}.yml"
    if not dry_run:
        _refuse_empty(drafted)
        _write(path, text)
    cli.out.data(
        {
            "file": None if dry_run else f"syncs/{path.name}",
            "key": drafted.key,
            "fields": drafted.fields,
            "free_columns": list(drafted.free_columns),
            "free_fields": list(drafted.free_fields),
            "text": text,
        }
    )
    if dry_run:
        cli.out.line(text.rstrip())
        return 0
    from oploop.cli.show import count

    columns = len(drafted.fields) + len(drafted.free_columns)
    matched = f"{len(drafted.fields)} of {count(columns, 'column')} matched"
    cli.out.line(f"{cli.out.mark(True)} {cli.out.bold(f'syncs/{path.name}')}: {matched}")
    cli.out.line(f"next: look at it, then oploop plan --select {label}")
    return 0


def _refuse_empty(drafted: Draft) -> None:
    """A sync that must have fields and has none would keep the whole project from being read."""
    from oploop.errors import FixConfig

    if not drafted.fields and drafted.mode in ("update", "upsert"):
        raise FixConfig(
            f"no column of {drafted.model} but its key is named like a field of {drafted.target}, so nothing was written",
            mend="give columns the fields' names in the model, or write the file yourself: --dry-run shows a beginning",
        )


def _pair(text: str) -> tuple[str, str]:
    from oploop.errors import FixConfig

    name, equals, column = text.partition("=")
    if not name.strip() or bool(equals) != bool(column.strip()):
        raise FixConfig(f"--key {text!r} is no FIELD=COLUMN", mend="write --key external_id=account_id")
    return name.strip(), column.strip() or name.strip()


async def _draft(ws: Workspace, model: str, target: str, key: dict[str, str], mode: str | None) -> Draft:
    """Ask the app for its fields, the warehouse (or else the model's file) for the columns."""
    from oploop.activate.suggest import draft
    from oploop.errors import FixConfig, Place, did_you_mean
    from oploop.workspace import object_of

    app, dot, object_name = target.partition(".")
    if not dot or not object_name:
        raise FixConfig(f"{target!r} is not app.object", mend="write it like zendesk.tickets")
    if app not in ws.project.apps:
        mend = f"{did_you_mean(app, ws.project.apps)} (oploop connect {app} adds it)"
        raise FixConfig(f"there is no app {app!r} in oploop.yml", mend=mend)
    obj, _ = object_of(ws.app(app), object_name, Place(target))
    described = await ws.fields.described(app, object_name)
    return draft(model, app, obj, described, _columns(ws, model), key or None, mode)


def _names(ws: Workspace) -> Iterator[Names]:
    """What is told of the models in dev and in prod. Of a dbt project that has no target for one of them, the other's."""
    from oploop.errors import FixConfig
    from oploop.model import make_names

    p, refused = ws.project, list[FixConfig]()
    for environment in ("dev", "prod"):
        names = make_names(p.models, environment, p.root, p.state_dir)
        try:
            names.files()
        except FixConfig as e:
            refused.append(e)
        else:
            yield names
    if len(refused) == 2:
        raise refused[0]


def _columns(ws: Workspace, model: str) -> list[str]:
    """A model's columns: as it was built in any environment, else as its file selects them."""
    from oploop.errors import FixConfig, did_you_mean

    environments = list(_names(ws))
    files = environments[0].files()
    there = ws.project.warehouse.server or ws.project.warehouse.database.exists()
    for names in environments if there else ():
        columns = ws.warehouse.columns(names.table(model))
        if columns:
            return list(columns)
    if model in files:
        declared = environments[0].declared(model)
        if declared is not None:
            return declared
        raise FixConfig(f"what {model} selects cannot be told before it is built", mend="oploop build")
    known = files or (ws.warehouse.tables() if there else ())
    raise FixConfig(f"there is no model {model!r}", mend=did_you_mean(model, known))


def _write(path: Path, text: str) -> None:
    from oploop.errors import FixConfig

    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise FixConfig(
            f"syncs/{path.name} is there already", mend="give another --name, or look with --dry-run"
        ) from None
    except OSError as e:
        raise FixConfig(f"syncs/{path.name} cannot be written: {e.strerror}", mend="mend the folder's rights") from None
