"""HubSpot: records of any type, their associations and the members of static lists, read and written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from oploop.apps.base import Account, App
from oploop.apps.hubspot.client import STANDARD, Client, HubSpotConfig
from oploop.apps.hubspot.links import Associations, Lists
from oploop.apps.hubspot.objects import (
    MEMBERSHIPS,
    OBJECTS,
    STREAMS,
    described,
    is_records,
    object_named,
    pair_of,
    stream_named,
)
from oploop.apps.hubspot.reader import RecordReader
from oploop.apps.hubspot.writer import Writer
from oploop.apps.named import Named
from oploop.apps.transport import NotTheApi
from oploop.errors import FixConfig
from oploop.records import Batch, Cursor, Field, Object, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime

if TYPE_CHECKING:
    from oploop.apps.hubspot.sandbox import HubSpotSandbox


class HubSpotApp(App):
    """A HubSpot account."""

    type = "hubspot"
    title = "HubSpot"
    limits = "100 calls in 10 s (`rate_limit`), the account's calls of a day"
    learns = "custom objects as the account has them"
    Config = HubSpotConfig
    streams: Mapping[str, Stream] = STREAMS
    objects: Mapping[str, Object] = OBJECTS
    asks = ("access_token",)
    refuses = {
        "owners": "owners are HubSpot's users, whom only HubSpot makes",
        "lists": "lists are made in HubSpot; their members are list_memberships",
    }

    def __init__(self, name: str, config: HubSpotConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.transport
        self._streams: Named[Stream] = Named(STREAMS, stream_named)
        self._objects: Named[Object] = Named(OBJECTS, object_named)
        self.streams, self.objects = self._streams, self._objects
        self._lists = Lists(self.client)

    async def check(self) -> Account:
        """Ask whose account it is, and whether it has the custom objects that were named."""
        try:
            account = (await self.client.get("account-info/v3/details")).json()
        except NotTheApi as e:
            raise FixConfig(
                f"{self.client.transport.base_url} is not HubSpot: {e.message}", mend="check base_url"
            ) from e
        if not isinstance(account, dict) or "portalId" not in account:
            raise FixConfig(f"{self.client.transport.base_url} is not HubSpot", mend="check base_url")
        with suppress(ValueError, LookupError, OSError):  # a zone that this machine does not know
            self.client.policy.zone = ZoneInfo(str(account.get("timeZone")))
        for name in [*self._streams.known, *self._objects.known]:
            for kind in pair_of(name) or (name,):
                if is_records(kind) and kind not in STANDARD:
                    await self.client.schema(kind)
        kind = str(account.get("accountType") or "account").replace("_", " ").lower()
        return Account(f"{kind} {account['portalId']} ({account.get('uiDomain')})", str(account["portalId"]))

    async def describe(self, object_name: str) -> Mapping[str, Field]:
        """The object's fields: of records, a field a property of the account, custom ones by their label too."""
        if is_records(object_name):
            await self._learn(object_name)
        return self.objects[object_name].fields

    async def _learn(self, name: str) -> None:
        """Take over what the account tells of a type of records."""
        schema, properties = await self.client.schema(name), await self.client.properties(name)
        self._streams.known[name], self._objects.known[name] = described(name, properties, schema)

    async def _reader(self, name: str, out: frozenset[str] = frozenset()) -> RecordReader:
        await self._learn(name)
        kind, properties = await self.client.type_of(name), await self.client.properties(name)
        return RecordReader(self.client, name, kind, self.streams[name], properties, out)

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Read a stream; see `reader` and `links`."""
        if is_records(stream):
            batches = (await self._reader(stream, options.exclude)).read(cursor, options)
        elif pair_of(stream) is not None:
            batches = Associations(self.client, self.streams[stream]).read(options)
        else:
            batches = self._lists.read(stream, options)
        async with aclosing(batches):
            async for batch in batches:
                yield batch

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """The records with these ids as they are now; those that are gone have `_deleted` true."""
        if is_records(object_name):
            return await (await self._reader(object_name)).fetch(remote_ids)
        if object_name == MEMBERSHIPS:
            return await self._lists.fetch(remote_ids)
        return await Associations(self.client, self.streams[object_name]).fetch(remote_ids)

    async def send(self, step: Step) -> list[Receipt]:
        """Deliver a step by one batch call."""
        if is_records(step.object):
            return await Writer(self.client, step.object, await self.client.type_of(step.object)).send(step)
        if step.object == MEMBERSHIPS:
            return await self._lists.send(step)
        return await Associations(self.client, self.streams[step.object]).send(step)


def __getattr__(name: str) -> Any:
    """The sandbox is loaded only when it is asked for."""
    if name == "HubSpotSandbox":
        from oploop.apps.hubspot.sandbox import HubSpotSandbox

        return HubSpotSandbox
    raise AttributeError(name)


__all__ = ["HubSpotApp", "HubSpotConfig", "HubSpotSandbox"]
