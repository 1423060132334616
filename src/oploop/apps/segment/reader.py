"""Reading the logs: the files a stream has not read, unpacked ahead in threads, into batches.

All streams come from the same files. A file is unpacked and sorted by call type once for all streams that are read at
the same time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import convert, empty_table, table_from_records
from oploop.apps.base import micros
from oploop.apps.blocking import Kept, in_a_thread
from oploop.apps.notes import GONE, Notes
from oploop.apps.paging import begun
from oploop.apps.seen import Seen
from oploop.apps.segment.logs import Sorted, is_log, parse, read_sorted
from oploop.apps.segment.streams import STREAMS
from oploop.apps.storage import WHOLE_UP_TO, File, Store
from oploop.records import Batch, ColumnType, Cursor, ReadOptions
from oploop.runtime import Runtime

BATCH_ROWS = 20_000
AHEAD = 3  #: files that are unpacked while one is parsed
SHARED_BYTES = 128 * 2**20  #: unpacked bytes kept for the streams that come behind


class LogReader:
    """Reads streams from the folder of logs."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self.store = store
        self.notes = Notes()
        self._runtime = runtime
        self._kept: Kept[File, list[Sorted]] = Kept(SHARED_BYTES, lambda found: sum(part.size for part in found))

    def logs(self) -> list[File]:
        """All log files. FixConfig names `logs` when the folder is not there or closed to us."""
        return self.store.files(is_log)

    async def aclose(self) -> None:
        """Let go of what was read ahead."""
        await self._kept.aclose()

    async def read(self, kind: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """All events of a call type in files not read before; see App.read."""
        began = self._runtime.now()
        seen = Seen(cursor, await asyncio.to_thread(self.logs), options.since)
        waiting: list[dict[str, Any]] = []
        async with aclosing(begun(seen.todo(), self._whole, 1 + AHEAD)) as files:
            async for file, whole in files:
                trouble: Counter[str] = Counter()
                try:
                    async with aclosing(self._parts(file, await whole)) as parts:
                        async for part in parts:
                            events, wrong = await asyncio.to_thread(parse, kind, part.lines[kind])
                            trouble += wrong
                            waiting += events
                            self.notes.add(file.name, "", part.trouble)
                            if len(waiting) >= BATCH_ROWS:
                                yield Batch(kind, await self._table(kind, waiting, began, options))
                                waiting = []
                except FileNotFoundError:
                    if seen.missing(file):
                        self.notes.add(file.name, "", {GONE: 1})
                    continue
                self.notes.add(file.name, kind, trouble)
                seen.add(file)
                if len(waiting) >= BATCH_ROWS // 2:
                    yield Batch(kind, await self._table(kind, waiting, began, options), seen.cursor())
                    waiting = []
        seen.settle()
        table = await self._table(kind, waiting, began, options)
        yield Batch(kind, table, seen.cursor(), complete=True)

    async def _table(self, kind: str, events: list[dict[str, Any]], began: datetime, options: ReadOptions) -> pa.Table:
        return await asyncio.to_thread(table_of, kind, events, began, options)

    async def _whole(self, file: File) -> list[Sorted] | None:
        """A file's lines, or None for one so large that it is to be streamed."""
        if file.size > WHOLE_UP_TO:
            return None
        return await self._kept.get(file, lambda: list(read_sorted(self.store, file)))

    async def _parts(self, file: File, whole: list[Sorted] | None) -> AsyncGenerator[Sorted]:
        """The parts of a file: a large one is never whole in memory."""
        if whole is not None:
            for part in whole:
                yield part
            return
        async with aclosing(in_a_thread(read_sorted(self.store, file), "segment")) as parts:
            async for part in parts:
                yield part


def table_of(kind: str, events: Sequence[dict[str, Any]], began: datetime, options: ReadOptions) -> pa.Table:
    """Events as a batch's table: one row a `messageId` (the one received last), nothing received before `since`.

    `_version` is `receivedAt`; for lines that lack it, the event's own time.
    """
    stream = STREAMS[kind]
    if not events:
        return empty_table(stream, options.exclude)
    versions = _versions(events)
    keep = _rows_to_keep(events, versions, options.since)
    if keep is not None:
        events, versions = [events[i] for i in keep], [versions[i] for i in keep]
    if not events:
        return empty_table(stream, options.exclude)
    return table_from_records(stream, events, versions=versions, extracted_at=began, exclude=options.exclude)


def _versions(events: Sequence[dict[str, Any]]) -> list[int]:
    """Microseconds since 1970 at which Segment received each event."""
    at = _instants(events, "receivedAt")
    for fallback in ("timestamp", "originalTimestamp"):
        if at.null_count == 0:
            break
        at = pc.coalesce(at, _instants(events, fallback))
    return cast(list[int], pc.fill_null(pc.cast(at, pa.int64()), 0).to_pylist())


def _instants(events: Sequence[dict[str, Any]], name: str) -> pa.Array:
    return convert([e.get(name) for e in events], ColumnType.TIMESTAMP)


def _rows_to_keep(events: Sequence[dict[str, Any]], versions: list[int], since: datetime | None) -> list[int] | None:
    """Which rows stay; None: all of them, as nearly always."""
    newest: dict[str, int] = {}
    for i, event in enumerate(events):
        other = newest.get(event["messageId"])
        if other is None or versions[i] >= versions[other]:
            newest[event["messageId"]] = i
    if since is None:
        return None if len(newest) == len(events) else sorted(newest.values())
    cut = micros(since)
    return sorted(i for i in newest.values() if versions[i] >= cut or versions[i] == 0)
