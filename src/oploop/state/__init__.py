"""Runs, the journal of deliveries and leases: in `.oploop/`, in SQLite, or in the server that is the warehouse (postgres.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oploop.state.store import Delivery, JournalStep, Lease, RunRow, StateReader, StateStore


@dataclass(frozen=True, slots=True)
class ServerState:
    """How a state in a server is opened: from what makes a session with it, and the words that messages have for it."""

    Reader: Callable[[Callable[[], Any], str], StateReader]
    Store: Callable[..., StateStore]


def server_state(kind: str) -> ServerState | None:
    """The state in a warehouse of a kind; None where it stands in `.oploop/`: a file, or a server made for large reads only."""
    if kind not in IN_SERVERS:
        return None
    from oploop.state.postgres import PostgresReader, PostgresStore

    return ServerState(PostgresReader, PostgresStore)


#: The kinds of warehouses that keep the state themselves.
IN_SERVERS = ("postgres",)

__all__ = ["Delivery", "JournalStep", "Lease", "RunRow", "ServerState", "StateReader", "StateStore", "server_state"]
