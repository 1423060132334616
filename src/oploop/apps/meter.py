"""What one step of a delivery uses, told by what it runs through: its calls, and how long they waited for the budget."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Meter:
    """Calls that went out, and seconds that they waited for their turn."""

    calls: int = 0
    waited: float = 0.0


#: The meter of the step that is being sent; what is begun for it has the same.
METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


__all__ = ["METER", "Meter"]
