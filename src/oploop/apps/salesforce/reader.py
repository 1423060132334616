"""Reading: SOQL by pages in the order of SystemModstamp; many rows by a Bulk API 2.0 query; records by id.

Deleted records come by `queryAll` as long as the recycle bin holds them. Sources: REST API Developer Guide (Query,
QueryAll, sObject Collections retrieve), Bulk API 2.0 guide (query jobs, results, Sforce-Locator).
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Raw

from oploop.apps.arrow import columns_in_turns, empty_table, instants, table_from_records
from oploop.apps.formats import csv_tables
from oploop.apps.jsonrows import Columns, Records, records_in, with_members, without
from oploop.apps.jsonvalues import parsed, written
from oploop.apps.lists import fetched
from oploop.apps.paging import ahead, meanwhile
from oploop.apps.salesforce.catalog import Table
from oploop.apps.salesforce.client import Client
from oploop.apps.salesforce.jobs import wait_for
from oploop.apps.transport import Answer, NotTheApi, Refused
from oploop.errors import FixConfig, RetryLater
from oploop.records import Batch, ColumnType, Cursor, ReadOptions, Stream

#: Ids of one call of `composite/sobjects`.
FETCH = 2_000
#: A query that is longer than so many bytes does not fit an address (16 KB); a job takes it in its body.
MAX_URL = 14_000
RESULT_ROWS = 50_000
_CSV_TYPES: Mapping[ColumnType, pa.DataType] = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.NUMBER: pa.float64(),
}


@dataclass(frozen=True, slots=True)
class Page:
    """Records of a query, which has `total` in all."""

    records: Records
    total: int
    began: datetime


class Reader:
    """Reads an org's objects."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, table: Table, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See App.read. Each page is a safe point; a job's rows are so only when all are there."""
        hidden = {"Id", table.clock or "Id"} & options.exclude
        if hidden:
            raise FixConfig(f"{table.name}: {min(hidden)!r} cannot be left out", mend="remove it from exclude")
        if options.since is not None and table.clock is None:
            raise FixConfig(f"since: {table.name} has no time by which it could be read", mend="remove since")
        seen: str | None = cursor["seen"] if cursor and table.clock is not None else None
        while True:  # again from the last page, should a query's place be lost
            try:
                async with aclosing(self._read(table, seen, options)) as batches:
                    async for batch in batches:
                        seen = batch.cursor["seen"] if batch.cursor is not None else seen
                        yield batch
                return
            except Refused as e:
                if e.code != "INVALID_QUERY_LOCATOR" or seen is None:
                    raise

    async def _read(self, table: Table, seen: str | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        names = [n for n in table.names if n not in options.exclude]
        soql = f"SELECT {', '.join(names)} FROM {table.name}{self._where(table, seen, options)}"
        ordered = f"{soql} ORDER BY {table.clock}, Id" if table.clock is not None else soql
        kind = "queryAll" if "IsDeleted" in table.names else "query"
        pages = self._pages(f"{kind}/", {"q": ordered})
        page = await anext(pages) if len(ordered) < MAX_URL else None
        if page is None or page.total > self._client.config.bulk_read_from:
            await pages.aclose()
            async with aclosing(self._job(table, soql, kind, options)) as parts:
                async for rows, newest in parts:
                    seen = max(seen or "", newest or "") or None
                    yield Batch(table.name, rows)
        else:
            async with ahead(pages) as more:
                while page is not None:
                    if page.records:
                        made, stamp = await meanwhile(self._in_turns(table, page, options.exclude))
                        seen = max(seen or "", stamp) or None
                        yield Batch(table.name, made, {"seen": seen} if table.clock is not None else None)
                    page = await anext(more, None)
        yield Batch(table.name, empty_table(table.stream, options.exclude), {"seen": seen}, complete=True)

    async def _pages(self, path: str, params: Mapping[str, Any] | None) -> AsyncGenerator[Page]:
        """The pages of a query."""
        while True:
            began = self._client.runtime.now()
            answer = await self._client.get(path, params)
            told, records = records_in(answer, "records", "totalSize", "done", "nextRecordsUrl")
            if records is None or "totalSize" not in told:
                raise NotTheApi(answer)
            yield Page(records, int(told["totalSize"]), began)
            if told.get("done", True):
                return
            path, params = told["nextRecordsUrl"], None

    def _where(self, table: Table, seen: str | None, options: ReadOptions) -> str:
        """The records since the newest that was seen, and some before it, for transactions that ended later than they began."""
        times = [options.since] if options.since is not None else []
        if seen:
            times.append(_time(seen) - timedelta(seconds=self._client.config.overlap))
        return f" WHERE {table.clock} >= {max(times).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if times else ""

    async def _job(
        self, table: Table, soql: str, kind: str, options: ReadOptions
    ) -> AsyncGenerator[tuple[pa.Table, str | None]]:
        """The rows of a query job, and up to when they are known: nothing that changes after the job was made is missed."""
        began, client = self._client.runtime.now(), self._client
        made = (await client.call("POST", "jobs/query", {"operation": kind, "query": soql}, harmless=True)).json()
        await wait_for(client, f"jobs/query/{made['id']}")
        locator: str | None = None
        while True:
            params = {"maxRecords": RESULT_ROWS} | ({"locator": locator} if locator else {})
            answer = await client.transport.request(
                "GET", client.path(f"jobs/query/{made['id']}/results"), params=params, headers={"Accept": "text/csv"}
            )
            records = records_of_csv(answer, table.stream)
            if records:
                yield self._rows(table, records, began, options.exclude), str(made["createdDate"])
            locator = answer.headers.get("sforce-locator")
            if locator in (None, "", "null"):
                break
        await client.call("DELETE", f"jobs/query/{made['id']}", harmless=True, ok=(404,))

    async def fetch(self, table: Table, ids: Sequence[str]) -> Batch:
        """See App.fetch: those that are gone come as bare deleted rows."""

        async def show(some: Sequence[str]) -> pa.Table:
            as_of = self._client.transport.as_of()
            began, asked = self._client.runtime.now(), {"ids": list(some), "fields": table.names}
            answer = await self._client.call("POST", f"composite/sobjects/{table.name}", asked, harmless=True)
            found = [r if r is not None else {"Id": i} for i, r in zip(some, answer.json(), strict=True)]
            return self._rows(table, found, began, frozenset(), at=as_of(answer))

        return replace(await fetched(table.stream, sorted(ids), FETCH, show), complete=True)

    def _in_turns(
        self, table: Table, page: Page, exclude: frozenset[str]
    ) -> Generator[None, None, tuple[pa.Table, str]]:
        """A page as rows, and the newest of its stamps; see `paging.meanwhile`."""
        how = Columns.cached(tuple(table.stream.columns.items()))
        columns = (yield from how.in_turns(page.records)) if table.clock is not None else None
        if columns is None or table.clock is None:
            records = list(page.records)
            newest = max(_stamp(r, table) for r in records)
            return self._rows(table, records, page.began, exclude), newest
        raw = _less_attributes(page.records, columns.pop("attributes", None))
        for name in table.lists:
            columns[name] = _as_lists(name, columns[name], raw)
        rows = yield from columns_in_turns(
            table.stream,
            columns,
            raw=without(Records(raw), exclude) if exclude else raw,
            versions=lambda whole: pc.fill_null(pc.cast(whole[table.clock], pa.int64()), 0),
            extracted_at=page.began,
            deleted=[d is True for d in columns.get("IsDeleted", ())] or None,
            exclude=exclude,
        )
        return rows, max(str(s or "") for s in columns[table.clock])

    def _rows(
        self, table: Table, records: Sequence[dict[str, Any]], began: datetime, exclude: frozenset[str], *, at: int = 0
    ) -> pa.Table:
        for record in records:
            record.pop("attributes", None)
        for name in table.lists:
            for record in records:
                if isinstance(record.get(name), str):
                    record[name] = record[name].split(";")
        return table_from_records(
            table.stream,
            records,
            versions=[max(at, v) for v in instants([_stamp(r, table) for r in records])],
            extracted_at=began,
            deleted=[len(r) == 1 or r.get("IsDeleted") is True for r in records],
            exclude=exclude,
        )


def _as_lists(name: str, values: Sequence[Any], raw: list[bytes]) -> list[Any]:
    """A field's texts (a;b) as lists, in the records' texts `raw` too."""
    found = list(values)
    for at, value in enumerate(values):
        if value is not None and (text := bytes(value)).startswith(b'"'):
            found[at] = Raw(written(parsed(text).split(";")))
            raw[at] = with_members(raw[at], {name: found[at]})
    return found


def _less_attributes(records: Records, attributes: Sequence[Any] | None) -> list[bytes]:
    """Records' texts without their first member, `attributes`, whose texts are given."""
    if attributes is None:
        return list(map(bytes, records.texts))
    found = []
    for record, text in zip(map(bytes, records.texts), attributes, strict=True):
        first = b'{"attributes":%s,' % bytes(text) if text is not UNSET else b""
        found.append(
            b"{" + record[len(first) :]
            if first and record.startswith(first)
            else without(Records([record]), ["attributes"])[0]
        )
    return found


