"""Changes as the events that Segment takes.

Sources: segment.com/docs/connections/sources/catalog/libraries/server/http-api (calls, sizes, the messageId) and
segment.com/docs/connections/spec/{identify,track}.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from oploop.apps.base import new_values
from oploop.apps.documents import nested, zulu
from oploop.apps.segment.streams import OBJECTS
from oploop.apps.sending import as_text
from oploop.records import Change, Op, Step

MAX_EVENT_BYTES = 32 * 1024
#: Of a batch, its envelope too, before it is packed: 500 KB, of which it is not said whether they are of 1,000 bytes or 1,024.
MAX_BATCH_BYTES = 500_000
MAX_BATCH_EVENTS = OBJECTS["track"].operations[Op.CREATE].batch  #: a larger one is answered 200 and dropped
MAX_MESSAGE_ID = 99

_NESTED = {"identify": "traits", "track": "properties"}


def message_id(step: Step, change: Change) -> str:
    """The id by which Segment knows a repeated event: it names the intent, never the content."""
    return f"{step.id}:{change.number}"


def event_of(step: Step, change: Change, library: Mapping[str, str]) -> bytes:
    """The event's JSON; ValueError says why Segment would not take it."""
    inner = _NESTED[step.object]
    sent = nested(new_values(OBJECTS[step.object], change), inner)
    event: dict[str, Any] = {"type": step.object, "messageId": message_id(step, change), inner: {}}
    event |= {name: value for name, value in sent.items() if value is not None}
    event["context"] = {"library": library}
    reason = _missing(event)
    if reason is not None:
        raise ValueError(reason)
    return as_text(event, MAX_EVENT_BYTES, "Segment", _utc)


def _missing(event: Mapping[str, Any]) -> str | None:
    """Why Segment would answer 200 and drop the event all the same."""
    if not event.get("userId") and not event.get("anonymousId"):
        return "neither userId nor anonymousId has a value; Segment would drop the event without a word"
    if event["type"] == "track" and not event.get("event"):
        return "event (its name) is empty; Segment would drop the event without a word"
    if len(event["messageId"]) > MAX_MESSAGE_ID:
        return f"messageId is longer than {MAX_MESSAGE_ID} characters"
    return None


def _utc(at: datetime) -> str:
    """An instant as Segment writes it; one without a zone is in UTC."""
    return zulu(at if at.tzinfo is not None else at.replace(tzinfo=UTC), "auto")
