"""A sync with everything that it names found: its key, fields and checks as SQL expressions over the model and the app's rows.

Made by `bind.bind`; what it holds can be relied on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from oploop.activate.refbind import BoundRef
from oploop.project import Mode, OnDeleted, OnLeave, Sync
from oploop.records import Field, Object, Op, Stream
from oploop.warehouse.base import Warehouse


@dataclass(frozen=True, slots=True)
class BoundKey:
    """One field of a sync's key: its value in the model and in the app, as the canonical text that is compared."""

    field: Field
    column: str
    wanted: str  #: canonical text over MODEL
    now: str  #: canonical text over RAWT; empty for a blind sync
    value: str  #: the value to send, over MODEL; NULL where the column does not convert to the field's type
    native: tuple[str, str] | None  #: whole numbers on both sides, (over MODEL, over RAWT): compared as they are


@dataclass(frozen=True, slots=True)
class BoundField:
    """One mapped field. SQL expressions are of the warehouse's type for `field.type`."""

    label: str  #: as the user wrote it
    field: Field
    source: str  #: over MODEL, before conversion to the field's type, as messages show it
    unmapped: str | None  #: over MODEL: the value that `map` has no entry for; None without a map
    wanted: str  #: over MODEL, converted; NULL where it cannot be
    now: str | None  #: over RAWT; None: cannot be read back
    conflict: str
    on_null: str
    if_empty: bool = False
    only_create: bool = False
    fits: bool = False  #: the conversion cannot fail: a constant, or a column of a type that always fits
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    ref: BoundRef | None = None
    nothing: str = "NULL"  #: a NULL of the field's type, where it cannot be read back: engines take others for numbers

    @property
    def in_place(self) -> bool:
        """The wanted list depends on what the app holds (tags added to, or removed from, those that are there)."""
        return bool(self.add or self.remove)

    @property
    def means_empty(self) -> bool:
        """Whether a NULL of the field says that a record's is to be empty; a new record's is so without being told."""
        missed = self.ref is not None and self.ref.on_miss == "keep"  # then a NULL may be a miss too
        return self.on_null == "clear" and not (self.if_empty or self.only_create or self.in_place or missed)


@dataclass(frozen=True, slots=True)
class BoundCheck:
    """A rule of the sync; rows where `sql` is false are held, or stop the sync."""

    name: str
    sql: str
    stop: bool


@dataclass(frozen=True, slots=True)
class BoundSync:
    """A sync with everything that it names found. `raw_table` is None for a blind sync (its target cannot be read)."""

    sync: Sync
    object: Object
    stream: Stream | None
    model_table: str
    raw_table: str | None
    id_column: str
    keys: tuple[BoundKey, ...]
    fields: tuple[BoundField, ...]
    checks: tuple[BoundCheck, ...]
    where: str | None
    explain: tuple[str, ...]
    others: frozenset[str] = frozenset()  #: the names of the project's other syncs
    order: tuple[str, ...] = ()  #: over MODEL: who goes first
    #: custom fields that the app no longer has as they were, and why
    lost: Mapping[str, str] = dataclasses.field(default_factory=dict)
    undoing: bool = False  #: what is planned takes runs back
    stamped: str = "NULL"  #: over RAWT: the record's stamp as it was read, where the app tells one (see Condition)

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def app_object(self) -> str:
        return f"{self.sync.app}.{self.sync.object}"

    @property
    def blind(self) -> bool:
        return self.raw_table is None

    def unread(self, warehouse: Warehouse) -> str | None:
        """What the diff needs and no read has brought yet, as `app.stream`: the target, or what a field refers to."""
        tables = (self.raw_table, *(f.ref.raw_table for f in self.fields if f.ref is not None))
        missing = next((t for t in tables if t is not None and not warehouse.columns(t)), None)
        return missing and missing.removeprefix("raw_").removesuffix("__all")

    @property
    def key_names(self) -> str:
        """The key's app fields, as identities are kept by them."""
        return ",".join(k.field.name for k in self.keys)

    @property
    def appends(self) -> bool:
        return self.sync.mode is Mode.APPEND

    @property
    def on_leave(self) -> OnLeave:
        """What happens to records whose rows have left the model."""
        return OnLeave.KEEP if self.appends else self.sync.on_leave

    @property
    def recreates(self) -> bool:
        """Whether a record that was deleted in the app is made again."""
        return self.sync.on_deleted is OnDeleted.RECREATE and self.create_op is not None and not self.blind

    @property
    def guarded(self) -> tuple[int, ...]:
        """The fields of which what the app holds decides whether, or what, is sent: an update of one that was changed since it
        was read must not go through unseen. Of an undo all do."""
        if self.blind or self.update_op is not Op.UPDATE or self.object.operations[Op.UPDATE].condition is None:
            return ()
        fields = enumerate(self.fields)
        return tuple(i for i, f in fields if self.undoing or f.conflict == "hold" or f.if_empty or f.in_place)

    @property
    def stamp(self) -> str | None:
        """The field of a record, as the app sends it, by which its updates are conditional; None where none are, or by values."""
        condition = self.object.operations[Op.UPDATE].condition if self.guarded else None
        return condition.stamp if condition is not None else None

    @property
    def create_op(self) -> Op | None:
        """The operation for records that the app does not hold; None when the sync makes none."""
        if self.appends:
            return Op.CREATE
        if self.sync.mode not in (Mode.CREATE, Mode.UPSERT, Mode.MIRROR):
            return None
        upsert = self.object.operations.get(Op.UPSERT)
        names = {k.field.name for k in self.keys}
        if upsert is not None and (Op.CREATE not in self.object.operations or names <= set(upsert.keys)):
            return Op.UPSERT  # the app finds the record itself, so a second send makes no second record
        return Op.CREATE if Op.CREATE in self.object.operations else None

    def op_of(self, status: str) -> Op:
        """The operation of a status of the plan table that is sent."""
        match status:
            case "create":
                return self.create_op or Op.CREATE
            case "update":
                return self.update_op or Op.UPDATE
            case _:
                return Op(status)

    @property
    def update_op(self) -> Op | None:
        """The operation for records that the app holds; None when the sync leaves those alone."""
        if self.sync.mode in (Mode.CREATE, Mode.APPEND):
            return None
        return Op.UPDATE if Op.UPDATE in self.object.operations else Op.UPSERT
