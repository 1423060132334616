"""Seeded schedules of faults against the real engine, in simulated time; `make soak SEEDS=100000` plays more of them."""

from __future__ import annotations

import os

import pytest

from tests.fault.soak import CHUNK, play

SEEDS = int(os.environ.get("OPLOOP_SEEDS", "600"))


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_happens_the_app_ends_as_the_model_says(first: int) -> None:
    failed = play(range(first, min(first + CHUNK, SEEDS)))
    assert not failed, f"seed {failed[0][0]} (replay: python -m tests.fault.soak --only {failed[0][0]}): {failed[0][1]}"
