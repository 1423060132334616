"""What can be read from Slack and written to it: as `app.toml` says, at the pace that the block asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oploop.apps.declared import declared
from oploop.records import Object, Op, Pace

SAID = declared(__package__)
TEXT = SAID.objects["messages"].fields["text"]


def objects_at(messages_per_second: int) -> Mapping[str, Object]:
    """The objects, with so many messages a second to a channel."""
    messages, pace = SAID.objects["messages"], Pace("channel", messages_per_second, 1.0)
    post = {Op.CREATE: replace(messages.operations[Op.CREATE], pace=pace)}
    return {**SAID.objects, "messages": replace(messages, operations=post)}
