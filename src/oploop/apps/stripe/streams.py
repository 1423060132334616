"""What can be read from Stripe, and written: as `app.toml` says, whose `own` tells how later reads learn of changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oploop.apps.declared import Part, Words, declared
from oploop.records import Stream

#: The API version that every request is pinned to, and whose fields the columns are.
API_VERSION = "2022-11-15"

SAID = declared(__package__)
STREAMS, OBJECTS = SAID.streams, SAID.objects


class Changes(Part):
    """How later reads of a stream learn of changes; see `own` in app.toml. `touches`: field with an id -> events."""

    events: Words
    deletes: Words = ()
    touches: Mapping[str, Words] = {}
    filters: Mapping[str, str] = {}
    required: Words


@dataclass(frozen=True, slots=True)
class Resource:
    """How one stream is read: its list, and the events that tell of changes (docs.stripe.com/api/events/types)."""

    stream: Stream
    object: str  #: the API's name of one record
    required: frozenset[str]  #: fields without which a record is not of the pinned version
    events: frozenset[str]
    deletes: frozenset[str]
    touches: Mapping[str, str]  #: event -> its field with the id of the record that changed
    filters: Mapping[str, str]  #: query parameters without which the list is not whole

    @property
    def path(self) -> str:
        """Where its records are listed; one stands at `{path}/{id}`."""
        return f"/v1/{self.stream.name}"

    @property
    def types(self) -> list[str]:
        """All event types that are asked for, sorted."""
        return sorted(self.events | self.touches.keys())


def _resource(stream: Stream) -> Resource:
    own = Changes(**SAID.own[stream.name])
    touches = {event: field for field, events in own.touches.items() for event in events}
    sets = frozenset(own.required), frozenset(own.events), frozenset(own.deletes)
    return Resource(stream, stream.name.removesuffix("s"), *sets, touches, own.filters)


RESOURCES: Mapping[str, Resource] = {name: _resource(stream) for name, stream in STREAMS.items()}
