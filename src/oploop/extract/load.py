"""Chunks of batches into raw tables: staged together, merged stream by stream, each with its cursor in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pyarrow as pa

from oploop.apps.arrow import empty_table
from oploop.errors import OploopError
from oploop.extract import cursors
from oploop.extract.merge import Merge, any_new, mark_absent, mark_seen, meets, merge, read_now, refresh, repeated
from oploop.extract.nouns import StreamRequest
from oploop.extract.raw import ensure_raw_table, evolve
from oploop.extract.shape import SEQUENCE, Shaped, shape
from oploop.extract.staging import Staging, StagingFailed
from oploop.records import Batch, Deletes, Stream
from oploop.runtime import Runtime
from oploop.warehouse.base import Warehouse, quote, raw_table

INCOMING = "oploop_incoming"  #: an Arrow table shown to the engine


@dataclass(slots=True)
class Part:
    """Consecutive batches of one stream. `began`: our clock when this run's read began; `resumed`: the state that it
    went on from (None: it began from the start, or from the end of a complete read)."""

    request: StreamRequest
    began: datetime
    resumed: cursors.StreamState | None = None
    batches: list[Batch] = field(default_factory=list)

    @property
    def read_began(self) -> datetime:
        """When the whole read began; a listing that started anew counts from this run on."""
        if self.resumed is None or self.resumed.read_began is None:
            return self.began
        listing = any(b.cursor and (b.cursor.get("relist") or b.cursor.get("relisted")) for b in self.batches)
        listed = (self.resumed.cursor or {}).get("relist")
        return self.began if listing and not listed else self.resumed.read_began


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a part: rows new or changed, records marked deleted, or the error that stopped it."""

    rows: int = 0
    deleted: int = 0
    error: OploopError | None = None


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A part's rows: `fresh` ones to be staged and merged, `known` ones that the raw table holds already. `new`, `older`: see
    `Merge`."""

    fresh: Shaped
    known: Shaped
    new: bool = False
    older: bool = True


class Loader:
    """Loads parts into the warehouse. Used from one thread."""

    def __init__(self, warehouse: Warehouse, runtime: Runtime) -> None:
        self._warehouse = warehouse
        self._runtime = runtime
        self._staging = Staging(warehouse)
        self._unknown: set[str] = set()  #: streams in which keys came alone that the raw table does not hold

    def prepare(self, requests: Sequence[StreamRequest]) -> dict[tuple[str, str], cursors.StreamState]:
        """Make the raw tables; the streams' states."""
        with self._warehouse.transaction():
            cursors.ensure_table(self._warehouse)
            for request in requests:
                ensure_raw_table(self._warehouse, request.app.name, request.stream)
            now = self._runtime.now()
            for app, name in cursors.forget_future(self._warehouse, now):
                if self._warehouse.columns(raw_table(app, name, deleted_too=True)):  # it may have been dropped since
                    read_now(self._warehouse, app, name, now)
        return cursors.stream_states(self._warehouse)

    def load(self, parts: Sequence[Part]) -> list[Loaded]:
        """Load parts of different streams; one's failure does not stop the others. In the order of `parts`."""
        try:
            return self._load(parts)
        except StagingFailed as e:
            if len(parts) == 1:
                return [Loaded(error=e)]
            return [self.load([part])[0] for part in parts]
        finally:
            self._staging.clear()

    def _load(self, parts: Sequence[Part]) -> list[Loaded]:
        done: dict[int, Loaded] = {}
        ready: dict[int, _Sorted] = {}
        for i, part in enumerate(parts):
            try:
                ready[i] = _sort(self._warehouse, part)
            except OploopError as e:
                done[i] = Loaded(error=e)
        fresh = {parts[i].request.name: rows.fresh.table for i, rows in ready.items() if rows.fresh.table.num_rows}
        staged = self._staging.load(fresh) if fresh else {}
        for i, rows in ready.items():
            try:
                done[i] = self._merge(parts[i], rows, staged.get(parts[i].request.name))
            except OploopError as e:
                done[i] = Loaded(error=e)
        return [done[i] for i in range(len(parts))]

    def _merge(self, part: Part, rows: _Sorted, source: str | None) -> Loaded:
        """Merge a part and move its cursor, in one transaction: a crash finds both or neither."""
        app, stream, excluded = part.request.app.name, part.request.stream, part.request.options.exclude
        deleted = 0
        with self._warehouse.bulk(lasting=True), self._warehouse.transaction():
            if rows.known.table.num_rows:
                with _shown(self._warehouse, app, stream, rows.known) as job:
                    refresh(self._warehouse, job)
            if source is not None:
                types = evolve(self._warehouse, app, stream, rows.fresh.columns)
                once = rows.fresh.once(stream)
                told = {"once": once, "new": rows.new, "older": rows.older}
                job = Merge(app, stream, rows.fresh.columns, types, source, excluded, **told)
                deleted = merge(self._warehouse, job, deletes=rows.fresh.any_deleted())
            if not self._see(part):
                self._unknown.add(part.request.name)
            deleted += self._note(part)
        return Loaded(rows.fresh.table.num_rows, deleted)

    def _see(self, part: Part) -> bool:
        """Note of the keys that came alone that their records are there; whether all of them are known."""
        app, stream = part.request.app.name, part.request.stream
        tables = [b.table for b in part.batches if b.keys_only and b.table.num_rows]
        if not tables:
            return True
        types = self._warehouse.columns(raw_table(app, stream.name, deleted_too=True))
        shaped = shape(stream, tables, types, self._warehouse.kept_name)
        with _shown(self._warehouse, app, stream, shaped) as job:
            seen = mark_seen(self._warehouse, job)
        return seen >= int(shaped.table.num_rows)

    def _note(self, part: Part) -> int:
        """Store how far the stream is; of a complete read that saw every record, mark the absent ones. Their number."""
        app, stream, last = part.request.app.name, part.request.stream, part.batches[-1]
        if last.complete:
            cursor = None if part.request.name in self._unknown else last.cursor  # None: the next read is a whole one
            relisted = bool(last.cursor and last.cursor.get("relisted"))
            whole = relisted or stream.deletes is Deletes.ABSENCE
            gone = mark_absent(self._warehouse, app, stream, part.read_began) if whole else 0
            ended = self._runtime.now()
            cursors.store_complete(self._warehouse, app, stream.name, cursor, part.read_began, ended)
            return gone
        safe = [b.cursor for b in part.batches if b.cursor is not None]
        if safe:
            cursors.store_cursor(self._warehouse, app, stream.name, safe[-1], part.read_began)
        return 0


