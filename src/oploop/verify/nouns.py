"""What is looked at, and what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from oploop.errors import OploopError
from oploop.records import Batch, Canonical, FieldType
from oploop.warehouse.base import Warehouse

#: Fetches records by the app's own ids and loads them into the raw table; handed in by the loop.
Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Batch]]

#: A select of the ledger's rows of those changes that a table has of (run_id, sync, number), or a select in parentheses.
Among: TypeAlias = Callable[[Warehouse, str], str]

#: Takes identities away for which a condition over the columns of `oploop.records` holds.
Forget: TypeAlias = Callable[[Warehouse, str], None]

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


def _in_log(_: Warehouse, wanted: str) -> str:
    return (
        f"SELECT l.* FROM oploop.change_log l JOIN (SELECT DISTINCT run_id, sync, number FROM {wanted} AS w) a "
        "ON a.run_id = l.run_id AND a.sync = l.sync AND a.number = l.number"
    )


def _out_of_rows(warehouse: Warehouse, gone: str) -> None:
    warehouse.execute(f"DELETE FROM oploop.record_rows WHERE {gone}")


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: one sync's records in one object of an app. `vouched` and `lag`: see `activate.sql.Known`; `among`: how
    the ledger is asked where it is large (`activate.volumes.among`); `unshown`: (name, label) of the fields that the app does not
    show; `forget_records`: of `activate.volumes` too."""

    sync: str
    app: str
    object: str
    raw_table: str
    id_column: str
    state_table: str
    fields: tuple[Watched, ...]
    vouched: datetime | None
    lag: float = 0.0
    among: Among = _in_log
    unshown: tuple[tuple[str, str], ...] = ()
    forget_records: Forget = _out_of_rows


@dataclass(slots=True)
class ReadBack:
    """Counts by status over the records that the sync's last delivery touched; `waiting`: no read has shown them yet. `sent`: a
    read has shown the record, and the app shows nothing of what was sent; `looked`: the temporary table of `settle`, if there was
    anything to look at."""

    sync: str
    run_id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    fetched: int = 0
    error: OploopError | None = None
    looked: str | None = None

    def count(self, status: str) -> int:
        return self.counts.get(status, 0)


@dataclass(frozen=True, slots=True)
class Unmeant:
    """Something that the app made of a change and that was not meant: `field` None: of the whole record."""

    key: str
    field: str | None
    sent: str | None
    holds: str | None
