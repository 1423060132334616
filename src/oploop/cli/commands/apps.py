"""`oploop apps`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oploop.activate.suggest import modes_of
from oploop.cli.command import Cli
from oploop.cli.command import command as make

if TYPE_CHECKING:
    from oploop.apps.base import App
    from oploop.records import Field, Object, Stream
    from oploop.workspace import Workspace

T = TypeVar("T")

#: Of how many streams and objects that the account tells all columns and fields are listed; of more, the names.
MANY = 25


@dataclass(frozen=True)
class Shown:
    """What is told of an app: of its type, or of the account. `fields`: by object, none where `named` (names only)."""

    cls: type[App]
    streams: Mapping[str, Stream]
    objects: Mapping[str, Object]
    fields: Mapping[str, Mapping[str, Field]]
    named: bool = False
    asked: bool = False  #: whether the account was asked
    there: bool = False  #: whether the app is one of the project's
    untold: Mapping[str, str] = field(default_factory=dict)  #: streams and objects that can be none, and why


@make("apps", example="oploop apps\noploop apps zendesk\noploop apps salesforce Account\noploop apps new my_crm")
@click.argument("words", nargs=-1, metavar="[NAME [STREAM or OBJECT] | new NAME]")
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
    is asked for its own custom fields. With a stream or an object behind it, only of that.

    With new NAME, make a folder for an app of your own: package, sandbox, tests, README. It passes the suite as it is.
    """
    from oploop.apps.registry import app_class, known_types

    if words[:1] == ("new",):
        return _new(cli, words[1:], into)
    if len(words) > 2:
        raise click.UsageError(f"got unexpected extra argument ({words[2]})")
    if not words:
        classes = [app_class(t) for t in sorted(known_types())]
        cli.out.data({"apps": [_brief(c) for c in classes]})
        for i, c in enumerate(classes):
            cli.out.lines(["", *_brief_lines(cli, c)] if i else _brief_lines(cli, c))
        return 0
    if len(words) == 1:  # app.object, as other commands take it
        words = tuple(w for w in words[0].partition(".")[::2] if w)
    shown = _one(cli, *words)
    cli.out.data(_whole(shown))
    _print(cli, words[0], shown)
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
    cli.out.line(f"next: pip install -e {root} pytest; pytest {root}; then make it yours, as its README says")
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


def _one(cli: Cli, name: str, thing: str | None = None) -> Shown:
    """What an app has, as the account tells it where it can be asked; `thing`: only this stream or object."""
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
        return _of_type(app_class(name), name, thing)
    cls = app_class(project.apps[name].type)
    try:
        return _described(cli, cls, name, thing)
    except OploopError as e:
        standard = {*cls.streams, *cls.objects}
        if not standard or (thing is not None and thing not in standard):  # only the account could tell
            raise
        cli.out.note(f"note: only the standard fields are shown, as the account cannot be asked: {e}")
        return replace(_of_type(cls, name, thing), there=True)


def _of_type(cls: type[App], name: str, thing: str | None) -> Shown:
    """What every account has."""
    if thing is not None and cls.learns and thing not in {*cls.streams, *cls.objects}:
        from oploop.errors import FixConfig, nearest

        near = nearest(thing, {*cls.streams, *cls.objects})
        mend = f"did you mean {near!r}?" if near else f"oploop connect {cls.type} adds it; then its account is asked"
        raise FixConfig(f"{name} is no app of the project, so nobody can be asked for its {thing}", mend=mend)
    streams, objects = _only(cls.streams, cls.objects, name, thing)
    return Shown(cls, streams, objects, {n: o.fields for n, o in objects.items()})


def _only(
    streams: Mapping[str, Stream], objects: Mapping[str, Object], name: str, thing: str | None
) -> tuple[Mapping[str, Stream], Mapping[str, Object]]:
    """The stream and the object of one name; FixConfig where there is neither."""
    if thing is None:
        return streams, objects
    if thing not in streams and thing not in objects:
        from oploop.errors import FixConfig, did_you_mean

        raise FixConfig(f"{name} has no stream or object {thing!r}", mend=did_you_mean(thing, {*streams, *objects}))
    return {n: streams[n] for n in [thing] if n in streams}, {n: objects[n] for n in [thing] if n in objects}


def _described(cli: Cli, cls: type[App], name: str, thing: str | None) -> Shown:
    from oploop.cli.opening import with_workspace

    cli.out.quiet, quiet = True, cli.out.quiet  # the project's warnings have been said

    async def work(ws: Workspace) -> Shown:
        from oploop.accounts import asking

        with asking(ws.project.apps[name]):
            return await _asked(ws.app(name), cls, name, thing)

    try:
        return with_workspace(cli, work, read_only=True)
    finally:
        cli.out.quiet = quiet


