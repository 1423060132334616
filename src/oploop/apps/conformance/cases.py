"""What a suite is told of an app, and what its tests share: a sandbox with an app on it, a raw table, delivery by steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, cast

import orjson

from oploop.apps.base import App
from oploop.apps.sandbox import Sandbox
from oploop.apps.transport import LostAnswer, Refused
from oploop.errors import FixConfig, OploopError, RetryLater, SkipRecord
from oploop.records import (
    DELETED,
    RAW,
    VERSION,
    Batch,
    Change,
    Column,
    Cursor,
    Deletes,
    FieldSource,
    FieldType,
    JsonPath,
    Object,
    Op,
    Outcome,
    ReadOptions,
    Receipt,
    Step,
    Stream,
)
from oploop.runtime import Runtime

#: How often a change that the app put off is sent again.
TRIES = 5


@dataclass(frozen=True)
class StreamCase:
    """How one stream is tried.

    `record(i)` is the i-th record as `Sandbox.load(kind, ...)` takes it, with its primary key; give many of them one
    instant, texts that are no ASCII, and NULLs. `change` and `delete` do to the record with this key what a person would
    (None: cannot be done). `calls`: a regular expression for the requests ("GET /v1/books") that read it; None where it is
    read without any.
    """

    stream: str
    kind: str
    record: Callable[[int], dict[str, Any]]
    calls: str | None
    count: int = 250
    change: Callable[[Sandbox, Any], None] | None = None
    delete: Callable[[Sandbox, Any], None] | None = None


@dataclass(frozen=True)
class ObjectCase:
    """How one object is tried.

    `fields(i)`: all that the i-th new record is made of, with the key's fields; no two alike. `changed(i)`: what an
    update of it sends. `key`: the names of the key's fields. `bad`: fields with which the app refuses a record. `calls`: a
    regular expression for the requests that write it; None where it is written without any (a database, files).
    `kind`: how `Sandbox.dump(kind)` calls the records, where not as the object. `existing`: of an object that cannot be
    created: put so many records into the sandbox, return their ids.
    """

    object: str
    fields: Callable[[int], dict[str, Any]]
    calls: str | None
    key: tuple[str, ...]
    kind: str | None = None
    changed: Callable[[int], dict[str, Any]] | None = None
    bad: Mapping[str, Any] | None = None
    existing: Callable[[Sandbox, int], list[str]] | None = None
    silent: tuple[Op, ...] = ()
    nothing: tuple[str, ...] = ()

    def stored(self, sandbox: Sandbox) -> int:
        """How many records the sandbox holds now."""
        return len(sandbox.dump(self.kind or self.object))


class Raw:
    """What the raw table of a stream holds after some reads: the newest version of each record, deletes marked."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.cursor: Cursor | None = None
        self.batches: list[Batch] = []

    async def read(self, app: App, *, stop_after: int | None = None) -> None:
        """One read, from where the last one stopped; broken off after so many batches."""
        seen: set[tuple[Any, ...]] = set()
        self.batches = []
        batches = cast("AsyncGenerator[Batch, None]", app.read(self.stream.name, self.cursor, ReadOptions()))
        async with aclosing(batches):  # a read that is broken off lets go of what it holds
            async for batch in batches:
                assert not (self.batches and self.batches[-1].complete), "a batch came after the complete one"
                self.batches.append(batch)
                seen |= self._load(batch)
                if batch.cursor is not None:
                    self.cursor = orjson.loads(orjson.dumps(batch.cursor))  # as it is stored
                if stop_after is not None and len(self.batches) >= stop_after:
                    return
        assert self.batches, f"{self.stream.name}: no batch at all, not even the complete one"
        assert self.batches[-1].complete, f"{self.stream.name}: the last batch is not complete"
        if self.stream.deletes is Deletes.ABSENCE or (self.cursor or {}).get("relisted"):
            for key, row in self.rows.items():
                row[DELETED] = row[DELETED] or key not in seen

    def _load(self, batch: Batch) -> set[tuple[Any, ...]]:
        keys = set()
        for row in batch.table.to_pylist():
            key = tuple(row[k] for k in self.stream.primary_key)
            keys.add(key)
            known = self.rows.get(key)
            if not batch.keys_only and (known is None or row[VERSION] >= known[VERSION]):
                self.rows[key] = row
        return keys

    def live(self) -> dict[Any, dict[str, Any]]:
        """The records that are there, by key (the value alone where the key is one column)."""
        return {(k[0] if len(k) == 1 else k): r for k, r in self.rows.items() if not r[DELETED]}


