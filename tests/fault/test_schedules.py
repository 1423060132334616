"""Seeded schedules of faults against the real engine, in simulated time; `make soak SEEDS=100000` plays more of them."""

from __future__ import annotations

import os

import pytest

from tests.fault.sim.world import EXTRAS
from tests.fault.soak import CHUNK, play

SEEDS = int(os.environ.get("OPLOOP_SEEDS", "2000"))


#: Half of them have rows that leave, appends, undos, pauses, canaries.
HALVES = [(start, start + SEEDS // 2) for start in (0, EXTRAS)]


@pytest.mark.parametrize(("first", "end"), [(n, end) for start, end in HALVES for n in range(start, end, CHUNK)])
def test_whatever_happens_the_app_ends_as_the_model_says(first: int, end: int) -> None:
    failed = play(range(first, min(first + CHUNK, end)))
    assert not failed, f"seed {failed[0][0]} (replay: python -m tests.fault.soak --only {failed[0][0]}): {failed[0][1]}"
