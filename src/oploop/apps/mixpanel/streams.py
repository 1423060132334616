"""What can be read from Mixpanel: events by day, profiles of users and groups page by page.

Sources: docs.mixpanel.com/reference: raw-event-export, raw-data-export-api (nothing is deduplicated), engage-query;
docs/export-methods (time zones, canonical ids).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

from oploop.apps.arrow import TIMESTAMP, columns_in_turns, empty_table
from oploop.apps.days import by_days
from oploop.apps.jsonlines import values_in_turns
from oploop.apps.jsonrows import texts_of
from oploop.apps.jsonvalues import written
from oploop.apps.lists import Page, fetched, in_parts, paged, whole
from oploop.apps.mixpanel.client import SAID, Client
from oploop.apps.paging import ahead, meanwhile
from oploop.apps.transport import Answer
from oploop.errors import RetryLater
from oploop.records import Batch, Cursor, ReadOptions, Stream

#: No export reaches back further.
FIRST_DAY = date(2011, 7, 10)
LIMIT = 100_000  #: events of an export of several days at the most: `limit` takes no more
FEW = 25_000  #: fewer than that, and the next export covers twice the days
BATCH_ROWS = 20_000
FETCH_IDS = 500  #: profiles asked for by id in one query

EVENTS = SAID.streams["events"]
PROFILE_LAG = SAID.streams["profiles"].lag


def group_name(key: str) -> str:
    """The stream and object of a group key: `group_` and the key in small letters."""
    return "group_" + re.sub(r"\W+", "_", key.lower()).strip("_")


def streams_of(groups: Mapping[str, int | None]) -> dict[str, Stream]:
    """The streams of a project with these group keys; one without a data group id cannot be read."""
    said = {
        group_name(key): f"groups by {key}, with all their properties" for key, n in groups.items() if n is not None
    }
    return {**SAID.streams, **{name: SAID.stream("profiles", name, words) for name, words in said.items()}}


class Reader:
    """Reads the project's streams. `group_ids`: stream name -> data group id."""

    def __init__(self, client: Client, streams: Mapping[str, Stream], group_ids: Mapping[str, int]) -> None:
        self._client, self._streams, self._group_ids = client, streams, group_ids
        self._zone = ZoneInfo(client.config.timezone)

    # -- events ------------------------------------------------------------------------------------------------------

    async def events(self, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Events by day up to today, the last `lookback` days once more for those that came late; see `by_days` for the cursor."""
        today = self._client.runtime.now().astimezone(self._zone).date()
        first = options.since.astimezone(self._zone).date() if options.since is not None else FIRST_DAY
        back = self._client.config.lookback
        days = by_days(self._exported, _count, cursor, first=first, today=today, lookback=back, most=LIMIT, few=FEW)
        at: Cursor = {"span": 1, **(cursor or {}), "until": today.isoformat()}
        async with ahead(days, 1) as exports:  # the next one, and no more: it may be large
            async for (lines, began), at in exports:
                for part in in_parts(lines, BATCH_ROWS):
                    here = at if part[-1] is lines[-1] else None
                    yield Batch("events", await meanwhile(self._event_table(part, began, options.exclude)), here)
        yield Batch("events", empty_table(EVENTS, options.exclude), at, complete=True)

    async def _exported(self, first: date, last: date) -> tuple[list[bytes], datetime]:
        """The lines of an export of some days, and when it was asked for. Only several days are held to LIMIT."""
        began = self._client.runtime.now()
        limit = LIMIT if last > first else None
        days = {"from_date": first.isoformat(), "to_date": last.isoformat()}
        answer = await self._client.export({**days, "time_in_ms": "true", "limit": limit})
        return [line for line in answer.body.split(b"\n") if line], began

    def _event_table(
        self, lines: Sequence[bytes], began: datetime, exclude: Collection[str]
    ) -> Generator[None, None, pa.Table]:
        """Lines of an export as rows, in turns (see `paging.meanwhile`). `exclude` takes out columns and single properties."""
        try:
            columns = yield from values_in_turns(lines, EVENTS.columns, partial(_lifted, exclude=exclude))
        except ValueError:
            raise RetryLater("Mixpanel's export broke off in the middle of a line", mend="run again") from None
        # as it came, without what was lifted out of it, unless something is to be left out
        raw = texts_of({n: v for n, v in columns.items() if n not in exclude}) if exclude else lines
        table = yield from columns_in_turns(
            EVENTS, columns, raw=raw, versions=_versions, extracted_at=began, exclude=exclude
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
        """The pages of a query. They are known as of a while before the answer, since writes show late."""
        if stream in self._group_ids:
            asked = {**asked, "data_group_id": str(self._group_ids[stream])}
        number = count(1)

        def following(_: Answer, told: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any] | None:
            last = len(results) < int(told.get("page_size") or 1000)
            return None if last else {"session_id": told["session_id"], "page": next(number)}

        members, runtime = ("page_size", "session_id"), self._client.runtime
        async with aclosing(paged(self._client.engage, runtime, "results", asked, members, following)) as pages:
            async for page in pages:
                records = _without(page.records, exclude) if exclude else page.records
                yield replace(page, records=records, at=page.at - round(PROFILE_LAG * 1e6))


def _count(export: tuple[list[bytes], datetime]) -> int:
    """How many events an export has."""
    return len(export[0])


def _without(profiles: Iterable[dict[str, Any]], exclude: Collection[str]) -> list[dict[str, Any]]:
    """Profiles less some of their properties."""
    return [{**p, "$properties": {k: v for k, v in p["$properties"].items() if k not in exclude}} for p in profiles]


def _lifted(record: dict[str, Any], exclude: Collection[str]) -> dict[str, Any]:
    """An event with the properties that make it what it is lifted out.

    One without `$insert_id` (from a client that sets none) gets an id of its content, so that it is the same row when the
    day is read again.
    """
    properties = record["properties"]
    own_id = properties.get("$insert_id") or _own_id(properties)
    return {
        "event": record["event"],
        "time": properties.get("time"),
        "$insert_id": own_id,
        "distinct_id": properties.get("distinct_id"),
        "mp_processing_time_ms": properties.get("mp_processing_time_ms"),
        "properties": _text({k: v for k, v in properties.items() if k not in exclude} if exclude else properties),
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


def _versions(events: pa.Table) -> pa.Array:
    """When Mixpanel took them in; of old events, that have no such time (or 0), when they happened."""
    taken, happened = (pc.cast(events[name], pa.int64()) for name in ("mp_processing_time_ms", "time"))
    return pc.fill_null(pc.coalesce(pc.if_else(pc.equal(taken, 0), None, taken), happened), 0)


def _from_local(times: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Instants of times that were counted by the clock of `zone` as if it were UTC's."""
    wall = pc.cast(pc.cast(times, pa.timestamp("us", tz="UTC")), pa.timestamp("us"))
    return pc.cast(pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest"), TIMESTAMP)
