"""What became of a delivery, as it is counted while it goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from oploop.errors import OploopError, QuotaSpent
from oploop.records import CallKind, CallTime, Op, Outcome
from oploop.runtime import Interrupted


def few(errors: Sequence[str], more: Sequence[str]) -> list[str]:
    """The first few of what was said, each once."""
    return list(dict.fromkeys([*errors, *more]))[:5]


@dataclass(slots=True)
class Delivery:
    """What became of a sync's changes. `failed`: not done, and tried again by the next run."""

    sync: str
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    calls: int = 0
    seconds: float = 0.0
    error: OploopError | None = None  #: why the rest was not begun
    errors: list[str] = field(default_factory=list)  #: the first few that differ, in the app's words
    changed: list[str] = field(default_factory=list)  #: the app's ids of records that were no longer as they were read
    left: int = 0  #: of those, the ones that were looked at again and need nothing more
    times: dict[tuple[Op, CallKind], CallTime] = field(default_factory=dict)  #: of steps that were answered at once

    def plus(self, other: Delivery) -> Delivery:
        """This one and a later one of the same sync and run, each of whose `times` are kept already."""
        return Delivery(
            self.sync,
            self.outcomes + other.outcomes,
            self.calls + other.calls,
            round(self.seconds + other.seconds, 3),
            self.error or other.error,
            few(self.errors, other.errors),
            [*self.changed, *other.changed],
            self.left + other.left,
        )

    def took(self, op: Op, kind: CallKind, seconds: float, calls: int) -> None:
        """Count a step into the means."""
        known = self.times.get((op, kind), CallTime(0.0, 0.0, 0))
        n = known.steps + 1
        more = (seconds - known.seconds) / n, (calls - known.calls) / n
        self.times[op, kind] = CallTime(known.seconds + more[0], known.calls + more[1], n)

    @property
    def delivered(self) -> int:
        return self.outcomes[Outcome.OK]

    @property
    def rejected(self) -> int:
        return self.outcomes[Outcome.REJECTED]

    @property
    def unknown(self) -> int:
        return self.outcomes[Outcome.UNKNOWN]

    @property
    def failed(self) -> int:
        return self.outcomes[Outcome.RETRY] + self.outcomes[Outcome.CHANGED]

    @property
    def deferred(self) -> bool:
        """Whether the account's quota ended it."""
        return isinstance(self.error, QuotaSpent)

    def deferred_of(self, changes: int) -> int:
        """How many of so many changes that were to be sent the quota left for a later run."""
        return changes - self.outcomes.total() - self.left + self.outcomes[Outcome.DEFERRED] if self.deferred else 0

    @property
    def interrupted(self) -> bool:
        return isinstance(self.error, Interrupted)
