"""A sync's words bound to what they name: the model's columns, the app's fields, the raw table.

All that can be wrong with a sync file beyond its own grammar is found here, with the place in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from oploop.activate.bound import BoundCheck, BoundField, BoundKey, BoundSync
from oploop.activate.convert import convert, form_of_kind, is_integer, key_form, sure
from oploop.activate.mapping import Mapper
from oploop.activate.refbind import RAWT, Referenced, found_id, reference, source_column
from oploop.activate.unknowns import refuse_unfindable
from oploop.errors import FixConfig, did_you_mean
from oploop.project import Adopt, FieldMapping, Mode, OnLeave, Sync
from oploop.records import (
    RAW,
    Canonical,
    Field,
    FieldType,
    JsonPath,
    Object,
    Op,
    Stream,
)
from oploop.warehouse.base import Warehouse, raw_table
from oploop.warehouse.forms import canonical

#: Keys of a sync that are read and checked but that nothing acts on yet, with the only value they may have.
NOT_YET = {
    "when": "models",
}


#: Records that a run reads back by key after its delivery.
MOST_CANARY = 1_000


class AnyColumns(dict[str, str]):
    """The columns of a model that are not known before it is built: any name will do."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return "VARCHAR"


def bind(
    sync: Sync,
    obj: Object,
    stream: Stream | None,
    described: Mapping[str, Field],
    warehouse: Warehouse,
    model_table: str,
    model_columns: Mapping[str, str],
    unread: Collection[str] = (),
    others: Collection[str] = (),
    referenced: Mapping[str, Referenced] = MappingProxyType({}),
    lost: Mapping[str, str] = MappingProxyType({}),
) -> BoundSync:
    """Bind a sync to its object, as the account describes it, and to its model's columns.

    `unread`: columns of the stream that the project excludes from reading; `others`: the names of the project's syncs;
    `referenced`: the objects that its fields refer to, by `app.object`; `lost`: custom fields that cannot be written
    as they were, with why (see `locked.py`): they are held, the sync's other fields go on.
    Raises FixConfig, with the place in the sync's file, for an unknown field or column, a field that cannot be
    written, a key that cannot identify, a mode that the object does not take.
    """
    binder = _Binder(sync, obj, described, warehouse, model_table, model_columns, unread, referenced)
    binder.check_mode()
    _refuse_lost(sync, {label: why for label, why in lost.items() if label in sync.key}, some=False)
    raw = raw_table(sync.app, stream.name, deleted_too=True) if stream is not None else None
    binder.check_key()
    blind = stream is None or sync.mode is Mode.APPEND  # what was appended is never looked for again
    if blind:
        raw = None
    keys = tuple(binder.key(f, c, blind=blind) for f, c in sync.key.items())
    whole, sync = sync, replace(sync, fields=tuple(m for m in sync.fields if m.field not in lost))
    fields = tuple(binder.field(m, blind=blind) for m in sync.fields)
    _refuse_lost(whole, lost, some=bool(fields))
    _refuse_twice(sync, fields)
    for column in sync.explain:
        binder.mapper.column(column, "explain")
    order = tuple(_ordered(binder, text) for text in sync.order_by)
    checks = tuple(BoundCheck(c.name or c.sql, c.sql, c.stop) for c in sync.checks)
    known = frozenset(others) - {sync.name}
    bound = BoundSync(
        sync,
        obj,
        stream,
        model_table,
        raw,
        obj.id_column,
        keys,
        fields,
        checks,
        sync.where,
        tuple(sync.explain),
        known,
        order,
        lost,
        stamped=_stamped(obj, warehouse, unread),
    )
    _refuse_incomplete(bound, described)
    refuse_unfindable(bound)
    return bound


def _stamped(obj: Object, warehouse: Warehouse, unread: Collection[str]) -> str:
    """The record's stamp as the app sent it; NULL where it has none, or is not read."""
    update = obj.operations.get(Op.UPDATE)
    stamp = update.condition.stamp if update is not None and update.condition is not None else None
    if stamp is None or stamp in unread:
        return "NULL"
    return warehouse.field_value(JsonPath(RAW, (stamp,)), FieldType.TEXT, RAWT)


def _refuse_lost(sync: Sync, lost: Mapping[str, str], *, some: bool) -> None:
    """Without its key, or without any field, there is nothing left of a sync."""
    for label, why in () if some else lost.items():
        raise FixConfig(
            f"field {label!r} {why}",
            mend="map another one, or mend it in the app",
            place=sync.place_of("key" if label in sync.key else "fields", label),
        )


def _ordered(binder: _Binder, text: str) -> str:
    """One column of `order_by` with its direction; NULLs go last either way."""
    quoted = text.startswith('"')
    name, _, direction = text.removeprefix('"').partition('"' if quoted else " ")
    column = binder.mapper.column(name, "order_by")
    return f"{column} {'DESC' if direction.strip().lower() == 'desc' else 'ASC'} NULLS LAST"


