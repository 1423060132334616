"""A project opened for a command: its warehouse, its state, its apps, each made when it is first needed.

Everything that a run takes from the world outside comes in through here, so that tests and simulations can hand in
their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

from oploop.accounts import AccountFields
from oploop.activate.bind import AnyColumns, bind
from oploop.activate.bound import BoundSync
from oploop.activate.proving import prove, sql_of
from oploop.activate.refbind import Referenced
from oploop.apps.base import App
from oploop.apps.registry import make_app
from oploop.errors import FixConfig, OploopError, Place, RetryLater, did_you_mean
from oploop.extract.nouns import Source
from oploop.extract.tables import LoadedStreams, TableReader, columns_of
from oploop.model.base import Modeler, Names
from oploop.project import Project, Sync, check_columns
from oploop.project.release import Release
from oploop.records import Object, Op, Stream
from oploop.runtime import Runtime
from oploop.selection import Selection
from oploop.state import StateReader, StateStore
from oploop.storage import Storage
from oploop.warehouse.base import Warehouse


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show while a run goes on. `stage`: extract, build ...; `kind`: start, tick, done, note, failed."""

    stage: str
    kind: Literal["start", "tick", "done", "note", "failed"]
    text: str = ""
    seconds: float | None = None
    report: object | None = None  #: of "done": the RunReport as it stands; `sync` done has the sync's name as text


Tell = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Tells nobody."""


def noting(tell: Tell) -> Callable[[OploopError], None]:
    """Tells what an app failed on itself, where that stops nothing."""
    return lambda e: tell(Event("verify", "note", str(e)))


@dataclass
class Workspace:
    """An open project. Use as a context manager within one event loop; closes what it opened."""

    project: Project
    environment: str
    runtime: Runtime
    command: str = "oploop"
    read_only: bool = False
    wait: float | None = None
    on_wait: Callable[[str], None] = lambda _: None
    _storage: Storage | None = None
    _apps: dict[str, App] = field(default_factory=dict)
    _modeler: Modeler | None = None

    def __post_init__(self) -> None:
        known = {"dev", "prod", *self.project.environments}
        if self.environment not in known:
            raise FixConfig(
                f"there is no environment {self.environment!r}",
                mend=f"{did_you_mean(self.environment, known)} (or add it to environments in oploop.yml)",
            )

    async def __aenter__(self) -> Workspace:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close apps, warehouse and state; safe to call twice."""
        for app in self._apps.values():
            await app.aclose()
        self.storage.close()

    # -- what it keeps -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def storage(self) -> Storage:
        """Warehouse, state and tokens."""
        if self._storage is not None:
            return self._storage
        return Storage(self.project, self.runtime, self.command, self.read_only, self.wait, self.on_wait)

    @property
    def state(self) -> StateReader:
        """The state, to read."""
        return self.storage.state

    @property
    def store(self) -> StateStore:
        """The state, to write; only in a workspace that is not read-only."""
        return self.storage.store

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse, opened at the first use; made ready when it may be written."""
        return self.storage.warehouse

    # -- apps and models ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def release(self) -> Release:
        """The commit of the project in git, for the ledger."""
        return Release(self.project.root)

    def app(self, name: str) -> App:
        """An app of the project, made at the first use."""
        if name not in self._apps:
            block = self.project.apps[name]
            app = make_app(block, replace(self.runtime, vault=self.storage.vault))
            if block.tables:
                app.streams = LoadedStreams(app.streams, block.tables)
            self._apps[name] = app
        return self._apps[name]

    def source(self, app: str, stream: str) -> Source:
        """What a stream is read from: its app, or the table into which another tool loads it."""
        block = self.project.apps[app].tables.get(stream)
        return self.app(app) if block is None else TableReader(self.app(app), block, self.warehouse, self.runtime)

    def unread(self, app: str, stream: str | None) -> Collection[str]:
        """The columns of a stream that are not read: excluded by the project, or not in the table of another tool."""
        block, read = self.project.apps[app], self.project.apps[app].read.get(stream or "")
        exclude = frozenset(read.exclude if read is not None else ())
        if stream is None or stream not in block.tables:
            return exclude
        of = self.app(app).streams[stream]
        return exclude | (of.columns.keys() - columns_of(of, block.tables[stream], self.warehouse).keys())

    @functools.cached_property
    def fields(self) -> AccountFields:
        """The fields of the apps' accounts."""
        return AccountFields(self.project, self.app)

    async def modeling(self) -> Modeler:
        """The modelling engine, with the custom fields found that models name by `@field`."""
        from oploop.model import named_fields

        await self.fields.find(named_fields(self.project.models.path, self.project.root))
        return self.modeler

    @functools.cached_property
    def names(self) -> Names:
        """What is told of the models without starting the modelling engine."""
        from oploop.model import make_names

        return make_names(self.project.models, self.environment, self.project.root, self.project.state_dir)

    def pick(self, selection: Selection) -> list[Sync]:
        """See `Selection.pick`. A word with `+` loads the modelling engine, which knows what models are made of."""
        return selection.pick(self.project, lambda: {m.name: m.depends_on for m in self.modeler.models()})

    @property
    def modeler(self) -> Modeler:
        """The project's modelling engine; loads it, which may take seconds."""
        if self._modeler is None:
            from oploop.model import make_modeler

            field_sql = functools.partial(self.fields.sql, self.warehouse)
            self._modeler = make_modeler(
                self.project.models, self.names, self.warehouse, self.runtime, field_sql=field_sql
            )
        return self._modeler

    def target(self, sync: Sync) -> tuple[Object, Stream | None]:
        """A sync's object and the stream that shows it (None: blind)."""
        return object_of(self.app(sync.app), sync.object, sync.place_of("to"))

    async def bound(self, sync: Sync) -> BoundSync:
        """A sync bound to what it names; asks the app to describe its object."""
        table = self.model_table(sync)
        bound = await self.bind(sync, table, self.warehouse.columns(table))
        prove(bound, self.warehouse)
        return bound

    async def precheck(self, sync: Sync) -> BoundSync:
        """Find what is wrong with a sync before anything is read or built: its object, its fields, its model.

        The model's columns are those that its file selects, where that can be told without building it.
        """
        if self.project.models.engine == "none":
            return await self.bound(sync)
        files = self.names.files()
        if sync.model not in files:
            raise _unknown_model(sync, files)
        declared = self.names.declared(sync.model)
        columns = dict.fromkeys(declared, "VARCHAR") if declared is not None else None
        for name, sql, place in sql_of(sync) if columns is not None else ():
            check_columns(sql, columns or {}, place, name)
        return await self.bind(sync, sync.model, columns or AnyColumns())

    async def bound_alone(self, sync: Sync) -> BoundSync:
        """A sync bound to its app's object, whether or not its model stands: for what asks nothing of the model."""
        return await self.bind(sync, sync.model, AnyColumns())

    async def bind(
        self, sync: Sync, table: str, columns: Mapping[str, str], warehouse: Warehouse | None = None
    ) -> BoundSync:
        """A sync bound to its app's object, and to a table of these columns. `warehouse`: another than the project's."""
        self.target(sync)  # an object that is not there is refused before the account is asked
        held = await self.fields.held(sync)
        obj, stream = self.target(sync)  # some apps know more of an object once it has been described
        read = self.project.apps[sync.app].read.get(obj.stream or "")
        bound = bind(
            sync,
            obj,
            stream,
            held.fields,
            warehouse or self.warehouse,
            table,
            columns,
            unread=self.unread(sync.app, obj.stream),
            others=self.project.syncs,
            referenced=await self.references(sync),
            lost=held.lost,
        )
        if bound.create_op is Op.CREATE and read is not None and read.since is not None:
            raise FixConfig(
                f"{sync.app}.{obj.stream} is read only since {read.since:%Y-%m-%d}, so a record that is not read may still be there",
                mend="remove `since`, or use mode: update",
                place=read.place,
            )
        return bound

    async def references(self, sync: Sync) -> dict[str, Referenced]:
        """The objects that a sync's fields refer to, by `app.object`, as their accounts describe them."""
        found = {}
        for app, name, obj, stream in referenced(self, sync):
            unread = self.unread(app, obj.stream)
            found[f"{app}.{name}"] = Referenced(app, obj, stream, await self.fields.described(app, name), unread)
        return found

    def model_table(self, sync: Sync) -> str:
        """Where a sync's model stands in this environment; FixConfig when it stands nowhere."""
        table = self.names.table(sync.model)
        if self.warehouse.columns(table):
            return table
        raise _no_model(self, sync)

    def delivers(self, app_name: str) -> bool:
        """Whether this environment may write to an app: prod may; others only to an app on this machine."""
        from urllib.parse import urlsplit

        from oploop.apps.transport import is_loopback

        if self.environment == "prod":
            return True
        base = getattr(self.app(app_name).config, "base_url", None)
        return bool(base) and is_loopback(urlsplit(str(base)).hostname or "")


