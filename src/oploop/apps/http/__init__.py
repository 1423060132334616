"""Any JSON API as an app: what can be read and written is what the block in `oploop.yml` says."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from oploop.apps.arrow import empty_table
from oploop.apps.base import Account, App
from oploop.apps.budget import Quota
from oploop.apps.http import writer
from oploop.apps.http.config import Auth, Call, FieldSpec, HttpConfig, LimitHeaders, ObjectSpec, StreamSpec
from oploop.apps.http.query import QueryKey
from oploop.apps.http.reader import ListReader
from oploop.apps.http.templates import Filling, at, path_of
from oploop.apps.transport import Answer, Budget, NotTheApi, Policy, Transport
from oploop.errors import FixConfig
from oploop.records import (
    Batch,
    Column,
    ColumnType,
    Condition,
    Cursor,
    Deletes,
    Field,
    Object,
    Op,
    Operation,
    ReadOptions,
    Receipt,
    Replay,
    Step,
    Stream,
)
from oploop.runtime import Runtime

if TYPE_CHECKING:
    from oploop.apps.http.sandbox import HttpSandbox

#: A reset from which on it is a time, in seconds since 1970, and no span.
SINCE_1970 = 1_000_000_000
FETCHES = 8  #: calls in flight of a fetch by id


class HttpPolicy(Policy):
    """The usual rules, and where the API says why it refuses."""

    def __init__(self, error: str, credential: str, told: LimitHeaders | None = None) -> None:
        self._error, self._credential, self._told = error, credential, told

    def quota(self, answer: Answer) -> Quota | None:
        """From the headers that the block names."""
        if self._told is None:
            return None
        limit, remaining, reset = (
            number(answer.headers.get(name.lower())) if name is not None else None
            for name in (self._told.limit, self._told.remaining, self._told.reset)
        )
        if limit is None and remaining is None:
            return None
        if reset is not None and reset >= SINCE_1970:
            reset = max(0.0, reset - ((answer.date_micros() or 0) / 1_000_000 or reset))
        return Quota(_whole(limit), _whole(remaining), reset)

    def error(self, answer: Answer) -> tuple[str, str | None]:
        try:
            body = answer.json()
        except NotTheApi:
            return f"HTTP {answer.status}", None
        said = at(body, self._error) or at(body, "message")
        if isinstance(said, dict):
            said = said.get("message", said)
        return (f"HTTP {answer.status}: {said}" if said else f"HTTP {answer.status}"), None

    def credential(self) -> str:
        return self._credential


class HttpApp(App):
    """One JSON API."""

    type = "http"
    title = "Any JSON API"
    limits = "what `limit` says"
    learns = "the streams and objects that the block describes"
    Config = HttpConfig

    def __init__(self, name: str, config: HttpConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        limit = config.limit
        self.api = Transport(
            config.base_url,
            runtime=runtime,
            headers={**config.headers, **_auth(config.auth)},
            auth=_query(config.auth),
            policy=HttpPolicy(config.error, _credential(config.auth), limit.headers if limit is not None else None),
            budget=Budget(runtime, calls=limit.calls, window=limit.per) if limit is not None else None,
            gzip=config.gzip,
        )
        self.transport = self.api
        self.specs: Mapping[str, StreamSpec] = config.streams
        self.streams = {n: _stream(n, spec) for n, spec in config.streams.items()}
        self.objects = {n: _object(n, spec) for n, spec in config.objects.items()}
        self._reader = ListReader(self.api, runtime)

    async def check(self) -> Account:
        """Ask for the path of `check`, or for the first list."""
        path = self.config.check or next((s.path for s in self.specs.values()), None)
        if path is None:
            return Account(f"{self.config.base_url}: nothing to ask (no check, no stream)")
        answer = await self.api.request("GET", path, ok=(404,))
        if answer.status == 404:
            raise FixConfig(
                f"{self.name}: there is no {path} at {self.config.base_url}", mend="check base_url and the path"
            )
        answer.json()
        return Account(f"{self.config.base_url} answers")

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See `reader`."""
        return self._reader.read(self.streams[stream], self.specs[stream], cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """One call a record, by the object's `fetch`. Without one its records are seen by reads alone."""
        spec = self.config.objects[object_name]
        stream = self.streams[spec.stream or object_name]
        if spec.fetch is None:
            raise FixConfig(f"{self.name}.{object_name} has no `fetch`", mend="give the path of one record")
        slots = asyncio.Semaphore(FETCHES)

        async def one(remote_id: str) -> pa.Table:
            async with slots:
                return await self._fetched(spec, stream, remote_id)

        tables = await asyncio.gather(*(one(i) for i in remote_ids))
        return Batch(
            stream.name, pa.concat_tables(tables, promote_options="default") if tables else empty_table(stream)
        )

    async def _fetched(self, spec: ObjectSpec, stream: Stream, remote_id: str) -> pa.Table:
        began, source = self.runtime.now(), self.specs[stream.name]
        path = path_of(spec.fetch or "", Filling({}, {}, remote_id, ""))
        answer = await self.api.request("GET", path, ok=(404, 410))
        record = answer.json() if answer.status < 400 else None
        if isinstance(record, dict) and spec.id not in record:  # {"account": {...}}
            record = next((v for v in record.values() if isinstance(v, dict) and spec.id in v), record)
        if record is None:
            if stream.primary_key != (spec.id,):  # which row it is only a read can tell
                return empty_table(stream)
            gone: dict[str, Any] = {spec.id: int(remote_id) if self._whole(spec) else remote_id}
            if source.deleted is None:
                source = source.model_copy(update={"deleted": "_gone"})
            record = {**gone, source.deleted or "_gone": True}
        return self._reader.table(
            stream, source, [record], answer, began, frozenset({"_gone"}) & record.keys(), fetched=True
        )

    async def send(self, step: Step) -> Sequence[Receipt]:
        """See `writer`."""
        spec = self.config.objects[step.object]
        replay = self.objects[step.object].operations[step.op].replay
        return await writer.send(self.api, getattr(spec, step.op.value), replay, step, whole_id=self._whole(spec))

    def _whole(self, spec: ObjectSpec) -> bool:
        """Whether the ids of an object's records are whole numbers."""
        return spec.stream is not None and self.streams[spec.stream].columns[spec.id] is ColumnType.INTEGER


def _auth(auth: Auth | None) -> dict[str, str]:
    if auth is None:
        return {}
    if auth.bearer is not None:
        return {"Authorization": f"Bearer {auth.bearer.get_secret_value()}"}
    if auth.query is not None:
        return {}
    if auth.header is not None and auth.value is not None:
        return {auth.header: auth.value.get_secret_value()}
    pair = f"{auth.user}:{auth.password.get_secret_value() if auth.password else ''}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _query(auth: Auth | None) -> QueryKey | None:
    return QueryKey(auth.query, auth.value) if auth is not None and auth.query and auth.value else None


def _credential(auth: Auth | None) -> str:
    if auth is None:
        return "auth, which is not given"
    return "auth.bearer" if auth.bearer else "auth.value" if auth.value else "auth.user and auth.password"


def number(text: str | None) -> float | None:
    """A header's number; its first, of a list ("100, 100;w=60")."""
    try:
        return None if text is None else float(re.split(r"[,;]", text)[0])
    except ValueError:
        return None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _stream(name: str, spec: StreamSpec) -> Stream:
    """Without `since` each read is whole, so that what is missing is gone; with it only marks tell."""
    whole = spec.since is None
    deletes = Deletes.MARKED if spec.deleted is not None else Deletes.ABSENCE if whole else Deletes.NEVER
    return Stream(
        name,
        tuple(spec.key),
        dict(spec.columns),
        incremental=not whole,
        deletes=deletes,
        lag=spec.lag,
        description=spec.path,
    )


def _object(name: str, spec: ObjectSpec) -> Object:
    operations = {op: _operation(op, call) for op in Op if (call := getattr(spec, op.value)) is not None}
    fields = {n: _field(n, f, spec) for n, f in spec.fields.items()}
    if spec.stream is not None and spec.id not in fields:
        fields[spec.id] = _field(spec.id, FieldSpec(key=True, read_only=True, nullable=False), spec)
    return Object(name, operations, stream=spec.stream, id_column=spec.id, fields=fields, lookup_batch=1)


def _field(name: str, spec: FieldSpec, obj: ObjectSpec) -> Field:
    source = Column(spec.column or name) if obj.stream is not None else None
    return Field(
        name,
        spec.type,
        source=source,
        key=spec.key,
        required=spec.required,
        read_only=spec.read_only,
        max_length=spec.max_length,
        enum=spec.enum,
        nullable=spec.nullable,
        canonical=spec.canonical,
    )


def _operation(op: Op, call: Call) -> Operation:
    """How often a call may be made. Setting values or taking away twice does no harm; making does, unless a key tells."""
    replay = call.replay
    if replay is None:
        replay = Replay.KEY if call.idempotency is not None else Replay.NEVER if op is Op.CREATE else Replay.SAFE
    return Operation(
        batch=call.batch,
        in_flight=call.in_flight,
        replay=replay,
        ttl=call.ttl if replay is Replay.KEY else None,
        settle=call.settle if replay is Replay.LOOKUP else None,
        keys=tuple(call.keys),
        condition=Condition(call.if_match.field) if call.if_match is not None else None,
    )


def __getattr__(name: str) -> Any:
    """The sandbox is loaded only when it is asked for."""
    if name == "HttpSandbox":
        from oploop.apps.http.sandbox import HttpSandbox

        return HttpSandbox
    raise AttributeError(name)


__all__ = ["HttpApp", "HttpConfig", "HttpSandbox"]