def _refuse_twice(sync: Sync, fields: Sequence[BoundField]) -> None:
    """A field is mapped once; names that differ only by case cannot be told apart in the columns of a warehouse."""
    seen: dict[str, BoundField] = {}
    for f in fields:
        other = seen.setdefault(f.field.name.lower(), f)
        if other is not f:
            what = "is mapped twice (also as" if other.field.name == f.field.name else "differs only by case from"
            raise FixConfig(
                f"field {f.label!r} {what} {other.label!r}" + (")" if "(" in what else ""),
                mend="remove one of them",
                place=sync.place_of("fields", f.label),
            )


def _refuse_incomplete(bound: BoundSync, described: Mapping[str, Field]) -> None:
    """A sync that may create records maps all that the app needs of a new one."""
    if bound.create_op is None:
        return
    given = {f.field.name for f in bound.fields} | {k.field.name for k in bound.keys}
    missing = sorted({f.name for f in described.values() if f.required and not f.read_only} - given)
    if missing:
        raise FixConfig(
            f"a new record of {bound.app_object} needs {', '.join(missing)}, which the sync does not map",
            mend="map it" if bound.update_op is None else "map it, or use mode: update",
            place=bound.sync.place_of("fields"),
        )


class _Binder:
    """Binds one sync's names, one at a time."""

    def __init__(
        self,
        sync: Sync,
        obj: Object,
        described: Mapping[str, Field],
        warehouse: Warehouse,
        model_table: str,
        columns: Mapping[str, str],
        unread: Collection[str],
        referenced: Mapping[str, Referenced],
    ) -> None:
        self.sync, self.obj, self.described = sync, obj, described
        self.warehouse, self.unread, self.referenced = warehouse, unread, referenced
        self.mapper = Mapper(sync, warehouse, model_table, columns)

    def check_mode(self) -> None:
        mode, ops = str(self.sync.mode), self.obj.operations
        target = f"{self.sync.app}.{self.sync.object}"
        need = {"create": {Op.CREATE, Op.UPSERT}, "update": {Op.UPDATE}, "append": {Op.CREATE}}
        takes = ", ".join(sorted(o.value for o in ops))
        if not need.get(mode, {Op.UPDATE, Op.UPSERT}) & ops.keys():
            raise FixConfig(
                f"{target} does not take mode {mode!r}", mend=f"it takes: {takes}", place=self.sync.place_of("mode")
            )
        self.check_leaving(takes)
        self._check_canary()
        for name, only in NOT_YET.items():
            value = getattr(self.sync, name)
            if (str(value) if isinstance(only, str) else value) != only:
                raise FixConfig(
                    f"{name}: {value} is not there yet", mend=f"remove {name}", place=self.sync.place_of(name)
                )

    def _check_canary(self) -> None:
        """A canary must be read back by key, each of its records."""
        size, place = self.sync.canary, self.sync.place_of("canary")
        if size and (self.obj.stream is None or self.sync.mode is Mode.APPEND):
            what = "records that are appended" if self.obj.stream is not None else f"{self.sync.app}.{self.sync.object}"
            raise FixConfig(f"canary: {what} cannot be read back", mend="remove canary", place=place)
        if size > MOST_CANARY:
            raise FixConfig(
                f"canary: {size} is more than are read back", mend=f"use at most {MOST_CANARY}", place=place
            )

    def check_leaving(self, takes: str) -> None:
        """What is to happen to left records must be something that the object takes and the mode does."""
        sync, target = self.sync, f"{self.sync.app}.{self.sync.object}"
        leaves = sync.on_leave
        if sync.mode is Mode.APPEND and (leaves is not OnLeave.KEEP or not sync.key):
            if not sync.key:
                raise FixConfig(
                    "append needs a key: the columns that tell the model's rows apart",
                    mend="add `key: [column]`",
                    place=sync.place_of("key"),
                )
            raise FixConfig(
                f"on_leave: {leaves} does not fit mode append: what was sent stays",
                mend="remove on_leave",
                place=sync.place_of("on_leave"),
            )
        need = {OnLeave.DELETE: Op.REMOVE, OnLeave.ARCHIVE: Op.ARCHIVE}.get(leaves)
        if need is not None and need not in self.obj.operations:
            place = sync.place_of("on_leave" if "on_leave" in (sync.source or {}) else "mode")
            raise FixConfig(
                f"{target} cannot {leaves} records",
                mend=f"use on_leave: clear, or keep; it takes: {takes}",
                place=place,
            )
        if sync.adopt is not Adopt.NONE and leaves is OnLeave.KEEP:
            raise FixConfig(
                "adopt says which records may be removed, and nothing is removed",
                mend="remove adopt, or add on_leave",
                place=sync.place_of("adopt"),
            )

    def app_field(self, label: str, *where: str) -> Field:
        """The object's field of that name, title or id; dynamic names included."""
        found = self.described.get(label)
        if found is not None:
            if source_column(found) in self.unread:
                raise FixConfig(
                    f"field {label!r} is compared with what the app holds, but {source_column(found)!r} is excluded from reading",
                    mend=f"remove it from apps.{self.sync.app}.read.{self.obj.stream}.exclude",
                    place=self.sync.place_of(*where, label),
                )
            return found
        for prefix, template in self.obj.dynamic.items():
            rest = label.removeprefix(prefix)
            if label.startswith(prefix) and rest:
                source = template.source
                if isinstance(source, JsonPath):
                    source = JsonPath(source.column, (*source.path, rest))
                return replace(template, name=label, source=source)
        titled = [name for name, f in self.described.items() if f.title == label]
        ids = ", ".join(repr(name) for name in titled)
        many = f"{len(titled)} fields with the title" if len(titled) > 1 else "no field"
        raise FixConfig(
            f"{self.sync.app}.{self.sync.object} has {many} {label!r}",
            mend=f"name it by its id: {ids}" if titled else did_you_mean(label, self.described),
            place=self.sync.place_of(*where, label),
        )

    def check_key(self) -> None:
        """Of an object that tells which sets of fields identify a record, the key must be one of them."""
        if self.sync.mode is Mode.APPEND:
            return
        names = frozenset(self.app_field(label, "key").name for label in self.sync.key)
        if (
            self.obj.unique
            and names not in self.obj.unique
            and all(self.app_field(n, "key").key for n in self.sync.key)
        ):
            able = "; ".join(", ".join(sorted(u)) for u in self.obj.unique)
            raise FixConfig(
                f"{', '.join(sorted(names))} alone does not identify a record of {self.sync.app}.{self.sync.object}",
                mend=f"use {able}",
                place=self.sync.place_of("key"),
            )

    def own_key(self, label: str, kind: str) -> Field:
        """A key field of an append sync: the app's, if it has one of that name, else our own, which is not sent."""
        if label in self.described or any(label.startswith(p) and label != p for p in self.obj.dynamic):
            return self.app_field(label, "key")
        return Field(label, FieldType.TEXT, key=True, read_only=True, canonical=form_of_kind(kind))

    def key(self, label: str, column: str, *, blind: bool) -> BoundKey:
        appends = self.sync.mode is Mode.APPEND
        column_sql, kind = self.mapper.column(column, "key", label), self.mapper.columns[column].upper()
        field = self.own_key(label, kind) if appends else self.app_field(label, "key")
        if not field.key and not appends:
            able = sorted({f.name for f in self.described.values() if f.key})
            raise FixConfig(
                f"field {label!r} cannot identify a record of {self.sync.app}.{self.sync.object}",
                mend=f"use one of {', '.join(able)}" if able else "this object has no key field",
                place=self.sync.place_of("key", label),
            )
        if not blind and field.source is None:
            raise FixConfig(f"key field {label!r} cannot be read back", place=self.sync.place_of("key", label))
        now, native, form = "", None, key_form(field)
        if not blind and field.source is not None:
            held = self.warehouse.field_value(field.source, field.type, RAWT)
            if field.type is FieldType.INTEGER and is_integer(kind):
                form, native = Canonical.EXACT, (column_sql, held)  # the same text and, faster, the same number
            now = canonical(held, form, self.warehouse.sql_type(field.type))
        value = convert(column_sql, kind, field.type, self.warehouse)
        text, shown = column_sql, kind
        if kind == "JSON":
            text, shown = self.warehouse.typed_value(column_sql, FieldType.TEXT), "VARCHAR"
        wanted = canonical(text, form, shown)
        if not blind and native is None:
            # as the app will show what is sent: 0.1 of a FLOAT is no 0.1 there, a list is JSON
            sent = canonical(value, form, self.warehouse.sql_type(field.type))
            wanted = sent if sure(kind, field.type) else f"COALESCE({sent}, {wanted})"
        return BoundKey(field, column, wanted, now, value, native)

    def field(self, m: FieldMapping, *, blind: bool) -> BoundField:
        field = self.app_field(m.field, "fields")
        place = self.sync.place_of("fields", m.field)
        if field.read_only:
            raise FixConfig(
                f"field {m.field!r} is read-only in {self.sync.app}.{self.sync.object}", mend="remove it", place=place
            )
        if (m.add or m.remove) and field.type is not FieldType.LIST:
            raise FixConfig(
                f"field {m.field!r} is no list: add and remove do not fit it", mend="use column or value", place=place
            )
        ref = reference(m, field, self.mapper, self.referenced) if m.ref is not None else None
        value = self.mapper.looked_up(m) if ref is not None else self.mapper.value(m, field)
        now = None
        if not blind and field.source is not None:
            now = self.warehouse.field_value(field.source, field.type, RAWT)
        return BoundField(
            label=m.field,
            field=field,
            source=value.source,
            unmapped=value.unmapped,
            wanted=value.wanted if ref is None else found_id(ref, field, self.warehouse),
            now=now,
            conflict=str(m.conflict or self.sync.conflict),
            on_null=str(m.on_null or self.sync.on_null),
            if_empty=bool(m.if_empty),
            only_create=m.only == "create",
            fits=value.fits,
            add=tuple(m.add or ()),
            remove=tuple(m.remove or ()),
            ref=ref,
            nothing=f"CAST(NULL AS {self.warehouse.sql_type(field.type)})",
        )
