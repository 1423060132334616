"""Reading the logs: the files a stream has not read, unpacked ahead in threads, into batches.

All streams come from the same files. A file is unpacked and sorted by call type once for all streams that are read at
the same time: `SharedFiles` keeps the last ones, within a bound, and never unpacks one twice at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import convert, empty_table, table_from_records
from oploop.apps.base import micros
from oploop.apps.segment.logs import TORN, WHOLE_UP_TO, LogFile, LogStore, Piece, parse
from oploop.apps.segment.position import Position
from oploop.apps.segment.streams import STREAMS
from oploop.records import Batch, ColumnType, Cursor, ReadOptions
from oploop.runtime import Runtime

BATCH_ROWS = 20_000
AHEAD = 3  #: files that are unpacked while one is parsed
SHARED_BYTES = 128 * 2**20  #: unpacked bytes kept for the streams that come behind


class SharedFiles:
    """Unpacked files, for streams that are read side by side; small ones only, the oldest go first."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._tasks: OrderedDict[tuple[str, str], asyncio.Task[list[Piece]]] = OrderedDict()

    async def load(self, file: LogFile) -> list[Piece] | None:
        """All pieces of a file, or None for one so large that it is to be streamed."""
        if file.size > WHOLE_UP_TO:
            return None
        key = (file.path, file.mark)
        task = self._tasks.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(lambda: list(self._store.pieces(file))))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # whoever awaits it raises it
            self._tasks[key] = task
        try:
            pieces = await asyncio.shield(task)
        except Exception:
            self._tasks.pop(key, None)
            raise
        self._make_room(key)
        return pieces

    def _make_room(self, just_used: tuple[str, str]) -> None:
        done = {k: t for k, t in self._tasks.items() if t.done() and not t.cancelled() and t.exception() is None}
        total = sum(p.size for t in done.values() for p in t.result())
        for key, task in done.items():
            if total <= SHARED_BYTES:
                return
            if key != just_used:
                total -= sum(p.size for p in task.result())
                del self._tasks[key]

    async def aclose(self) -> None:
        """Let go of everything."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Notes:
    """What was wrong with which file: counted once, however many streams came by."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], int] = {}

    def add(self, file: LogFile, by: str, trouble: Counter[str]) -> None:
        """Note what `by` (a stream, or the sorting of lines) found in a file."""
        for reason, count in trouble.items():
            self._found[(file.shown, by, reason)] = count

    def lines(self) -> list[str]:
        """One line a file and reason, for people."""
        sums: dict[tuple[str, str], int] = {}
        for (file, _, reason), count in sorted(self._found.items()):
            sums[(file, reason)] = sums.get((file, reason), 0) + count
        return [_note(file, reason, count) for (file, reason), count in sums.items()]


def _note(file: str, reason: str, count: int) -> str:
    if reason == TORN:
        return f"{file}: damaged or cut off; the events before that were read, and it is read again once it changes"
    if reason == GONE:
        return f"{file}: gone since it was listed; not read"
    return f"{file}: {count:,} line{'s' if count != 1 else ''} left out: {reason}; the others were read"


GONE = "gone"


class LogReader:
    """Reads streams from a LogStore."""

    def __init__(self, store: LogStore, runtime: Runtime) -> None:
        self.store = store
        self.notes = Notes()
        self._runtime = runtime
        self._shared = SharedFiles(store)

    async def aclose(self) -> None:
        """Let go of what was read ahead."""
        await self._shared.aclose()

    async def read(self, kind: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """All events of a call type in files not read before; see App.read."""
        began = self._runtime.now()
        files = await asyncio.to_thread(self.store.logs)
        position = Position(cursor, files, options.since)
        waiting: list[dict[str, Any]] = []
        async for file, pieces in self._unpacked(position.todo()):
            trouble: Counter[str] = Counter()
            async for piece in pieces:
                events, wrong = await asyncio.to_thread(parse, kind, piece.lines[kind])
                trouble += wrong
                waiting += events
                self.notes.add(file, "", piece.trouble)
                if len(waiting) >= BATCH_ROWS:
                    yield Batch(kind, await self._table(kind, waiting, began, options))
                    waiting = []
            self.notes.add(file, kind, trouble)
            position.add(file)
            if len(waiting) >= BATCH_ROWS // 2:
                yield Batch(kind, await self._table(kind, waiting, began, options), position.cursor())
                waiting = []
        position.settle()
        table = await self._table(kind, waiting, began, options)
        yield Batch(kind, table, position.cursor(), complete=True)

    async def _table(self, kind: str, events: list[dict[str, Any]], began: datetime, options: ReadOptions) -> pa.Table:
        return await asyncio.to_thread(table_of, kind, events, began, options)

    async def _unpacked(self, files: Iterable[LogFile]) -> AsyncIterator[tuple[LogFile, AsyncIterator[Piece]]]:
        """Each file with its pieces, the next few being unpacked meanwhile. A file that went away is noted, not read."""
        coming = iter(files)
        ahead: deque[tuple[LogFile, asyncio.Task[list[Piece] | None]]] = deque()
        try:
            while True:
                while len(ahead) < AHEAD and (file := next(coming, None)) is not None:
                    ahead.append((file, asyncio.create_task(self._shared.load(file))))
                if not ahead:
                    return
                file, task = ahead.popleft()
                try:
                    whole = await task
                except FileNotFoundError:
                    self.notes.add(file, "", Counter({GONE: 1}))
                    continue
                yield file, _each(whole) if whole is not None else self._streamed(file)
        finally:
            for _, task in ahead:
                task.cancel()
            await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)

    async def _streamed(self, file: LogFile) -> AsyncIterator[Piece]:
        """A large file piece by piece, never whole in memory."""
        pieces = self.store.pieces(file)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece


async def _each(pieces: Iterable[Piece]) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


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
