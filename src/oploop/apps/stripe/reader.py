"""Reading a stream: first by its list, then by events.

A list finds records, an event tells of a change; only both together are whole:

    first read     list, newest first ──▶ events since the list began ──▶ complete
    later reads    events since the last read ──▶ complete
    after a gap    Stripe keeps events 30 days; a cursor older than that is read by list again

A list's rows are as of the second in which it began, an event's row as of the event, so a change that happens while
the list is paged is never hidden by an older page (`_version`).

The cursor, in words of JSON:

    {"list": {"after": id, "created": s}, "as_of": s, "from": s|null, "relist": bool}      in the middle of a list
    {"since": s, "floor": s, "counts": {second: n}, "from": s|null}                        events are read up to here
    ... "relisted": true, "as_of": s     on the last one of a read that listed again: what is older than as_of is gone
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from oploop.apps.arrow import empty_table, records_in_turns, table_from_records
from oploop.apps.jsonrows import Records
from oploop.apps.paging import MOST_SMALL, ahead, meanwhile
from oploop.apps.stripe.client import MICRO, Page, StripeClient
from oploop.apps.stripe.streams import API_VERSION, Resource
from oploop.apps.transport import Refused
from oploop.errors import FixConfig
from oploop.records import Batch, Cursor, ReadOptions

PAGES_A_BATCH = 10
LOOK_BACK = 30  #: seconds before the last read's end that events are asked for again: one may be listed late
EVENTS_KEPT = 29 * 86_400  #: a day less than Stripe promises, so that none vanishes while it is read
MAX_EVENTS = 5_000  #: events held in memory at once; more are read in shorter stretches of time
LIST_FROM = 10  #: so many new records to be rendered anew are listed rather than fetched one by one


@dataclass(frozen=True, slots=True)
class ListPosition:
    """In the middle of a list. `after` and `created` are those of the last record that was read."""

    as_of: int | None = None
    after: str | None = None
    created: int | None = None
    since: int | None = None
    relist: bool = False

    def cursor(self) -> Cursor:
        place = {"after": self.after, "created": self.created}
        return {"list": place, "as_of": self.as_of, "from": self.since, "relist": self.relist}


@dataclass(frozen=True, slots=True)
class EventPosition:
    """Events are read up to the second `since`; of the last seconds before it so many as `counts` says."""

    since: int
    floor: int
    counts: dict[int, int] = field(default_factory=dict)
    created_from: int | None = None
    relisted_as_of: int | None = None

    def cursor(self, *, complete: bool) -> Cursor:
        counts = {str(second): n for second, n in sorted(self.counts.items())}
        cursor: Cursor = {"since": self.since, "floor": self.floor, "counts": counts, "from": self.created_from}
        if self.relisted_as_of is not None:
            cursor |= {"relisted" if complete else "relist": True, "as_of": self.relisted_as_of}
        return cursor


@dataclass(frozen=True, slots=True)
class Told:
    """What the events of a window say of one record: the last of them, and the version that it has by its place."""

    id: str
    version: int
    event: dict[str, Any]
    record: dict[str, Any] | None  #: None: the event carries another object


class GapError(Exception):
    """The cursor is older than the events that Stripe keeps."""


def position(cursor: Cursor | None, since: int | None) -> ListPosition | EventPosition:
    """Where to go on. A cursor of a read that began later than `since` now says does not serve: it lacks older records."""
    if cursor is None or not _covers(cursor.get("from"), since):
        return ListPosition(since=since)
    if "list" in cursor:
        place = cursor["list"]
        return ListPosition(cursor["as_of"], place["after"], place["created"], since, cursor["relist"])
    counts = {int(second): n for second, n in cursor["counts"].items()}
    relisted = cursor["as_of"] if cursor.get("relist") else None
    return EventPosition(cursor["since"], cursor["floor"], counts, since, relisted)


def _covers(read_from: int | None, wanted: int | None) -> bool:
    return read_from is None or (wanted is not None and read_from <= wanted)


class Reader:
    """One read of one stream."""

    def __init__(self, client: StripeClient, resource: Resource, options: ReadOptions) -> None:
        self.client = client
        self.resource = resource
        self.stream = resource.stream
        self.options = options
        self.since = int(options.since.timestamp()) if options.since is not None else None

    async def read(self, cursor: Cursor | None) -> AsyncIterator[Batch]:
        """All batches from `cursor` on; the last is complete."""
        at = position(cursor, self.since)
        if isinstance(at, EventPosition):
            try:
                async with aclosing(self._events(at)) as batches:
                    async for batch in batches:
                        yield batch
                return
            except GapError:
                at = ListPosition(since=self.since, relist=True)
        async with aclosing(self._list(at)) as listed:
            async for batch, after in listed:
                yield batch
                if isinstance(after, EventPosition):
                    at = after
        assert isinstance(at, EventPosition), "a list ends where its events begin"
        async with aclosing(self._events(at)) as batches:
            async for batch in batches:
                yield batch

    # -- by list -------------------------------------------------------------------------------------------------------

    async def _list(self, at: ListPosition) -> AsyncGenerator[tuple[Batch, ListPosition | EventPosition]]:
        held: list[Page] = []
        as_of = at.as_of
        async with ahead(self._listing(at), MOST_SMALL) as listing:
            async for page, at, more in listing:
                if at.as_of != as_of:  # the list begins, or begins anew: what was read of an old one comes again
                    held, as_of = [], at.as_of
                held.append(page)
                if more and len(held) < PAGES_A_BATCH:
                    continue
                after = at if more else self._listed(at)
                cursor = after.cursor() if isinstance(after, ListPosition) else after.cursor(complete=False)
                yield await self._list_batch(held, at.as_of or 0, cursor), after
                held = []

    async def _listing(self, at: ListPosition) -> AsyncGenerator[tuple[Page, ListPosition, bool]]:
        """The pages of the list, where it stands after each, and whether there are more."""
        more = True
        while more:
            page = await self._page(at)
            if at.as_of is None:
                at = replace(at, as_of=page.as_of)
            elif page.as_of - at.as_of > EVENTS_KEPT:  # resumed too late: events since its beginning are gone
                at = ListPosition(since=self.since, relist=True)
                continue
            if page.records:
                last = page.records[-1]
                at = replace(at, after=last["id"], created=last["created"])
            more = page.has_more and bool(page.records)
            yield page, at, more

    def _listed(self, at: ListPosition) -> EventPosition:
        """After the list: events since it began. Those before are in it."""
        as_of = at.as_of or 0
        return EventPosition(as_of, as_of, {}, self.since, as_of if at.relist else None)

    async def _page(self, at: ListPosition) -> Page:
        created = {} if at.since is None else {"gte": at.since}
        params: dict[str, Any] = {**self.resource.filters, "created": created}
        if at.after is None:
            return await self.client.page(self.resource.path, params)
        try:
            return await self.client.page(self.resource.path, {**params, "starting_after": at.after})
        except Refused as e:
            if e.code != "resource_missing":
                raise
        # The record after which to go on was deleted meanwhile: go on by time; its second is read once more.
        return await self.client.page(self.resource.path, {**params, "created": {**created, "lte": at.created}})

    async def _list_batch(self, pages: Sequence[Page], as_of: int, cursor: Cursor) -> Batch:
        turns = records_in_turns(
            self.stream,
            Records.of(page.records for page in pages),
            versions=as_of * MICRO,
            extracted_at=pages[0].began,
            exclude=self.options.exclude,
        )
        table = await meanwhile(turns)
        return Batch(self.stream.name, table, cursor)

    # -- by events -----------------------------------------------------------------------------------------------------

    async def _events(self, at: EventPosition) -> AsyncGenerator[Batch]:
        """Windows of time, oldest first; the last one is open. A window with too many events is read in parts."""
        low = max(at.since - LOOK_BACK, at.floor)
        span: int | None = None
        while True:
            high = None if span is None else low + span
            window = await _Window.read(self.client, self.resource, low, high)
            if window.as_of - at.since > EVENTS_KEPT:
                raise GapError
            if window.overflowed:
                length = (high if high is not None else window.as_of + 1) - low
                span = max(1, length // 8)
                continue
            told = window.told(self.resource, at.counts)
            table = await self._table(told, low, high, window.began)
            if high is None:
                last = replace(at, since=max(at.since, window.as_of), counts=window.recent())
                yield Batch(self.stream.name, table, last.cursor(complete=True), complete=True)
                return
            at = replace(at, since=max(at.since, high), floor=max(at.floor, high))
            yield Batch(self.stream.name, table, at.cursor(complete=False))
            low = high
            span = (span or 1) * 2
            if low + span > window.as_of:
                span = None

    async def _table(self, told: list[Told], low: int, high: int | None, began: datetime) -> Any:
        """Rows of the records that events told of; those rendered in another version of the API are read anew."""
        stale = [one for one in told if self._is_stale(one)]
        fresh = await self._again(stale, low, high)
        records, versions, deleted = [], [], []
        for one in told:
            record = fresh.get(one.id) if one.id in fresh else one.record
            gone = one.event["type"] in self.resource.deletes or record is None
            record = record or {"id": one.id, "object": self.resource.object}
            if gone and one.event.get("api_version") != API_VERSION:  # what other versions add has no place here
                record = {name: value for name, value in record.items() if name in self.stream.columns}
            if self.since is not None and record.get("created", self.since) < self.since:
                continue  # older than what is wanted
            records.append({k: v for k, v in record.items() if k != "deleted"})
            versions.append(one.version)
            deleted.append(gone)
        if not records:
            return empty_table(self.stream, self.options.exclude)
        return table_from_records(
            self.stream,
            records,
            versions=versions,
            extracted_at=began,
            deleted=deleted,
            exclude=self.options.exclude,
        )

    def _is_stale(self, one: Told) -> bool:
        if one.record is None:
            return True
        if one.event["type"] in self.resource.deletes:
            return False  # it cannot be read again
        return one.event.get("api_version") != API_VERSION or not self.resource.required <= one.record.keys()

    async def _again(self, stale: list[Told], low: int, high: int | None) -> dict[str, dict[str, Any] | None]:
        """Records by id as they are now, in our version of the API; None: gone. Many new ones are listed."""
        found: dict[str, dict[str, Any] | None] = {}
        new = [one for one in stale if one.record is not None and one.record.get("created", 0) >= low]
        if len(new) > LIST_FROM:
            wanted = {one.id for one in new}
            created = {"gte": low} if high is None else {"gte": low, "lt": high}
            params: dict[str, Any] = {**self.resource.filters, "created": created}
            async for page in _pages(self.client, self.resource.path, params):
                found |= {record["id"]: record for record in page.records if record["id"] in wanted}
        known = await self.client.many(self.resource.path, [one.id for one in stale if one.id not in found])
        return found | {record_id: record for record_id, (record, _) in known.items()}


async def _pages(client: StripeClient, path: str, params: dict[str, Any]) -> AsyncGenerator[Page]:
    """All pages of a list, newest first."""
    page = await client.page(path, params)
    yield page
    while page.has_more and page.records:
        page = await client.page(path, {**params, "starting_after": page.records[-1]["id"]})
        yield page


@dataclass(slots=True)
class _Window:
    """The events of one stretch of time, oldest first, and the server's second at which it was looked at."""

    as_of: int
    began: datetime
    events: list[dict[str, Any]]
    overflowed: bool = False

    @classmethod
    async def read(cls, client: StripeClient, resource: Resource, low: int, high: int | None) -> _Window:
        """Events from second `low` up to, not with, `high` (None: until now); overflowed when they are too many."""
        created = {"gte": low} if high is None else {"gte": low, "lt": high}
        window: _Window | None = None
        asked = {"types": resource.types, "created": created}
        async with aclosing(_pages(client, "/v1/events", asked)) as pages:
            async for page in pages:
                if window is None:
                    window = cls(page.as_of, page.began, [])
                window.events += page.records
                splits = high is None or high - low > 1
                if splits and page.has_more and len(window.events) >= MAX_EVENTS and page.as_of > low:
                    window.overflowed = True
                    break
        if window is None:
            raise FixConfig("Stripe's list of events has no first page", mend="check base_url")
        window.events.reverse()  # newest first on the wire
        return window

    def told(self, resource: Resource, counts: dict[int, int]) -> list[Told]:
        """The last word on each record, in the order of their versions.

        Within a second, events count in the order in which Stripe lists them. A second of which as many events were
        read before says nothing new; if one more has turned up since, all of it is applied again, in order.
        """
        last: dict[str, Told] = {}
        for second, of_second in groupby(self.events, key=lambda event: int(event["created"])):
            events = list(of_second)
            if counts.get(second) == len(events):
                continue
            for place, event in enumerate(events, start=1):
                one = _told(resource, event, second * MICRO + place)
                if one is not None:
                    last.pop(one.id, None)
                    last[one.id] = one
        return list(last.values())

    def recent(self) -> dict[int, int]:
        """How many events each of the seconds has that the next read will look at again."""
        start = self.as_of - LOOK_BACK
        seconds = (int(event["created"]) for event in self.events)
        return {second: len(list(same)) for second, same in groupby(seconds) if second >= start}


def _told(resource: Resource, event: dict[str, Any], version: int) -> Told | None:
    """What an event says of a record of the stream; None when it concerns none."""
    thing = event["data"]["object"]
    named_by = resource.named_by(event["type"])
    if named_by is None:
        record_id = thing.get("id")  # an invoice to come has none
        return Told(record_id, version, event, thing) if record_id else None
    record_id = thing.get(named_by)
    if isinstance(record_id, dict):  # expanded by an old version of the API
        record_id = record_id.get("id")
    return Told(record_id, version, event, None) if record_id else None
