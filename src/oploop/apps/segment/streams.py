"""What can be read from Segment's logs: one stream a call type, as the Segment Spec describes the calls.

Sources: segment.com/docs/connections/spec/common (the fields of every call) and the pages of the six calls.
"""

from __future__ import annotations

from collections.abc import Mapping

from oploop.records import ColumnType, Deletes, Stream

#: Segment copies its logs once an hour, around minute 40, and copying takes a while (docs: AWS S3 destination).
LAG_SECONDS = 5400.0

_COMMON: Mapping[str, ColumnType] = {
    "messageId": ColumnType.TEXT,
    "type": ColumnType.TEXT,
    "userId": ColumnType.TEXT,
    "anonymousId": ColumnType.TEXT,
    "timestamp": ColumnType.TIMESTAMP,
    "receivedAt": ColumnType.TIMESTAMP,
    "sentAt": ColumnType.TIMESTAMP,
    "originalTimestamp": ColumnType.TIMESTAMP,
    "channel": ColumnType.TEXT,
    "projectId": ColumnType.TEXT,
    "version": ColumnType.INTEGER,
    "context": ColumnType.JSON,
    "integrations": ColumnType.JSON,
}


def _stream(kind: str, description: str, **own: ColumnType) -> Stream:
    return Stream(
        name=kind,
        primary_key=("messageId",),
        columns={**_COMMON, **own},
        deletes=Deletes.NEVER,
        lag=LAG_SECONDS,
        description=description,
    )


STREAMS: Mapping[str, Stream] = {
    s.name: s
    for s in (
        _stream("track", "What users did: one row an event", event=ColumnType.TEXT, properties=ColumnType.JSON),
        _stream("identify", "Who users are: one row a call, with their traits", traits=ColumnType.JSON),
        _stream(
            "page",
            "Pages seen on the web",
            name=ColumnType.TEXT,
            category=ColumnType.TEXT,
            properties=ColumnType.JSON,
        ),
        _stream(
            "screen",
            "Screens seen in an app",
            name=ColumnType.TEXT,
            category=ColumnType.TEXT,
            properties=ColumnType.JSON,
        ),
        _stream(
            "group",
            "Which account a user belongs to, with the account's traits",
            groupId=ColumnType.TEXT,
            traits=ColumnType.JSON,
        ),
        _stream("alias", "Two identities that are one user", previousId=ColumnType.TEXT),
    )
}
