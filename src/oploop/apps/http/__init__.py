"""Any JSON API as an app: what can be read and written is what the block in `oploop.yml` says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from oploop.apps.arrow import empty_table
from oploop.apps.base import Account, App
from oploop.apps.credentials import QueryKey, basic, bearer
from oploop.apps.declared import FieldSpec
from oploop.apps.http import writer
from oploop.apps.http.config import Auth, Call, HttpConfig, ObjectSpec, StreamSpec
from oploop.apps.http.reader import ListReader
from oploop.apps.http.templates import Filling, path_of
from oploop.apps.lists import each
from oploop.apps.transport import Budget, LimitHeaders, Policy, Transport
from oploop.errors import FixConfig
from oploop.records import (
    Batch,
    ColumnType,
    Condition,
    Cursor,
    Deletes,
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

FETCHES = 8  #: calls in flight of a fetch by id


class HttpPolicy(Policy):
    """The usual rules, with what the block says of refusals and limits."""

    with_status = True

    def __init__(self, config: HttpConfig) -> None:
        self.credentials, self.words = _credential(config.auth), (config.error, "message")
        told = config.limit.headers if config.limit is not None else None
        self.limits = [LimitHeaders(told.limit, told.remaining, told.reset)] if told is not None else []


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
            policy=HttpPolicy(config),
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
        loose = [n for n, spec in self.specs.items() if spec.loose]
        said = f" · {', '.join(loose)}: pages are counted, in no order that is asked for: see `paging`" if loose else ""
        return Account(f"{self.config.base_url} answers{said}")

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See `reader`."""
        return self._reader.read(self.streams[stream], self.specs[stream], cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """One call a record, by the object's `fetch`. Without one its records are seen by reads alone."""
        spec = self.config.objects[object_name]
        stream = self.streams[spec.stream or object_name]
        if spec.fetch is None:
            raise FixConfig(f"{self.name}.{object_name} has no `fetch`", mend="give the path of one record")
        fetch = partial(self._fetched, spec, stream)
        tables = [empty_table(stream), *(await each(remote_ids, FETCHES, fetch)).values()]
        return Batch(stream.name, pa.concat_tables(tables, promote_options="default"))

    async def _fetched(self, spec: ObjectSpec, stream: Stream, remote_id: str) -> pa.Table:
        began, source, as_of = self.runtime.now(), self.specs[stream.name], self.api.as_of()
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
            stream, source, [record], answer, began, frozenset({"_gone"}) & record.keys(), fetched=as_of(answer)
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
        return bearer(auth.bearer)
    if auth.user is not None:
        return basic(auth.user, auth.password)
    return {auth.header: auth.value.get_secret_value()} if auth.header is not None and auth.value is not None else {}


def _query(auth: Auth | None) -> QueryKey | None:
    return QueryKey(auth.query, auth.value) if auth is not None and auth.query and auth.value else None


def _credential(auth: Auth | None) -> str:
    if auth is None:
        return "auth, which is not given"
    return "auth.bearer" if auth.bearer else "auth.value" if auth.value else "auth.user and auth.password"


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
    shown = spec.stream is not None
    fields = {n: f.field(n, shown=shown) for n, f in spec.fields.items()}
    if shown and spec.id not in fields:
        fields[spec.id] = FieldSpec(key=True, read_only=True, nullable=False).field(spec.id, shown=True)
    return Object(name, operations, stream=spec.stream, id_column=spec.id, fields=fields, lookup_batch=1)


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
