"""The nouns of extracting: what is asked for, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from oploop.errors import OploopError
from oploop.records import Batch, Cursor, ReadOptions, Stream


class Source(Protocol):
    """What extracting needs of an app."""

    name: str

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See App.read."""
        ...


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One stream to be read. `full`: from the start, whatever has been read before.

    A field that is newly in `options.exclude` leaves its column's old values as they are; `_raw` loses it row by row,
    as records come again.
    """

    app: Source
    stream: Stream
    options: ReadOptions = field(default_factory=ReadOptions)
    full: bool = False

    @property
    def name(self) -> str:
        return f"{self.app.name}.{self.stream.name}"


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far one stream is. `read`: records that came so far; `loaded`: those of them that are in the raw table."""

    app: str
    stream: str
    read: int
    loaded: int
    done: bool = False


class StreamStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StreamResult:
    """What came of one stream.

    `rows` are records that are new or changed, `deleted` those of ours that are now marked deleted, `read` all records
    that came (APIs repeat some). What was loaded before an error stays, and the next read goes on from there.
    `read_began` is our clock when the read began: of a resumed read, when its first part did.
    """

    app: str
    stream: str
    status: StreamStatus
    rows: int = 0
    deleted: int = 0
    read: int = 0
    seconds: float = 0.0
    read_began: datetime | None = None
    error: OploopError | None = None
    notes: Sequence[str] = field(default=())
