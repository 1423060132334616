"""What the next run makes of a run that died between two of its last writes."""

from __future__ import annotations

from oploop import loop
from tests.flow.conftest import Desk


async def test_a_delivery_that_was_folded_is_under_way_no_more_once_the_next_run_recovers(desk: Desk) -> None:
    async with desk.workspace() as ws:
        ws.store.begin_run("r0", "prod", "run")
        ws.store.begin_delivery("r0", "ranked", "oploop_state.plan_r0")  # and died after its fold, before it said so
        assert await loop.recover(ws) == []
        assert ws.store.open_deliveries() == []
