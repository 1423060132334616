"""What can be read from Stripe, and written: as `app.toml` says, whose `own` tells how later reads learn of changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

from oploop.apps.declared import Part, declared
from oploop.records import Stream

#: The API version that every request is pinned to, and whose fields the columns are.
API_VERSION = "2022-11-15"

SAID = declared(__package__)
STREAMS, OBJECTS = SAID.streams, SAID.objects


Names = Annotated[frozenset[str], BeforeValidator(lambda said: said.split())]


class Resource(Part):
    """How one stream is read: its list, and the events that tell of changes (docs.stripe.com/api/events/types); see `own` in app.toml.

    `touches`: field with the id of the record that changed -> events; `required`: fields without which a record is not of the pinned
    version; `filters`: query parameters without which the list is not whole.
    """

    name: str
    events: Names
    deletes: Names = frozenset()
    touches: Mapping[str, Names] = {}
    filters: Mapping[str, str] = {}
    required: Names

    @property
    def stream(self) -> Stream:
        return STREAMS[self.name]

    @property
    def object(self) -> str:
        """The API's name of one record."""
        return self.name.removesuffix("s")

    @property
    def path(self) -> str:
        """Where its records are listed; one stands at `{path}/{id}`."""
        return f"/v1/{self.name}"

    @property
    def types(self) -> list[str]:
        """All event types that are asked for, sorted."""
        return sorted(self.events.union(*self.touches.values()))

    def named_by(self, event: str) -> str | None:
        """The field of an event's object with the id of the record that changed; None of one that carries the record itself."""
        return next((field for field, events in self.touches.items() if event in events), None)


RESOURCES: Mapping[str, Resource] = {name: Resource(name=name, **SAID.own[name]) for name in STREAMS}
