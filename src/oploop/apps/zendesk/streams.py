"""What can be read from Zendesk, and how.

    tickets, users   cursor-based incremental export; `after_cursor` is kept from run to run
    organizations    time-based incremental export; its pages repeat the boundary second
    ticket_fields    the whole list each time

Sources: developer.zendesk.com, "Using the Incremental Export API", and the OpenAPI document (TicketObject, UserForAdmin,
OrganizationObject, TicketFieldObject). Deleted records stay in the exports: tickets with status `deleted`, users with
`active` false, organizations with `deleted_at`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import Of, records_in_turns
from oploop.apps.base import micros
from oploop.apps.jsonrows import Records
from oploop.apps.lists import Page, fetched, whole
from oploop.apps.paging import ahead, at_once, meanwhile
from oploop.apps.transport import Refused
from oploop.apps.zendesk.client import LIST_PAGE, Client, records_of
from oploop.apps.zendesk.objects import SAID
from oploop.errors import FixData, RetryLater
from oploop.records import Batch, Cursor, ReadOptions

PAGE = 1000  #: records a page of an export
TOO_RECENT = timedelta(seconds=120)  #: a start time must be a minute old by Zendesk's clock, which is not ours

#: Fields that repeat another one's values: excluded with it.
TWINS: Mapping[str, tuple[str, ...]] = {"custom_fields": ("fields",), "subject": ("raw_subject",)}

STREAMS = SAID.streams

#: Which exports share a limit, as the answers' headers name it.
BUCKETS: Mapping[str, str] = {"tickets": "exports", "organizations": "exports", "users": "cursor exports"}


# -- records to tables ---------------------------------------------------------------------------------------------------


def is_deleted(stream: str, record: Mapping[str, Any]) -> bool:
    """Whether a record of an export is one that Zendesk has deleted."""
    if stream == "tickets":
        return record.get("status") == "deleted"
    if stream == "users":
        return record.get("active") is False
    return stream == "organizations" and record.get("deleted_at") is not None


def version_of(record: Mapping[str, Any]) -> int | None:
    """A record's version, microseconds: `generated_timestamp`, which system updates move too, else `updated_at`."""
    generated = record.get("generated_timestamp")
    if isinstance(generated, int):
        return generated * 1_000_000
    for name in ("updated_at", "created_at"):
        try:
            return micros(datetime.fromisoformat(record[name]))
        except (KeyError, TypeError, ValueError):
            continue
    return None


def versions_in(table: pa.Table) -> pa.ChunkedArray:
    """The same of each row of an export."""
    times = [table[name].cast(pa.int64()) for name in ("updated_at", "created_at")]
    if "generated_timestamp" in table.column_names:
        times.insert(0, pc.multiply(table["generated_timestamp"], 1_000_000))
    return pc.coalesce(*times, pa.scalar(0, pa.int64()))


def deleted_in(stream: str, table: pa.Table) -> pa.ChunkedArray:
    """`is_deleted` of each row of an export."""
    if stream == "tickets":
        return pc.fill_null(pc.equal(table["status"], "deleted"), False)
    if stream == "users":
        return pc.fill_null(pc.equal(table["active"], False), False)
    return table["deleted_at"].is_valid() if stream == "organizations" else pa.repeat(False, table.num_rows)


def in_turns(
    stream: str,
    records: Sequence[dict[str, Any]],
    *,
    extracted_at: datetime,
    exclude: frozenset[str] = frozenset(),
    at_least: int = 0,
    gone: Sequence[bool] | None = None,
) -> Generator[None, None, pa.Table]:
    """A stream's records as its table, in turns (see `paging.meanwhile`). `at_least`: no version is below it. `gone` overrides what the records say."""
    versions: Of | list[int] = versions_in
    deleted: Of | Sequence[bool] = partial(deleted_in, stream)
    hidden = exclude.union(*(TWINS.get(name, ()) for name in exclude))
    if gone is not None or at_least:
        versions = [max(version_of(r) or 0, at_least) for r in records]
        deleted = [is_deleted(stream, r) for r in records] if gone is None else gone
    table = yield from records_in_turns(
        STREAMS[stream], records, versions=versions, extracted_at=extracted_at, deleted=deleted, exclude=hidden
    )
    # Tickets repeat `custom_fields` as `fields`, which no document mentions: once as a column is enough.
    return table.drop_columns(["fields"]) if stream == "tickets" and "fields" in table.column_names else table


to_table = at_once(in_turns)