async def _asked(app: App, cls: type[App], name: str, thing: str | None) -> Shown:
    """What the account has; of many things, their names. One of them that is out of order hides none of the others."""
    learnt = not cls.streams and not cls.objects
    if thing is None and learnt and len({*app.streams, *app.objects}) > MANY:
        return Shown(cls, app.streams, app.objects, {}, named=True, asked=True)
    untold: dict[str, str] = {}
    streams, objects, fields = app.streams, app.objects, {}
    if thing is None:
        streams, objects = _told(streams, untold), _told(objects, untold)
    for n in objects if thing is None else [thing] if thing in objects else ():
        fields[n] = await app.describe(n)
    streams, objects = _only(streams, objects, name, thing)
    return Shown(cls, streams, objects, fields, asked=True, untold=untold)


def _told(found: Mapping[str, T], untold: dict[str, str]) -> dict[str, T]:
    """What an account says of each; why not, of those of which it cannot, goes into `untold`."""
    from oploop.errors import OploopError

    told = {}
    for n in found:
        try:
            told[n] = found[n]
        except OploopError as e:
            untold[n] = str(e)
    return told


def _whole(shown: Shown) -> dict[str, Any]:
    c = shown.cls
    about: dict[str, Any] = {
        "type": c.type, "title": c.title, "limits": c.limits or None, "learns": c.learns or None
    }  # fmt: skip
    if shown.untold:
        about["untold"] = dict(shown.untold)
    if shown.named:
        return {**about, "streams": {n: {} for n in shown.streams}, "objects": {n: {} for n in shown.objects}}
    streams = {
        n: {
            "primary_key": list(s.primary_key),
            "incremental": s.incremental,
            "deletes": s.deletes.value,
            "lag": s.lag,
            "description": s.description,
            "columns": {k: t.value for k, t in s.columns.items()},
        }
        for n, s in shown.streams.items()
    }
    objects = {
        n: {
            "stream": o.stream,
            "modes": modes_of(o),
            "operations": {op.value: {"batch": x.batch, "replay": x.replay.value} for op, x in o.operations.items()},
            "fields": {label: _field_json(f) for label, f in shown.fields[n].items()},
            "dynamic": {prefix: _field_json(f) for prefix, f in o.dynamic.items()},
        }
        for n, o in shown.objects.items()
    }
    return {**about, "streams": streams, "objects": objects}


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


def _print(cli: Cli, name: str, shown: Shown) -> None:
    from oploop.cli.out import columns

    out, c = cli.out, shown.cls
    out.line(f"{out.bold(c.type)}   {c.title}")
    if shown.named:
        rows = [("read", ", ".join(shown.streams)), ("write", ", ".join(shown.objects))]
        out.lines(columns([r for r in rows if r[1]], indent=2))
        out.line(f"next: oploop apps {name} {next(iter(shown.streams or shown.objects))} for all fields of one")
        return
    _print_streams(cli, shown)
    _print_objects(cli, shown)
    if c.limits:
        out.lines(["", f"limit   {c.limits}"])
    if shown.untold:
        told = (why if why.startswith(n) else f"{n}: {why}" for n, why in shown.untold.items())
        out.lines(["", *(f"{out.mark(None)} {why}" for why in told)])
    if c.learns and not shown.asked:
        out.line()
        how = f"oploop connect {c.type} adds it to a project; then oploop apps {c.type} lists them"
        out.line(f"and {c.learns}: " + ("once the account can be asked" if shown.there else how))


def _print_streams(cli: Cli, shown: Shown) -> None:
    from oploop.cli.out import columns

    out = cli.out
    for n, s in shown.streams.items():
        whole = "" if s.incremental else " · read whole each time"
        out.line()
        out.line(f"{out.bold('read ' + n)}   key {', '.join(s.primary_key)}{whole}")
        if s.description:
            out.line(f"  {s.description}")
        out.lines(columns([(k, t.value) for k, t in s.columns.items()], indent=4))


def _print_objects(cli: Cli, shown: Shown) -> None:
    from oploop.cli.out import columns

    out = cli.out
    for n, o in shown.objects.items():
        out.line()
        out.line(
            f"{out.bold('write ' + n)}   {_operations(o)}{'' if o.stream else ' · blind: its records cannot be read'}"
        )
        if o.description:
            out.line(f"  {o.description}")
        rows = [(label, f.type.value, _traits(f)) for label, f in shown.fields[n].items()]
        rows += [(f"{prefix}…", f.type.value, _traits(f)) for prefix, f in o.dynamic.items()]
        out.lines(columns(rows, indent=4))


def _traits(f: Field) -> str:
    words = [w for on, w in ((f.key, "key"), (f.required, "required"), (f.read_only, "read-only")) if on]
    if f.max_length is not None:
        words.append(f"up to {f.max_length:,} characters")
    if f.enum is not None:
        words.append("one of " + ", ".join(f.enum[:8]) + (", …" if len(f.enum) > 8 else ""))
    return " · ".join(words)
