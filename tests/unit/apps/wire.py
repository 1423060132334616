"""A sender that follows a script, for tests of what stands above it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from oploop.apps.transport import (
    Answer,
    Request,
    Transport,
)
from tests.unit.activate.script import Clock

BASE = "http://127.0.0.1:9/api"
SECRET = "sk_live_51H8xYzAbCdEf"


@dataclass
class Wire:
    """A sender that follows a script of statuses, answers and exceptions (the last one for ever), on a simulated clock."""

    script: list[Any]
    clock: Clock = field(default_factory=Clock)
    requests: list[tuple[float, Request]] = field(default_factory=list)

    async def __call__(self, request: Request) -> Answer:
        act = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append((self.clock.seconds, request))
        await asyncio.sleep(0)
        if isinstance(act, Exception):
            raise act
        status, headers, body = act if isinstance(act, tuple) else (act, {}, b"{}")
        return Answer(status, headers, body, request)

    def transport(self, **more: Any) -> Transport:
        headers = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET + "2", "X-Plain": "plain words"}
        return Transport(BASE, **({"runtime": self.clock.runtime(), "sender": self, "headers": headers} | more))

    @property
    def tries(self) -> int:
        return len(self.requests)
