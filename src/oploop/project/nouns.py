"""What a sync is, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from oploop.errors import Place
from oploop.project.yaml import Block, locate


class Mode(StrEnum):
    """What a sync may do in the app."""

    CREATE = "create"
    UPDATE = "update"
    UPSERT = "upsert"
    MIRROR = "mirror"
    APPEND = "append"


class OnNull(StrEnum):
    """What a NULL of the model does: the field is not sent, or cleared."""

    KEEP = "keep"
    CLEAR = "clear"


class OnLeave(StrEnum):
    """What happens to a record whose row has left the model."""

    KEEP = "keep"
    CLEAR = "clear"
    ARCHIVE = "archive"
    DELETE = "delete"


class OnDeleted(StrEnum):
    """What happens to a row whose record was deleted in the app."""

    LEAVE = "leave"
    RECREATE = "recreate"


class Adopt(StrEnum):
    """Which records that we did not create may be removed."""

    NONE = "none"
    ALL = "all"


class Conflict(StrEnum):
    """Who wins where someone changed a field that we wrote."""

    THEIRS = "theirs"
    OURS = "ours"
    HOLD = "hold"


class OnMiss(StrEnum):
    """What a reference that finds no record does: the row is held, the field is not sent, or cleared."""

    HOLD = "hold"
    KEEP = "keep"
    CLEAR = "clear"


class Only(StrEnum):
    """When a field is sent, if not always."""

    CREATE = "create"


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """One field of the app and where its value comes from; `source` names which of column, value, sql, template, set, add it is."""

    field: str
    column: str | None = None
    value: Any = None
    sql: str | None = None
    template: str | None = None
    ref: str | None = None
    by: str | None = None
    on_miss: OnMiss = OnMiss.HOLD
    map: dict[str, Any] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    set_: tuple[str, ...] | None = None
    if_empty: bool = False
    only: Only | None = None
    on_null: OnNull | None = None
    conflict: Conflict | None = None

    @property
    def source(self) -> str:
        """Which key gives the value: column, sql, template, set, add (also for remove) or value."""
        if self.column is not None:
            return "column"
        if self.sql is not None:
            return "sql"
        if self.template is not None:
            return "template"
        if self.set_ is not None:
            return "set"
        return "add" if self.add or self.remove else "value"


@dataclass(frozen=True, slots=True)
class Check:
    """A rule for each row; where it is false the row is held, or the sync stops."""

    sql: str
    stop: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may happen, as a share of the rows (0.2 is 20%), as a count, or both; None: no limit."""

    share: float | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """A sync's guardrails."""

    changes: Limit = Limit(0.2, 10_000)
    held: Limit = Limit(0.1)
    removes: Limit = Limit(count=0)
    rows: Limit = Limit(0.5)  #: so many fewer than in the last run
    nulls: Limit = Limit(0.2)  #: so many more in a field than in the last run, in shares of the rows


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync file as data."""

    name: str
    model: str
    app: str
    object: str
    key: dict[str, str]  #: app field: model column
    fields: tuple[FieldMapping, ...]
    place: Place
    mode: Mode = Mode.UPSERT
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    enabled: bool = True
    where: str | None = None
    on_null: OnNull = OnNull.KEEP
    on_leave: OnLeave = OnLeave.KEEP
    on_deleted: OnDeleted = OnDeleted.LEAVE
    adopt: Adopt = Adopt.NONE
    conflict: Conflict = Conflict.THEIRS
    limits: Limits = Limits()
    checks: tuple[Check, ...] = ()
    explain: tuple[str, ...] = ()
    when: str = "models"
    order_by: tuple[str, ...] = ()
    max_read_age: float = 3600.0  #: seconds
    canary: int = 0
    at_most_once: bool = False
    source: Block | None = field(default=None, repr=False, compare=False)

    def place_of(self, *path: str | int) -> Place:
        """The place of what stands at `path` in the file, or of the nearest known thing around it.

        `place_of("fields", "Priority reason")`, `place_of("checks", 0)`, `place_of("to")`.
        """
        found = locate(self.source, path) if self.source is not None else None
        return found if found is not None and path else self.place
