"""A database as an app: what is the same for each engine."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from oploop.apps.base import Account, AddresslessConfig, App
from oploop.apps.sql.delivery import TableWriter
from oploop.apps.sql.engine import Engine
from oploop.apps.sql.reader import TableReader
from oploop.apps.sql.tables import Catalog, Table, object_of, operations_of, stream_of
from oploop.apps.sql.writer import EngineTarget
from oploop.records import Batch, Cursor, Object, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime


class SqlConfig(AddresslessConfig):
    """Keys of a database in `oploop.yml`, beside its address."""

    instead = "a database"

    #: table: the column by which it is read on; without one it is read whole
    cursor: dict[str, str] = {}
    #: table: the columns that identify a row, where it has no primary key
    key: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    #: seconds by which a read goes back before the newest value of a cursor that tells the time
    overlap: float = Field(default=600.0, ge=0)


class SqlApp(App):
    """A database, both directions. Its streams and objects are the user's tables."""

    def __init__(self, name: str, config: Any, runtime: Runtime) -> None:
        self.engine = self.make_engine(name, config, runtime)
        super().__init__(name, config.model_copy(update={"base_url": self.engine.base_url}), runtime)
        self.transport = self.engine
        self.catalog = Catalog(self.engine, config.key, config.cursor)
        self.streams: Mapping[str, Stream] = self.catalog.each(stream_of)
        self.objects: Mapping[str, Object] = self.catalog.each(self._object, written=True)
        self._reader = TableReader(self.engine, runtime, config.overlap)
        self._writer = TableWriter(EngineTarget(self.engine), runtime)

    def _object(self, table: Table) -> Object:
        return object_of(table, operations_of(table, self.engine.batch, self.engine.in_flight))

    @abstractmethod
    def make_engine(self, name: str, config: Any, runtime: Runtime) -> Engine:
        """The database of a block."""

    async def check(self) -> Account:
        """See App.check. Names what is wrong with the address."""

        def work() -> str:
            with self.engine.connection() as connection:
                return self.engine.check(connection)

        return Account(await asyncio.to_thread(work), self.engine.place)

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read and reader.py."""
        return self._reader.read(self.catalog.get(stream), cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch."""
        return await self._reader.fetch(self.catalog.get(object_name), remote_ids)

    async def send(self, step: Step) -> Sequence[Receipt]:
        """See App.send and writer.py."""
        return await self._writer.send(self.catalog.get(step.object), step)
