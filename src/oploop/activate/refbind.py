"""A field's reference bound to what it names: the object that is referred to, the field by which it is looked up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from oploop.activate.convert import key_form
from oploop.activate.mapping import Mapper
from oploop.errors import FixConfig, did_you_mean
from oploop.project import FieldMapping
from oploop.records import DELETED, Column, Field, FieldType, Object, Stream
from oploop.warehouse.base import Warehouse, quote, quote_table, raw_table
from oploop.warehouse.forms import canonical

RAWT = "r"  #: alias of the raw table in `now`, and in what is looked up


@dataclass(frozen=True, slots=True)
class Referenced:
    """An object to which a sync's fields refer, as its app and account describe it. `unread`: excluded columns."""

    app: str
    object: Object
    stream: Stream | None
    described: Mapping[str, Field]
    unread: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class BoundRef:
    """Where a field's value is looked up: the referenced object's records, by the canonical text of one field."""

    target: str  #: app.object
    app: str
    object: str
    stream: Stream
    by: Field
    raw_table: str
    id_column: str
    key: str  #: what is looked up, over MODEL
    held: str  #: what the records have, over RAWT
    on_miss: str


def reference(m: FieldMapping, field: Field, mapper: Mapper, referenced: Mapping[str, Referenced]) -> BoundRef:
    """Where a field's value is looked up."""
    assert m.ref is not None
    assert m.by is not None
    found, place = referenced[m.ref], mapper.sync.place_of("fields", m.field, "by")
    by = found.described.get(m.by)
    if by is None:
        raise FixConfig(f"{m.ref} has no field {m.by!r}", mend=did_you_mean(m.by, found.described), place=place)
    if found.stream is None or by.source is None:
        what = f"field {m.by!r} of {m.ref}" if found.stream is not None else m.ref
        raise FixConfig(
            f"{what} cannot be read, so nothing is found by it",
            mend="map a column that holds the id",
            place=place,
        )
    if source_column(by) in found.unread:
        raise FixConfig(
            f"records of {m.ref} are looked up by {m.by!r}, but {source_column(by)!r} is excluded from reading",
            mend=f"remove it from apps.{found.app}.read.{found.stream.name}.exclude",
            place=place,
        )
    if m.on_miss == "clear" and not field.nullable:
        raise FixConfig(
            f"field {m.field!r} cannot be cleared, so on_miss: clear does not fit it",
            mend="use hold or keep",
            place=mapper.sync.place_of("fields", m.field, "on_miss"),
        )
    return BoundRef(
        target=m.ref,
        app=found.app,
        object=found.object.name,
        stream=found.stream,
        by=by,
        raw_table=raw_table(found.app, found.stream.name, deleted_too=True),
        id_column=found.object.id_column,
        key=canonical(mapper.looked_up(m).wanted, key_form(by)),
        held=canonical(mapper.warehouse.field_value(by.source, by.type, RAWT), key_form(by)),
        on_miss=str(m.on_miss),
    )


def found_id(ref: BoundRef, field: Field, warehouse: Warehouse) -> str:
    """The id that a row's reference means, over MODEL, from the raw table alone; for a single row, as `trace` looks."""
    rid = f"CAST({RAWT}.{quote(ref.id_column)} AS VARCHAR)"
    one = f"CASE WHEN count(DISTINCT {rid}) = 1 THEN min({rid}) END"
    where = f"NOT {RAWT}.{DELETED} AND {ref.held} = {ref.key}"
    found = f"(SELECT {one} FROM {quote_table(ref.raw_table)} AS {RAWT} WHERE {where})"
    return warehouse.typed_value(found, field.type) if field.type is not FieldType.TEXT else found


def source_column(field: Field) -> str | None:
    """The raw column in which a field's value stands, for `trace`."""
    return (
        None if field.source is None else field.source.name if isinstance(field.source, Column) else field.source.column
    )
