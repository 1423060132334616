"""Jobs of Bulk API 2.0: asked after until they end. Source: Bulk API 2.0 guide, job states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oploop.apps import jobs
from oploop.apps.salesforce.client import Client
from oploop.errors import FixData, RetryLater

FIRST_POLL, LAST_POLL = 0.5, 10.0
#: Seconds after which a job that does not end is given up.
PATIENCE = 6 * 3600.0
ENDED = ("JobComplete", "Failed", "Aborted")


async def ended(client: Client, path: str, *, patience: float = PATIENCE) -> Mapping[str, Any]:
    """A job's last state; RetryLater when it does not end."""

    async def ask() -> Mapping[str, Any]:
        told: Mapping[str, Any] = (await client.get(path)).json()
        return told

    def over(told: Mapping[str, Any]) -> bool:
        return told["state"] in ENDED

    told = await jobs.ended(ask, over, client.runtime, waits=(FIRST_POLL, LAST_POLL), patience=patience)
    if told is None:
        raise RetryLater(f"Salesforce's job at {path} has not ended after {patience / 60:g} minutes")
    return told


async def wait_for(client: Client, path: str) -> None:
    """Wait for a query job; FixData with Salesforce's words when it failed."""
    told = await ended(client, path)
    if told["state"] != "JobComplete":
        raise FixData(
            f"Salesforce's query job {told['id']} ended as {told['state']}: {told.get('errorMessage') or 'no reason'}"
        )
