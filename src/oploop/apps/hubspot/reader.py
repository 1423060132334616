"""How records are read.

    the first time   the list, page by page; its cursor is an id, so nothing moves while it is paged
    later            a search for what changed since, by id: each page asks for what lies behind the last one's last id. So
                     records that change meanwhile shift no page, and the 10,000 that one search shows at the most are
                     never reached
    each time        the list of archived records, which no search shows; records that were merged away

Sources: developers.hubspot.com, API reference: objects (list, batch read, archived), CRM search (limits, sorting).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

from oploop.apps.arrow import columns_in_turns, instants, records_in_turns
from oploop.apps.base import micros
from oploop.apps.hubspot.client import Client, page_of
from oploop.apps.hubspot.objects import META, changed_property, kind_of, shown
from oploop.apps.jsonrows import Columns, Records
from oploop.apps.jsonvalues import written
from oploop.apps.lists import fetched
from oploop.apps.paging import MOST_SMALL, ahead, at_once, meanwhile
from oploop.records import Batch, ColumnType, Cursor, FieldType, ReadOptions, Stream

PAGE = 100
SEARCH_PAGE = 200
READ_PAGE = 100  #: records of a batch read
#: Seconds by which a search goes back before the last read's start: the index lags, and clocks differ.
OVERLAP = 300
#: Characters of property names that an address may hold; more are asked for in the body of a second call.
MOST_NAMES = 6_000
MOST_GATHERED = 1_000  #: records that are handed on together
NOTHING = Raw(b"[]")  #: the values of a property that may hold several, and holds none
MERGED = "hs_merged_object_ids"

#: Records of a page, when they were shown, and where a read goes on after them.
Pages: TypeAlias = AsyncGenerator[tuple[Records, datetime, Cursor]]


#: What a record has beside its properties.
_SHELL = Columns(
    {n: ColumnType.BOOLEAN if k is ColumnType.BOOLEAN else ColumnType.TEXT for n, k in META.items()}
    | {"properties": ColumnType.JSON}
)


class RecordReader:
    """Reads the records of one type. `names`: the properties to ask for; `lists`: those that hold several values."""

    def __init__(
        self,
        client: Client,
        name: str,
        kind: str,
        stream: Stream,
        properties: Sequence[Mapping[str, Any]],
        out: frozenset[str] = frozenset(),
    ) -> None:
        own = [p for p in shown(name, properties) if p["name"] not in out]
        self._client, self._kind, self._stream, self._exclude = client, kind, stream, out
        self._names = sorted({p["name"] for p in own} | {"hs_object_id", changed_property(name)})
        self._lists = [p["name"] for p in own if kind_of(p)[1] is FieldType.LIST]
        self._changed = changed_property(name)
        self._path = f"crm/v3/objects/{kind}"

    async def read(self, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """Read on from `cursor`, as `App.read` says. New properties are read of all records."""
        name, of = self._stream.name, hashlib.sha256("\n".join(self._names).encode()).hexdigest()[:16]
        here: Cursor = dict(cursor) if cursor is not None and cursor.get("of") == of else {"of": of}
        if "since" not in here and options.since is not None:
            here = {"of": of, "since": int(options.since.timestamp() * 1000) + OVERLAP * 1000}
        async with ahead(self._pages(here), MOST_SMALL) as pages, aclosing(_gathered(pages)) as parts:
            async for records, at, here in parts:
                yield Batch(name, await meanwhile(self.in_turns(records, extracted_at=at)), here)
        yield Batch(name, self.table([], extracted_at=self._client.runtime.now()), here, complete=True)

    async def _pages(self, here: Cursor) -> Pages:
        """Live records, and behind them the archived ones, which are read each time: they move nothing."""
        async with aclosing(self._changes(here) if "since" in here else self._list(here)) as live:
            async for records, at, here in live:
                yield records, at, here
        async with aclosing(self._archived()) as archived:
            async for records, at in archived:
                yield records, at, here

    async def _list(self, here: Cursor) -> Pages:
        """All live records, and where the next read begins."""
        after, began = here.get("list"), here.get("began")
        while True:
            records, after, at = await self._page({"after": after} if after else {})
            began = began if began is not None else int(at.timestamp() * 1000)
            where = {"began": began, "list": after} if after else {"since": began}
            yield records, at, {"of": here["of"], **where}
            if after is None:
                return

    async def _page(self, where: Mapping[str, Any]) -> tuple[Records, str | None, datetime]:
        """A page of the list: (records, where the next begins, when)."""
        names = ",".join(self._names)
        asked = names if len(names) <= MOST_NAMES else "hs_object_id"
        at = self._client.runtime.now()
        answer = await self._client.get(self._path, {"limit": PAGE, **where, "properties": asked})
        records, after = page_of(answer)
        if asked != names and records:
            archived = bool(where.get("archived"))
            records, _ = await self._by_id([str(r["id"]) for r in records], archived)
        return records, after, min(at, self._client.clock(answer))

    async def _changes(self, here: Cursor) -> Pages:
        """Records that changed since; `until` is when this read's search began."""
        since, last = int(here["since"]), str(here.get("id", "0"))
        until: int | None = here.get("until")
        while True:
            answer = await self._client.search(f"{self._path}/search", self._query(since, last))
            (records, after), at = page_of(answer), self._client.clock(answer)
            until = until if until is not None else int(at.timestamp() * 1000)
            done = not records or (len(records) < SEARCH_PAGE and after is None)
            last = str(records[-1]["id"]) if records else last
            where = {"since": until} if done else {"since": since, "until": until, "id": last}
            yield records, at, {"of": here["of"], **where}
            if done:
                return

    async def _archived(self) -> AsyncGenerator[tuple[Records, datetime]]:
        after: str | None = None
        while True:
            records, after, at = await self._page({"archived": "true", **({"after": after} if after else {})})
            yield records, at
            if after is None:
                return

    def _query(self, since: int, last: str) -> dict[str, Any]:
        return {
            "filterGroups": [
                {
                    "filters": [
                        {"propertyName": self._changed, "operator": "GTE", "value": str(since - OVERLAP * 1000)},
                        {"propertyName": "hs_object_id", "operator": "GT", "value": last},
                    ]
                }
            ],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "properties": self._names,
            "limit": SEARCH_PAGE,
        }

    async def _by_id(self, ids: Sequence[str], archived: bool) -> tuple[Records, int]:
        body = {"inputs": [{"id": i} for i in ids], "properties": self._names, "propertiesWithHistory": []}
        path = f"{self._path}/batch/read" + ("?archived=true" if archived else "")
        as_of = self._client.transport.as_of()
        answer = await self._client.ask(path, body)
        return page_of(answer)[0], as_of(answer) or micros(self._client.runtime.now())

    async def fetch(self, ids: Sequence[str]) -> Batch:
        """The records with these ids as they are now; those that HubSpot no longer shows are marked deleted."""

        async def show(some: Sequence[str]) -> pa.Table:
            began = self._client.runtime.now()
            records, at = await self._by_id(some, False)
            found = {str(r["id"]) for r in records}
            gone = [_gone(i) for i in some if i not in found]
            return self.table([*records, *gone], extracted_at=began, at_least=at)

        return await fetched(self._stream, ids, READ_PAGE, show)

    def in_turns(
        self, records: Sequence[Mapping[str, Any]], *, extracted_at: datetime, at_least: int = 0
    ) -> Generator[None, None, pa.Table]:
        """Records as the stream's table, with those that were merged into them marked as deleted; see `paging.meanwhile`."""
        hidden = META.keys() & self._exclude
        texts = records.texts if isinstance(records, Records) else None
        if isinstance(records, Records) and not hidden and (columns := (yield from self._columns(records))):
            return (
                yield from columns_in_turns(
                    self._stream,
                    columns,
                    versions=partial(_versions_in, at_least),
                    extracted_at=extracted_at,
                    deleted=_archived_in,
                    exclude=self._exclude,
                    texts=True,
                    raw=records.texts,
                )
            )
        records = list(records)
        rows = [{**r["properties"], **{k: r.get(k) for k in META}} for r in records]
        versions = [max(v, at_least) for v in versions_of(records)]
        if hidden or texts is None:
            texts = [written({k: v for k, v in r.items() if k not in hidden}) for r in records]
        raw = list(texts)
        for record, version in [(r, v) for r, v in zip(records, versions, strict=True) if r["properties"].get(MERGED)]:
            for lost in record["properties"][MERGED].split(";"):
                if lost and lost != record["id"]:
                    rows.append({"id": lost, "archived": True})
                    raw.append(orjson.dumps({"id": lost, "mergedInto": record["id"]}))
                    versions.append(version)
        for name in self._lists:
            for row in rows:
                row[name] = _parts(row.get(name))
        return (
            yield from records_in_turns(
                self._stream,
                rows,
                versions=versions,
                extracted_at=extracted_at,
                deleted=[bool(r["archived"]) for r in rows],
                exclude=self._exclude,
                texts=True,
                raw=raw,
            )
        )

    table = at_once(in_turns)

    def _columns(self, records: Records) -> Generator[None, None, dict[str, Sequence[Any]] | None]:
        """The properties' values, and those of META; None where these records take a closer look: some were merged."""
        shells = yield from _SHELL.in_turns(records)
        if shells is None or None in shells["properties"]:
            return None
        known = tuple((n, ColumnType.TEXT) for n in self._names)
        columns = yield from Columns.cached(known).in_turns(Records(shells["properties"]))
        if columns is None or any(columns.get(MERGED, ())):
            return None
        for name in self._lists:
            columns[name] = [Raw(written(_parts(v))) if v else NOTHING for v in columns[name]]
        return columns | {n: shells[n] for n in META}


