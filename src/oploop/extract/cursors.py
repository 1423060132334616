"""`oploop.streams`: how far each stream has been read. It stands in the warehouse, so that one transaction moves
the rows and the cursor (docs/decisions/0001-cursors-in-the-warehouse.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson

from oploop.records import Cursor
from oploop.warehouse.base import Warehouse

TABLE = "oploop.streams"


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream has been read. Times are ours (UTC).

    `reading`: the read that began at `read_began` has not come to its end; the next one goes on from `cursor`.
    `complete_began` and `complete_at`: begin and end of the last read that came to its end (None: none has).
    """

    cursor: Cursor | None
    read_began: datetime | None
    reading: bool
    complete_began: datetime | None
    complete_at: datetime | None
    fetched: bool = False  #: live records came by key since, that no read had shown


def stream_states(warehouse: Warehouse) -> dict[tuple[str, str], StreamState]:
    """The state of each (app, stream) that has been read; also of a warehouse that was opened for reading only."""
    if not warehouse.columns(TABLE):
        return {}
    fetched = "fetched IS NOT FALSE" if "fetched" in warehouse.columns(TABLE) else "TRUE"  # of an earlier release
    rows = warehouse.rows(
        f"SELECT app, stream, cursor, read_began, reading, complete_began, complete_at, {fetched} FROM {TABLE}"
    )
    return {
        (app, stream): StreamState(None if cursor is None else orjson.loads(cursor), *rest)
        for app, stream, cursor, *rest in rows
    }


def ensure_table(warehouse: Warehouse) -> None:
    """Make `oploop.streams`."""
    warehouse.execute("CREATE SCHEMA IF NOT EXISTS oploop")
    warehouse.execute(
        f"CREATE TABLE IF NOT EXISTS {TABLE} (app VARCHAR NOT NULL, stream VARCHAR NOT NULL, cursor VARCHAR, "
        "read_began TIMESTAMPTZ, reading BOOLEAN NOT NULL, complete_began TIMESTAMPTZ, complete_at TIMESTAMPTZ, fetched BOOLEAN)"
    )
    if "fetched" not in warehouse.columns(TABLE):  # of a warehouse that an earlier release made
        warehouse.execute(f"ALTER TABLE {TABLE} ADD COLUMN fetched BOOLEAN")


def note_fetched(warehouse: Warehouse, app: str, stream: str) -> None:
    """Note that records came by key which no read has shown."""
    if "fetched" in warehouse.columns(TABLE):
        warehouse.execute(f"UPDATE {TABLE} SET fetched = TRUE WHERE app = ? AND stream = ?", [app, stream])


def forget_future(warehouse: Warehouse, now: datetime) -> list[tuple[str, str]]:
    """Forget reads that began later than `now`, since the clock was set back; the (app, stream) pairs that have any.

    Such a read would vouch for writes that it never saw. An unfinished one begins anew, and so does looking at what was sent.
    """
    ahead = "(complete_began > ? OR read_began > ?)"
    found = warehouse.rows(f"SELECT app, stream FROM {TABLE} WHERE {ahead}", [now, now])
    if found:
        warehouse.execute(
            f"UPDATE {TABLE} SET complete_began = CASE WHEN complete_began <= ? THEN complete_began END, "
            "cursor = CASE WHEN reading THEN NULL ELSE cursor END, reading = FALSE, "
            f"read_began = CASE WHEN read_began <= ? THEN read_began END WHERE {ahead}",
            [now, now, now, now],
        )
        if warehouse.columns("oploop.looks"):
            warehouse.execute("DELETE FROM oploop.looks")
    return [(app, stream) for app, stream in found]


def store_cursor(warehouse: Warehouse, app: str, stream: str, cursor: Cursor | None, began: datetime) -> None:
    """Note that the read that began at `began` has come to `cursor`, and is not at its end."""
    _store(warehouse, app, stream, {"cursor": _text(cursor), "read_began": began, "reading": True})


def store_complete(
    warehouse: Warehouse, app: str, stream: str, cursor: Cursor | None, began: datetime, ended: datetime
) -> None:
    """Note that the read that began at `began` came to its end at `ended`."""
    values = {"cursor": _text(cursor), "read_began": began, "reading": False, "fetched": False}
    _store(warehouse, app, stream, {**values, "complete_began": began, "complete_at": ended})


def _text(cursor: Cursor | None) -> str | None:
    return None if cursor is None else orjson.dumps(cursor).decode()


def _store(warehouse: Warehouse, app: str, stream: str, values: dict[str, object]) -> None:
    sets = ", ".join(f"{name} = ?" for name in values)
    changed = warehouse.execute(
        f"UPDATE {TABLE} SET {sets} WHERE app = ? AND stream = ?", [*values.values(), app, stream]
    )
    if changed == 0:
        names = ", ".join(["app", "stream", *values])
        marks = ", ".join("?" * (len(values) + 2))
        warehouse.execute(f"INSERT INTO {TABLE} ({names}) VALUES ({marks})", [app, stream, *values.values()])
