"""Mixpanel: events and profiles, read and written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from oploop.apps.base import Account, App
from oploop.apps.mixpanel import lookups
from oploop.apps.mixpanel.client import Client, MixpanelConfig
from oploop.apps.mixpanel.streams import Reader, group_name, streams_of
from oploop.apps.mixpanel.writer import Writer, objects_of
from oploop.apps.transport import NotTheApi
from oploop.records import Batch, Cursor, ReadOptions, Receipt, Step
from oploop.runtime import Runtime


class MixpanelApp(App):
    """One Mixpanel project. Its groups are those of the block, each a stream and an object of its own."""

    type = "mixpanel"
    title = "Mixpanel"
    limits = "60 queries an hour, 3 exports a second (`queries_per_hour`, `exports_per_second`)"
    learns = "the profiles of the groups that the block names"
    Config = MixpanelConfig
    asks = ("project_id", "service_account", "secret", "token")
    streams = streams_of({})
    objects = objects_of({})

    def __init__(self, name: str, config: MixpanelConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.ingest
        self.streams, self.objects = streams_of(config.groups), objects_of(config.groups)
        ids = {group_name(key): number for key, number in config.groups.items() if number is not None}
        self._reader = Reader(self.client, self.streams, ids)
        self._writer = Writer(self.client, {group_name(key): key for key in config.groups})

    async def check(self) -> Account:
        """See App.check. A wrong `token` cannot be told: Mixpanel answers 1 to any."""
        answer = await self.client.tables()
        if not isinstance(answer.json(), dict):
            raise NotTheApi(answer)
        unproven = " (token unproven: Mixpanel takes any)" if self.client.config.token is not None else ""
        return Account(f"project {self.client.config.project_id}{unproven}", str(self.client.config.project_id))

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See App.read."""
        if stream == lookups.NAME:
            return lookups.read(self.client, options)
        return self._reader.events(cursor, options) if stream == "events" else self._reader.profiles(stream, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch. What is fetched is known as of a minute before, as writes show late."""
        if object_name == lookups.NAME:
            return await lookups.fetch(self.client, remote_ids)
        return await self._reader.fetch(object_name, remote_ids)

    async def send(self, step: Step) -> list[Receipt]:
        """See App.send."""
        return await (lookups.send(self.client, step) if step.object == lookups.NAME else self._writer.send(step))


__all__ = ["MixpanelApp", "MixpanelConfig"]
