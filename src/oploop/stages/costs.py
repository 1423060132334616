"""What the calls of a sync may cost: the account's budget, and how long they took so far."""

from __future__ import annotations

from oploop.activate.bound import BoundSync
from oploop.apps.transport import Budget
from oploop.state.store import CallTimes
from oploop.workspace import Workspace


def budget_of(ws: Workspace, b: BoundSync) -> Budget | None:
    """The budget of the account that a sync writes to."""
    transport = ws.app(b.sync.app).transport
    return transport.budget if transport is not None else None


def times_of(ws: Workspace, b: BoundSync) -> CallTimes:
    """What was measured of the calls to a sync's object."""
    return ws.state.call_times(b.sync.app, b.object.name)
