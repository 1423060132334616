"""Extracting: all streams of all apps are read side by side, one loader puts what came into the raw tables.

app.read ─┐
app.read ─┼─batches─▶ Inbox ─chunks─▶ Loader (a thread of its own: reading goes on while it loads)
app.read ─┘
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from oploop.apps.defects import defect
from oploop.errors import OploopError
from oploop.extract.cursors import StreamState
from oploop.extract.inbox import Inbox
from oploop.extract.load import Loaded, Loader, Part
from oploop.extract.nouns import StreamProgress, StreamRequest, StreamResult, StreamStatus
from oploop.records import Batch
from oploop.runtime import Runtime
from oploop.warehouse.base import Warehouse


@dataclass(slots=True)
class _Reading:
    """One stream's read under way."""

    request: StreamRequest
    state: StreamState | None
    began: datetime | None = None  #: when this run's part of the read did
    read_began: datetime | None = None  #: when the whole read did
    started: float = 0.0
    seconds: float = 0.0
    read: int = 0
    loaded: int = 0
    rows: int = 0
    deleted: int = 0
    complete: bool = False  #: the reader has caught up
    finished: bool = False  #: and everything is loaded
    error: OploopError | None = None
    stopped: bool = False  #: a load failed: nothing after it may be loaded, or the cursor would pass it by
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def resumed(self) -> StreamState | None:
        """The unfinished read that this one goes on with."""
        goes_on = self.state is not None and self.state.reading and not self.request.full
        return self.state if goes_on else None


Item = tuple[_Reading, Batch]

#: Rows that are merged and committed at once, of a reader that brings so many in 15 s: two of the groups in which DuckDB keeps
#: rows, which it writes out whole. Fewer go into its log first, and all that was merged before is looked at again for each.
CHUNK_ROWS = 245_760


async def extract(
    requests: Sequence[StreamRequest],
    warehouse: Warehouse,
    runtime: Runtime,
    *,
    progress: Callable[[StreamProgress], None] = lambda _: None,
    chunk_rows: int = CHUNK_ROWS,
) -> list[StreamResult]:
    """Read each stream from where it was left until it has caught up, into its raw table; results in order.

    One stream's failure does not stop the others and is in its result. A cursor is stored in the same transaction as
    the rows before it, so a crash at any point loses nothing and the next call goes on from there. Raises
    SqlError when the warehouse refuses even to make the tables.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
        loop = asyncio.get_running_loop()
        loader = Loader(warehouse, runtime)
        states = await loop.run_in_executor(thread, loader.prepare, requests)
        readings = [_Reading(r, None if r.full else states.get((r.app.name, r.stream.name))) for r in requests]
        inbox: Inbox[Item] = Inbox(runtime, chunk_rows=chunk_rows)
        async with _reading(readings, inbox, runtime, progress):
            while chunk := await inbox.take():
                parts = _parts(chunk)
                done = await loop.run_in_executor(thread, loader.load, [part for _, part in parts])
                for (reading, part), loaded in zip(parts, done, strict=True):
                    _note(reading, part, loaded)
                    progress(_progress(reading))
    return _results(readings)


@contextlib.asynccontextmanager
async def _reading(
    readings: Sequence[_Reading], inbox: Inbox[Item], runtime: Runtime, progress: Callable[[StreamProgress], None]
) -> AsyncIterator[None]:
    """Read all streams in tasks while the body runs; the inbox is closed when they have ended."""

    async def read_all() -> None:
        await asyncio.gather(*(r.task for r in readings if r.task is not None), return_exceptions=True)
        await inbox.close()

    for reading in readings:
        reading.task = asyncio.create_task(_read(reading, inbox, runtime, progress))
    closer = asyncio.create_task(read_all())
    try:
        yield
        await closer
    finally:
        tasks = [closer, *(r.task for r in readings if r.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(
    reading: _Reading, inbox: Inbox[Item], runtime: Runtime, progress: Callable[[StreamProgress], None]
) -> None:
    """Read one stream to its end, or to its error."""
    request = reading.request
    reading.began, reading.started = runtime.now(), runtime.monotonic()
    try:
        cursor = reading.state.cursor if reading.state is not None else None
        options = replace(request.options, fetched=reading.state is not None and reading.state.fetched)
        batches = cast("AsyncGenerator[Batch, None]", request.app.read(request.stream.name, cursor, options))
        async with contextlib.aclosing(batches):
            async for batch in batches:
                reading.read += batch.table.num_rows
                await inbox.put((reading, batch), batch.table.num_rows, batch.table.nbytes, pause=batch.pause)
                reading.complete = batch.complete
                progress(_progress(reading))
        if not reading.complete:
            reading.error = OploopError(f"{request.name} ended before it had caught up", mend="mend the app")
    except OploopError as e:
        reading.error = e
    except Exception as e:  # a defect of one app must not stop the others
        reading.error = defect(f"reading {request.name}", e)
    finally:
        reading.seconds = runtime.monotonic() - reading.started


def _parts(chunk: Sequence[Item]) -> list[tuple[_Reading, Part]]:
    """A chunk's batches by stream, in order; what came after a stream's failed load is dropped."""
    parts: dict[int, tuple[_Reading, Part]] = {}
    for reading, batch in chunk:
        if reading.stopped:
            continue
        if id(reading) not in parts:
            assert reading.began is not None
            parts[id(reading)] = reading, Part(reading.request, reading.began, reading.resumed)
        parts[id(reading)][1].batches.append(batch)
    return list(parts.values())


def _note(reading: _Reading, part: Part, loaded: Loaded) -> None:
    """Take over what became of a part; a failure ends the stream's read."""
    if loaded.error is not None:
        reading.error, reading.stopped = loaded.error, True
        if reading.task is not None:
            reading.task.cancel()
        return
    reading.loaded += sum(b.table.num_rows for b in part.batches)
    reading.rows += loaded.rows
    reading.deleted += loaded.deleted
    reading.finished = part.batches[-1].complete
    reading.read_began = part.read_began


def _progress(reading: _Reading) -> StreamProgress:
    request = reading.request
    return StreamProgress(
        request.app.name, request.stream.name, reading.read, reading.loaded, reading.finished or reading.stopped
    )


def _results(readings: Sequence[_Reading]) -> list[StreamResult]:
    """The results, in order; what an app has to tell stands with its first stream."""
    told: set[str] = set()
    results = []
    for reading in readings:
        app = reading.request.app
        notes = [] if app.name in told else list(getattr(app, "notes", []))
        told.add(app.name)
        results.append(
            StreamResult(
                app.name,
                reading.request.stream.name,
                StreamStatus.OK if reading.error is None else StreamStatus.FAILED,
                rows=reading.rows,
                deleted=reading.deleted,
                read=reading.read,
                seconds=reading.seconds,
                read_began=reading.read_began or reading.began,
                error=reading.error,
                notes=notes,
            )
        )
    return results
