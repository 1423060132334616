"""Salesforce: any object of an org, read by SOQL and written by external id or id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from oploop.apps.base import Account, App
from oploop.apps.salesforce.catalog import Catalog
from oploop.apps.salesforce.client import Client, SalesforceConfig
from oploop.apps.salesforce.reader import Reader
from oploop.apps.salesforce.writer import Writer
from oploop.apps.transport import NotTheApi, Refused
from oploop.errors import FixConfig
from oploop.records import Batch, Change, Cursor, Object, Op, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime


class SalesforceApp(App):
    """A Salesforce org, both directions. Its streams and objects are the org's objects."""

    type = "salesforce"
    title = "Salesforce"
    limits = "50 calls a second, the org's calls of a day"
    learns = "any object of the org"
    asks = ("domain", "client_id", "client_secret")
    Config = SalesforceConfig

    def __init__(self, name: str, config: SalesforceConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.transport
        self.catalog = Catalog(self.client)
        self.streams: Mapping[str, Stream] = self.catalog.each(lambda table: table.stream)
        self.objects: Mapping[str, Object] = self.catalog.each(lambda table: table.object, written=True)
        self._reader, self._writer = Reader(self.client), Writer(self.client)

    async def check(self) -> Account:
        """Ask for the org's name. FixConfig names the credential, or the address, that is wrong."""
        asked = {"q": "SELECT Id, Name, OrganizationType, IsSandbox FROM Organization"}
        address, where = self.config.address(), "domain" if self.config.base_url is None else "base_url"
        try:
            found = (await self.client.get("query/", asked)).json()
        except NotTheApi as e:
            raise FixConfig(f"{address} is no Salesforce org: {e.message}", mend=f"check {where}") from e
        except Refused as e:
            mend = f"check {where} and api_version" if e.status == 404 else "the user needs the permission API Enabled"
            raise FixConfig(f"{address} refused a query (HTTP {e.status}: {e.message})", mend=mend) from e
        org = found["records"][0] if isinstance(found, dict) and found.get("records") else None
        if org is None:
            raise FixConfig(f"{address} is no Salesforce org", mend=f"check {where}")
        kind = f"{org['OrganizationType']}{', a sandbox' if org['IsSandbox'] else ''}"
        return Account(f"{org['Name']}, {kind} at {address}", str(org["Id"]))

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """See App.read and reader.py."""
        return self._reader.read(self.catalog.get(stream), cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch."""
        return await self._reader.fetch(self.catalog.get(object_name), remote_ids)

    async def send(self, step: Step) -> Sequence[Receipt]:
        """See App.send and writer.py."""
        return await self._writer.send(self.catalog.get(step.object), step)

    async def settle(self, object_name: str, op: Op, note: str, changes: Sequence[Change]) -> Sequence[Receipt]:
        """See App.settle: the note is a job's id."""
        return await self._writer.settle(op, note, changes)


__all__ = ["SalesforceApp", "SalesforceConfig"]
