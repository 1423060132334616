"""What all commands share: their common options, and how an error becomes one line and an exit code.

0  all went well      1  something failed, was rejected or stopped
2  a mistake of the user's      3  `plan --detailed-exitcode` found changes      130  Ctrl-C      143  SIGTERM
"""

from __future__ import annotations

import errno
import functools
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from oploop.cli.out import Out
from oploop.errors import FixConfig, OploopError, RetryLater


@dataclass
class Cli:
    """A command under way: where it writes, which project it was pointed at, what to say if it is interrupted."""

    out: Out
    folder: Path | None = None
    trace: Path | None = None  #: where what goes over the wire is written
    interrupted: Callable[[], str] = field(default=lambda: "nothing was changed")


def command(name: str, *, example: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function a command: it gets a Cli and its options, and returns its exit code (None: 0).

    Its docstring is the help; `example` is shown below it.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def wrapped(
            output: str, project: str | None, debug: bool, quiet: bool, trace_http: Path | None, **options: Any
        ) -> None:
            debug = debug or bool(os.environ.get("OPLOOP_DEBUG"))
            out = Out(json=output == "json", quiet=quiet, debug=debug)
            cli = Cli(out, Path(project) if project is not None else None, trace_http)
            code = guarded(cli, lambda: function(cli, **options))
            if code:
                raise click.exceptions.Exit(code)

        wrapped.__click_params__ = _common_params() + getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        text = " ".join((function.__doc__ or "").split("\n\n")[0].split())
        rest = "\n\n".join((function.__doc__ or "").split("\n\n")[1:])
        shown = "\n".join(f"  {line}" for line in example.strip().split("\n"))
        body = f"{text}\n\n{_dedent(rest)}\n\n\b\nExample:\n{shown}"
        return click.command(name, help=body, short_help=text)(wrapped)

    return decorate


def _common_params() -> list[click.Parameter]:
    """The common options in click's order (last first), so that help lists them after a command's own."""

    def bare() -> None:
        """Carries the options."""

    for option in reversed(_COMMON):
        option(bare)
    params: list[click.Parameter] = bare.__click_params__  # type: ignore[attr-defined]
    return params


def _dedent(text: str) -> str:
    return "\n".join(line.strip() if line.strip() != "\b" else "\b" for line in text.split("\n")).strip()


_COMMON = [
    click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How results are printed.",
        show_default=True,
    ),
    click.option(
        "--project",
        metavar="DIR",
        envvar="OPLOOP_PROJECT",
        help="The project folder [default: the nearest one above the current folder that has an oploop.yml].",
    ),
    click.option("--quiet", is_flag=True, help="Only the result: no progress, no notes."),
    click.option("--debug", is_flag=True, help="Show the whole traceback of an error."),
    click.option(
        "--trace-http",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write each request to an app and its answer to FILE, without secrets.",
    ),
]


def guarded(cli: Cli, work: Callable[[], int | None]) -> int:
    """Run a command's work; its exit code. Whatever goes wrong is said in one line."""
    try:
        return work() or 0
    except (click.exceptions.Exit, click.UsageError):
        raise
    except OploopError as e:
        return report_error(e, cli.out)
    except (KeyboardInterrupt, click.exceptions.Abort) as e:
        return _report_interrupt(cli, e)
    except BaseExceptionGroup as group:
        return _report_group(cli, group)
    except Exception as e:
        if isinstance(e.__cause__, KeyboardInterrupt):  # DuckDB was at work when it came
            return _report_interrupt(cli, e.__cause__)
        refused = _not_allowed(e)
        return report_error(refused, cli.out) if refused is not None else report_defect(e, cli.out)


def _report_interrupt(cli: Cli, e: BaseException) -> int:
    from oploop.runtime import Terminated

    state = cli.interrupted()
    cli.out.error(f"\noploop: interrupted; {state}" if not cli.out.json else f"interrupted; {state}")
    cli.out.data({"error": {"message": f"interrupted; {state}", "mend": None, "place": None}})
    return 143 if isinstance(e, Terminated) else 130


def _report_group(cli: Cli, group: BaseExceptionGroup[BaseException]) -> int:
    """Of errors that came together the first that says something counts."""
    flat = list(_flatten(group))
    known = [e for e in flat if isinstance(e, OploopError)]
    if known:
        return report_error(known[0], cli.out)
    if any(isinstance(e, KeyboardInterrupt) for e in flat):
        return _report_interrupt(cli, flat[0])
    refused = next((told for e in flat if (told := _not_allowed(e)) is not None), None)
    return report_error(refused, cli.out) if refused is not None else report_defect(flat[0], cli.out)


def _not_allowed(e: BaseException) -> OploopError | None:
    """What the system does not let the user do with a file, which is no defect; None for anything else."""
    if not isinstance(e, OSError) or not isinstance(e.filename, str):
        return None
    mend = {
        errno.EACCES: "mend its rights, or its folder's",
        errno.EPERM: "mend its rights, or its folder's",
        errno.EROFS: "choose a place that can be written",
    }.get(e.errno or 0)
    if mend is not None:
        return FixConfig(f"{e.filename}: {e.strerror}", mend=mend)
    full = e.errno in (errno.ENOSPC, errno.EDQUOT)
    return RetryLater(f"{e.filename}: {e.strerror}", mend="make room, then do it again") if full else None


def _flatten(e: BaseException) -> list[BaseException]:
    return [x for part in e.exceptions for x in _flatten(part)] if isinstance(e, BaseExceptionGroup) else [e]


def report_error(e: OploopError, out: Out) -> int:
    """An error that oploop raised on purpose: one line."""
    if out.debug:
        out.error("".join(traceback.format_exception(e)).rstrip())
    out.error(out.style("oploop: ", fg="red") + str(e))
    out.data({"error": error_json(e)})
    return e.exit_code


def error_json(e: OploopError) -> dict[str, Any]:
    """{"message", "mend", "place": {"file", "line"} or null}."""
    place = None if e.place is None else {"file": e.place.file, "line": e.place.line}
    return {"message": e.message, "mend": e.mend, "place": place}


def report_defect(e: BaseException, out: Out) -> int:
    """Any other error is a mistake of ours, and said to be."""
    text = " ".join(str(e).split())
    message = (
        f"this is a defect of oploop: {type(e).__name__}: {text}"
        if text
        else f"this is a defect of oploop: {type(e).__name__}"
    )
    mend = "run it again with --debug and report what it shows"
    if out.debug:
        out.error("".join(traceback.format_exception(e)).rstrip())
    out.error(f"oploop: {message} — {mend}")
    out.data({"error": {"message": message, "mend": mend, "place": None}})
    return 1
