"""The bookshop's stock system: books, read and written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import SecretStr

from oploop.apps.arrow import empty_table, table_from_records
from oploop.apps.base import Account, App, AppConfig, micros
from oploop.apps.declared import declared
from oploop.apps.jsonrows import Records, records_in
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

    def error(self, answer: Answer) -> tuple[str, str | None]:
        return str(answer.json().get("error", f"HTTP {answer.status}")), None

    def credential(self) -> str:
        return "token"


@dataclass(frozen=True)
class Page:
    """Books as they stand in an answer, when they were asked for, and the shop's clock (microseconds since 1970)."""

    books: Records
    began: datetime
    at: int


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
            headers={"Authorization": f"Bearer {config.token.get_secret_value()}"},
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
                # in order of change, so each page is a safe point; the last book comes again
                cursor = {"since": page.books[-1]["updated_at"]}
                yield Batch(stream, self._rows(page, options), cursor)
        yield Batch(stream, empty_table(BOOKS, options.exclude), cursor, complete=True)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        found = [self._rows(p, ReadOptions(), at=p.at) async for p in self._pages({"ids": ",".join(remote_ids)})]
        return Batch("books", pa.concat_tables(found, promote_options="default") if found else empty_table(BOOKS))

    async def send(self, step: Step) -> list[Receipt]:
        [change] = step.changes  # `batch=1`
        answer = await self.api.request("PUT", f"books/{change.remote_id}", json=dict(change.fields), idempotent=True)
        return [Receipt(change.number, Outcome.OK, change.remote_id, version=_version(answer.json()))]

    async def _pages(self, asked: dict[str, str]) -> AsyncGenerator[Page]:
        page: int | None = 1
        while page is not None:
            began = self.runtime.now()
            answer = await self.api.request("GET", "books", params={**asked, "page": page})
            told, books = records_in(answer, "books", "next")
            if not books:
                return
            page = told["next"]
            yield Page(books, began, answer.date_micros() or 0)

    def _rows(self, page: Page, options: ReadOptions, *, at: int = 0) -> pa.Table:
        """A page's rows. `at`: they are known as of then at the least, whenever they were changed."""
        return table_from_records(
            BOOKS,
            page.books,
            versions=lambda rows: pc.max_element_wise(rows["updated_at"].cast(pa.int64()), at),
            extracted_at=page.began,
            deleted=lambda rows: rows["deleted"],
            exclude=options.exclude,
        )


def _version(book: dict[str, Any]) -> int:
    return micros(datetime.fromisoformat(book["updated_at"]))
