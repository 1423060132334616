"""Apps by name, through the entry point group `oploop.apps`: ours and anyone else's alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from oploop.apps.base import App
from oploop.apps.transport import Transport
from oploop.apps.way import check_way, http_way
from oploop.errors import FixConfig, did_you_mean
from oploop.project import AppBlock, validate_block
from oploop.project.syncs import APPS
from oploop.runtime import Runtime

if TYPE_CHECKING:
    from oploop.apps.sandbox import Sandbox

GROUP = APPS
SANDBOX_GROUP = "oploop.sandboxes"


def installed(group: str) -> Mapping[str, EntryPoint]:
    """What installed packages declare in a group, by name."""
    return _declared(group, tuple(sys.path))


@lru_cache(maxsize=16)
def _declared(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Looked for once: to read what each package says of itself takes some 5 ms, and a turn asks for each of its apps."""
    return {e.name: e for e in entry_points(group=group)}


def known_types() -> Mapping[str, EntryPoint]:
    """The types of apps that are installed."""
    return installed(GROUP)


def app_class(type_name: str) -> type[App]:
    """The class of a type of app; FixConfig, with the nearest right one, when there is none, or it cannot be loaded."""
    return _class_of(type_name, known_types())


def _class_of(type_name: str, known: Mapping[str, EntryPoint]) -> type[App]:
    if type_name not in known:
        raise FixConfig(f"there is no app of type {type_name!r}", mend=did_you_mean(type_name, known))
    loaded: type[App] = _loaded(known[type_name])
    return loaded


def _loaded(entry: EntryPoint) -> Any:
    """What an entry point names; FixConfig where somebody else's package cannot give it."""
    try:
        return entry.load()
    except Exception as e:
        if entry.module.partition(".")[0] == "oploop":
            raise  # a defect of ours, and told as one
        raise FixConfig(
            f"the app {entry.name!r}, {entry.value}, cannot be loaded: {type(e).__name__}: {' '.join(str(e).split())}",
            mend="mend its package, or uninstall it; --debug shows where",
        ) from e


def needs_numpy(type_names: Iterable[str]) -> bool:
    """Whether one of these types of apps may need numpy in Arrow."""
    known = known_types()
    return any(name not in known or _class_of(name, known).needs_numpy for name in type_names)


def make_app(block: AppBlock, runtime: Runtime) -> App:
    """An app from its block of `oploop.yml`: keys checked, secrets filled in."""
    try:
        cls = app_class(block.type)
    except FixConfig as e:
        raise e.at(block.place) from None
    if block.options.get("base_url") == "":  # else the vendor's own address would be called
        raise FixConfig(
            "base_url is empty", mend="give it an address, or remove it", place=block.place_named("base_url")
        )
    way = http_way(block)
    try:
        app = cls(
            block.name,
            validate_block(cls.Config, block),
            replace(runtime, http=way) if way != runtime.http else runtime,
        )
    except FixConfig as e:
        named = block.place_named(str(e))
        raise e.at(named if named != block.place else block.place_named("base_url")) from None
    check_way(block, way, app.transport)
    _set_budget(app, block, runtime)
    return app


def _set_budget(app: App, block: AppBlock, runtime: Runtime) -> None:
    """Hold the account's budget to what the project says of it, and share it with other processes."""
    wire = app.transport
    if block.budget.keep_daily and not (isinstance(wire, Transport) and wire.policy.tells_day()):
        raise FixConfig(
            f"{block.name} tells no daily quota, so budget.keep_daily cannot be kept",
            mend="remove it, or use budget: {share: 50%}",
            place=block.place,
        )
    if wire is None or wire.budget is None:
        return
    wire.budget.keep_to(block.budget.share)
    wire.budget.keep_daily = block.budget.keep_daily
    if runtime.budgets is not None and isinstance(wire, Transport):
        wire.budget.share_through(runtime.budgets, wire.account())


def sandbox_class(type_name: str) -> type[Sandbox]:
    """The stand-in server of a type of app."""
    known = installed(SANDBOX_GROUP)
    if type_name not in known and type_name in known_types():
        raise FixConfig(
            f"{type_name} has no sandbox", mend=f"try it on one of your own; there are: {', '.join(sorted(known))}"
        )
    if type_name not in known:
        raise FixConfig(f"there is no sandbox for {type_name!r}", mend=did_you_mean(type_name, known))
    loaded: type[Sandbox] = _loaded(known[type_name])
    return loaded
