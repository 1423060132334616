"""Lookup tables: each is a record, and its rows are one field, since Mixpanel replaces them as a whole or not at all.

Tables are made in Mixpanel; here they are listed, and filled. Their rows cannot be read.
Source: docs.mixpanel.com/reference: list-lookup-tables, replace-lookup-table.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from oploop.apps.formats import csv_of
from oploop.apps.lists import Page, paged, whole
from oploop.apps.mixpanel.client import SAID, Client, read_written
from oploop.records import Batch, Outcome, ReadOptions, Receipt, Step

NAME = "lookup_tables"
MAX_BYTES = 100_000_000  #: of a table's CSV, unpacked
ID = "id"  #: the column that tells rows apart; Mixpanel takes the first for it
SHOWN = 3  #: of the faults that Mixpanel names

STREAM = SAID.streams[NAME]


def read(client: Client, options: ReadOptions) -> AsyncGenerator[Batch]:
    """All tables; each read is a whole one."""
    return whole(STREAM, _pages(client), options.exclude)


def _pages(client: Client) -> AsyncGenerator[Page]:
    """The project's tables, which come in one answer."""
    return paged(lambda _: client.tables(), client.runtime, "results", {}, (), lambda *_: None)


async def fetch(client: Client, ids: Sequence[str]) -> Batch:
    """The tables with these ids."""
    [page] = [p async for p in _pages(client)]
    found = [t for t in page.records if t["id"] in ids]
    return Batch(NAME, replace(page, records=found).table(STREAM))


async def send(client: Client, step: Step) -> list[Receipt]:
    """Replace a table's rows. What Mixpanel would not take is rejected unsent, or in its words."""
    [change] = step.changes  # `batch=1`
    if "rows" not in change.fields:
        return [Receipt(change.number, Outcome.OK, change.remote_id)]
    try:
        body = table_of(change.fields["rows"])
    except ValueError as e:
        return [Receipt(change.number, Outcome.REJECTED, error=str(e))]
    answer = await client.replace(str(change.remote_id), body)
    said = read_written(answer)
    if answer.status == 400:
        found = [f"row {f.get('index')}: {f.get('message')}" for f in said.get("failed_records") or ()]
        error = "; ".join([str(said.get("error") or "refused"), *found[:SHOWN]])
        return [Receipt(change.number, Outcome.REJECTED, error=error)]
    return [Receipt(change.number, Outcome.OK, change.remote_id, version=answer.date_micros())]


def table_of(rows: Any) -> bytes:
    """Rows, a list of objects, as CSV: `id`, then the other columns by name.

    ValueError, with the reason, for rows that Mixpanel would refuse, or take otherwise than they are meant.
    """
    if not isinstance(rows, list) or not all(isinstance(r, Mapping) for r in rows):
        raise ValueError("rows is no list of objects: make it one in the model, list({...}) or jsonb_agg(...)")
    if not rows:
        raise ValueError("rows is empty, so the table would have no columns")
    if any("" in row for row in rows):
        raise ValueError("a column of rows has no name")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        key = _cell(row.get(ID))
        if not key or key in seen:
            raise ValueError(f"row {number} has " + (f"another row's id, {key!r}" if key else "no id"))
        seen.add(key)
    columns = [ID, *sorted({name for row in rows for name in row} - {ID})]
    body = csv_of(columns, ([_cell(row.get(c)) for c in columns] for row in rows))
    if len(body) > MAX_BYTES:
        raise ValueError(f"rows have {len(body):,} bytes as CSV; Mixpanel takes {MAX_BYTES:,}")
    return body


def _cell(value: Any) -> str:
    """A value as Mixpanel takes it from CSV: what is empty is undefined, lists are JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
