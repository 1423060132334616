"""What the simulated app holds: its records with all that they ever were, and its own log of what was done to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fault.sim.clock import Clock
from tests.fault.sim.world import DEAF, World

US = "us"


@dataclass(slots=True)
class Written:
    """One line of the app's log: what was done to a record, by whom. `turn` is the run of ours (0: no run)."""

    turn: int
    who: str
    op: str
    id: str
    sent: dict[str, Any]  #: as it came
    stored: dict[str, Any]  #: what the app made of it
    at: float
    key: str | None = None  #: of ours: the canonical key that the change was for


@dataclass(slots=True)
class Record:
    """A record with all that it ever was: (when, values or None for deleted)."""

    id: str
    by: str
    archived: bool = False  #: and still shown
    past: list[tuple[float, int, dict[str, Any] | None]] = field(default_factory=list)

    @property
    def now(self) -> dict[str, Any] | None:
        return self.past[-1][2]

    @property
    def version(self) -> int:
        return self.past[-1][1]

    def as_of(self, at: float) -> tuple[int, dict[str, Any] | None] | None:
        """(version, values) at a moment; None before it was made."""
        found = [p for p in self.past if p[0] <= at]
        return (found[-1][1], found[-1][2]) if found else None


class Truth:
    """The records and the log. `turn`: the run of ours that is under way; `happened`: what the app did of its own."""

    def __init__(self, world: World, clock: Clock, note: Callable[[str], None]) -> None:
        self.world, self.clock, self.note = world, clock, note
        self.records: dict[str, Record] = {}
        self.log: list[Written] = []
        self.turn = 0
        self.happened: Counter[str] = Counter()
        for row in world.existing:
            self.person_creates(row)

    # -- people ------------------------------------------------------------------------------------------------------

    def person_creates(self, values: dict[str, Any]) -> None:
        self.put(self.new(values, "person"), values, "person", "create")

    def person_edits(self, id: str, values: dict[str, Any]) -> None:
        self.put(self.records[id], values, "person", "update")

    def person_deletes(self, id: str) -> None:
        self.delete(self.records[id], "person")

    # -- the truth ---------------------------------------------------------------------------------------------------

    def live(self) -> list[Record]:
        return [r for r in self.records.values() if r.now is not None]

    def new(self, values: dict[str, Any], by: str) -> Record:
        code = values.get("code") if self.world.behaviour.by_code and by == US else None
        record = Record(code if code and code not in self.records else f"{len(self.records) + 1:03}", by)
        self.records[record.id] = record
        return record

    def put(self, record: Record, sent: dict[str, Any], who: str, op: str, key: Any = None) -> dict[str, Any]:
        before = record.past[-1][2] if record.past else None
        stored = {k: self._stores(k, v, (before or {}).get(k), who) for k, v in sent.items() if k != "id"}
        if who == US:
            for name, value in sent.items():
                if isinstance(value, str) and stored[name] != value:
                    self.happened[f"the app makes its own of it: {self.world.behaviour.quirks.get(name)}"] += 1
        elif self.turn:
            self.happened[f"people {op}"] += 1
        values = {**dict.fromkeys(self.world.fields), **(before or {}), **stored}
        version = max(self.clock.true_micros(), record.version + 1 if record.past else 0)
        record.past.append((self.clock.seconds, version, values))
        self.log.append(
            Written(self.turn, who, op, record.id, dict(sent), stored, self.clock.seconds, self.world.key(key))
        )
        self.note(f"app: {who} {op} {record.id} {stored}")
        return values

    def _stores(self, name: str, value: Any, before: Any, who: str) -> Any:
        quirk = self.world.behaviour.quirks.get(name)
        if isinstance(value, list):
            return sorted(set(value))
        if not isinstance(value, str) or quirk is None:
            return value
        if quirk == "deaf":
            return before if DEAF in value and who == US else value
        return value.strip() if quirk == "trim" else value.lower()

    def delete(self, record: Record, who: str, key: Any = None, op: str = "remove") -> None:
        shown = op == "archive" and self.world.extras.shows_archived
        record.archived = record.archived or op == "archive"
        before = record.now
        self.happened["people remove"] += who != US
        record.past.append(
            (self.clock.seconds, max(self.clock.true_micros(), record.version + 1), before if shown else None)
        )
        self.log.append(Written(self.turn, who, op, record.id, {}, {}, self.clock.seconds, self.world.key(key)))
        self.note(f"app: {who} {op}s {record.id}")
