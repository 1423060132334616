"""An app for tests whose streams yield what a script says, and a clock that only moves when it is told."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from oploop.apps.arrow import empty_table, table_from_records
from oploop.apps.base import Account, App, AppConfig
from oploop.extract import StreamRequest
from oploop.records import Batch, ColumnType, Cursor, Deletes, ReadOptions, Stream
from oploop.runtime import Runtime

START = datetime(2026, 1, 1, tzinfo=UTC)

CHARGES = Stream(
    "charges",
    ("id",),
    {
        "id": ColumnType.TEXT,
        "amount": ColumnType.INTEGER,
        "created": ColumnType.UNIX,
        "metadata": ColumnType.JSON,
    },
)
LISTED = dataclasses.replace(CHARGES, name="organizations", deletes=Deletes.ABSENCE, incremental=False)


@dataclasses.dataclass
class Clock:
    now: datetime = START

    def tick(self, seconds: float = 1.0) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    def runtime(self) -> Runtime:
        return Runtime(now=lambda: self.now, monotonic=lambda: (self.now - START).total_seconds())


@dataclasses.dataclass
class Page:
    """One batch of the script. Records have `v` for their version and `gone` when they are deleted."""

    records: Sequence[Mapping[str, Any]] = ()
    cursor: Cursor | None = None
    complete: bool = False


#: What a stream yields, given the cursor that it is read from; an exception in the list is raised in its place.
Script = Callable[[Cursor | None], Sequence[Page | BaseException]]


class ListedApp(App):
    """An app without a server: what it reads stands in `scripts`."""

    type = "listed"
    title = "Listed"
    streams = {"charges": CHARGES, "organizations": LISTED}

    def __init__(self, clock: Clock, scripts: Mapping[str, Script], name: str = "shop") -> None:
        super().__init__(name, AppConfig(), clock.runtime())
        self.clock = clock
        self.scripts = scripts
        self.notes: list[str] = []
        self.asked: list[Cursor | None] = []

    async def check(self) -> Account:
        return Account("a list")

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        self.asked.append(cursor)
        for page in self.scripts[stream](cursor):
            if isinstance(page, BaseException):
                raise page
            yield batch(self.streams[stream], page, self.clock.tick(), options.exclude)

    def request(self, stream: str = "charges", *, full: bool = False, exclude: Sequence[str] = ()) -> StreamRequest:
        return StreamRequest(self, self.streams[stream], ReadOptions(exclude=frozenset(exclude)), full)


def batch(stream: Stream, page: Page, at: datetime, exclude: frozenset[str] = frozenset()) -> Batch:
    """A page of a script as a Batch of the real kind."""
    records = [{k: v for k, v in r.items() if k not in ("v", "gone")} for r in page.records]
    table = (
        table_from_records(
            stream,
            records,
            versions=[r.get("v", 1) for r in page.records],
            extracted_at=at,
            deleted=[r.get("gone", False) for r in page.records],
            exclude=exclude,
        )
        if records
        else empty_table(stream, exclude)
    )
    return Batch(stream.name, table, page.cursor, page.complete)


def always(*pages: Page | BaseException) -> Script:
    """A script that does not look at the cursor."""
    return lambda _: pages
