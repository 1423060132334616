"""Group commit: who records waits for the disk, many share one commit, and each hears when the disk refuses."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence

import pytest

from oploop.activate.journal import Journal
from oploop.records import Op, Outcome
from oploop.runtime import Runtime
from oploop.state import JournalStep, StateStore
from tests.unit.activate.engine import at
from tests.unit.state.conftest import Kind, kind

__all__ = ["kind"]


def step(n: int, run: str = "r1") -> JournalStep:
    return JournalStep(run, "people", f"s{n}", n, n, 1, Op.UPDATE, at(n))


@pytest.fixture
def store(kind: Kind) -> Iterator[StateStore]:
    made = kind.open(Runtime())
    yield made
    made.close()


async def test_a_caller_returns_only_when_its_row_is_on_disk(store: StateStore, kind: Kind) -> None:
    journal = Journal(store.write_steps)
    other = kind.look()  # on a connection of its own

    def outcome(n: int) -> list[Outcome | None]:
        return [s.outcome for s in other.steps("r1", f"sync{n}")]

    async def one(n: int) -> None:
        entry = step(n)
        entry.sync = f"sync{n}"
        await journal.record(entry)
        assert outcome(n) == [None]
        entry.outcome, entry.ended_at = Outcome.OK, at(n + 1)
        await journal.record(entry)
        assert outcome(n) == [Outcome.OK]

    await asyncio.gather(*(one(n) for n in range(200)))
    other.close()
    assert all(len(store.steps("r1", f"sync{n}")) == 1 for n in range(200))


async def test_rows_gather_while_a_commit_runs(store: StateStore) -> None:
    groups: list[int] = []
    gate = threading.Event()

    def write(steps: Sequence[JournalStep]) -> None:
        gate.wait(5)
        groups.append(len(steps))
        store.write_steps(steps)

    journal = Journal(write)
    first = asyncio.create_task(journal.record(step(0)))
    await asyncio.sleep(0.01)
    rest = [asyncio.create_task(journal.record(step(n))) for n in range(1, 51)]
    await asyncio.sleep(0.01)
    assert not any(t.done() for t in [first, *rest])
    gate.set()
    await asyncio.gather(first, *rest)
    assert groups == [1, 50]


async def test_each_caller_of_a_commit_that_fails_hears_of_it_and_later_ones_do_not(store: StateStore) -> None:
    fail = [True]

    def write(steps: Sequence[JournalStep]) -> None:
        if fail[0]:
            raise sqlite3.OperationalError("database or disk is full")
        store.write_steps(steps)

    journal = Journal(write)
    answers = await asyncio.gather(*(journal.record(step(n)) for n in range(20)), return_exceptions=True)
    assert [str(a) for a in answers] == ["database or disk is full"] * 20
    fail[0] = False
    await journal.record(step(99))
    assert [s.step_id for s in store.steps("r1", "people")] == ["s99"]


async def test_a_caller_that_gives_up_does_not_disturb_the_others(store: StateStore) -> None:
    journal = Journal(store.write_steps)
    tasks = [asyncio.create_task(journal.record(step(n))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(a) for i, a in enumerate(answers) if i != 3] == [type(None)] * 9
    assert {s.step_id for s in store.steps("r1", "people")} >= {f"s{n}" for n in range(10) if n != 3}
