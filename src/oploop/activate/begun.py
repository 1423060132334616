"""A delivery that has begun: what folding it needs, when it is over or has died."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class FoldSpec:
    """What folding needs to know of a sync, kept beside its plan table. `fields`: (name, SQL type) by position."""

    sync: str
    app: str
    object: str
    key_fields: str
    state_table: str
    fields: list[tuple[str, str]]
    before: str
    after: str
    careful: list[str]  #: kinds of change ("create", "update") that must not be sent a second time while it is unknown
    release: str | None = None
    blind: bool = False  #: the records cannot be read: their state is kept by the key
    labels: list[str] = field(default_factory=list)  #: the fields as the user calls them, by position
    ours: list[tuple[int, str, str]] = field(default_factory=list)  #: see `conflicts.ours_of`
    append: bool = False  #: each row once: what was sent is remembered by its key
    undoes: list[str] = field(default_factory=list)  #: runs that it takes back: what it puts back is parked
    keys: list[str] = field(default_factory=list)  #: the key's fields, by position
    again: dict[str, float] = field(default_factory=dict)  #: see `unknowns.known_by_keys`
    #: by position: where a new record has no value for such a field, its emptiness is what was sent
    emptied: list[int] = field(default_factory=list)
    account: str = ""  #: see `finishing.account_of`; only where calls may be made once more


@dataclass(frozen=True, slots=True)
class Begun:
    """A delivery whose plan table is kept, and stands until it is folded."""

    run_id: str
    spec: FoldSpec
    plan_table: str
    planned_at: datetime
