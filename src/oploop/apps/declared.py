"""What an app can read and write, from the file `app.toml` in its folder: streams, objects, fields, as data.

    [streams.books]                              [objects.books]
    description = "the books, deleted ones too"  description = "books on their shelves"
    lag = 1.0                                    update = {replay = "safe"}
    columns.integer = "id stock"                 fields.id = {type = "integer", key = true, read_only = true}
    columns.text = "title shelf"                 fields.title = {max_length = 200}
    columns.timestamp = "updated_at"             fields.shelf = {enum = ["front", "back", "cellar"]}

Names of columns stand by their type, with blanks between them. An entry may say `like = "other"`, and then only what is
otherwise with it; one whose name begins with `_` is but a pattern for others, also for those that a program makes of it
(`Declared.stream`, `Declared.object`). `own` is for what only the app itself understands.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic import Field as Key

from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Deletes,
    Field,
    FieldSource,
    FieldType,
    JsonPath,
    Object,
    Op,
    Operation,
    Stream,
)

FILE = "app.toml"
S = TypeVar("S", bound="Part")


class Part(BaseModel):
    """A part of what somebody writes as data; keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


def _typed(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value


#: One of them, or a list.
Texts = Annotated[list[str], BeforeValidator(_several)]
Numbers = Annotated[list[int], BeforeValidator(_several)]


class FieldSpec(Part):
    """A field (see records.Field). `column`: the stream's column that shows it, by default that of its name ("": none does);
    `path`: where in that column it stands, if it holds objects."""

    type: FieldType = FieldType.TEXT
    column: str | None = None
    path: Words = ()
    title: str | None = None
    key: bool = False
    required: bool = False
    read_only: bool = False
    max_length: int | None = None
    enum: tuple[str, ...] | None = None
    nullable: bool = True
    canonical: Canonical = Canonical.EXACT
    escape: tuple[tuple[str, str], ...] = ()
    description: str = ""

    def field(self, name: str, *, shown: bool) -> Field:
        """The field of that name; `shown`: a stream shows the object's records."""
        source: FieldSource | None = None
        if shown and self.column != "":
            source = JsonPath(self.column or name, self.path) if self.path else Column(self.column or name)
        return self._made(name, source)

    def dynamic(self, prefix: str, *, shown: bool) -> Field:
        """A field for names that users make up; each stands in the column by the name's rest."""
        return self._made(prefix, JsonPath(self.column or prefix.rstrip("."), self.path) if shown else None)

    def _made(self, name: str, source: FieldSource | None) -> Field:
        return Field(name, source=source, **self.model_dump(exclude={"column", "path"}))


class StreamSpec(Part):
    """A stream. `whole`: each read shows all there is, and what it does not show is gone, unless `deletes` says otherwise."""

    like: str | None = None
    description: str = ""
    key: Words = ("id",)
    columns: dict[ColumnType, Words] = {}
    whole: bool = False
    deletes: Deletes | None = None
    lag: float = Key(default=0.0, ge=0)

    def stream(self, name: str) -> Stream:
        """The stream of that name, its key first."""
        named = {column: kind for kind, columns in self.columns.items() for column in columns}
        missing = [k for k in self.key if k not in named]
        if missing:
            raise ValueError(f"streams.{name}: key {missing[0]!r} is none of its columns")
        return Stream(
            name,
            self.key,
            {k: named[k] for k in self.key} | named,
            incremental=not self.whole,
            deletes=self.deletes or (Deletes.ABSENCE if self.whole else Deletes.MARKED),
            lag=self.lag,
            description=self.description,
        )


def _way(value: Any) -> Any:
    """An operation, of which all may be said that Operation has."""
    return {**value, "keys": _words(value["keys"])} if isinstance(value, dict) and "keys" in value else value


def _sends(way: Operation | None) -> Operation | None:
    if way is not None and way.batch < 1:
        raise ValueError("batch must be 1 or more")
    return way


Fields = dict[str, Annotated[FieldSpec, BeforeValidator(_typed)]]
Way = Annotated[Operation | None, BeforeValidator(_way), AfterValidator(_sends)]


class ObjectSpec(Part):
    """An object. `stream`: by default the one of the object's name, if there is one; "": none. `read_only`: names by type of
    fields that are shown and cannot be written, and of which there is no more to say."""

    like: str | None = None
    description: str = ""
    stream: str | None = None
    id_column: str = "id"
    create: Way = None
    update: Way = None
    upsert: Way = None
    archive: Way = None
    remove: Way = None
    fields: Fields = {}
    read_only: dict[FieldType, Words] = {}
    dynamic: Fields = {}
    lookup_batch: int = 100
    unique: tuple[Words, ...] = ()

    def object(self, name: str, stream: str | None) -> Object:
        """The object of that name, whose records `stream` shows."""
        shown = stream is not None
        fields = {n: spec.field(n, shown=shown) for n, spec in self.fields.items()}
        for kind, names in self.read_only.items():
            fields |= {n: FieldSpec(type=kind, read_only=True).field(n, shown=shown) for n in names}
        ways = {op: way for op in Op if (way := getattr(self, op.value)) is not None}
        return Object(
            name,
            ways,
            stream=stream,
            id_column=self.id_column,
            fields=fields,
            dynamic={n: spec.dynamic(n, shown=shown) for n, spec in self.dynamic.items()},
            lookup_batch=self.lookup_batch,
            description=self.description,
            unique=tuple(map(frozenset, self.unique)),
        )


def _held_to(name: str, obj: Object, stream: Stream) -> None:
    """ValueError for a field that is to be seen in a column which its object's stream has not."""
    for f in (*obj.fields.values(), *obj.dynamic.values()):
        column = f.source.name if isinstance(f.source, Column) else None
        column = f.source.column if isinstance(f.source, JsonPath) else column
        if column is not None and column not in stream.columns:
            mend = "; if no read shows the field, say column = ''"
            raise ValueError(f"objects.{name}.fields.{f.name}: the stream {stream.name} has no column {column!r}{mend}")


class Document(Part):
    """The file as it is written."""

    streams: dict[str, dict[str, Any]] = {}
    objects: dict[str, dict[str, Any]] = {}
    operations: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}


