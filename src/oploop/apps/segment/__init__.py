"""Segment: read from the logs that it leaves in storage, written through its tracking API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from oploop.apps.base import Account, App, AppConfig
from oploop.apps.seen import day_of
from oploop.apps.segment.client import TrackingClient, transport
from oploop.apps.segment.reader import LogReader
from oploop.apps.segment.sandbox import SegmentSandbox
from oploop.apps.segment.streams import OBJECTS, STREAMS
from oploop.apps.storage import Store
from oploop.errors import FixConfig
from oploop.records import Batch, Cursor, ReadOptions, Receipt, Step
from oploop.runtime import Runtime


class SegmentConfig(AppConfig):
    """Segment's keys in `oploop.yml`: `logs` to read, `write_key` to write, at least one of them."""

    base_url: str = "https://api.segment.io"
    #: A folder (relative to the project) or any fsspec URL.
    logs: str | None = Field(
        default=None,
        min_length=1,
        json_schema_extra={"path": True},
        description="to read: s3://bucket/segment-logs, or a folder",
    )
    write_key: SecretStr | None = Field(default=None, description="to write: of the source that events are sent to")
    webhook_secret: SecretStr | None = None

    @model_validator(mode="after")
    def _either(self) -> SegmentConfig:
        if self.logs is None and self.write_key is None:
            raise ValueError("needs logs (to read) or write_key (to write), or both")
        return self


class SegmentApp(App):
    """Segment, both directions. The two share nothing but the name: logs are files, writes are HTTP calls."""

    type = "segment"
    title = "Segment"
    limits = "1,000 calls a second"
    asks = ("write_key", "logs")
    Config = SegmentConfig
    streams = STREAMS
    objects = OBJECTS

    def __init__(self, name: str, config: SegmentConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self._reader = LogReader(Store(config.logs, "logs"), runtime) if config.logs is not None else None
        self._writer: TrackingClient | None = None
        if config.write_key is not None:
            self.transport = transport(config.base_url, config.write_key, runtime)
            self._writer = TrackingClient(self.transport, runtime)

    @property
    def notes(self) -> list[str]:
        """What was left out of the reading, and why, one line each."""
        return self._reader.notes.lines() if self._reader is not None else []

    async def check(self) -> Account:
        """See App.check. A wrong write key cannot be told: Segment answers 200 to any."""
        said = []
        if self._reader is not None:
            files = await asyncio.to_thread(self._reader.logs)
            newest = max(filter(None, map(day_of, {f.folder for f in files})), default=None)
            until = f", newest of {datetime.fromtimestamp(newest, UTC):%Y-%m-%d}" if newest is not None else ""
            said.append(f"logs: {len(files):,} files{until}")
        if self._writer is not None:
            await self._writer.ping()
            host = urlsplit(self.config.base_url).netloc
            said.append(f"{host} answers (write_key unproven: Segment says 200 to any key)")
        return Account("; ".join(said))

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. The cursor names the files read; see position.py."""
        if self._reader is None:
            raise FixConfig(f"{self.name}.{stream} cannot be read: logs is not set", mend=f"set apps.{self.name}.logs")
        return self._reader.read(stream, cursor, options)

    async def send(self, step: Step) -> list[Receipt]:
        """See App.send. OK means that Segment accepted the event, not that a destination took it."""
        if self._writer is None:
            raise FixConfig(
                f"{self.name}.{step.object} cannot be written: write_key is not set",
                mend=f"set apps.{self.name}.write_key",
            )
        return await self._writer.send(step)

    async def aclose(self) -> None:
        """See App.aclose."""
        if self._reader is not None:
            await self._reader.aclose()
        await super().aclose()


__all__ = ["SegmentApp", "SegmentConfig", "SegmentSandbox"]
