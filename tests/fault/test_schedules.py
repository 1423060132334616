"""Seeded schedules of faults against the real engine, in simulated time; `make soak SEEDS=100000` plays more of them."""

from __future__ import annotations

import os

import pytest

from tests.fault.sim.world import EXTRAS
from tests.fault.soak import CHUNK, play, replay
from tests.postgres import Cluster

SEEDS = int(os.environ.get("OPLOOP_SEEDS", "2000"))
#: Of each half so many have a server for a warehouse, with the state and the leases in it.
ON_A_SERVER = SEEDS * 3 // 100


#: Half of them have rows that leave, appends, undos, pauses, canaries.
HALVES = [(start, start + SEEDS // 2) for start in (0, EXTRAS)]


def chunks(*spans: tuple[int, int]) -> list[tuple[int, int]]:
    return [(n, min(n + CHUNK, end)) for start, end in spans for n in range(start, end, CHUNK)]


@pytest.mark.parametrize(("first", "end"), chunks(*((start, end - ON_A_SERVER) for start, end in HALVES)))
def test_whatever_happens_the_app_ends_as_the_model_says(first: int, end: int) -> None:
    failed = play(range(first, end))
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0])}): {failed[0][1]}"


@pytest.mark.parametrize(("first", "end"), chunks(*((end - ON_A_SERVER, end) for _, end in HALVES)))
def test_so_it_does_with_all_that_is_kept_in_a_server(first: int, end: int, cluster: Cluster) -> None:
    failed = play(range(first, end), cluster)
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0], cluster)}): {failed[0][1]}"