# -- reading -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exported:
    """Records of an export as they came, and the place after them."""

    records: Sequence[dict[str, Any]]
    began: datetime
    cursor: Cursor | None = None
    complete: bool = False


class Reader:
    """Reads the streams. `page`: records to ask for in one page of an export (Zendesk gives up to 1,000)."""

    def __init__(self, client: Client, page: int = PAGE) -> None:
        self._client = client
        self._page = page

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Read a stream from `cursor`, as `App.read` says."""
        if stream == "ticket_fields":
            return whole(STREAMS[stream], self._fields(), options.exclude)
        if not STREAMS[stream].incremental:
            return whole(STREAMS[stream], self._client.listed(stream, stream), options.exclude)
        by = self._by_time if stream == "organizations" else self._by_cursor
        return self._batches(stream, by(stream, cursor, options), options)

    async def _batches(
        self, stream: str, pages: AsyncGenerator[Exported], options: ReadOptions
    ) -> AsyncGenerator[Batch]:
        """Pages of an export as rows, while the next ones are on their way."""
        async with ahead(pages) as found:
            async for page in found:
                turns = in_turns(stream, page.records, extracted_at=page.began, exclude=options.exclude)
                yield Batch(stream, await meanwhile(turns), page.cursor, complete=page.complete)

    async def _fields(self) -> AsyncGenerator[Page]:
        """The list of ticket fields, which comes in one answer."""
        yield await self._client.shown("ticket_fields", "ticket_fields")

    def _start(self, options: ReadOptions) -> int:
        """The start time (unix seconds) of a first read; Zendesk refuses one that is less than a minute old."""
        if options.since is None:
            return 0
        return max(0, int(min(options.since, self._client.runtime.now() - TOO_RECENT).timestamp()))

    async def _by_cursor(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Exported]:
        after: str | None = (cursor or {}).get("after")
        start: int = (cursor or {}).get("start_time", self._start(options))
        while True:
            began = self._client.runtime.now()
            where: dict[str, Any] = {"start_time": start} if after is None else {"cursor": after}
            params = {**where, "per_page": self._page}
            try:
                answer = await self._client.export(BUCKETS[stream], f"{stream}/cursor", params)
            except Refused as e:
                if cursor is None:
                    raise
                raise FixData(
                    f"Zendesk does not take the place up to which {stream} were read: {e.message}",
                    mend="read it again from the start: oploop extract --full",
                ) from e
            body, records = records_of(answer, stream)
            ended, found = bool(body.get("end_of_stream")), body.get("after_cursor")
            if not ended and (found is None or found == after):
                raise RetryLater(f"the export of {stream} does not move on from its cursor", mend="run again later")
            after = found or after  # an empty export may have no cursor: then the old one stays good
            here: Cursor = {"start_time": start} if after is None else {"after": after}
            yield Exported(records, began, here, ended)
            if ended:
                return

    async def _by_time(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Exported]:
        start: int = (cursor or {}).get("start_time", self._start(options))
        while True:
            began = self._client.runtime.now()
            params = {"start_time": start, "per_page": self._page}
            answer = await self._client.export(BUCKETS[stream], stream, params)
            body, records = records_of(answer, stream)
            told = body.get("end_of_stream")
            ended = bool(told) if told is not None else len(records) < self._page
            reached = body.get("end_time")
            reached = start if reached is None else int(reached)
            if not ended and reached <= start:
                # More records than a page holds share this second: the export would give the same page for ever.
                yield Exported(records, began)
                async with aclosing(self._client.listed(stream, stream)) as pages:  # all live records
                    async for page in pages:
                        yield Exported(page.records, page.began)
                reached, records = start + 1, Records([])
            start = reached
            yield Exported(records, began, {"start_time": start}, ended)
            if ended:
                return

    async def fetch(self, stream: str, ids: Sequence[str]) -> Batch:
        """The records with these ids as they are now; those that Zendesk no longer has are marked deleted."""

        async def show(some: Sequence[str]) -> pa.Table:
            page = await self._client.shown(f"{stream}/show_many", stream, {"ids": ",".join(some)})
            shown = {str(r.get("id")) for r in page.records}
            missing: list[dict[str, Any]] = [{"id": int(i)} for i in some if i not in shown and i.isdigit()]
            gone = [is_deleted(stream, r) for r in page.records] + [True] * len(missing)
            rows = [*page.records, *missing]
            return to_table(stream, rows, extracted_at=page.began, at_least=page.at, gone=gone)

        return await fetched(STREAMS[stream], ids, LIST_PAGE, show)
