"""What can be read from Mixpanel: events by day, profiles of users and groups page by page.

Sources: docs.mixpanel.com/reference: raw-event-export, raw-data-export-api (nothing is deduplicated), engage-query;
docs/export-methods (time zones, canonical ids).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

from oploop.apps.arrow import TIMESTAMP, columns_in_turns, empty_table
from oploop.apps.declared import declared
from oploop.apps.jsonrows import records_in
from oploop.apps.jsonrows import written as record_text
from oploop.apps.jsonvalues import parsed, written
from oploop.apps.lists import Page, fetched, in_parts, whole
from oploop.apps.mixpanel.client import Client
from oploop.apps.paging import ahead, meanwhile
from oploop.apps.transport import NotTheApi
from oploop.errors import RetryLater
from oploop.records import Batch, Cursor, ReadOptions, Stream

#: No export reaches back further.
FIRST_DAY = date(2011, 7, 10)
LIMIT = 100_000  #: events of an export of several days at the most: `limit` takes no more
FEW = 25_000  #: fewer than that, and the next export covers twice the days
MOST_DAYS = 366
BATCH_ROWS = 20_000
TURN = 200  #: events that are parsed in one turn
MOST_MS = 2**53  #: a time beyond that is none
FETCH_IDS = 500  #: profiles asked for by id in one query

SAID = declared(__package__)
EVENTS = SAID.streams["events"]
PROFILE_LAG = SAID.streams["profiles"].lag


def group_name(key: str) -> str:
    """The stream and object of a group key: `group_` and the key in small letters."""
    return "group_" + re.sub(r"\W+", "_", key.lower()).strip("_")


def streams_of(groups: Mapping[str, int | None]) -> dict[str, Stream]:
    """The streams of a project with these group keys; one without a data group id cannot be read."""
    found = dict(SAID.streams)
    for key, number in groups.items():
        if number is not None:
            said = f"groups by {key}, with all their properties"
            found[group_name(key)] = SAID.stream("profiles", group_name(key), said)
    return found


class Reader:
    """Reads the project's streams. `group_ids`: stream name -> data group id."""

    def __init__(self, client: Client, streams: Mapping[str, Stream], group_ids: Mapping[str, int]) -> None:
        self._client, self._streams, self._group_ids = client, streams, group_ids
        self._zone = ZoneInfo(client.config.timezone)

    # -- events ------------------------------------------------------------------------------------------------------

    async def events(self, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Events by day up to today, the last `lookback` days once more for those that came late.

        The cursor is {"until": the last day that was read, "span": days an export}. An export that brings as many events as
        it may is thrown away and asked for again by fewer days, so that no more than a day's events, or LIMIT, are held at once, and
        those of the next export.
        """
        today = self._client.runtime.now().astimezone(self._zone).date()
        at: Cursor = {"until": today.isoformat(), "span": int((cursor or {}).get("span", 1))}
        async with ahead(
            self._exports(cursor, options, today), 1
        ) as exports:  # the next one, and no more: it may be large
            async for lines, began, at in exports:
                for part in in_parts(lines, BATCH_ROWS):
                    here = at if part[-1] is lines[-1] else None
                    yield Batch("events", await meanwhile(self._event_table(part, began, options.exclude)), here)
        yield Batch("events", empty_table(EVENTS, options.exclude), at, complete=True)

    async def _exports(
        self, cursor: Cursor | None, options: ReadOptions, today: date
    ) -> AsyncGenerator[tuple[list[bytes], datetime, Cursor]]:
        """The lines of each export up to today, when it was asked for, and where a read goes on after it."""
        day, span = self._begin(cursor, options), int((cursor or {}).get("span", 1))
        while day <= today:
            last = min(day + timedelta(days=span - 1), today)
            lines, began = await self._exported(day, last)
            if last > day and len(lines) >= LIMIT:
                span = max(1, span // 4)
                continue
            if len(lines) < FEW:
                span = min(MOST_DAYS, span * 2)
            yield lines, began, {"until": last.isoformat(), "span": span}
            day = last + timedelta(days=1)

    def _begin(self, cursor: Cursor | None, options: ReadOptions) -> date:
        first = options.since.astimezone(self._zone).date() if options.since is not None else FIRST_DAY
        if cursor is None:
            return first
        return max(first, date.fromisoformat(cursor["until"]) - timedelta(days=self._client.config.lookback))

    async def _exported(self, first: date, last: date) -> tuple[list[bytes], datetime]:
        """The lines of an export of some days, and when it was asked for. Only several days are held to LIMIT."""
        began = self._client.runtime.now()
        params = {"from_date": first.isoformat(), "to_date": last.isoformat(), "time_in_ms": "true"}
        if last > first:
            params["limit"] = str(LIMIT)
        answer = await self._client.export(params)
        return [line for line in answer.body.split(b"\n") if line], began

    def _event_table(
        self, lines: Sequence[bytes], began: datetime, exclude: Collection[str]
    ) -> Generator[None, None, pa.Table]:
        """Lines of an export as rows, in turns (see `paging.meanwhile`). `exclude` takes out columns and single properties."""
        columns: dict[str, list[Any]] = {name: [] for name in EVENTS.columns}
        versions: list[int] = []
        raw: Any = [] if exclude else lines  # as it came, without what was lifted out of it
        for part in in_parts(lines, TURN):
            try:
                found: list[dict[str, Any]] = parsed(b"[" + b",".join(part) + b"]")
            except ValueError:
                raise RetryLater("Mixpanel's export broke off in the middle of a line", mend="run again") from None
            records = list(map(_lifted, found))
            for record in records if exclude else ():
                record["properties"] = {k: v for k, v in record["properties"].items() if k not in exclude}
                raw.append(record_text({k: v for k, v in record.items() if k not in exclude}))
            versions += map(_version, records)
            for name, values in columns.items():
                values += [r[name] for r in records] if name != "properties" else [_text(r[name]) for r in records]
            yield
        table = yield from columns_in_turns(
            EVENTS, columns, raw=raw, versions=versions, extracted_at=began, exclude=exclude
        )
        if "time" in table.column_names and self._zone.key != "UTC":
            at = table.schema.get_field_index("time")
            table = table.set_column(at, "time", _from_local(table.column(at), self._zone.key))
        return table

    # -- profiles ----------------------------------------------------------------------------------------------------

    def profiles(self, stream: str, options: ReadOptions) -> AsyncGenerator[Batch]:
        """All profiles of a stream; each read is a whole one, over the pages of one query."""
        return whole(self._streams[stream], self._queried(stream, {}, options.exclude), options.exclude)

    async def fetch(self, stream: str, ids: Sequence[str]) -> Batch:
        """Some profiles by their ids."""
        shape = self._streams[stream]

        async def show(some: Sequence[str]) -> pa.Table:
            asked = {"distinct_ids": orjson.dumps(list(some)).decode()}
            found = [page.table(shape) async for page in self._queried(stream, asked)]
            return pa.concat_tables([empty_table(shape), *found], promote_options="default")

        return await fetched(shape, ids, FETCH_IDS, show)

    async def _queried(
        self, stream: str, asked: Mapping[str, Any], exclude: Collection[str] = ()
    ) -> AsyncGenerator[Page]:
        """The pages of a query that have any profiles. They are known as of a while before the answer, since writes show late."""
        form = dict(asked)
        if stream in self._group_ids:
            form["data_group_id"] = str(self._group_ids[stream])
        number = 0
        while True:
            began = self._client.runtime.now()
            answer = await self._client.engage(form)
            told, results = records_in(answer, "results", "page_size", "session_id")
            if results is None:
                raise NotTheApi(answer)
            if results:
                page = Page.of(answer, _without(results, exclude) if exclude else results, began)
                yield replace(page, at=page.at - round(PROFILE_LAG * 1e6))
            if len(results) < int(told.get("page_size") or 1000):
                return
            number += 1
            form |= {"session_id": told["session_id"], "page": number}


def _without(profiles: Iterable[dict[str, Any]], exclude: Collection[str]) -> list[dict[str, Any]]:
    """Profiles less some of their properties."""
    return [{**p, "$properties": {k: v for k, v in p["$properties"].items() if k not in exclude}} for p in profiles]


def _lifted(record: dict[str, Any]) -> dict[str, Any]:
    """An event with the properties that make it what it is lifted out.

    One without `$insert_id` (from a client that sets none) gets an id of its content, so that it is the same row when the
    day is read again.
    """
    properties = record["properties"]
    return {
        "event": record["event"],
        "time": properties.get("time"),
        "$insert_id": properties.get("$insert_id") or _own_id(properties),
        "distinct_id": properties.get("distinct_id"),
        "mp_processing_time_ms": properties.get("mp_processing_time_ms"),
        "properties": properties,
    }


def _text(properties: Mapping[str, Any]) -> Raw | None:
    """An event's properties as JSON text; None where they are nested too deeply."""
    try:
        return Raw(written(properties))
    except TypeError:
        return None


def _own_id(properties: Mapping[str, Any]) -> str:
    content = {k: v for k, v in properties.items() if k not in ("distinct_id", "mp_processing_time_ms")}
    try:
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # whole numbers beyond 64 bits, as floats: ids stay what they were
        text = orjson.dumps(orjson.loads(written(content)), option=orjson.OPT_SORT_KEYS)
    return "oploop-" + blake2b(text, digest_size=16).hexdigest()


def _version(record: Mapping[str, Any]) -> int:
    """When Mixpanel took it in; of old events, that have no such time, when it happened (milliseconds)."""
    for at in (record["mp_processing_time_ms"], record["time"]):
        if at and isinstance(at, int | float) and abs(at) < MOST_MS:
            return int(at) * 1000
    return 0


def _from_local(times: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Instants of times that were counted by the clock of `zone` as if it were UTC's."""
    wall = pc.cast(pc.cast(times, pa.timestamp("us", tz="UTC")), pa.timestamp("us"))
    return pc.cast(pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest"), TIMESTAMP)
