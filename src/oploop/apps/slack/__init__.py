"""Slack: users and channels read, messages posted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from oploop.apps.arrow import empty_table
from oploop.apps.base import Account, App
from oploop.apps.lists import Page, fetched, listed, whole
from oploop.apps.slack.client import Client, SlackConfig
from oploop.apps.slack.objects import SAID, TEXT, objects_at
from oploop.records import Batch, Cursor, Notice, Outcome, ReadOptions, Receipt, Step
from oploop.runtime import Runtime

PAGE = 200  #: Slack asks for no more at once
#: stream -> (method that lists it, what it is asked with, where the list stands, method that shows one, its name there)
_LISTS = {
    "users": ("users.list", {}, "members", "users.info", "user"),
    "channels": (
        "conversations.list",
        {"types": "public_channel,private_channel"},
        "channels",
        "conversations.info",
        "channel",
    ),
}
NOTICE_TEXT = 3_900  #: characters of a notice at the most


class SlackApp(App):
    """One Slack workspace, as a bot sees it."""

    type = "slack"
    title = "Slack"
    limits = "a message a second and channel, 20 reads a minute (`reads_per_minute`)"
    Config = SlackConfig
    streams = SAID.streams
    objects = SAID.objects
    notifies = True

    def __init__(self, name: str, config: SlackConfig, runtime: Runtime) -> None:
        super().__init__(name, config, runtime)
        self.client = Client(config, runtime)
        self.transport = self.client.transport
        self.objects = objects_at(config.messages_per_second)

    async def check(self) -> Account:
        """See App.check."""
        who = await self.client.whoami()
        return Account(f"{who['user']} in {who['team']} ({who['url']})", str(who["team_id"]))

    def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncGenerator[Batch]:
        """See App.read. Slack has no list of changes: each read is a whole one."""
        method, asked, where, *_ = _LISTS[stream]
        ask = partial(self.client.listed, method)  # a page may be short, or empty, and not the last
        pages = listed(ask, self.runtime, where, {"limit": PAGE, **asked}, "cursor", "response_metadata.next_cursor")
        return whole(self.streams[stream], pages, options.exclude, _deactivated)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        """See App.fetch: one call a record."""
        *_, method, where = _LISTS[object_name]
        stream = self.streams[object_name]

        async def show(ids: Sequence[str]) -> pa.Table:
            began, [remote_id] = self.runtime.now(), ids
            answer = await self.client.shown(method, {where: remote_id})
            if answer is None:
                return empty_table(stream)
            return Page.of(answer, [answer.said()[where]], began).table(stream, deleted=_deactivated)

        return await fetched(stream, remote_ids, 1, show)

    async def send(self, step: Step) -> list[Receipt]:
        """See App.send. A message's id is its channel's and its `ts`, since either alone names none."""
        [change] = step.changes  # `batch=1`
        fields = {name: value for name, value in change.fields.items() if value is not None}
        answer, at = await self.client.post(str(fields.pop("channel", "")), fields)
        return [Receipt(change.number, Outcome.OK, f"{answer['channel']}:{answer['ts']}", version=at)]

    async def notify(self, channel: str, notice: Notice) -> None:
        """See App.notify."""
        text = f"*{escaped(notice.title)}*"
        for n, line in enumerate(notice.lines):
            more = f"\n• {escaped(line)}"
            if len(text) + len(more) > NOTICE_TEXT:
                text += f"\n… and {len(notice.lines) - n} more"
                break
            text += more
        await self.client.post(channel, {"text": text, "unfurl_links": False})


def _deactivated(rows: pa.Table) -> pa.Array:
    """Which are gone: people who were deactivated. Of channels nothing says so."""
    if "deleted" not in rows.column_names:
        return pa.repeat(False, rows.num_rows)
    return pc.fill_null(rows["deleted"], False)


def escaped(text: str) -> str:
    """Mere text in Slack's markup."""
    for plain, safe in TEXT.escape:
        text = text.replace(plain, safe)
    return text


__all__ = ["SlackApp", "SlackConfig"]
