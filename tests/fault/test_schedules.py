"""Seeded schedules of faults against the real engine, in simulated time; `make soak SEEDS=100000` plays more of them."""

from __future__ import annotations

import os

import pytest

from tests.fault.sim.world import EXTRAS, WIDE
from tests.fault.soak import CHUNK, play, replay
from tests.postgres import Cluster

SEEDS = int(os.environ.get("OPLOOP_SEEDS", "2000"))
#: Where the kinds of worlds begin, and which share of all each has: plain ones; with rows that leave, appends, undos, pauses,
#: canaries; with references, jobs, listings of changes.
SPANS = [(start, start + SEEDS * share // 100) for start, share in ((0, 44), (EXTRAS, 44), (WIDE, 12))]
#: Of each kind so many in a hundred have a server for a warehouse, with the state and the leases in it.
ON_A_SERVER = 6
MIDDLES = [(start, end - (end - start) * ON_A_SERVER // 100, end) for start, end in SPANS]


def chunks(*spans: tuple[int, int]) -> list[tuple[int, int]]:
    return [(n, min(n + CHUNK, end)) for start, end in spans for n in range(start, end, CHUNK)]


@pytest.mark.parametrize(("first", "end"), chunks(*((start, middle) for start, middle, _ in MIDDLES)))
def test_whatever_happens_the_app_ends_as_the_model_says(first: int, end: int) -> None:
    failed = play(range(first, end))
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0])}): {failed[0][1]}"


@pytest.mark.parametrize(("first", "end"), chunks(*((middle, end) for _, middle, end in MIDDLES)))
def test_so_it_does_with_all_that_is_kept_in_a_server(first: int, end: int, cluster: Cluster) -> None:
    failed = play(range(first, end), cluster)
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0], cluster)}): {failed[0][1]}"
