"""Files as an app: CSV, JSON lines, Parquet in a folder, S3, GCS, SFTP or wherever fsspec goes; read and exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from oploop.apps.base import Account, App
from oploop.apps.files.config import FILE, ROW, FilesConfig, ObjectSpec, StreamSpec
from oploop.apps.files.reader import FileReader
from oploop.apps.files.writer import FileWriter
from oploop.apps.storage import Store, matching
from oploop.errors import FixConfig
from oploop.records import (
    Batch,
    ColumnType,
    Cursor,
    Deletes,
    Field,
    FieldType,
    Object,
    Op,
    Operation,
    ReadOptions,
    Receipt,
    Replay,
    Step,
    Stream,
)
from oploop.runtime import Runtime

#: A step's file has the same name for ever.
_TTL = 10 * 365 * 86_400.0


class FilesApp(App):
    """Files under one root."""

    type = "files"
    title = "Files and object stores"
    learns = "the files and folders that the block names"
    Config = FilesConfig

    def __init__(self, name: str, config: FilesConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.store = Store(config.url, "url", config.options)
        self.streams = {n: _stream(n, spec) for n, spec in config.streams.items()}
        self.objects = {n: _object(n, spec) for n, spec in config.objects.items()}
        self._reader = FileReader(self.store, runtime)
        self._writer = FileWriter(self.store, runtime)

    @property
    def notes(self) -> list[str]:
        """What was left out of the reading, and why, one line each."""
        return self._reader.notes.lines()

    async def check(self) -> Account:
        """List the root. One that is not there yet is made by the first export."""
        try:
            files = await asyncio.to_thread(self.store.files)
        except FixConfig as e:
            if self.streams or not e.message.startswith("url: there is nothing"):
                raise
            return Account(f"nothing at {self.store.shown} yet")
        fitting = {n: matching(spec.files) for n, spec in self.config.streams.items()}
        parts = [f"{n} {sum(fits(f.name) for f in files):,}" for n, fits in fitting.items()]
        newest = max((f.modified for f in files if f.modified is not None), default=None)
        until = f", newest of {datetime.fromtimestamp(newest, UTC):%Y-%m-%d}" if newest is not None else ""
        of = f" ({', '.join(parts)})" if parts else ""
        many = "1 file" if len(files) == 1 else f"{len(files):,} files"
        return Account(f"{many} at {self.store.shown}{of}{until}", self.store.shown)

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read and reader.py."""
        return self._reader.read(self.streams[stream], self.config.streams[stream], cursor, options)

    async def send(self, step: Step) -> Sequence[Receipt]:
        """See App.send and writer.py."""
        return await self._writer.send(self.config.objects[step.object], step)


def _stream(name: str, spec: StreamSpec) -> Stream:
    columns = {FILE: ColumnType.TEXT, **({} if spec.key else {ROW: ColumnType.INTEGER}), **spec.columns}
    for key in spec.key:
        columns.setdefault(key, ColumnType.TEXT)
    return Stream(
        name,
        tuple(spec.key) or (FILE, ROW),
        columns,
        deletes=Deletes.NEVER if spec.key else Deletes.MARKED,
        description=f"files {spec.files}",
    )


def _object(name: str, spec: ObjectSpec) -> Object:
    fields = {n: Field(n, kind, key=kind not in (FieldType.LIST, FieldType.JSON)) for n, kind in spec.fields.items()}
    # whoever reads the files may have taken one away by the next run
    writing = Operation(batch=spec.rows, in_flight=2, replay=Replay.KEY, ttl=_TTL, finishes=False)
    keys = tuple(n for n, f in fields.items() if f.key)
    by_key = Operation(batch=spec.rows, in_flight=2, replay=Replay.KEY, ttl=_TTL, keys=keys)
    return Object(
        name,
        {Op.CREATE: writing, Op.UPSERT: by_key, Op.REMOVE: writing},
        id_column="",
        fields=fields,
        description=f"rows in files {spec.path}",
    )


__all__ = ["FilesApp", "FilesConfig"]
