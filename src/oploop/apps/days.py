"""Exports by days: all days up to today, the last ones once more for what came late, so many in one call as it takes.

    exports = by_days(export, len, cursor, first=..., today=..., lookback=5, most=100_000, few=25_000)
    async for lines, at in exports: ...            `at`: the cursor after them

The cursor is {"until": the last day that was read, "span": days a call}, so what was learned of the days' size is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import date, timedelta
from typing import TypeVar

from oploop.records import Cursor

T = TypeVar("T")
MOST_DAYS = 366  #: in one call


async def by_days(
    export: Callable[[date, date], Awaitable[T]],
    size: Callable[[T], int],
    cursor: Cursor | None,
    *,
    first: date,
    today: date,
    lookback: int,
    most: int,
    few: int,
) -> AsyncGenerator[tuple[T, Cursor]]:
    """What `export` gives of days, from the first to the last of a call, both with it; from `first` on, or from `lookback` days before
    the cursor.

    An export of several days whose size is `most`, as much as it may have, is thrown away and asked for again by fewer days; so no
    more than that is held at once, or one day's. After one of less than `few` the next covers twice the days.
    """
    day, span = first, 1
    if cursor is not None:
        day = max(first, date.fromisoformat(cursor["until"]) - timedelta(days=lookback))
        span = int(cursor.get("span", 1))
    while day <= today:
        last = min(day + timedelta(days=span - 1), today)
        found = await export(day, last)
        if last > day and size(found) >= most:
            span = max(1, span // 4)
            continue
        if size(found) < few:
            span = min(MOST_DAYS, span * 2)
        yield found, {"until": last.isoformat(), "span": span}
        day = last + timedelta(days=1)


__all__ = ["by_days"]
