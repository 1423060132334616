"""Options that several commands take, each defined once."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import click

from oploop.errors import FixConfig

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: What `--wait` without a number means, in seconds: in effect, until it is free.
FOREVER = 24 * 3600.0


def environment(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--env",
        "environment",
        default="dev",
        show_default=True,
        envvar="OPLOOP_ENV",
        metavar="NAME",
        help="The environment.",
    )(function)


def selection(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `select` and `exclude`: tuples of words."""
    says = "Only these syncs: a name, a glob, tag:T, app:A, model:M, MODEL+ (all made of it) or +NAME. Repeatable."
    function = click.option(
        "--exclude", metavar="WORD", multiple=True, help="Not these syncs; words as --select. Repeatable."
    )(function)
    return click.option("--select", metavar="WORD", multiple=True, help=says)(function)


def selecting(select: Sequence[str], exclude: Sequence[str]) -> str:
    """What the user selected as it is typed again: " --select 'tag:vip' --exclude x"."""
    return "".join(f" --select {shlex.quote(w)}" for w in select) + "".join(
        f" --exclude {shlex.quote(w)}" for w in exclude
    )


def one_record(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `key` and `limit`."""
    function = click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many changes of each sync."
    )(function)
    return click.option("--key", metavar="KEY", help="Only the record with this key.")(function)


def wait(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--wait",
        type=click.FloatRange(min=0),
        is_flag=False,
        flag_value=FOREVER,
        default=None,
        metavar="[SECONDS]",
        help="While another process holds the warehouse, wait for it (without a number: until it is free).",
    )(function)


def yes(help_: str) -> Decorator:
    return click.option("--yes", is_flag=True, help=help_)


def first_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `first_run` and `backfill`."""
    function = click.option("--backfill", is_flag=True, help="Let a first append send the rows that exist, too.")(
        function
    )
    says = "Nothing is remembered of these create and append syncs because they never ran."
    return click.option("--first-run", is_flag=True, help=says)(function)


def rekey(function: Callable[..., Any]) -> Callable[..., Any]:
    says = "Let this sync deliver by another key, or to another object, than until now. Repeatable."
    return click.option("--rekey", metavar="SYNC", multiple=True, help=says)(function)


def parse_rekey(names: tuple[str, ...], syncs: Any) -> frozenset[str]:
    """The syncs that are named; FixConfig for one that there is not."""
    from oploop.errors import did_you_mean

    for name in names:
        if name not in syncs:
            raise FixConfig(f"--rekey {name!r}: there is no such sync", mend=did_you_mean(name, syncs))
    return frozenset(names)


def allow(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--allow",
        metavar="SYNC:WHAT",
        multiple=True,
        help="Let a sync pass a guardrail this once: first, first-run, changes, held, removes, rows, nulls, or only up to what was seen: changes=64%. Repeatable.",
    )(function)


def parse_allow(words: tuple[str, ...], syncs: Any) -> dict[str, frozenset[str]]:
    """`("a:first", "a:changes=64%")` as {"a": {"first", "changes=64%"}}; FixConfig for an unknown sync or guardrail."""
    from oploop.activate.guardrails import GUARDRAILS
    from oploop.errors import did_you_mean

    found: dict[str, frozenset[str]] = {}
    for word in words:
        sync, _, what = word.rpartition(":")
        if not sync:
            like = f"{word if word in syncs else 'SYNC'}:{word if word in GUARDRAILS else 'first'}"
            mend = f"write it like {like}; there are {', '.join(GUARDRAILS)}"
            raise FixConfig(f"--allow {word!r} is not SYNC:WHAT", mend=mend)
        if sync not in syncs:
            raise FixConfig(f"--allow {word!r}: there is no sync {sync!r}", mend=did_you_mean(sync, syncs))
        what, equals, most = what.partition("=")
        if equals and (what.startswith("first") or not re.fullmatch(r"\d{1,9}%?", most)):
            raise FixConfig(
                f"--allow {word!r}: {most!r} is no limit of {what}", mend="write it like changes=64% or held=120"
            )
        if what not in GUARDRAILS:
            raise FixConfig(f"--allow {word!r}: there is no guardrail {what!r}", mend=did_you_mean(what, GUARDRAILS))
        found[sync] = found.get(sync, frozenset()) | {what + equals + most}
    return found