def _versions_in(at_least: int, whole: pa.Table) -> Any:
    """`versions_of` each row, none of them below `at_least`."""
    changed = pc.cast(pc.coalesce(whole["updatedAt"], whole["createdAt"]), pa.int64())
    told = pc.max_element_wise(changed, pc.cast(whole["archivedAt"], pa.int64()))
    return pc.max_element_wise(told, pa.scalar(at_least, pa.int64()))


def _archived_in(whole: pa.Table) -> Any:
    return pc.fill_null(whole["archived"], False)


def _parts(value: str | None) -> list[str]:
    """The values of a property that holds several."""
    return [v for v in value.split(";") if v] if value else []


async def _gathered(pages: AsyncIterator[tuple[Records, datetime, Cursor]]) -> Pages:
    """Pages put together, more and more of them: a table costs the same for a hundred rows as for some hundreds. Those before
    an error come before it."""
    held = Records([])
    began: datetime | None = None
    enough, here = 1, Cursor()
    failed: Exception | None = None
    try:
        async for records, at, here in pages:
            held, began = Records.of([held, records]), began or at
            if len(held) >= enough:
                yield held, began, here
                held, began, enough = Records([]), None, min(MOST_GATHERED, max(PAGE, enough * 2))
    except Exception as e:
        failed = e
    if began is not None:  # also a last page without records: the place has moved
        yield held, began, here
    if failed is not None:
        raise failed


def _gone(remote_id: str) -> dict[str, Any]:
    return {"id": remote_id, "properties": {}, "archived": True}


def versions_of(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Records' versions: when they were changed, or archived, last."""
    return _versions({name: [r.get(name) for r in records] for name in META})


def _versions(columns: Mapping[str, Sequence[Any]]) -> list[int]:
    told = instants([a or b for a, b in zip(columns["updatedAt"], columns["createdAt"], strict=True)])
    return list(map(max, told, instants(columns["archivedAt"]))) if any(columns["archivedAt"]) else told
