"""A dlt source: found by its name, made from its arguments, its resources as streams, read with a state of ours.

Only here is dlt imported (1.3 s), and only when a source is asked for something. Everything blocks.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from oploop.apps.named import Catalog
from oploop.errors import FixConfig, FixData, OploopError, RetryLater, did_you_mean
from oploop.project.yaml import SECRET_KEY
from oploop.records import ColumnType, Deletes, Stream

KEY = "_key"  #: identifies a row of a resource without a primary key: a hash of what the row holds

#: dlt's data types; those that no number of ours shows exactly are text.
KINDS: Mapping[str, ColumnType] = {
    "text": ColumnType.TEXT,
    "bigint": ColumnType.INTEGER,
    "double": ColumnType.NUMBER,
    "bool": ColumnType.BOOLEAN,
    "timestamp": ColumnType.TIMESTAMP,
    "date": ColumnType.DATE,
    "json": ColumnType.JSON,
}

_LOCKS: dict[str, threading.Lock] = {}


class Source(Catalog[Stream]):
    """One source function with its arguments."""

    def __init__(self, app: str, path: str, args: Mapping[str, Any]) -> None:
        super().__init__()
        self._app, self._args, self.lacks = app, dict(args), f"{app} has no resource"
        self._folder, self._name = os.path.split(path) if os.path.isabs(path) else ("", path)
        if ".py:" in path:  # a file may stand in any folder
            self._folder, self._name = "", path
        self._secrets = sorted(_secrets(self._args), key=len, reverse=True)
        self._made: Any = None
        self._function: Any = None
        self._file: str | None = None  # where the function stands

    @property
    def shown(self) -> str:
        """The function's name, for people."""
        return os.path.basename(self._name)

    def resources(self) -> Mapping[str, Any]:
        """The resources that are loaded at all, by name."""
        if self._made is None:
            self._made = self._explained(self._make, "cannot be made")
        found: Mapping[str, Any] = self._made.selected_resources
        return found

    def listed(self) -> Mapping[str, bool]:
        return dict.fromkeys(self.resources(), False)

    def has(self, name: str) -> bool:
        return name in self.resources()

    def describe(self, name: str) -> Stream | None:
        """A resource as a stream."""
        if name not in self.resources():
            return None
        doing = f"has a resource {name!r} that cannot be read"
        found: Stream = self._explained(lambda: stream_of(name, self.resources()[name]), doing)
        return found

    def mark(self, name: str) -> str | None:
        """The column of a resource that says that a row is gone, where there is one."""
        columns = _columns(self.resources()[name])
        return next((c for c, hints in columns.items() if hints.get("hard_delete")), None)

    def state(self, dumped: Any) -> dict[str, Any]:
        """dlt's state as it was kept in a cursor; a new one from None."""
        _dlt()
        from dlt.common.json import json

        found: dict[str, Any] = {} if dumped is None else json.typed_loads(orjson.dumps(dumped).decode())
        return found

    def dumped(self, state: Mapping[str, Any]) -> Any:
        """dlt's state as plain JSON values."""
        from dlt.common.json import json

        return orjson.loads(json.typed_dumps(state))

    def items(self, name: str, state: dict[str, Any], since: datetime | None) -> Generator[Any]:
        """What a resource yields (records, Arrow tables, data frames), one by one; `state` is kept up while it does."""
        _dlt()
        # One read at a time: what a function yields may hang on objects of its module, its incremental cursor to begin with.
        with _LOCKS.setdefault(self._name, threading.Lock()):
            yield from self._items(name, state, since)

    def _items(self, name: str, state: dict[str, Any], since: datetime | None) -> Generator[Any]:
        from dlt.common.configuration.container import Container
        from dlt.common.pipeline import StateInjectableContext

        def begin() -> Iterator[Any]:
            with Container().injectable_context(StateInjectableContext(state=state)):
                source = self._make().with_resources(name)
                if since is not None:
                    _start_at(source.resources[name], since)
                return iter(source)

        doing = f"failed at its resource {name!r}"
        found = self._explained(begin, doing)
        try:
            while (item := self._explained(lambda: next(found, found), doing)) is not found:
                yield item
        finally:
            if hasattr(found, "close"):
                found.close()

    # -- finding and making it ---------------------------------------------------------------------------------------

    def _make(self) -> Any:
        """The source anew, as one is read once only."""
        _dlt()
        from dlt.extract.resource import DltResource
        from dlt.extract.source import DltSource

        if self._function is None:
            self._function = self._load()
        function = self._function
        made = function if isinstance(function, DltResource) and not self._args else function(**self._args)
        if isinstance(made, DltSource):
            return made
        listed = [made] if isinstance(made, DltResource) else list(made) if isinstance(made, (list, tuple)) else []
        if not listed or not all(isinstance(r, DltResource) for r in listed):
            raise FixConfig(
                f"source: {self.shown} gives no dlt source but {type(made).__name__}",
                mend="name a function with @dlt.source or @dlt.resource",
            )
        from dlt.common.schema import Schema

        return DltSource(Schema(self._app), self._app, listed)

    def _load(self) -> Any:
        path, _, name = self._name.rpartition(":" if ":" in self._name else ".")
        module = _from_file(path) if path.endswith(".py") else self._imported(path)
        self._file = getattr(module, "__file__", None)
        if not hasattr(module, name):
            raise FixConfig(f"source: {path} has no {name!r}", mend=did_you_mean(name, _callables(module)))
        return getattr(module, name)

    def _imported(self, module: str) -> Any:
        if not module:
            raise FixConfig(
                f"source: {self._name!r} names no module", mend="write package.module.function or path.py:function"
            )
        if self._folder and self._folder not in sys.path:
            sys.path.insert(0, self._folder)
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as e:
            mend = "install it beside oploop" if e.name == module.split(".")[0] else f"{module} wants it"
            raise FixConfig(f"source: there is no module {e.name!r}", mend=mend) from None

    # -- errors --------------------------------------------------------------------------------------------------------

    def _explained(self, work: Callable[[], Any], doing: str) -> Any:
        """Do it; what the source raises becomes ours, named by its remedy, without secrets."""
        try:
            return work()
        except OploopError:
            raise
        except (Exception, SystemExit) as e:  # a source may raise anything
            raise self._explain(e, doing) from None

    def _explain(self, e: BaseException, doing: str) -> OploopError:
        from dlt.common.configuration.exceptions import ConfigFieldMissingException

        cause = _cause(e)
        said = self._without_secrets(f"{type(cause).__name__}: {' '.join(str(cause).split())}")[:300]
        where = f"source: {self.shown} {doing}{self._line(cause)}"
        if isinstance(cause, ConfigFieldMissingException):
            missing = ", ".join(cause.fields)
            return FixConfig(f"source: {self.shown} is not told {missing}", mend=f"add it to args of {self._app}")
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return FixConfig(f"{where}: {said}", mend=f"check the credentials in args of {self._app}")
        if (status is not None and (status == 429 or status >= 500)) or _is_network(cause):
            return RetryLater(f"{where}: {said}", mend="run again later")
        if status is not None or isinstance(cause, (TypeError, ValueError, LookupError)):
            return FixConfig(f"{where}: {said}", mend=f"check args of {self._app}, or mend the source")
        return FixData(f"{where}: {said}", mend="mend the source")

    def _line(self, cause: BaseException) -> str:
        """Where in the source's own file it was raised, where that can be told."""
        frames = [f for f in traceback.extract_tb(cause.__traceback__) if f.filename == self._file]
        return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def stream_of(name: str, resource: Any) -> Stream:
    """A resource's hints as a stream.

    `replace`: each read is whole, what it does not show is gone. `merge` and `append`: rows are added and changed, and
    gone only where a column has the `hard_delete` hint and says so.
    """
    columns = _columns(resource)
    key = tuple(c for c, hints in columns.items() if hints.get("primary_key"))
    if not key and any(hints.get("merge_key") for hints in columns.values()):
        raise FixConfig(
            f"resource {name!r} has a merge_key and no primary_key: groups of rows are not replaced as a whole yet",
            mend="give the resource a primary_key",
        )
    disposition = resource.write_disposition
    if isinstance(disposition, dict):
        disposition = disposition.get("disposition")
    whole = disposition == "replace"
    marked = any(hints.get("hard_delete") for hints in columns.values())
    kinds = {c: KINDS.get(hints["data_type"], ColumnType.TEXT) for c, hints in columns.items() if "data_type" in hints}
    kinds |= {c: ColumnType.TEXT for c in key if c not in kinds}
    return Stream(
        name,
        key or (KEY,),
        kinds if key else {KEY: ColumnType.TEXT, **kinds},
        incremental=not whole,
        deletes=Deletes.ABSENCE if whole else Deletes.MARKED if marked else Deletes.NEVER,
        description=f"dlt resource, {disposition}",
    )