def records_of_csv(answer: Answer, stream: Stream) -> list[dict[str, Any]]:
    """A result page of a job as records like those of a query: an empty value is none. What is not of its field's type stays the
    text that it is. RetryLater where the page is no CSV of such records, or not whole."""
    types = {n: _CSV_TYPES[k] for n, k in stream.columns.items() if k in _CSV_TYPES}
    try:
        try:
            found = _records_of_csv(answer, types)
        except pa.ArrowInvalid:
            found = [{n: _typed(v, types.get(n)) for n, v in r.items()} for r in _records_of_csv(answer, {})]
    except pa.ArrowInvalid as e:
        raise _no_results(stream, " ".join(str(e).split())[:200]) from None
    told = answer.headers.get("sforce-numberofrecords", "")
    if found and "Id" not in found[0]:
        raise _no_results(stream, f"its columns are {', '.join(found[0])[:80]}")
    if told.isdigit() and int(told) != len(found):
        raise _no_results(stream, f"it tells of {int(told):,} records and has {len(found):,}")
    return found


def _no_results(stream: Stream, why: str) -> RetryLater:
    mend = "run again later; if it stays so, read it by pages: bulk_read_from: 100000000"
    return RetryLater(f"a page of Salesforce's results of {stream.name} cannot be read: {why}", mend=mend)


def _records_of_csv(answer: Answer, types: Mapping[str, pa.DataType]) -> list[dict[str, Any]]:
    tables = csv_tables(io.BytesIO(answer.body), types=types, quoted_nulls=True)
    return [record for part in tables for record in part.to_pylist()]


def _typed(text: str | None, kind: pa.DataType | None) -> Any:
    """A value of a page in which some value is not of its type."""
    if text is None or kind is None:
        return text
    try:
        return pa.scalar(text).cast(kind).as_py()
    except pa.ArrowInvalid:
        return text


def _stamp(record: Mapping[str, Any], table: Table) -> str:
    return str(record.get(table.clock or "") or "")


def _time(text: str) -> datetime:
    """2025-03-01T12:00:00.000+0000, as queries write times, or with Z, as jobs do."""
    return datetime.fromisoformat(text)
