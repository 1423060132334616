"""What a benchmark returns, and how all of them are shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure beside its floor or bar. `ratio`: what the bar is about, already in words."""

    what: str
    measured: str
    beside: str
    ratio: str


def median_of(runs: int, measure: Callable[[], float]) -> float:
    """The median of several runs, after one that is not counted."""
    measure()
    return statistics.median(measure() for _ in range(runs))


def bar(ratio: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """A ratio beside its bar, in words."""
    met = (at_least is None or ratio >= at_least) and (at_most is None or ratio <= at_most)
    return f"{ratio:.1f}x; bar {at_least or at_most:g}x: {'met' if met else 'NOT met'}"


def render(rows: Sequence[Row]) -> str:
    """A plain text table."""
    cells = [("what", "measured", "beside", "ratio"), *((r.what, r.measured, r.beside, r.ratio) for r in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
