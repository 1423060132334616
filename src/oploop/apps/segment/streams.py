"""What can be read from Segment's logs, and sent to it: as `app.toml` says."""

from __future__ import annotations

from oploop.apps.declared import declared

SAID = declared(__package__)
STREAMS, OBJECTS = SAID.streams, SAID.objects
