"""The list of commands, loaded one at a time, and what happens when a command line is wrong."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from oploop.cli.command import report_error
from oploop.cli.out import Out, quiet_pipe
from oploop.errors import FixConfig

#: The commands as `oploop --help` lists them. The texts stand here too, so that listing them loads none; a test
#: holds them equal to the commands' own.
GROUPS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Make a new project folder.",
        "demo": "Run the whole loop on a made-up company.",
        "connect": "Add an app to the project: ask for its credentials, try them, write its block.",
        "new": "Write a first draft of a sync: a model's columns matched to an object's fields.",
        "schema": "Write JSON Schemas of oploop.yml and of syncs, for editors.",
        "doctor": "Check config, credentials, fields and the warehouse; change nothing.",
    },
    "The loop": {
        "run": "Turn the whole loop: extract, build, verify, plan, deliver.",
        "extract": "Read the apps into raw tables.",
        "build": "Build the models and run their checks.",
        "plan": "Show what a run would send; send nothing.",
        "apply": "Send a plan that was saved with plan --save.",
    },
    "Decide": {
        "undo": "Put back what a run changed in the apps.",
        "pause": "Let a sync send nothing until it is resumed.",
        "resume": "Let a paused sync send again.",
        "retry": "Release parked changes, so that the next run sends them if the model still wants them.",
    },
    "Look": {
        "status": "Show the last runs, reads and deliveries.",
        "held": "List rows that are held back, and why.",
        "trace": "Explain why a record of an app holds its values.",
        "lineage": "Show what a model, a column or a sync is made from.",
        "apps": "List what can be read from and written to apps.",
        "sandbox": "Run stand-in servers for apps on this machine.",
    },
}

INTRO = """\b
The operational analytics loop as one program: read apps into a warehouse,
model them there in SQL, write back only what changed, prove that it landed.

\b
  oploop demo                  see it work in a minute
  oploop init acme             begin a project of your own
  oploop plan --env prod       what would be sent
  oploop run --env prod        the whole loop
"""


class Oploop(click.Group):
    """The group of all commands. A mistake on the command line is one line on stderr, exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in GROUPS.values() for name in group]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"oploop.cli.commands.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            from oploop.errors import did_you_mean

            raise FixConfig(f"there is no command {args[0]!r}", mend=did_you_mean(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def main(  # type: ignore[override]  # it always leaves with an exit code
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and leave with its exit code."""
        argv = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal that cannot show a sign must not stop a run
        try:
            code = super().main(argv, "oploop", standalone_mode=False)
            code = code if isinstance(code, int) else 0
        except click.exceptions.NoArgsIsHelpError as e:  # `oploop` alone: its message is the whole help
            e.show()
            code = e.exit_code
        except click.UsageError as e:
            code = report_error(_usage(e, argv), _out(argv))
        except click.exceptions.Abort:
            code = 130
        except BrokenPipeError:  # of --help; commands guard their own output
            code = 0
            quiet_pipe(sys.stdout)
        except FixConfig as e:
            code = report_error(e, _out(argv))
        quiet_pipe(sys.stdout, only_if_broken=True)
        sys.exit(code)


def _usage(e: click.UsageError, argv: Sequence[str]) -> FixConfig:
    """click's complaint in our form: one line, and where to read on."""
    if e.ctx is not None:
        where = e.ctx.command_path
    else:  # click's parser does not say which command an option without its value belongs to
        command = argv[0] if argv and argv[0] in itertools.chain(*GROUPS.values()) else ""
        where = f"oploop {command}".rstrip()
    mend, said = None, e.format_message()
    if isinstance(e, click.NoSuchOption):
        mend, said = _option_meant(e.option_name, argv), e.message  # without click's own list of near ones
    text = " ".join(said.split()).rstrip(".")
    return FixConfig(text[:1].lower() + text[1:], mend=mend or f"see {where} --help")


def _option_meant(option: str, argv: Sequence[str]) -> str | None:
    """What to write for an option that is not there, where it can be told."""
    commands = list(itertools.chain(*GROUPS.values()))
    command = next((a for a in argv if a in commands), None)
    if command is None:
        return None
    if argv[0] != command:
        return f"options stand behind the command: oploop {command} {option} ..."
    from oploop.errors import nearest

    params = import_module(f"oploop.cli.commands.{command}").command.params
    known = [o[2:] for p in params for o in p.opts if o.startswith("--")]
    word = option.lstrip("-")
    near = nearest(word, known) or next((k for k in known if word.startswith(k)), None)
    return f"did you mean '--{near}'? (oploop {command} --help lists all)" if near is not None else None


def _out(argv: Sequence[str]) -> Out:
    """Whether JSON was asked for must be known even of a command line that does not parse."""
    words = [*argv, ""]
    pairs = itertools.pairwise(words)
    asked = any((a in ("-o", "--output") and b == "json") or a in ("-ojson", "--output=json") for a, b in pairs)
    return Out(json=asked, debug="--debug" in argv or bool(os.environ.get("OPLOOP_DEBUG")))


@click.command(
    cls=Oploop, help=INTRO, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="oploop", message="%(package)s %(version)s")
def cli() -> None:
    """The group; its help is INTRO."""
