"""What is looked at, and what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from oploop.errors import OploopError
from oploop.records import Batch, Canonical, FieldType

#: Fetches records by the app's own ids and loads them into the raw table; handed in by the loop.
Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Batch]]

STATUSES = ("confirmed", "altered", "ignored", "drifted", "gone")


@dataclass(frozen=True, slots=True)
class Watched:
    """A mapped field that can be read back: its name and label, where it stands, how it is compared."""

    name: str
    label: str
    now: str  #: expression over the raw table `r`
    sql_type: str
    type: FieldType
    canonical: Canonical = Canonical.EXACT


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: one sync's records in one object of an app. `vouched` and `lag`: see `activate.sql.Known`."""

    sync: str
    app: str
    object: str
    raw_table: str
    id_column: str
    state_table: str
    fields: tuple[Watched, ...]
    vouched: datetime | None
    lag: float = 0.0


@dataclass(slots=True)
class ReadBack:
    """Counts by status over the records that the sync's last delivery touched; `waiting`: no read has shown them yet."""

    sync: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    fetched: int = 0
    error: OploopError | None = None

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)


@dataclass(frozen=True, slots=True)
class Unmeant:
    """Something that the app made of a change and that was not meant: `field` None: of the whole record."""

    key: str
    field: str | None
    sent: str | None
    holds: str | None
