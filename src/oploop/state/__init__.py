"""Runs, the journal of deliveries and leases: in `.oploop/`, in SQLite, or in the server that is the warehouse (postgres.py)."""

from oploop.state.store import Delivery, JournalStep, Lease, RunRow, StateReader, StateStore

__all__ = ["Delivery", "JournalStep", "Lease", "RunRow", "StateReader", "StateStore"]
