"""A large delivery in which all went well: each change made a record, and each call was taken at its first try.

What became of its changes, and who is who, can then be told from the plan table and a few times; nothing is written of them
row by row (see `volumes.Told`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from oploop.activate import volumes
from oploop.activate.begun import Begun
from oploop.records import Outcome
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, literal, quote_table

#: Calls whose times an expression tells; where there were more, each change's outcome is written.
MOST = 100


@dataclass(frozen=True, slots=True)
class Smooth:
    """Such a delivery. `steps`: in the order of their changes, which are all of the plan's. A new record's id is the value of
    its key."""

    steps: tuple[JournalStep, ...]

    @property
    def remote_id(self) -> str:
        """The new record's id, over the plan table."""
        return "CAST(k0 AS VARCHAR)"

    def sent_at(self) -> str:
        """When each change's call began, over the plan table."""
        return self._each(lambda s: _at(s.began_at))

    def acked_at(self) -> str:
        """When it was answered."""
        return self._each(lambda s: _at(s.ended_at or s.began_at))

    def version(self) -> str:
        """The app's version that the answer told."""
        return self._each(lambda s: "CAST(NULL AS BIGINT)" if s.version is None else str(s.version))

    def _each(self, value: Callable[[JournalStep], str]) -> str:
        *first, last = self.steps
        arms = " ".join(f"WHEN __number <= {s.last} THEN {value(s)}" for s in first)
        return f"(CASE {arms} ELSE {value(last)} END)" if arms else value(last)


def _at(time: datetime) -> str:
    return f"TIMESTAMPTZ {literal(time.isoformat())}"


def smooth_of(warehouse: Warehouse, begun: Begun, steps: Iterable[JournalStep]) -> Smooth | None:
    """The delivery as such a one, where it is the sync's first and nothing is parked of it; else None."""
    spec = begun.spec
    if not warehouse.columnar or spec.blind or spec.append or spec.undoes or len(spec.keys) != 1:
        return None
    found = sorted(islice(steps, MOST + 1), key=lambda s: s.first)
    if not 0 < len(found) <= MOST or not all(_taken(s, spec.keys[0]) for s in found):
        return None
    if [s.first for s in found] != [1, *(s.last + 1 for s in found[:-1])]:
        return None
    others = "count(*) FILTER (WHERE __status <> 'create' OR __remote IS NOT NULL)"
    [(rows, last, odd)] = warehouse.rows(
        f"SELECT count(*), max(__number), {others} FROM {quote_table(begun.plan_table)} WHERE __number IS NOT NULL"
    )
    if rows < volumes.FROM or odd or not rows == last == found[-1].last:
        return None
    known = [spec.state_table] if warehouse.columns(spec.state_table.replace('"', "")) else []
    for table in ("oploop.parked", *known):
        if warehouse.rows(f"SELECT 1 FROM {table} WHERE sync = {literal(spec.sync)} LIMIT 1"):
            return None
    return Smooth(tuple(found))


def _taken(step: JournalStep, key: str) -> bool:
    """Whether a call did all that it was to do, at its first try, and records have the key's value for an id."""
    whole = step.outcome is Outcome.OK and step.attempt == 1 and not step.exceptions and not step.ids
    return whole and step.error is None and step.ids_from == key
