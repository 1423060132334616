"""Runs, the journal of deliveries and leases: the local state in `.oploop/`, in SQLite."""

from oploop.state.store import Delivery, JournalStep, Lease, RunRow, StateReader, StateStore

__all__ = ["Delivery", "JournalStep", "Lease", "RunRow", "StateReader", "StateStore"]
