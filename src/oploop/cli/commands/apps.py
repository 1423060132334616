"""`oploop apps`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oploop.activate.suggest import modes_of
from oploop.cli.command import Cli
from oploop.cli.command import command as make

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oploop.apps.base import App
    from oploop.records import Field, Object


@make("apps", example="oploop apps\noploop apps zendesk\noploop apps new my_crm")
@click.argument("words", nargs=-1, metavar="[NAME | new NAME]")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    default=".",
    help="Where `new` makes the folder [default: the current folder].",
)
def command(cli: Cli, words: tuple[str, ...], into: Path) -> int:
    """List what can be read from and written to apps.

    With NAME, an app of the project or a type of app: all columns and fields with their types; an app of the project
    is asked for its own custom fields.

    With new NAME, make a folder for an app of your own: package, sandbox, tests, README. It passes the suite as it is.
    """
    from oploop.apps.registry import app_class, known_types

    if words[:1] == ("new",):
        return _new(cli, words[1:], into)
    if len(words) > 1:
        raise click.UsageError(f"got unexpected extra argument ({words[1]})")
    if not words:
        classes = [app_class(t) for t in sorted(known_types())]
        cli.out.data({"apps": [_brief(c) for c in classes]})
        for i, c in enumerate(classes):
            cli.out.lines(["", *_brief_lines(cli, c)] if i else _brief_lines(cli, c))
        return 0
    cls, fields = _one(cli, words[0])
    cli.out.data(_whole(cls, fields))
    _print(cli, cls, fields)
    return 0


def _new(cli: Cli, words: tuple[str, ...], into: Path) -> int:
    """Lay out the folder of an app of the user's own."""
    from oploop.cli.scaffold import lay_out

    if len(words) != 1:
        raise click.UsageError("new takes one name")
    root, made = lay_out(words[0], into)
    cli.out.data({"folder": str(root), "files": [str(p.relative_to(root)) for p in made]})
    cli.out.line(f"{cli.out.mark(True)} {root}")
    cli.out.lines(f"    {p.relative_to(root)}" for p in made)
    cli.out.line(f"next: pip install -e {root}; pytest {root}; then make it yours, as its README says")
    return 0


def _brief(c: type[App]) -> dict[str, Any]:
    return {
        "type": c.type,
        "title": c.title,
        "streams": list(c.streams),
        "objects": {n: {op.value: o.batch for op, o in obj.operations.items()} for n, obj in c.objects.items()},
        "modes": {n: modes_of(obj) for n, obj in c.objects.items()},
        "limits": c.limits or None,
        "learns": c.learns or None,
    }


def _brief_lines(cli: Cli, c: type[App]) -> list[str]:
    from oploop.cli.out import columns

    rows = [("read", ", ".join(c.streams))] if c.streams else []
    rows += [("write" if i == 0 else "", f"{n}: {_operations(o)}") for i, (n, o) in enumerate(c.objects.items())]
    rows += [("and", c.learns)] if c.learns else []
    rows += [("limit", c.limits)] if c.limits else []
    return [f"{cli.out.bold(c.type)}   {c.title}", *columns(rows, indent=2)]


def _operations(o: Object) -> str:
    """ "create, update (100 a call)"."""
    sizes: dict[int, list[str]] = {}
    for op, operation in o.operations.items():
        sizes.setdefault(operation.batch, []).append(op.value)
    calls = "; ".join(f"{', '.join(ops)} ({size} a call)" for size, ops in sizes.items())
    return f"{calls} · modes {', '.join(modes_of(o))}" if calls else "only referred to"