class Declared:
    """What a file says: `streams` and `objects` by name, patterns left out, and the app's `own`."""

    def __init__(self, text: str) -> None:
        self._said = _made(Document, "", tomllib.loads(text))
        self.own: Mapping[str, Any] = self._said.own
        self.streams: Mapping[str, Stream] = {n: self.stream(n) for n in self._said.streams if n[0] != "_"}
        self.objects: Mapping[str, Object] = {n: self.object(n) for n in self._said.objects if n[0] != "_"}
        for name, obj in self.objects.items():
            if obj.stream in self.streams:  # others are made by the app
                _held_to(name, obj, self.streams[obj.stream])

    def stream(self, like: str, name: str | None = None, description: str | None = None) -> Stream:
        """The stream that the file calls `like`, under another name and description if these are given."""
        said = _whole("streams", like, self._said.streams)
        if description is not None:
            said["description"] = description
        return _made(StreamSpec, f"streams.{like}", said).stream(name or like)

    def object(
        self, like: str, name: str | None = None, description: str | None = None, *, stream: str | None = None
    ) -> Object:
        """The same of an object; `stream`: the one that shows its records, "" for none, by default what the file says."""
        said = _whole("objects", like, self._said.objects)
        for op in Op:
            if op.value in said:
                said[op.value] = self._operation(said[op.value], f"objects.{like}.{op.value}")
        spec, name = _made(ObjectSpec, f"objects.{like}", said), name or like
        shown = spec.stream if stream is None else stream
        if shown is None and name in self._said.streams:
            shown = name
        made = spec.object(name, shown or None)
        return made if description is None else replace(made, description=description)

    def _operation(self, said: Any, where: str) -> Any:
        given = {"like": said} if isinstance(said, str) else said
        if not isinstance(given, dict):
            raise ValueError(f"{where}: name one of operations, or say how it is taken")
        return _whole("operations", where, {**self._said.operations, where: given})


#: Tables of names by type, of which an entry that is like another has its own and the other's.
_TYPED = ("columns", "read_only")


def _whole(kind: str, name: str, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An entry with what it takes over of the one that it is like; of its tables entry by entry."""
    said = dict(entries[name])
    like = said.pop("like", None)
    if like is None:
        return said
    if like not in entries or like == name:
        raise ValueError(f"{kind}.{name}: there is no {like!r} that it could be like")
    whole = _whole(kind, like, entries)
    for key, value in said.items():
        known = whole.get(key)
        if key in _TYPED and isinstance(known, dict):
            whole[key] = known | {t: [*_words(known.get(t, "")), *_words(names)] for t, names in value.items()}
        else:
            whole[key] = known | value if isinstance(known, dict) and isinstance(value, dict) else value
    return whole


#: What pydantic calls a key that a model, or a dataclass, has not.
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _made(model: type[S], where: str, said: Mapping[str, Any]) -> S:
    try:
        return model(**said)
    except ValidationError as e:
        [first, *_] = e.errors()
        place = ".".join(filter(None, [where, *map(str, first["loc"])]))
        what = "there is no such key" if first["type"] in _UNKNOWN else first["msg"]
        raise ValueError(f"{place}: {what}") from None


def declared(package: str) -> Declared:
    """What the file `app.toml` of a package says; ValueError, with the place in it, where it cannot be."""
    try:
        return Declared(files(package).joinpath(FILE).read_text(encoding="utf-8"))
    except ValueError as e:
        raise ValueError(f"{FILE} of {package}: {e}") from None
