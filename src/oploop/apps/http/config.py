"""What a user says of a JSON API in `oploop.yml`: where its records are listed, how they are written, how it says yes and no."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from oploop.apps.base import AppConfig
from oploop.apps.columns import Columns
from oploop.apps.declared import Fields, Numbers, Part, Texts
from oploop.apps.http.templates import Maker, check_body, check_path, maker, rows_maker, texts_maker
from oploop.records import ColumnType, Replay

METHODS = Literal["POST", "PUT", "PATCH", "DELETE"]


class Auth(Part):
    """One way of saying who we are."""

    bearer: SecretStr | None = None
    user: str | None = None
    password: SecretStr | None = None
    header: str | None = None
    query: str | None = None  #: parameter of the address
    value: SecretStr | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Auth:
        named = self.header if self.header is not None else self.query
        ways = (self.bearer, self.user, self.header, self.query)
        if sum(w is not None for w in ways) != 1:
            raise ValueError("needs one of bearer, user (with password), header (with value), query (with value)")
        if (self.user is None) != (self.password is None) or (named is None) != (self.value is None):
            raise ValueError("user goes with password, header or query with value")
        return self


class LimitHeaders(Part):
    """The headers of answers that tell the limit: calls in a window, how many are left of them, and for how long.

    `reset` holds seconds, or the time of its end in seconds since 1970.
    """

    limit: str | None = None
    remaining: str | None = None
    reset: str | None = None

    @model_validator(mode="after")
    def _something(self) -> LimitHeaders:
        if self.limit is None and self.remaining is None:
            raise ValueError("needs limit, or remaining with reset")
        if (self.remaining is None) != (self.reset is None):
            raise ValueError("remaining goes with reset")
        return self


class Limit(Part):
    """How many calls the account may make in so many seconds."""

    calls: int = Field(ge=1)
    per: float = Field(default=1.0, gt=0)
    headers: LimitHeaders | None = None


class IfMatch(Part):
    """What makes an update conditional: a header that carries a field of the record as it was read; `status`: those of a refusal
    because it has changed."""

    field: str
    header: str = "If-Match"
    value: str = "{}"
    status: Numbers = [409, 412]

    @field_validator("value")
    @classmethod
    def _place(cls, value: str) -> str:
        if value.count("{}") != 1 or value.replace("{}", "").strip("{}") != value.replace("{}", ""):
            raise ValueError(f"{value!r} needs one {{}}, where the field's value goes")
        return value


class Paging(Part):
    """One way of asking for the next page: by a cursor or a link in the answer, by page numbers, or by offsets."""

    cursor: str | None = None  #: path of the next cursor in the answer
    link: str | None = None  #: path of the next page's address in the answer
    page: str | None = None  #: parameter of the page's number, which counts from `first`
    offset: str | None = None  #: parameter of the number of records to pass over
    param: str | None = None  #: parameter that carries the cursor
    first: int = 1
    size: int | None = Field(default=None, ge=1)
    size_param: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Paging:
        if sum(w is not None for w in (self.cursor, self.link, self.page, self.offset)) != 1:
            raise ValueError("needs one of cursor, link, page, offset")
        if (self.cursor is None) != (self.param is None):
            raise ValueError("cursor (where it stands in the answer) goes with param (the parameter that carries it)")
        if (self.page or self.offset) and self.size is None:
            raise ValueError("page and offset need size: how many records a page has")
        return self


class Since(Part):
    """Reading on: `param` asks for records whose `column` is not before the newest one seen. `sorted`: the list comes in the order of
    `column`, so each page can be asked for from the newest record of the last one: pages that are counted move when a record does."""

    param: str
    column: str
    format: Literal["iso", "unix"] = "iso"
    sorted: bool = False


class StreamSpec(Part):
    """One list of records."""

    path: str
    records: str = ""
    key: Texts
    columns: dict[str, ColumnType]
    params: dict[str, str | int | bool] = {}
    paging: Paging | None = None
    since: Since | None = None
    deleted: str | None = None
    version: str | None = None
    lag: float = Field(default=5.0, ge=0)

    @property
    def loose(self) -> bool:
        """Whether pages are counted in an order that nothing tells: a record is passed over when one before it moves or goes."""
        counted = self.paging is not None and bool(self.paging.page or self.paging.offset)
        return counted and not self.params and not (self.since is not None and self.since.sorted)

    @model_validator(mode="after")
    def _columns_are_there(self) -> StreamSpec:
        counted = self.paging is not None and (self.paging.page or self.paging.offset)
        if counted and self.since is None and self.deleted is None:
            raise ValueError(
                "pages that are counted move up when a record is deleted meanwhile, so absence tells nothing: "
                "name the field that marks `deleted`, or page by cursor or link"
            )
        used = [*self.key, *([self.since.column] if self.since else []), *([self.version] if self.version else [])]
        for name in used:
            if name not in self.columns:
                raise ValueError(f"{name!r} is none of the columns; add it with its type")
        times = (ColumnType.TIMESTAMP, ColumnType.UNIX, ColumnType.UNIX_MS)
        for name in used[len(self.key) :]:
            if self.columns[name] not in times:
                raise ValueError(f"{name!r} must be a timestamp, unix or unix_ms column")
        return self


def _named(value: Any) -> Any:
    return {"field": value} if isinstance(value, str) else value


class Call(Part):
    """One operation. Paths and bodies are templates; nothing in them is evaluated.

    `ok`: what a good answer holds ({path: value}), beside a good status; `results`: where the answer to each record of a batch
    stands, matched by `index`, or by a field of the record that the result repeats; `id`, `error`: where the new id and
    the refusal's words stand, in the result or, without a batch, in the answer.
    """

    method: METHODS = "POST"
    path: str
    body: Any = "$record"
    record: Any = "$record"
    batch: int = Field(default=1, ge=1)
    in_flight: int = Field(default=4, ge=1)
    status: Numbers = []
    ok: dict[str, Any] = {}
    results: str | None = None
    by: str = "index"
    id: str = "id"
    error: str = "error"
    idempotency: str | None = None
    replay: Replay | None = None
    ttl: float = Field(default=86400.0, gt=0)
    settle: float = Field(default=60.0, ge=0)
    keys: Texts = []
    if_match: Annotated[IfMatch | None, BeforeValidator(_named)] = None

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return check_path(value)

    @field_validator("body", "record")
    @classmethod
    def _template(cls, value: Any) -> Any:
        return check_body(value)

    @cached_property
    def make_body(self) -> Maker:
        return maker(self.body)

    @cached_property
    def make_record(self) -> Maker:
        return maker(self.record)

    @cached_property
    def make_records(self) -> Callable[[Columns, bool], list[Any]] | None:
        """Of a batch, all records at once; None where its template is too unusual for that."""
        return rows_maker(self.record)

    @cached_property
    def make_text(self) -> Callable[[Columns, bool], orjson.Fragment | None]:
        """The same as JSON text, without an object for each record."""
        return texts_maker(self.record)

    @model_validator(mode="after")
    def _fits(self) -> Call:
        if self.batch > 1 and self.body == "$record":
            raise ValueError('a batch needs a body with "$records" in it, like {records: $records}')
        if self.batch > 1 and "{" in self.path:
            raise ValueError("the path of a batch cannot name one record")
        if self.replay is Replay.KEY and self.idempotency is None:
            raise ValueError("replay: key needs idempotency: the header that carries the key")
        if self.batch > 1 and self.if_match is not None:
            raise ValueError("if_match is for single calls: a header tells of one record")
        return self


class ObjectSpec(Part):
    """What can be written."""

    stream: str | None = None
    id: str = "id"
    fields: Fields
    create: Call | None = None
    update: Call | None = None
    upsert: Call | None = None
    archive: Call | None = None
    remove: Call | None = None
    fetch: str | None = None

    @field_validator("fetch")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        return None if value is None else check_path(value)

    @model_validator(mode="after")
    def _something(self) -> ObjectSpec:
        if not any((self.create, self.update, self.upsert, self.archive, self.remove)):
            raise ValueError("takes nothing: add create, update, upsert, archive or remove")
        others = (self.create, self.upsert, self.archive, self.remove)
        if any(call is not None and call.if_match is not None for call in others):
            raise ValueError("if_match is for update alone")
        if self.update is not None and self.update.if_match is not None and self.stream is None:
            raise ValueError("if_match needs a stream, in which the record is read")
        return self


class HttpConfig(AppConfig):
    """Keys of an HTTP app in `oploop.yml`."""

    base_url: str = Field(description="https://api.example.com/v1")
    auth: Auth | None = None
    headers: dict[str, str] = {}
    limit: Limit | None = None
    gzip: bool = False  #: bodies of 2 KB or more are sent packed
    check: str | None = None
    error: str = "error"
    streams: dict[str, StreamSpec] = {}
    objects: dict[str, ObjectSpec] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> HttpConfig:
        for name, obj in self.objects.items():
            if obj.stream is None:
                continue
            if obj.stream not in self.streams:
                raise ValueError(f"objects.{name}.stream: there is no stream {obj.stream!r}")
            columns = self.streams[obj.stream].columns
            for field, spec in obj.fields.items():
                if spec.column is not None and spec.column not in columns:
                    raise ValueError(
                        f"objects.{name}.fields.{field}: stream {obj.stream} has no column {spec.column!r}"
                    )
                if spec.path and columns.get(spec.column or field) is not ColumnType.JSON:
                    raise ValueError(f"objects.{name}.fields.{field}: path is for a column of type json")
            if obj.id not in columns:
                raise ValueError(f"objects.{name}.id: stream {obj.stream} has no column {obj.id!r}")
        return self
