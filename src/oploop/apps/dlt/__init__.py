"""Any dlt source as an app: its resources are streams, read without a pipeline; dlt's state travels in our cursors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, closing

from pydantic import Field, JsonValue

from oploop.apps.arrow import empty_table
from oploop.apps.base import Account, AddresslessConfig, App
from oploop.apps.blocking import in_a_thread
from oploop.apps.dlt.rows import Rows
from oploop.apps.dlt.source import Source
from oploop.errors import FixConfig
from oploop.records import Batch, Cursor, Deletes, ReadOptions, Stream
from oploop.runtime import Runtime

BATCH = 5_000  #: rows of a batch at the least, but for the last


class DltConfig(AddresslessConfig):
    """Keys of a dlt source in `oploop.yml`."""

    instead = "a dlt source: give it what it takes in args"

    #: `package.module.function`, or `path.py:function` from the project's folder, where modules are looked for first.
    source: str = Field(
        min_length=1, json_schema_extra={"path": True}, description="package.module.function, or path.py:function"
    )
    #: what the function is called with; may hold secrets, so it is shown nowhere
    args: dict[str, JsonValue] = Field(default={}, repr=False)


class DltApp(App):
    """A dlt source, read only."""

    type = "dlt"
    title = "Any dlt source"
    learns = "the resources of the source"
    Config = DltConfig

    def __init__(self, name: str, config: DltConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self._source = Source(name, config.source, config.args)
        self.streams: Mapping[str, Stream] = self._source.each(lambda stream: stream)

    async def check(self) -> Account:
        """Make the source and take the first page of its first resource: nothing less shows that its credentials are good."""

        def work() -> list[str]:
            names = list(self.streams)
            if not names:
                raise FixConfig(f"source: {self._source.shown} has no resources", mend="name another function")
            with closing(self._source.items(names[0], {}, None)) as items:
                next(items, None)
            return names

        names = await asyncio.to_thread(work)
        return Account(f"{self._source.shown}: {', '.join(names)}", self._source.shown)

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. dlt tells where it is only at the end, so a read that is cut off begins anew."""
        found = self.streams[stream]
        whole = found.deletes is Deletes.ABSENCE
        known = {} if cursor is None else cursor["kinds"]
        rows = Rows(found, self._source.mark(stream), self.runtime.now(), options.exclude, known)
        state = self._source.state(None if whole or cursor is None else cursor["state"])
        items = self._source.items(stream, state, options.since)
        async with aclosing(in_a_thread(rows.tables(items, BATCH), "dlt")) as tables:
            async for table in tables:
                yield Batch(stream, table)
        position = {"state": None if whole else self._source.dumped(state), "kinds": rows.kinds.known}
        yield Batch(stream, empty_table(found, options.exclude), position, complete=True)


__all__ = ["DltApp", "DltConfig"]
