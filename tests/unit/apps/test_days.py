"""Exports by days: few days where there is much, many where there is little, the last ones once more."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oploop.apps.days import by_days
from oploop.records import Cursor

FIRST = date(2025, 1, 1)


def read(
    rows: list[int], cursor: Cursor | None = None, *, today: int | None = None, lookback: int = 2, most: int = 100
) -> tuple[list[tuple[int, int]], list[int], list[Cursor]]:
    """(the days of each call, the days whose rows came, the cursors) of an app that has so many rows a day; days from 0 on."""
    asked: list[tuple[int, int]] = []

    async def export(first: date, last: date) -> list[int]:
        asked.append(((first - FIRST).days, (last - FIRST).days))
        days = range(asked[-1][0], asked[-1][1] + 1)
        found = [day for day in days for _ in range(rows[day] if day < len(rows) else 0)]
        return found if first == last else found[:most]

    async def all_of() -> list[tuple[list[int], Cursor]]:
        last = FIRST + timedelta(days=len(rows) - 1 if today is None else today)
        more: Any = {"first": FIRST, "today": last, "lookback": lookback, "most": most, "few": 25}
        return [found async for found in by_days(export, len, cursor, **more)]

    found = asyncio.run(all_of())
    return asked, [day for days, _ in found for day in days], [at for _, at in found]


def test_a_call_covers_more_days_while_there_is_little() -> None:
    asked, _, cursors = read([1] * 20)
    assert asked == [(0, 0), (1, 2), (3, 6), (7, 14), (15, 19)]
    assert cursors[-1] == {"until": "2025-01-20", "span": 32}


def test_one_that_brings_as_much_as_it_may_is_asked_for_again_by_fewer_days() -> None:
    asked, days, cursors = read([0] * 15 + [60] * 5)
    assert asked[4:] == [(15, 19), (15, 18), (15, 15), (16, 16), (17, 17), (18, 18), (19, 19)]
    assert Counter(days) == dict.fromkeys(range(15, 20), 60)
    assert cursors[-1] == {"until": "2025-01-20", "span": 1}


def test_a_day_that_has_more_is_taken_whole() -> None:
    asked, days, _ = read([1000])
    assert (asked, len(days)) == ([(0, 0)], 1000)


def test_a_later_read_goes_back_for_what_came_late_and_knows_the_days_size() -> None:
    cursor: Cursor = {"until": "2025-01-10", "span": 4}
    assert read([1] * 12, cursor)[0] == [(7, 10), (11, 11)]
    assert read([1] * 12, cursor, lookback=99)[0][0][0] == 0, "never before the first day"
    assert read([1], cursor, today=-1)[0] == []


@given(st.lists(st.integers(0, 130), min_size=1, max_size=40), st.integers(0, 5))
def test_each_row_comes_and_from_each_cursor_none_is_missed(rows: list[int], lookback: int) -> None:
    _, days, cursors = read(rows, lookback=lookback)
    assert Counter(days) == Counter({day: n for day, n in enumerate(rows) if n})
    for cursor in cursors:
        done = (date.fromisoformat(cursor["until"]) - FIRST).days
        _, rest, _ = read(rows, cursor, lookback=lookback)
        assert {day for day in days if day > done} <= set(rest)
        assert not rest or min(rest) >= done - lookback
