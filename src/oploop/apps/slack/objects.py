"""What can be read from Slack and written to it, as data.

Sources: docs.slack.dev: reference/methods/{users.list,conversations.list,chat.postMessage}, messaging/formatting-message-text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Deletes,
    Field,
    FieldType,
    JsonPath,
    Object,
    Op,
    Operation,
    Pace,
    Replay,
    Stream,
)

MAX_TEXT = 40_000  #: characters; Slack advises 4,000
#: The three characters that mean something in Slack's text.
ESCAPE = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))

_TEXT, _YES, _JSON = ColumnType.TEXT, ColumnType.BOOLEAN, ColumnType.JSON


def _stream(name: str, description: str, columns: Mapping[str, ColumnType]) -> Stream:
    return Stream(
        name,
        primary_key=("id",),
        columns=columns,
        incremental=False,
        deletes=Deletes.ABSENCE,
        description=description,
    )


STREAMS: Mapping[str, Stream] = {
    "users": _stream(
        "users",
        "members of the workspace, bots too; who was deactivated counts as deleted",
        {
            "id": _TEXT, "team_id": _TEXT, "name": _TEXT, "real_name": _TEXT, "deleted": _YES, "profile": _JSON, "tz": _TEXT,
            "is_bot": _YES, "is_app_user": _YES, "is_admin": _YES, "is_owner": _YES, "is_restricted": _YES,
            "is_ultra_restricted": _YES, "updated": ColumnType.UNIX,
        },
    ),
    "channels": _stream(
        "channels",
        "public channels, and private ones that the app is in",
        {
            "id": _TEXT, "name": _TEXT, "is_archived": _YES, "is_private": _YES, "is_general": _YES, "is_member": _YES,
            "is_shared": _YES, "creator": _TEXT, "created": ColumnType.UNIX, "num_members": ColumnType.INTEGER,
            "topic": _JSON, "purpose": _JSON, "previous_names": _JSON,
        },
    ),
}  # fmt: skip


def _option(name: str, kind: FieldType, description: str) -> Field:
    return Field(name, kind, description=description)


OBJECTS: Mapping[str, Object] = {
    "messages": Object(
        "messages",
        # Nothing tells a message that was sent twice from two messages: an answer that was lost is for a person.
        operations={Op.CREATE: Operation(batch=1, in_flight=8, replay=Replay.NEVER)},
        fields={
            "channel": Field(
                "channel", FieldType.TEXT, required=True, nullable=False, description="an id, #name, or a person's id"
            ),
            "text": Field(
                "text",
                FieldType.TEXT,
                max_length=MAX_TEXT,
                escape=ESCAPE,
                description="in Slack's markup; see template",
            ),
            "blocks": _option("blocks", FieldType.JSON, "a list of blocks; text is what notifications show then"),
            "attachments": _option("attachments", FieldType.JSON, "a list of attachments"),
            "thread_ts": _option("thread_ts", FieldType.TEXT, "the message that it answers"),
            "reply_broadcast": _option("reply_broadcast", FieldType.BOOLEAN, "show the answer in the channel too"),
            "username": _option("username", FieldType.TEXT, "the name that it is posted under"),
            "icon_emoji": _option("icon_emoji", FieldType.TEXT, "its picture, as :emoji:"),
            "icon_url": _option("icon_url", FieldType.TEXT, "its picture"),
            "mrkdwn": _option("mrkdwn", FieldType.BOOLEAN, "false: the text has no markup"),
            "unfurl_links": _option("unfurl_links", FieldType.BOOLEAN, "show what links lead to"),
            "unfurl_media": _option("unfurl_media", FieldType.BOOLEAN, "false: show no pictures of links"),
        },
        description="messages, one a row, each at most once; what was posted stays",
    ),
    "users": Object(
        "users",
        operations={},
        stream="users",
        fields={
            "id": Field("id", FieldType.TEXT, source=Column("id"), key=True, read_only=True),
            "email": Field(
                "email",
                FieldType.TEXT,
                source=JsonPath("profile", ("email",)),
                key=True,
                read_only=True,
                canonical=Canonical.LOWER,
            ),
            "name": Field("name", FieldType.TEXT, source=Column("name"), key=True, read_only=True),
        },
        description="members, to refer to: whom a message goes to",
    ),
    "channels": Object(
        "channels",
        operations={},
        stream="channels",
        fields={
            "id": Field("id", FieldType.TEXT, source=Column("id"), key=True, read_only=True),
            "name": Field("name", FieldType.TEXT, source=Column("name"), key=True, read_only=True),
        },
        description="channels, to refer to: where a message goes to",
    ),
}


def objects_at(messages_per_second: int) -> Mapping[str, Object]:
    """The same objects, with so many messages a second to a channel."""
    found = dict(OBJECTS)
    messages, pace = found["messages"], Pace("channel", messages_per_second, 1.0)
    operations = {op: replace(operation, pace=pace) for op, operation in messages.operations.items()}
    found["messages"] = replace(messages, operations=operations)
    return found
