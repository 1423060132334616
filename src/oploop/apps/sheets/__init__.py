"""Google Sheets: a sheet read as a table, and a table kept equal to a model."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from oploop.apps.arrow import table_from_columns
from oploop.apps.base import Account, App, micros
from oploop.apps.jsonrows import texts_of
from oploop.apps.sheets import a1
from oploop.apps.sheets.client import Client, SheetsConfig, TableConfig
from oploop.apps.sheets.tables import Grid, object_of, rows_as_ranges, stream_of, text, written
from oploop.errors import FixConfig
from oploop.records import Batch, Change, Cursor, Op, Outcome, ReadOptions, Receipt, Step
from oploop.runtime import Runtime


class SheetsApp(App):
    """Some sheets, each a table by the name that the block gives it."""

    type = "sheets"
    title = "Google Sheets"
    limits = "60 calls a minute (`rate_limit`)"
    learns = "the sheets that the block names"
    Config = SheetsConfig

    def __init__(self, name: str, config: SheetsConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.transport
        self.tables = config.sheets
        self.streams = {n: stream_of(n, t) for n, t in self.tables.items()}
        self.objects = {n: object_of(n, t) for n, t in self.tables.items()}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._keyless: dict[str, int] = {}

    @property
    def notes(self) -> list[str]:
        """What was left out of the reading."""
        return [f"{name}: {n:,} rows without a key were not read" for name, n in self._keyless.items() if n]

    async def check(self) -> Account:
        """See App.check. Each spreadsheet is asked for, and must have the sheets that the block names."""
        titles = []
        for spreadsheet in dict.fromkeys(t.spreadsheet for t in self.tables.values()):
            about = await self.client.about(spreadsheet)
            has = {s["properties"]["title"] for s in about["sheets"]}
            for table in self.tables.values():
                if table.spreadsheet == spreadsheet and table.sheet not in has:
                    known = ", ".join(sorted(has))
                    raise FixConfig(
                        f"spreadsheet {about['properties']['title']!r} has no sheet {table.sheet!r}",
                        mend=f"it has: {known}",
                    )
            titles.append(about["properties"]["title"])
        return Account(f"{self.client.email}: {', '.join(titles)}", self.client.email)

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. A sheet has no list of changes: it is read whole, in one call, so that no row moves meanwhile."""
        yield await self._rows(stream, options, complete=True)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch: the sheet is read, as its rows have no addresses that stay."""
        return await self._rows(object_name, ReadOptions(), only=frozenset(remote_ids))

    async def _rows(
        self, name: str, options: ReadOptions, *, only: frozenset[str] | None = None, complete: bool = False
    ) -> Batch:
        table, began = self.tables[name], self.runtime.now()
        grid, at = await self._grid(table)
        values = {} if grid.blank else grid.values(only)
        count = len(values[table.key]) if values else 0
        if only is None:
            self._keyless[name] = max(0, len(grid.rows) - table.header - count)
        shown = {column: v for column, v in values.items() if column not in options.exclude}
        found = table_from_columns(
            self.streams[name],
            shown,
            versions=at if at is not None else micros(began),
            extracted_at=began,
            exclude=options.exclude,
            raw=texts_of(shown),
        )
        return Batch(name, found, {} if complete else None, complete=complete)

    async def _grid(self, table: TableConfig) -> tuple[Grid, int | None]:
        rows, at = await self.client.rows(table.spreadsheet, a1.whole(table.sheet))
        return Grid(table, rows), at

    async def send(self, step: Step) -> list[Receipt]:
        """See App.send. Reads the sheet, to know where its rows are now, then writes in one call that does all or nothing."""
        table = self.tables[step.object]
        async with self._locks[table.spreadsheet]:
            grid, at = await self._grid(table)
            good, receipts = _twofold(step.changes, grid)
            if step.op is Op.REMOVE:
                at = await self._remove(table, grid, good) or at
            else:
                at = await self._put(table, grid, good, new=step.op is Op.UPSERT) or at
        if step.op is Op.UPDATE:  # a row that somebody took out is not made again
            gone = [c.number for c in good if _key(c, table) not in grid.keys]
            receipts += [Receipt(n, Outcome.REJECTED, error="the row is not in the sheet any more") for n in gone]
            good = [c for c in good if _key(c, table) in grid.keys]
        return [*receipts, *(Receipt(c.number, Outcome.OK, _key(c, table), version=at) for c in good)]

    async def _put(self, table: TableConfig, grid: Grid, changes: Sequence[Change], *, new: bool) -> int | None:
        """Write the changes' cells: in their rows, or, where they have none, below all others."""
        cells: dict[int, dict[int, Any]] = defaultdict(dict)
        last = grid.used
        columns = grid.columns if not grid.blank else {name: at for at, name in enumerate(table.columns, 1)}
        if grid.blank and new and changes:
            cells[table.header] = {at: name for name, at in columns.items()}
        for change in changes:
            rows = grid.keys.get(_key(change, table))
            if rows is None and not new:
                continue
            if rows is None:
                last += 1
            fields = {**change.fields, **change.key}
            if rows is not None:
                fields = {n: v for n, v in change.fields.items() if n not in change.once}
            row = rows[0] if rows is not None else last
            cells[row] |= {columns[name]: written(value) for name, value in fields.items()}
        if not cells:
            return None
        if last > grid.used or grid.blank:
            await self._make_room(table, last)
        data = [
            {
                "range": a1.cells(table.sheet, row, left, left + len(values) - 1),
                "majorDimension": "ROWS",
                "values": [values],
            }
            for row, left, values in rows_as_ranges(cells)
        ]
        return await self.client.put(table.spreadsheet, data)

    async def _make_room(self, table: TableConfig, last: int) -> None:
        """A sheet has so many rows and no more: a range below them is refused."""
        properties = await self._properties(table)
        more = last - int(properties["gridProperties"]["rowCount"])
        if more > 0:
            grown = {"sheetId": properties["sheetId"], "dimension": "ROWS", "length": more}
            await self.client.change(table.spreadsheet, [{"appendDimension": grown}])

    async def _remove(self, table: TableConfig, grid: Grid, changes: Sequence[Change]) -> int | None:
        """Take whole rows out, the lowest first, so that the others stay where they are meanwhile."""
        rows = sorted((grid.keys[k][0] for c in changes if (k := _key(c, table)) in grid.keys), reverse=True)
        if not rows:
            return None
        sheet = (await self._properties(table))["sheetId"]
        ranges = [{"sheetId": sheet, "dimension": "ROWS", "startIndex": r - 1, "endIndex": r} for r in rows]
        return await self.client.change(table.spreadsheet, [{"deleteDimension": {"range": r}} for r in ranges])

    async def _properties(self, table: TableConfig) -> dict[str, Any]:
        about = await self.client.about(table.spreadsheet)
        for sheet in about["sheets"]:
            if sheet["properties"]["title"] == table.sheet:
                return dict(sheet["properties"])
        raise FixConfig(f"there is no sheet {table.sheet!r} any more", mend="check sheets in the app's block")


def _key(change: Change, table: TableConfig) -> str:
    return text(change.remote_id if change.remote_id is not None else change.key[table.key])


def _twofold(changes: Sequence[Change], grid: Grid) -> tuple[list[Change], list[Receipt]]:
    """The changes whose key stands in one row at the most, and the refusals of the others."""
    good, refused = [], []
    for change in changes:
        rows = grid.keys.get(_key(change, grid.table), [])
        if len(rows) > 1:
            where = ", ".join(map(str, rows[:5]))
            refused.append(
                Receipt(change.number, Outcome.REJECTED, error=f"the key stands in rows {where} of the sheet")
            )
        else:
            good.append(change)
    return good, refused


__all__ = ["SheetsApp", "SheetsConfig"]