@dataclass
class Bench:
    """A sandbox with an app on it."""

    sandbox: Sandbox
    app: App
    numbers: int = field(default=0)

    async def deliver(self, case: ObjectCase, op: Op, records: Sequence[Mapping[str, Any]]) -> dict[int, Receipt]:
        """Send records as the engine does: in the largest steps, put-off ones again, whole refusals halved.

        A record is {"fields", "remote_id"}; the receipts come by number, in the order given.
        """
        operation = self.app.objects[case.object].operations[op]
        changes = []
        for record in records:
            self.numbers += 1
            key = {k: record.get("key", record["fields"]).get(k) for k in case.key}
            changes.append(Change(self.numbers, op, key, record["fields"], record.get("remote_id")))
        found: dict[int, Receipt] = {}
        for start in range(0, len(changes), operation.batch):
            step = Step(
                self.app.runtime.new_id(), "conformance", case.object, op, changes[start : start + operation.batch]
            )
            found |= await self.send(step)
        return found

    async def send(self, step: Step, tries: int = TRIES) -> dict[int, Receipt]:
        """One step to its end."""
        try:
            receipts = {r.number: r for r in await self.app.send(step)}
        except (Refused, SkipRecord) as e:
            if len(step.changes) == 1:
                return {step.changes[0].number: Receipt(step.changes[0].number, Outcome.REJECTED, error=str(e))}
            half = len(step.changes) // 2
            parts = (step.changes[:half], step.changes[half:])
            answers = [await self.send(Step(step.id, step.sync, step.object, step.op, part), tries) for part in parts]
            return answers[0] | answers[1]
        except LostAnswer as e:
            receipts = {c.number: Receipt(c.number, Outcome.UNKNOWN, error=str(e)) for c in step.changes}
        except RetryLater as e:
            receipts = {c.number: Receipt(c.number, Outcome.RETRY, error=str(e)) for c in step.changes}
        again = [c for c in step.changes if receipts[c.number].outcome is Outcome.RETRY]
        if again and tries > 1:
            await self.app.runtime.sleep(0.5)
            receipts |= await self.send(Step(step.id, step.sync, step.object, step.op, again), tries - 1)
        return receipts


class Suite:
    """What an author says; the tests are in the mixins."""

    app_class: ClassVar[type[App]]
    #: Whether the app speaks HTTP with its sandbox; else no answers are spoiled and lost.
    http: ClassVar[bool] = True
    #: A wrong value for each key that is a credential; `check` must name the key.
    wrong_credentials: ClassVar[Mapping[str, str]] = {}
    streams: ClassVar[Sequence[StreamCase]] = ()
    objects: ClassVar[Sequence[ObjectCase]] = ()
    #: Names (globs) of streams and objects for which there is no case here, since other tests try them.
    elsewhere: ClassVar[Sequence[str]] = ()

    def sandbox(self, runtime: Runtime) -> Sandbox:
        """A new sandbox, empty but for what the account must have."""
        raise LookupError("the suite needs a sandbox")

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        """The app's block for a running sandbox."""
        made: dict[str, Any] = type(sandbox).default_config(sandbox.url)  # type: ignore[attr-defined]
        return made

    def names_credential(self, said: FixConfig) -> bool:
        """Whether a message names one of the keys that are credentials."""
        return not self.wrong_credentials or any(key in str(said) for key in self.wrong_credentials)

    #: Credentials are signed with the time: a clock that is off is refused before anything is read.
    timed_credentials: ClassVar[bool] = False

    @asynccontextmanager
    async def bench(self, *, ahead: float = 0.0, **config: Any) -> AsyncIterator[Bench]:
        """A running sandbox and an app on it, whose clock is so many seconds ahead; waits are real but short."""
        chance = random.Random(11)

        async def short(seconds: float) -> None:
            await asyncio.sleep(min(seconds, 0.02))

        runtime = Runtime(sleep=short, random=chance)
        sandbox = self.sandbox(runtime)
        with sandbox.running():
            block = {**self.config(sandbox), **config}
            ours = replace(runtime, now=lambda: runtime.now() + timedelta(seconds=ahead)) if ahead else runtime
            app = self.app_class(self.app_class.type, self.app_class.Config(**block), ours)
            try:
                yield Bench(sandbox, app)
            finally:
                await app.aclose()


def value_in(row: Mapping[str, Any], source: FieldSource) -> Any:
    """A field's value in a row of its stream."""
    held = row.get(source.name if isinstance(source, Column) else source.column)
    if isinstance(source, Column):
        return held
    inner = orjson.loads(held) if isinstance(held, str) else held
    if isinstance(source, JsonPath):
        for step in source.path:
            inner = inner.get(step) if isinstance(inner, dict) else None
        return inner
    entries = [e for e in inner or [] if str(e.get(source.key)) == str(source.equals)]
    return entries[0].get(source.value) if entries else None


def alike(sent: Any, held: Any, kind: FieldType) -> bool:
    """Whether what was read back is what was sent, by the field's type."""
    if sent == held:
        return True
    if kind in (FieldType.JSON, FieldType.LIST) and isinstance(held, str):
        held = orjson.loads(held)
    if kind is FieldType.LIST:
        return sorted(sent or []) == sorted(held or [])
    if kind in (FieldType.NUMBER, FieldType.INTEGER) and sent is not None and held is not None:
        return float(sent) == float(held)
    if sent is None or held is None:
        return sent in (None, "") and held in (None, "")
    return str(sent) == str(held)


def run(work: Callable[[], Any]) -> None:
    """Run an async test in an event loop of its own, so that authors need no plugin."""
    asyncio.run(work())


async def refusal(work: Awaitable[object]) -> OploopError | None:
    """The error that an awaitable raises; None when it goes well."""
    try:
        await work
    except OploopError as e:
        return e
    return None


def readable(obj: Object) -> bool:
    """Whether what was written can be read back by key."""
    return obj.stream is not None


__all__ = [
    "RAW",
    "Bench",
    "ObjectCase",
    "Raw",
    "StreamCase",
    "Suite",
    "alike",
    "readable",
    "refusal",
    "run",
    "value_in",
]
