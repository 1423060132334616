"""Postgres: any table of a database, read in one snapshot and written by set-based statements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SecretStr, field_validator

from oploop.apps.base import Account, AddresslessConfig, App
from oploop.apps.postgres.catalog import STEPS, Catalog, object_of, stream_of
from oploop.apps.postgres.server import Server, parse_dsn
from oploop.records import Batch, Cursor, Object, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime

if TYPE_CHECKING:
    from oploop.apps.postgres.reader import TableReader
    from oploop.apps.sql.delivery import TableWriter


class PostgresConfig(AddresslessConfig):
    """Keys of a Postgres app in `oploop.yml`."""

    instead = "a database: dsn is its address"

    dsn: SecretStr = Field(description="postgres://user:password@host/database")
    schema_: str = Field(default="public", alias="schema", min_length=1)
    #: table: the column by which it is read on; without one it is read on by xmin
    cursor: dict[str, str] = {}
    #: table: the columns that identify a row, where it has no primary key
    key: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    #: seconds by which a read goes back before the newest value of a cursor that tells the time
    overlap: float = Field(default=600.0, ge=0)

    @field_validator("dsn")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        parse_dsn(value.get_secret_value())
        return value


class PostgresApp(App):
    """A Postgres database, both directions. Its streams and objects are the user's tables."""

    type = "postgres"
    title = "PostgreSQL"
    learns = "any table of the database"
    needs_numpy = False
    Config = PostgresConfig

    def __init__(self, name: str, config: PostgresConfig, runtime: Runtime) -> None:
        self.server = Server(name, config.dsn.get_secret_value())
        super().__init__(name, config.model_copy(update={"base_url": self.server.base_url}), runtime)
        self.transport = self.server
        self.catalog = Catalog(self.server, config.schema_, config.key, config.cursor)
        self.streams: Mapping[str, Stream] = self.catalog.each(stream_of)
        self.objects: Mapping[str, Object] = self.catalog.each(object_of, written=True)

    @cached_property
    def _reader(self) -> TableReader:
        from oploop.apps.postgres.reader import TableReader  # a plan moves no rows

        return TableReader(self.server, self.runtime, self.config.overlap)

    @cached_property
    def _writer(self) -> TableWriter[Any, Any]:
        from oploop.apps.postgres.writer import PgTarget
        from oploop.apps.sql.delivery import TableWriter

        return TableWriter(PgTarget(self.server), self.runtime)

    def prepare(self, *, writes: bool = False) -> None:
        """See App.prepare: the modules, and a connection."""
        self.server.meanwhile(self._ready_to_write if writes else self._ready_to_read)

    def _ready_to_read(self) -> None:
        self._reader.prepare()

    def _ready_to_write(self) -> None:
        self._writer.prepare()

    async def check(self) -> Account:
        """See App.check. Names which part of the dsn is wrong."""

        def work() -> Any:
            with self.server.short() as connection:
                return connection.execute(
                    "SELECT current_setting('server_version'), current_user, current_database(), "
                    "pg_is_in_recovery(), to_regclass(%s) IS NOT NULL OR has_database_privilege(current_database(), 'CREATE')",
                    (STEPS,),
                ).fetchone()

        row = await asyncio.to_thread(work)
        version, user, database, replica, keeps = row
        said = f"PostgreSQL {version.split()[0]}, {database} on {self.server.host} as {user}"
        said += ", a replica: it can only be read" if replica else "" if keeps else f", without {STEPS}"
        return Account(said, f"{self.server.host}/{database}")

    def full_name(self, name: str) -> str:
        """See App.full_name."""
        return self.catalog.full(name)

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read and reader.py."""
        return self._reader.read(self.catalog.get(stream), cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch."""
        return await self._reader.fetch(self.catalog.get(object_name), remote_ids)

    async def send(self, step: Step) -> Sequence[Receipt]:
        """See App.send and writer.py."""
        return await self._writer.send(self.catalog.get(step.object), step)


__all__ = ["PostgresApp", "PostgresConfig"]
