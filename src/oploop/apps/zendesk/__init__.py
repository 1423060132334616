"""Zendesk Support: tickets, users, organizations and custom objects, read and written; comments written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oploop.apps.base import Account, App
from oploop.apps.named import Named
from oploop.apps.transport import NotTheApi
from oploop.apps.zendesk.client import Client, ZendeskConfig
from oploop.apps.zendesk.comments import Comments
from oploop.apps.zendesk.custom_objects import CustomObjects, is_custom, object_named, stream_named
from oploop.apps.zendesk.objects import COMMENTS, FIELD_LISTS, OBJECTS, describe
from oploop.apps.zendesk.streams import STREAMS, Reader
from oploop.apps.zendesk.writer import Writer, settle_job
from oploop.errors import FixConfig, did_you_mean
from oploop.records import Batch, Change, Cursor, Field, Object, Op, ReadOptions, Receipt, Step, Stream
from oploop.runtime import Runtime

if TYPE_CHECKING:
    from oploop.apps.zendesk.sandbox import ZendeskSandbox


class ZendeskApp(App):
    """A Zendesk Support account."""

    type = "zendesk"
    title = "Zendesk Support"
    limits = "400 calls a minute (`rate_limit`), ten of them exports"
    learns = "custom objects as the account has them"
    asks = ("subdomain", "email", "api_token")
    Config = ZendeskConfig
    streams: Mapping[str, Stream] = STREAMS
    objects: Mapping[str, Object] = OBJECTS

    def __init__(self, name: str, config: ZendeskConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.transport
        self.reader = Reader(self.client)
        self.writer = Writer(self.client)
        self.comments = Comments(self.client)
        self.custom = CustomObjects(self.client)
        self._streams: Named[Stream] = Named(type(self).streams, stream_named)
        self._objects: Named[Object] = Named(type(self).objects, object_named)
        self.streams, self.objects = self._streams, self._objects

    async def check(self) -> Account:
        """Ask who we are. FixConfig names the credential, or the address, that is wrong."""
        address = "subdomain" if self.config.base_url is None else "base_url"
        try:
            answer = await self.client.get("users/me", ok=(404,))
            body = answer.json()
        except NotTheApi as e:
            raise FixConfig(
                f"{self.transport_address} is no Zendesk account: {e.message}", mend=f"check {address}"
            ) from e
        user = body.get("user") if answer.status == 200 and isinstance(body, dict) else None
        if not isinstance(user, dict):
            raise FixConfig(
                f"{self.transport_address} is no Zendesk account (HTTP {answer.status})", mend=f"check {address}"
            )
        if user.get("id") is None:
            credential = self.client.transport.policy.credential()
            raise FixConfig("Zendesk takes us for an anonymous visitor", mend=f"check {credential}")
        account = self._account(user)
        await self.custom.refuse_missing([n for n in {*self._streams, *self._objects} if is_custom(n)])
        return account

    @property
    def transport_address(self) -> str:
        """The account's address, for messages."""
        return self.client.transport.base_url.rstrip("/")

    def _account(self, user: Mapping[str, Any]) -> Account:
        role = user.get("role")
        if role == "end-user":
            raise FixConfig(
                f"{user.get('email') or 'the user'} is an end user of Zendesk, who may not read exports",
                mend="use the credentials of an admin",
            )
        note = "" if role == "admin" else "; only admins may read tickets, users and organizations by export"
        return Account(
            f"{user.get('name')} <{user.get('email')}>, {role} at {self.transport_address}{note}",
            self.config.subdomain,
        )

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """Read a stream; see `streams`."""
        if is_custom(stream):
            return self.custom.read(stream, options)
        if stream not in STREAMS:
            raise FixConfig(f"Zendesk has no stream {stream!r}", mend=did_you_mean(stream, STREAMS))
        return self.reader.read(stream, cursor, options)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """The records with these ids as they are now, 100 a call; those that are gone have `_deleted` true."""
        if is_custom(object_name):
            return await self.custom.fetch(object_name, remote_ids)
        return await self.reader.fetch(object_name, remote_ids)

    async def describe(self, object_name: str) -> Mapping[str, Field]:
        """The object's fields with the account's own ones, by title and by stable id."""
        if is_custom(object_name):
            return describe(object_name, await self.custom.definitions(object_name))
        if object_name == COMMENTS:
            return OBJECTS[COMMENTS].fields
        if object_name not in OBJECTS:
            raise FixConfig(f"Zendesk has no object {object_name!r}", mend=did_you_mean(object_name, self.objects))
        name = FIELD_LISTS[object_name]
        if name == "ticket_fields":  # they come whole
            return describe(object_name, (await self.client.shown(name, name)).records)
        pages = self.client.listed(name, name)
        return describe(object_name, [definition async for page in pages for definition in page.records])

    async def send(self, step: Step) -> list[Receipt]:
        """Deliver a step: one change by a single call, more by a background job."""
        if is_custom(step.object):
            return await self.custom.send(step)
        if step.object == COMMENTS:
            return await self.comments.send(step)
        return await self.writer.send(step)

    async def settle(self, object_name: str, op: Op, note: str, changes: Sequence[Change]) -> list[Receipt]:
        """See App.settle: the note is a job's id, and the changes that it was given."""
        return await settle_job(self.client, op, note, changes)


def __getattr__(name: str) -> Any:
    """The sandbox is loaded only when it is asked for: a run against the real account needs no server."""
    if name == "ZendeskSandbox":
        from oploop.apps.zendesk.sandbox import ZendeskSandbox

        return ZendeskSandbox
    raise AttributeError(name)


__all__ = ["ZendeskApp", "ZendeskSandbox"]
