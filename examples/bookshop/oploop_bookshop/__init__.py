"""The bookshop's stock system: books, read and written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from oploop.apps.arrow import empty_table, table_from_records
from oploop.apps.base import Account, App, AppConfig, micros
from oploop.apps.credentials import bearer
from oploop.apps.declared import declared
from oploop.apps.lists import Page, fetched, listed
from oploop.apps.paging import ahead
from oploop.apps.transport import Answer, Budget, Policy, Transport
from oploop.records import Batch, Cursor, Outcome, ReadOptions, Receipt, Step
from oploop.runtime import Runtime

SAID = declared(__package__)  # app.toml
BOOKS = SAID.streams["books"]


class BookshopConfig(AppConfig):
    base_url: str = "https://stock.bookshop.example"
    token: SecretStr


class BookshopPolicy(Policy):
    """What the API's refusals say. What to retry is as everywhere: 429 always, 5xx where it does no harm."""

    credentials = "token"
    words = ("error",)


class BookshopApp(App):
    type = "bookshop"
    title = "The bookshop's stock system"
    Config = BookshopConfig
    streams = SAID.streams
    objects = SAID.objects

    def __init__(self, name: str, config: BookshopConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.api = self.transport = Transport(
            config.base_url,
            runtime=runtime,
            headers=bearer(config.token),
            policy=BookshopPolicy(),
            budget=Budget(runtime, calls=100),  # a second
        )

    async def check(self) -> Account:
        shop = (await self.api.request("GET", "shop")).json()
        return Account(shop["name"])

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        asked = {"changed_since": (cursor or {}).get("since", "")}
        async with ahead(self._pages(asked)) as pages:  # the next one is on its way while this one becomes rows
            async for page in pages:
                if page.records:  # in order of change, so each page is a safe point; the last book comes again
                    cursor = {"since": page.records[-1]["updated_at"]}
                yield Batch(stream, self._rows(page, options), cursor)
        yield Batch(stream, empty_table(BOOKS, options.exclude), cursor, complete=True)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        async def show(ids: Sequence[str]) -> pa.Table:
            found = [self._rows(p, ReadOptions(), at=p.at) async for p in self._pages({"ids": ",".join(ids)})]
            return pa.concat_tables(found, promote_options="default")

        return await fetched(BOOKS, remote_ids, 100, show)

    async def send(self, step: Step) -> list[Receipt]:
        [change] = step.changes  # `batch=1`
        answer = await self.api.request("PUT", f"books/{change.remote_id}", json=dict(change.fields), idempotent=True)
        book = answer.written(dict, "updated_at")
        return [Receipt(change.number, Outcome.OK, change.remote_id, version=_version(book))]

    def _pages(self, asked: dict[str, str]) -> AsyncGenerator[Page]:
        return listed(self._list, self.runtime, "books", asked, "after", "next")

    async def _list(self, asked: Mapping[str, Any]) -> Answer:
        return await self.api.request("GET", "books", params=asked)

    def _rows(self, page: Page, options: ReadOptions, *, at: int = 0) -> pa.Table:
        """A page's rows. `at`: they are known as of then at the least, whenever they were changed."""
        return table_from_records(
            BOOKS,
            page.records,
            versions=lambda rows: pc.max_element_wise(rows["updated_at"].cast(pa.int64()), at),
            extracted_at=page.began,
            deleted=lambda rows: rows["deleted"],
            exclude=options.exclude,
        )


def _version(book: dict[str, Any]) -> int:
    return micros(datetime.fromisoformat(book["updated_at"]))
