"""What a trace tells: plain data, rendered by the command line and printed as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from dataclasses import field as made
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class TracedField:
    """One mapped field of one sync. `now`: what the app held when it was last read; `wanted`: what the model says;
    `sent`, `stored`: what we last sent, and what the app then showed. `why`: who wins, in words."""

    field: str
    now: Any
    wanted: Any
    sent: Any = None
    stored: Any = None
    sent_at: datetime | None = None
    why: str = ""
    sources: dict[str, list[str]] = made(default_factory=dict)  #: raw table -> columns it is computed from
    through: list[str] = made(default_factory=list)  #: models on the way


@dataclass(slots=True)
class TracedSync:
    """One sync that writes the record. `says`: how the sync stands to this record as a whole."""

    sync: str
    model: str
    key: dict[str, Any]
    status: str
    says: str
    fields: list[TracedField] = made(default_factory=list)
    explain: dict[str, Any] = made(default_factory=dict)
    row: dict[str, Any] = made(default_factory=dict)


@dataclass(slots=True)
class SourceRows:
    """Rows that the record's values may come from: some of `total`, a few columns."""

    table: str
    by: str  #: how they were found: `customer_id = cus_1`
    total: int
    columns: list[str]
    rows: list[list[Any]]
    same_as: str | None = None  #: a raw table with just the same rows
    ordered: bool = True  #: newest first; else in no order, as no column is a time


@dataclass(slots=True)
class Past:
    """One change of the record in the ledger."""

    at: datetime
    run_id: str
    sync: str
    op: str
    fields: dict[str, dict[str, Any]]  #: field: {"before", "after"}
    status: str
    error: str | None
    why: dict[str, Any] | None


@dataclass(slots=True)
class Trace:
    """Why one record of an app holds its values."""

    app: str
    object: str
    remote_id: str | None
    read_at: datetime | None
    deleted: bool
    about: dict[str, Any] = made(default_factory=dict)  #: what helps to recognise it: its name, its subject
    syncs: list[TracedSync] = made(default_factory=list)
    sources: list[SourceRows] = made(default_factory=list)
    history: list[Past] = made(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The JSON of `oploop trace -o json`."""
        return asdict(self)
