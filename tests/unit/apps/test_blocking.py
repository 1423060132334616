"""What blocks, in threads: made once for all who ask, and kept within a bound."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oploop.apps.blocking import Kept
from oploop.apps.notes import GONE, Notes


async def test_nothing_is_made_twice_at_once_nor_while_it_is_kept() -> None:
    made: list[str] = []
    go = threading.Event()

    def make(name: str) -> str:
        go.wait(5)
        made.append(name)
        return name * 10

    kept: Kept[str, str] = Kept(25, len)
    both = asyncio.gather(*(kept.get("a", lambda: make("a")) for _ in range(2)))
    await asyncio.sleep(0)
    go.set()
    assert await both == ["a" * 10] * 2
    for name in ("b", "a", "c", "b", "a"):  # the third does not fit beside two: "a", the oldest, goes
        assert await kept.get(name, lambda name=name: make(name)) == name * 10  # type: ignore[misc]
    assert made == ["a", "b", "c", "a"]
    await kept.aclose()


async def test_a_failure_is_raised_for_all_who_wait_and_not_kept() -> None:
    kept: Kept[str, int] = Kept(10, int)
    tries = []

    def make() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not now")
        return 1

    found = await asyncio.gather(*(kept.get("a", make) for _ in range(2)), return_exceptions=True)
    assert list(map(str, found)) == ["not now"] * 2
    assert await kept.get("a", make) == 1


async def test_one_who_goes_takes_nothing_from_the_others() -> None:
    kept: Kept[str, int] = Kept(10, int)
    go = threading.Event()
    first = asyncio.create_task(kept.get("a", lambda: int(go.wait(5))))
    await asyncio.sleep(0)
    second = asyncio.create_task(kept.get("a", lambda: 0))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert await second == 1


def test_notes_are_counted_once_a_reader() -> None:
    notes = Notes()
    for _ in range(2):
        notes.add("b", "track", {"no JSON": 1})
        notes.add("b", "page", {"no JSON": 2})
        notes.add("a", "", {GONE: 1})
    assert notes.lines() == [
        "a: listed, and not there when it was to be read (gone since, or a link that leads nowhere); it is read once it is there",
        "b: 3 lines left out: no JSON; the others were read",
    ]
