"""`oploop connect`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import http_trace

if TYPE_CHECKING:
    from oploop.apps.base import Account, App
    from oploop.errors import FixConfig
    from oploop.project import AppBlock
    from oploop.project.secrets import Variables


@make(
    "connect",
    example="oploop connect zendesk\noploop connect hubspot --as crm --read contacts,companies\n"
    "oploop connect stripe --set base_url=http://127.0.0.1:8801",
)
@click.argument("app_type", metavar="APP")
@click.option("--as", "name", metavar="NAME", help="What to call it in the project [default: the app's type].")
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of its block; may be repeated. A secret as ${VAR}.",
)
@click.option(
    "--read", metavar="STREAMS", help="Streams to read, with commas between [default: ask, or what syncs need]."
)
@click.option("--unchecked", is_flag=True, help="Write the block without calling the app.")
def command(
    cli: Cli, app_type: str, name: str | None, given: tuple[str, ...], read: str | None, unchecked: bool
) -> int:
    """Add an app to the project: ask for its credentials, try them, write its block.

    Secrets go into .env, which git ignores, and stand in oploop.yml as ${VAR}; a variable that is set already is
    taken without asking. A secret that is a file's content is given as @FILE. Nothing is written before the app has
    answered.
    """
    from oploop.apps.registry import app_class
    from oploop.errors import FixConfig
    from oploop.project import find_project
    from oploop.project.connect import NewApp, add_app, with_app

    # Syncs and alerts are not looked at: they may stand there already, and name the app that is added now.
    root, cls = find_project(cli.folder if cli.folder is not None else Path.cwd()), app_class(app_type)
    name = name or app_type
    if not name.isidentifier() or name != name.lower():
        raise FixConfig(f"{name!r} cannot be an app's name", mend="use small letters, digits and _")
    text = (root / "oploop.yml").read_text(encoding="utf-8")
    with_app(text, NewApp(name, app_type, {}))  # a name that is taken is found before anything is asked
    keys = _given(root, cls, name, given)
    keys.ask([k for k in asked(cls) if k not in keys.settings], cli)
    account, streams = (None, list(cls.streams)) if unchecked else _tried(cli, root, cls, name, keys)
    chosen = _streams(cli, read, streams, name)
    app = NewApp(name, app_type, keys.settings, chosen)
    files = [p.name for p in add_app(root, app, keys.secrets)]
    line = account.line if account is not None else "not called"
    cli.out.data({"app": name, "type": app_type, "account": line, "streams": streams, "read": chosen, "files": files})
    cli.out.line(f"{cli.out.mark(account is not None or None)} {cli.out.bold(name)}: {line}")
    cli.out.line(f"  written: {', '.join(files)}")
    if streams:
        cli.out.line(f"  streams: {', '.join(streams)}")
    cli.out.line(f"next: oploop extract, or oploop apps {name} for all its fields")
    return 0


@dataclass
class _Keys:
    """The keys of a block: `settings` as they are to stand in it, `secrets` by the variables that no file holds yet, and what a
    person was asked for and `typed` (empty: left out)."""

    name: str
    fields: Mapping[str, Any]
    variables: Variables
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    typed: dict[str, str] = field(default_factory=dict)

    def ask(self, keys: Iterable[str], cli: Cli) -> None:
        """Take secrets from variables that are set, and ask for the rest. What was typed before is kept by an empty answer; an answer
        that cannot be taken is asked for again. FixConfig where nobody can be asked for what is needed."""
        from oploop.errors import FixConfig
        from oploop.project.block import is_secret
        from oploop.project.secrets import variable_name

        for key in keys:
            variable, secret = variable_name(self.name, key), is_secret(self.fields[key])
            if secret and self.variables.get(variable):
                self.settings[key] = f"${{{variable}}}"
                continue
            mend = f"export {variable}=..., or add it to .env" if secret else f"say --set {key}=..."
            while True:
                answer = _ask(key, self.fields[key], hidden=secret, mend=mend, before=self.typed.get(key))
                try:
                    value = _secret(key, answer) if secret else _typed(answer, self.fields[key])
                    break
                except FixConfig as e:
                    cli.out.note(str(e))
            self.typed[key] = answer
            if answer and secret:
                self.secrets[variable] = value
            if answer:
                self.settings[key] = f"${{{variable}}}" if secret else value

    def in_doubt(self, e: Exception) -> list[str]:
        """Which of the keys that were typed an error names; all of them where it names none that the block has, and none where what
        it names was not typed."""
        said, has = str(e), {**self.settings, **self.typed}
        named = [k for k in has if re.search(rf"(?<![\w.-]){re.escape(k)}(?![\w-])", said)]
        return [k for k in self.typed if k in named] if named else list(self.typed)


def _given(root: Path, cls: type[App], name: str, given: tuple[str, ...]) -> _Keys:
    """The block's keys as `--set` gives them."""
    from oploop.errors import FixConfig, did_you_mean
    from oploop.project.block import secret_paths, value_at
    from oploop.project.secrets import Variables, variable_name

    keys = _Keys(name, {i.alias or n: i for n, i in cls.Config.model_fields.items()}, Variables(root))
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FixConfig(f"--set {pair!r} is no KEY=VALUE", mend="write --set subdomain=acme")
        if key not in keys.fields:
            raise FixConfig(f"{cls.type} has no key {key!r}", mend=did_you_mean(key, keys.fields))
        keys.settings[key] = _typed(value, keys.fields[key])
        found = secret_paths(cls.Config, {key: keys.settings[key]})
        if any("${" not in value_at(keys.settings, path) for path in found):
            mend = f"leave it out to be asked, or write --set '{key}=${{{variable_name(name, key)}}}'"
            raise FixConfig(f"{key} is a secret, and a command line is no place for one", mend=mend)
    return keys


