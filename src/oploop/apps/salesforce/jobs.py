"""Jobs of Bulk API 2.0: asked after until they end. Source: Bulk API 2.0 guide, job states."""

from __future__ import annotations

from typing import Any

from oploop.apps.salesforce.client import Client
from oploop.errors import FixData, RetryLater

FIRST_POLL, LAST_POLL = 0.5, 10.0
#: Seconds after which a job that does not end is given up.
PATIENCE = 6 * 3600.0
ENDED = ("JobComplete", "Failed", "Aborted")


async def ended(client: Client, path: str, *, patience: float = PATIENCE) -> dict[str, Any]:
    """A job's last state, asked for in growing waits; RetryLater when it does not end."""
    wait, began = FIRST_POLL, client.runtime.monotonic()
    while True:
        told: dict[str, Any] = (await client.get(path)).json()
        if told["state"] in ENDED:
            return told
        if client.runtime.monotonic() - began > patience:
            raise RetryLater(f"Salesforce's job {told['id']} has not ended after {patience / 60:g} minutes")
        await client.runtime.sleep(wait)
        wait = min(LAST_POLL, wait * 1.6)


async def wait_for(client: Client, path: str) -> None:
    """Wait for a query job; FixData with Salesforce's words when it failed."""
    told = await ended(client, path)
    if told["state"] != "JobComplete":
        raise FixData(
            f"Salesforce's query job {told['id']} ended as {told['state']}: {told.get('errorMessage') or 'no reason'}"
        )