def load_fetched(warehouse: Warehouse, app_name: str, stream: Stream, batch: Batch) -> int:
    """Merge records that were fetched by key (`App.fetch`) into their raw table; the number marked deleted.

    By the same rule as a read's, but without staging and without moving the stream's cursor.
    """
    ensure_raw_table(warehouse, app_name, stream)
    if batch.table.num_rows == 0:
        return 0
    types = warehouse.columns(raw_table(app_name, stream.name, deleted_too=True))
    shaped = shape(stream, [batch.table], types, warehouse.kept_name)
    with warehouse.transaction():
        evolve(warehouse, app_name, stream, shaped.columns)
        with _shown(warehouse, app_name, stream, shaped) as job:
            if any_new(warehouse, job):
                cursors.note_fetched(warehouse, app_name, stream.name)
            known, not_older = meets(warehouse, job)
            job = replace(job, fetched=True, once=shaped.once(stream), new=not known, older=not_older < known)
            return merge(warehouse, job, deletes=shaped.any_deleted())


def _sort(warehouse: Warehouse, part: Part) -> _Sorted:
    """Shape a part's rows and find those that the raw table holds already."""
    app, stream = part.request.app.name, part.request.stream
    types = warehouse.columns(raw_table(app, stream.name, deleted_too=True))
    shaped = shape(
        stream, [b.table for b in part.batches if not b.keys_only] or [empty_table(stream)], types, warehouse.kept_name
    )
    nothing = shaped.only(pa.array([], pa.int64()))
    if not shaped.table.num_rows or any(types.get(name) != kind for name, kind in shaped.columns):
        return _Sorted(shaped, nothing)
    with _shown(warehouse, app, stream, shaped) as job:
        known, repeats = meets(warehouse, job)
        held = warehouse.query(repeated(warehouse, job))[SEQUENCE] if repeats else None
    older = repeats < known
    if held is None:
        return _Sorted(shaped, nothing, new=not known, older=older)
    return _Sorted(shaped.without(held), shaped.only(held), older=older)


@contextlib.contextmanager
def _shown(warehouse: Warehouse, app: str, stream: Stream, shaped: Shaped) -> Iterator[Merge]:
    """Show an Arrow table to the engine, as the source of a merge."""
    warehouse.register(INCOMING, shaped.table)
    try:
        types = warehouse.columns(raw_table(app, stream.name, deleted_too=True))
        yield Merge(app, stream, shaped.columns, types, quote(INCOMING))
    finally:
        warehouse.unregister(INCOMING)