def _one(cli: Cli, name: str) -> tuple[type[App], dict[str, Mapping[str, Field]]]:
    """The app's class and each object's fields, as the account has them where it can be asked."""
    from oploop.apps.registry import app_class
    from oploop.cli.opening import load
    from oploop.errors import FixConfig, OploopError

    project = None
    try:
        project = load(cli)
    except FixConfig as e:
        if cli.folder is not None or not e.message.startswith("no oploop.yml"):
            raise
    if project is None or name not in project.apps:
        cls = app_class(name)
        return cls, {n: o.fields for n, o in cls.objects.items()}
    cls = app_class(project.apps[name].type)
    try:
        return cls, _described(cli, name)
    except OploopError as e:
        cli.out.note(f"note: only the standard fields are shown, as the account cannot be asked: {e}")
        return cls, {n: o.fields for n, o in cls.objects.items()}


def _described(cli: Cli, name: str) -> dict[str, Mapping[str, Field]]:
    from oploop.cli.opening import with_workspace
    from oploop.workspace import Workspace

    cli.out.quiet, quiet = True, cli.out.quiet  # the project's warnings have been said

    async def work(ws: Workspace) -> dict[str, Mapping[str, Field]]:
        app = ws.app(name)
        return {n: await app.describe(n) for n in app.objects}

    try:
        return with_workspace(cli, work, read_only=True)
    finally:
        cli.out.quiet = quiet


def _whole(c: type[App], fields: dict[str, Mapping[str, Field]]) -> dict[str, Any]:
    streams = {
        n: {
            "primary_key": list(s.primary_key),
            "incremental": s.incremental,
            "deletes": s.deletes.value,
            "lag": s.lag,
            "description": s.description,
            "columns": {k: t.value for k, t in s.columns.items()},
        }
        for n, s in c.streams.items()
    }
    objects = {
        n: {
            "stream": o.stream,
            "modes": modes_of(o),
            "operations": {op.value: {"batch": x.batch, "replay": x.replay.value} for op, x in o.operations.items()},
            "fields": {label: _field_json(f) for label, f in fields[n].items()},
            "dynamic": {prefix: _field_json(f) for prefix, f in o.dynamic.items()},
        }
        for n, o in c.objects.items()
    }
    about = {"limits": c.limits or None, "learns": c.learns or None}
    return {"type": c.type, "title": c.title, **about, "streams": streams, "objects": objects}


def _field_json(f: Field) -> dict[str, Any]:
    return {
        "name": f.name,
        "title": f.title,
        "type": f.type.value,
        "key": f.key,
        "required": f.required,
        "read_only": f.read_only,
        "max_length": f.max_length,
        "enum": list(f.enum) if f.enum is not None else None,
        "nullable": f.nullable,
    }


def _print(cli: Cli, c: type[App], fields: dict[str, Mapping[str, Field]]) -> None:
    from oploop.cli.out import columns

    out = cli.out
    out.line(f"{out.bold(c.type)}   {c.title}")
    for n, s in c.streams.items():
        out.line()
        out.line(
            f"{out.bold('read ' + n)}   key {', '.join(s.primary_key)}{'' if s.incremental else ' · read whole each time'}"
        )
        if s.description:
            out.line(f"  {s.description}")
        out.lines(columns([(k, t.value) for k, t in s.columns.items()], indent=4))
    for n, o in c.objects.items():
        out.line()
        out.line(
            f"{out.bold('write ' + n)}   {_operations(o)}{'' if o.stream else ' · blind: its records cannot be read'}"
        )
        if o.description:
            out.line(f"  {o.description}")
        rows = [(label, f.type.value, _traits(f)) for label, f in fields[n].items()]
        rows += [(f"{prefix}…", f.type.value, _traits(f)) for prefix, f in o.dynamic.items()]
        out.lines(columns(rows, indent=4))


def _traits(f: Field) -> str:
    words = [w for on, w in ((f.key, "key"), (f.required, "required"), (f.read_only, "read-only")) if on]
    if f.max_length is not None:
        words.append(f"up to {f.max_length:,} characters")
    if f.enum is not None:
        words.append("one of " + ", ".join(f.enum[:8]) + (", …" if len(f.enum) > 8 else ""))
    return " · ".join(words)