def _columns(resource: Any) -> Mapping[str, Any]:
    """The hints of a resource's columns; those that depend on the row tell nothing here."""
    if resource.has_other_dynamic_hints:
        return {}
    found: Mapping[str, Any] = resource.compute_table_schema()["columns"]
    return found


def _start_at(resource: Any, since: datetime) -> None:
    """Let a resource's incremental begin at `since`, in the form in which it was told to begin."""
    from dlt.sources import incremental

    wrapper = resource.incremental
    inner = getattr(wrapper, "incremental", None) or getattr(wrapper, "_incremental", None)
    declared = (p.default for p in _parameters(resource) if isinstance(p.default, incremental))
    default = inner if inner is not None else next(declared, None)
    if default is None:
        raise FixConfig(f"`since` is for resources with an incremental cursor, which {resource.name!r} has not")
    begin: Any = since
    if isinstance(default.initial_value, str):
        begin = since.isoformat().replace("+00:00", "Z")
    elif isinstance(default.initial_value, (int, float)) and not isinstance(default.initial_value, bool):
        begin = int(since.timestamp())
    resource.apply_hints(incremental=incremental(default.cursor_path, initial_value=begin))


def _parameters(resource: Any) -> list[Any]:
    import inspect

    try:
        return list(inspect.signature(resource._pipe.gen).parameters.values())
    except (TypeError, ValueError):
        return []


def _from_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise FixConfig(f"source: there is no file {path}", mend="write it as from the project's folder")
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def _callables(module: Any) -> list[str]:
    return [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]


def _cause(e: BaseException) -> BaseException:
    """The error that the source itself raised, out of those that dlt wrapped around it."""
    while e.__cause__ is not None and type(e).__module__.startswith("dlt."):
        e = e.__cause__
    return e


def _is_network(e: BaseException) -> bool:
    import requests

    network = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(e, (*network, ConnectionError, TimeoutError))


def _secrets(value: Any, key: str = "") -> Iterator[str]:
    """Texts of arguments whose names sound like secrets."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _secrets(v, f"{key}.{k}")
    elif isinstance(value, list):
        for v in value:
            yield from _secrets(v, key)
    elif isinstance(value, str) and len(value) > 3 and SECRET_KEY.search(key):
        yield value


def _dlt() -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # read while dlt is imported; on by default
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")
    import dlt  # noqa: F401
