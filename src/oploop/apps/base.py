"""What an app is to oploop: one class, both directions.

An app's folder has `app.toml` (what can be read and written, as data: see `declared`), `client.py` (auth, limits, retries: how
its API behaves), what reads and writes it, `sandbox.py` (a stand-in server) and an `__init__.py` with the App class. Differences between apps are declared here as data; nothing outside an app's folder asks
which app it has before it.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Protocol
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

from oploop.apps.transport import Budget, Transport
from oploop.records import Batch, Change, Cursor, Field, Notice, Object, Op, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime


class AppConfig(BaseModel):
    """The keys that every app's block in `oploop.yml` takes; an app adds its own in a subclass.

    Secrets are declared as `pydantic.SecretStr`. `read`, `type` and `budget` are handled by the project, not here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str | None = None


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("is no time zone: write it like Europe/Berlin") from None
    return value


#: A key of a block that names a time zone, where the account's own cannot be asked for.
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class AddresslessConfig(AppConfig):
    """The same of what is not called by HTTP, and has no `base_url`; `instead` says what tells where it is."""

    instead: ClassVar[str] = ""

    @field_validator("base_url")
    @classmethod
    def _no_url(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError(f"is not for {cls.instead}")
        return value


@dataclass(frozen=True, slots=True)
class Account:
    """Whose account answers, for `doctor`: a line for people, and the app's name for the account if it has one."""

    line: str
    name: str | None = None


class Wire(Protocol):
    """What is asked of an account's connection: a `transport.Transport`, or an app's own for what is no HTTP."""

    calls: int  #: calls that went out, retries included
    budget: Budget | None

    async def aclose(self) -> None: ...


class App(ABC):
    """An outside system. Built once per run and account; reader and writer share its transport.

    Subclasses set the class variables, implement the four coroutines, and do all I/O through `self.transport`
    (or fsspec for files) and all timing through `self.runtime`.
    """

    type: ClassVar[str]  #: the name in `oploop.yml` and of the folder
    title: ClassVar[str]  #: the vendor's name for people
    Config: ClassVar[builtins.type[AppConfig]] = AppConfig
    #: Of an app that learns them from the account, an instance sets its own (and the class has none).
    streams: Mapping[str, Stream] = {}
    objects: Mapping[str, Object] = {}
    #: What somebody might look for among the objects, and why it is none.
    refuses: ClassVar[Mapping[str, str]] = {}
    #: For people: how much it may be called, with the key that says otherwise; what else only the account can tell.
    limits: ClassVar[str] = ""
    learns: ClassVar[str] = ""
    #: Whether what it runs may hand Arrow arrays of numpy, or ask for some, as other people's code does: see `lean`.
    needs_numpy: ClassVar[bool] = True
    #: Whether it can tell people of a run: see `notify`.
    notifies: ClassVar[bool] = False
    #: The keys that `oploop connect` asks for; empty: those that the block must have.
    asks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, config: Any, runtime: Runtime) -> None:
        self.name = name  #: the name used in the project; raw tables are `raw_<name>.<stream>`
        self.config = config
        self.runtime = runtime
        self.transport: Wire | None = None

    @abstractmethod
    async def check(self) -> Account:
        """Call the app with the credentials, as cheaply as it can be done.

        Raises FixConfig that names the wrong credential's key (`api_token`), or says that what answers is no such app.
        """

    @abstractmethod
    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Read a stream from `cursor` (None: from the start) until it has caught up.

        Yields batches of some hundreds to some ten thousand rows as they come. The last one has `complete=True` and the
        cursor for the next run, and is yielded even if there was nothing new. Reading again from any cursor that was
        yielded must lose nothing; it may repeat records.
        """

    def full_name(self, name: str) -> str:
        """A stream's or an object's name as the account has it, where it may be called otherwise too (a table without its schema)."""
        return name

    def prepare(self, *, writes: bool = False) -> None:
        """Begin with what the first call needs, that which reads or that which `writes`, for who has something else to do before
        it; returns at once. What goes wrong is told by the call."""
        if isinstance(self.transport, Transport):
            self.transport.load()

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """The present records of an object by the app's own ids, as rows of the object's stream.

        Records that the app no longer has are rows with `_deleted` true, or missing. `_version` is at least the
        time at which the app answered, so that a fetch supersedes what an earlier read showed.
        """
        raise LookupError(f"{self.type}.{object_name} cannot be fetched by key")

    async def describe(self, object_name: str) -> Mapping[str, Field]:
        """The object's fields, by the name a sync uses, as this account has them (custom ones too).

        A custom field is listed under its title when that is unique, with its stable id in `name`. An app that learns
        more of the object (its keys, its stream's columns) puts it into its `objects` and `streams`: they are looked at
        again after this.
        """
        return self.objects[object_name].fields

    async def send(self, step: Step) -> Sequence[Receipt]:
        """Make the one API call (or one job) that the step stands for; a receipt for each of its changes, in any order,
        or `columns.Taken` where it took them all.

        Raises `transport.Refused` when the call as a whole was refused and nothing was done, `transport.LostAnswer`
        when it cannot be known what was done.
        """
        raise LookupError(f"{self.type} takes no {step.object}")

    async def notify(self, channel: str, notice: Notice) -> None:
        """Tell people of something, at a place of the app that `channel` names, in its markup. For apps that declare `notifies`."""
        raise LookupError(f"{self.type} tells nobody anything")

    async def settle(self, object_name: str, op: Op, note: str, changes: Sequence[Change]) -> Sequence[Receipt]:
        """What became of a job whose end nobody heard, by the `note` that was kept of it with `Step.note`. The changes have their
        number, key and remote id, and no fields.

        No receipts, or RetryLater: it may still be at work; waits for its end a minute at the most. Until it is told that the
        job is over nothing of it is sent again, and each run asks. Of one that is over but tells nothing any more each change
        gets an UNKNOWN receipt: then reads tell what it did.
        """
        return []

    async def aclose(self) -> None:
        """Close connections. Safe to call twice."""
        if self.transport is not None:
            await self.transport.aclose()


def new_values(obj: Object, change: Change) -> dict[str, Any]:
    """All that a new record is made of: the change's fields, and those of its key that the app has; an append's key may be the
    model's own."""
    known = {n: v for n, v in change.key.items() if n in obj.fields or n.startswith(tuple(obj.dynamic))}
    return {**known, **change.fields}


def micros(at: datetime) -> int:
    """An aware datetime as microseconds since 1970, the unit of `_version`."""
    return round(at.timestamp() * 1_000_000)