def _tried(cli: Cli, root: Path, cls: type[App], name: str, keys: _Keys) -> tuple[Account, list[str]]:
    """Who answers, and what can be read. A person is asked again for what is in doubt, and for nothing else."""
    from oploop.apps.policy import NoAnswer
    from oploop.errors import FixConfig
    from oploop.project.connect import NewApp

    while True:
        try:
            return _try(cli, NewApp(name, cls.type, keys.settings).block(root, keys.secrets))
        except (FixConfig, NoAnswer) as e:
            told = _told_how(e, cls, name, keys.settings) if isinstance(e, FixConfig) else e
            doubtful = keys.in_doubt(told)
            if not doubtful or not sys.stdin.isatty():
                raise told from None
            cli.out.note(f"{told}; once more, please:")
            keys.ask(doubtful, cli)


def _told_how(e: FixConfig, cls: type[App], name: str, settings: dict[str, Any]) -> FixConfig:
    """The error, with how a key that nobody could be asked for is given."""
    from oploop.project.block import is_secret
    from oploop.project.secrets import variable_name

    fields = {i.alias or n: i for n, i in cls.Config.model_fields.items()}
    lacking = [k for k in asked(cls) if k not in settings and is_secret(fields[k])]
    if e.place is not None and e.message.startswith(str(e.place)):  # the block stands in no file yet
        e.place = None
    if e.mend is None and lacking and "needs" in e.message:
        e.mend = f"export {variable_name(name, lacking[0])}=..., or add it to .env; other keys by --set KEY=VALUE"
    elif e.mend is None and "needs" in e.message:
        e.mend = "give them by --set KEY=VALUE, a map as YAML writes it on one line: --set 'streams={people: {...}}'"
    return e


