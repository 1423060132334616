"""Objects in the order of their creation, each with its bytes as they go over the wire, so that a page is a join."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

Test = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """A page that is asked for: seconds from `low` up to, not with, `high`; next to the object `after` or `before`."""

    limit: int = 10
    after: str | None = None
    before: str | None = None
    low: int | None = None
    high: int | None = None
    tests: tuple[Test, ...] = field(default=())


class Shelf:
    """All objects of one kind. Lists run from the newest to the oldest; of one second, the later put is the newer."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}
        self._bytes: dict[str, bytes] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._order: list[tuple[int, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Oldest first."""
        return (self._rows[record_id] for _, _, record_id in self._order)

    def get(self, record_id: str) -> dict[str, Any] | None:
        return self._rows.get(record_id)

    def put(self, row: dict[str, Any]) -> None:
        """Add or replace an object; a replaced one keeps its place."""
        place = self._enter(row)
        if place is not None:
            insort(self._order, place)

    def put_all(self, rows: Iterable[dict[str, Any]]) -> None:
        """The same for many, sorted once."""
        self._order += [place for row in rows if (place := self._enter(row)) is not None]
        self._order.sort()

    def _enter(self, row: dict[str, Any]) -> tuple[int, int, str] | None:
        record_id = row["id"]
        known = self._places.get(record_id)
        if known is not None and known[0] != row["created"]:
            self.remove(record_id)
            known = None
        self._rows[record_id] = row
        self._bytes.pop(record_id, None)
        if known is not None:
            return None
        self._count += 1
        self._places[record_id] = (row["created"], self._count)
        return (row["created"], self._count, record_id)

    def remove(self, record_id: str) -> None:
        del self._rows[record_id]
        self._bytes.pop(record_id, None)
        del self._order[self._at(record_id)]
        del self._places[record_id]

    def raw(self, record_id: str) -> bytes:
        """An object as JSON."""
        found = self._bytes.get(record_id)
        if found is None:
            found = self._bytes[record_id] = orjson.dumps(self._rows[record_id])
        return found

    def page(self, query: Query) -> tuple[list[str], bool]:
        """Ids of a page, newest first, and whether there are more beyond it. LookupError names an unknown neighbour."""
        low = 0 if query.low is None else bisect_left(self._order, (query.low,))
        high = len(self._order) if query.high is None else bisect_left(self._order, (query.high,))
        if query.after is not None:
            high = min(high, self._at(query.after))
        if query.before is not None:
            low = max(low, self._at(query.before) + 1)
        forward = query.before is not None  # towards newer ones
        places = range(low, high) if forward else range(high - 1, low - 1, -1)
        found: list[str] = []
        for i in places:
            record_id = self._order[i][2]
            if query.tests and not all(test(self._rows[record_id]) for test in query.tests):
                continue
            if len(found) == query.limit:
                return (found[::-1] if forward else found), True
            found.append(record_id)
        return (found[::-1] if forward else found), False

    def _at(self, record_id: str) -> int:
        if record_id not in self._places:
            raise LookupError(record_id)
        return bisect_left(self._order, (*self._places[record_id], record_id))


@dataclass(slots=True)
class Saved:
    """What was answered under an idempotency key, and to what."""

    path: str
    params: bytes
    status: int
    body: bytes
    at: float


class KeyBox:
    """Idempotency keys and what was answered under them, for a day (docs.stripe.com/api/idempotent_requests)."""

    def __init__(self, keep: float) -> None:
        self._keep = keep
        self._saved: dict[str, Saved] = {}
        self.in_flight: set[str] = set()

    def get(self, key: str, now: float) -> Saved | None:
        found = self._saved.get(key)
        if found is not None and now - found.at >= self._keep:
            del self._saved[key]
            return None
        return found

    def save(self, key: str, saved: Saved) -> None:
        self._saved.setdefault(key, saved)
