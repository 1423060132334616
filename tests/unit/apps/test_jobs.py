"""Jobs, asked after until they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from oploop.apps.jobs import ended
from tests.unit.activate.script import Clock


class Job:
    """One that ends at the `ends`th question."""

    def __init__(self, ends: int) -> None:
        self.clock, self.ends = Clock(), ends
        self.asked_at: list[float] = []

    async def ask(self) -> Mapping[str, Any]:
        self.asked_at.append(self.clock.seconds)
        return {"done": len(self.asked_at) >= self.ends}

    async def wait(self, told: Mapping[str, Any] | None = None, patience: float = 100.0) -> Mapping[str, Any] | None:
        return await ended(
            self.ask, lambda t: t["done"], self.clock.runtime(), waits=(1.0, 2.0), patience=patience, told=told
        )


async def test_the_questions_come_in_growing_waits() -> None:
    job = Job(ends=5)
    assert await job.wait() == {"done": True}
    waits = [b - a for a, b in zip(job.asked_at, job.asked_at[1:], strict=False)]
    assert waits == pytest.approx([1.0, 1.6, 2.0, 2.0])


async def test_what_the_app_said_when_it_began_is_not_asked_again() -> None:
    job = Job(ends=1)
    assert await job.wait(told={"done": True}) == {"done": True}
    assert job.asked_at == []
    assert await job.wait(told={"done": False}) == {"done": True}
    assert job.asked_at == [1.0]


async def test_one_that_does_not_end_is_given_up() -> None:
    job = Job(ends=1_000)
    assert await job.wait(patience=10.0) is None
    assert 10.0 < job.clock.seconds < 14.0