def _typed(value: str, info: Any) -> Any:
    """A value as it is to stand in the file: a number where one is asked for; a map or a list as YAML writes them on one line."""
    from oploop.project.block import may_hold
    from oploop.project.yaml import parse_yaml

    if value.isdecimal() and may_hold(info.annotation, int):
        return int(value)
    if value[:1] in ("{", "[") and (may_hold(info.annotation, dict) or may_hold(info.annotation, list)):
        return parse_yaml(f"value: {value}", "--set")["value"]
    return value


def asked(cls: type[App]) -> list[str]:
    """The keys that are asked for: what the app says, else what its block must have."""
    if cls.asks:
        return list(cls.asks)
    return [i.alias or n for n, i in cls.Config.model_fields.items() if i.is_required()]


def _secret(key: str, answer: str) -> str:
    """A secret as it was typed, or, of @FILE, what is in the file: on one line, as .env has it."""
    from oploop.errors import FixConfig

    if not answer.startswith("@"):
        return answer
    said = f"{key}: what is named behind @"  # and not shown: it may be a secret that begins so
    try:
        text = Path(answer[1:]).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, RuntimeError, ValueError) as e:  # no such file, no such user's home, no text
        why = (e.strerror or "").lower() if isinstance(e, OSError) else "it is no file of text"
        mend = "name the file that holds it; a secret that begins with @ itself goes into .env by hand"
        raise FixConfig(f"{said} cannot be read: {why}", mend=mend) from None
    if text.startswith("{"):
        import orjson

        try:
            return orjson.dumps(orjson.loads(text)).decode()
        except orjson.JSONDecodeError:
            raise FixConfig(f"{said} is no JSON", mend="give the whole file, as it was made") from None
    return text


def _ask(key: str, info: Any, *, hidden: bool, mend: str, before: str | None = None) -> str:
    """A person's answer, empty for what may be left out, or the one given `before` where it is to stay so; FixConfig where nobody
    can be asked for what is needed."""
    from oploop.errors import FixConfig

    needed = info.is_required()
    if sys.stdin.isatty():
        told = [info.description] if info.description else []
        if before:
            told.append("Enter: as before" if hidden else f"Enter: {before}")
        elif not needed:
            told.append("may be left empty")
        prompt = f"{key} ({'; '.join(told)})" if told else key
        default = before or (None if needed else "")
        answer: str = click.prompt(prompt, hide_input=hidden, err=True, default=default, show_default=False)
        return answer.strip()
    if needed:
        raise FixConfig(f"{key} is not known, and there is no terminal to ask", mend=mend)
    return ""


def _try(cli: Cli, block: AppBlock) -> tuple[Account, list[str]]:
    """Call the app with its credentials; who answers, and what can be read of it."""
    import asyncio

    from oploop.apps.registry import make_app
    from oploop.runtime import Runtime

    async def work() -> tuple[Account, list[str]]:
        app = make_app(block, Runtime(trace=trace))
        try:
            return await app.check(), list(app.streams)
        finally:
            await app.aclose()

    with http_trace(cli) as trace:
        return asyncio.run(work())


def _streams(cli: Cli, read: str | None, streams: list[str], name: str) -> list[str]:
    """Which streams to read; who mistypes one is asked again, since what was typed before would be lost."""
    from oploop.errors import FixConfig

    if read is not None or not sys.stdin.isatty() or not streams or cli.out.json:
        return _known_streams(read or "", streams, name)
    cli.out.note(f"{name} can be read: {', '.join(streams)}")
    while True:
        said = click.prompt(
            "streams to read, with commas between (none: what syncs need)", default="", err=True, show_default=False
        )
        try:
            return _known_streams(said, streams, name)
        except FixConfig as e:
            cli.out.note(str(e))


def _known_streams(said: str, streams: list[str], name: str) -> list[str]:
    from oploop.errors import FixConfig, did_you_mean

    chosen = [s.strip() for s in said.split(",") if s.strip()]
    for stream in chosen:
        if stream not in streams:
            raise FixConfig(f"{name} has no stream {stream!r}", mend=did_you_mean(stream, streams))
    return chosen


__all__ = ["asked", "command"]