def referenced(ws: Workspace, sync: Sync) -> list[tuple[str, str, Object, Stream | None]]:
    """The objects that a sync's fields refer to: (app, object's name, the object, the stream that shows it)."""
    found = {}
    for m in sync.fields:
        if m.ref is not None:
            app, _, name = m.ref.partition(".")
            found[m.ref] = (app, name, *object_of(ws.app(app), name, sync.place_of("fields", m.field, "ref")))
    return list(found.values())


def object_of(app: App, name: str, place: Place) -> tuple[Object, Stream | None]:
    """An app's object and the stream that shows it (None: it cannot be read)."""
    if name not in app.objects:
        why = app.refuses.get(name)
        if why is not None:
            raise FixConfig(f"{app.name}.{name} cannot be written: {why}", place=place)
        raise FixConfig(f"{app.name} has no object {name!r}", mend=did_you_mean(name, app.objects), place=place)
    obj = app.objects[name]
    return obj, app.streams[obj.stream] if obj.stream is not None else None


def _no_model(ws: Workspace, sync: Sync) -> OploopError:
    """Why a sync's model stands nowhere."""
    place = sync.place_of("model")
    if ws.project.models.engine == "none":
        return FixConfig(
            f"there is no table {sync.model!r} in the warehouse",
            mend=did_you_mean(
                sync.model, [t for t in ws.warehouse.tables() if not t.startswith(("oploop", "sqlmesh"))]
            ),
            place=place,
        )
    files: Collection[str] = [m.name for m in ws.modeler.models()] if not ws.read_only else ws.names.files()
    if sync.model not in files:
        return _unknown_model(sync, files)
    return FixConfig(
        f"model {sync.model} is not built in {ws.environment}",
        mend=f"oploop build --env {ws.environment}",
        place=place,
    )


def _unknown_model(sync: Sync, known: Collection[str]) -> OploopError:
    mend = did_you_mean(sync.model, known)
    return FixConfig(f"there is no model {sync.model!r}", mend=mend, place=sync.place_of("model"))


__all__ = [
    "Event",
    "RetryLater",
    "Tell",
    "Workspace",
    "nobody",
    "noting",
    "object_of",
    "referenced",
]
