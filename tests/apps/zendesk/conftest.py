"""A sandbox with a little company in it, and the app that speaks to it over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from oploop.apps.zendesk import ZendeskApp, ZendeskSandbox
from oploop.apps.zendesk.client import ZendeskConfig
from oploop.records import Change, Op, Step
from oploop.runtime import Runtime

#: A custom text field, a dropdown and a number, as an account might have them.
TEXT_ID, TIER_ID, SPEND_ID = 360000100001, 360000100002, 360000100003

CAR = {
    "key": "car",
    "title": "Car",
    "fields": [
        {"key": "doors", "title": "Doors", "type": "integer"},
        {
            "key": "colour",
            "title": "Colour",
            "type": "dropdown",
            "custom_field_options": [{"value": "red"}, {"value": "blue"}],
        },
        {"key": "electric", "title": "Electric", "type": "checkbox"},
    ],
}


async def short_sleep(seconds: float) -> None:
    """Waits are real but short: jobs of the sandbox end within milliseconds."""
    await asyncio.sleep(min(seconds, 0.02))


def hasty() -> Runtime:
    """The real clock, with short waits."""
    return Runtime(sleep=short_sleep)


class VirtualClock:
    """A monotonic clock that moves only when somebody sleeps; for limits that count real minutes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        await asyncio.sleep(0)

    def runtime(self) -> Runtime:
        """A runtime on this clock."""
        return Runtime(monotonic=lambda: self.now, sleep=self._sleep)


def fill(sandbox: ZendeskSandbox) -> None:
    """300 tickets, 40 users, 12 organizations, three custom ticket fields."""
    sandbox.load(
        "ticket_fields",
        [
            {"id": TEXT_ID, "type": "text", "title": "Priority reason"},
            {
                "id": TIER_ID,
                "type": "tagger",
                "title": "Account tier",
                "custom_field_options": [
                    {"name": "Gold", "value": "tier_gold"},
                    {"name": "Free", "value": "tier_free"},
                ],
            },
            {"id": SPEND_ID, "type": "integer", "title": "Account spend"},
        ],
    )
    sandbox.load("user_fields", [{"type": "text", "title": "Plan", "key": "plan"}])
    sandbox.load("organization_fields", [{"type": "decimal", "title": "Revenue", "key": "revenue"}])
    users = [
        {"id": 500 + i, "name": f"Usér {i}", "email": f"u{i}@acme.example", "external_id": f"C-{i}"} for i in range(40)
    ]
    sandbox.load("users", users)
    sandbox.load("organizations", [{"id": 50 + i, "name": f"Org {i}", "external_id": f"O-{i}"} for i in range(12)])
    tickets = [
        {
            "id": 1 + i,
            "subject": f"Drücker brennt {i} 🔥",
            "description": "…",
            "requester_id": 500 + i % 40,
            "submitter_id": 500 + i % 40,
            "priority": "normal",
            "status": "open",
            "updated_at": f"2026-01-01T{i // 60:02}:{i % 60:02}:00Z",
        }
        for i in range(300)
    ]
    sandbox.load("tickets", tickets)


@pytest.fixture
def sandbox() -> Iterator[ZendeskSandbox]:
    """A running, filled sandbox."""
    box = ZendeskSandbox(job_seconds=0.01)
    fill(box)
    with box.running():
        yield box


def make_app(url: str, runtime: Runtime | None = None, **config: Any) -> ZendeskApp:
    """The app on the sandbox at `url`."""
    settings = ZendeskConfig(**{**ZendeskSandbox.default_config(url), **config})
    return ZendeskApp("zendesk", settings, runtime or hasty())


@pytest.fixture
async def app(sandbox: ZendeskSandbox) -> AsyncIterator[ZendeskApp]:
    """The app, closed in the end."""
    made = make_app(sandbox.url)
    yield made
    await made.aclose()


def step(obj: str, op: Op, *changes: tuple[str | None, dict[str, Any]], key: dict[str, Any] | None = None) -> Step:
    """A step of (remote id, fields) pairs, numbered from 1."""
    listed = [
        Change(n, op, key or ({"id": int(i) if i.isdigit() else i} if i else {}), fields, remote_id=i)
        for n, (i, fields) in enumerate(changes, 1)
    ]
    return Step("01STEP", "a_sync", obj, op, listed)
