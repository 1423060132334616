"""Seeded schedules of faults against the real engine, in simulated time; `make soak SEEDS=100000` plays more of them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.fault.sim.world import EXTRAS, WIDE
from tests.fault.soak import CHUNK, play, replay
from tests.postgres import Cluster

SEEDS = int(os.environ.get("OPLOOP_SEEDS", "2000"))
#: Where the kinds of worlds begin, and which share of all each has: plain ones; with rows that leave, appends, undos, pauses,
#: canaries; with references, jobs, listings of changes.
SPANS = [(start, start + SEEDS * share // 100) for start, share in ((0, 44), (EXTRAS, 44), (WIDE, 12))]
#: Of each kind so many in a hundred have a server for a warehouse, with the state and the leases in it.
ON_A_SERVER = 4
#: When (seconds since 1970) no further schedules are begun, so that CI on a slow machine keeps within its time. Those left out are
#: skipped, and say so; `make test` by itself plays all.
UNTIL = float(os.environ.get("OPLOOP_SCHEDULES_UNTIL", "inf"))
MIDDLES = [(start, end - (end - start) * ON_A_SERVER // 100, end) for start, end in SPANS]


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this test run, for what befell the schedules."""
    own = tmp_path_factory.getbasetemp()
    made = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "faults"
    made.mkdir(exist_ok=True)
    return made


def chunks(*spans: tuple[int, int]) -> list[tuple[int, int]]:
    return [(n, min(n + CHUNK, end)) for start, end in spans for n in range(start, end, CHUNK)]


PLAYED = chunks(*((start, middle) for start, middle, _ in MIDDLES))
#: What the issue lists, and how often at least it befalls a thousand schedules.
FAULTS: dict[str, float] = {
    "dies before a call": 30,
    "dies after a call": 40,
    "dies after a call without an answer": 2,
    "dies before a statement": 150,
    "dies after a statement": 15,
    "dies before a commit": 30,
    "dies after a commit": 30,
    "dies before a commit of the state": 30,
    "dies after a commit of the state": 40,
    "an open transaction is rolled back": 100,
    "a dead process's call arrives": 0.5,
    "lost": 200,
    "timeout": 60,
    "cut": 100,
    "garbled": 20,
    "429": 80,
    "429 hint": 100,
    "503 hint": 40,
    "500": 300,
    "500 done": 80,
    "burst": 10,
    "refused": 60,
    "login": 8,
    "unreachable": 40,
    "a part of a batch fails": 15,
    "a batch is refused whole": 1,
    "a record is locked": 30,
    "a record is not named": 4,
    "answers out of order": 80,
    "a slow answer": 150,
    "slow job": 5,
    "a job cannot be asked after": 1,
    "a call is known by its key": 15,
    "a read is behind": 200,
    "a read breaks off half-way": 200,
    "the app makes its own of it: trim": 8,
    "the app makes its own of it: lower": 40,
    "the app makes its own of it: deaf": 20,
    "people create": 40,
    "people update": 300,
    "people remove": 60,
    "people edit between look and write": 8,
    "an update is refused, as the record was changed": 2,
    "a delivery goes smoothly": 10,
    "rows of the state take a new place": 20,
    "the clock is set back": 60,
    "the clock is set forward": 15,
    ".oploop/ is lost": 30,
    "the disk refuses: warehouse": 20,
    "the disk refuses: state": 20,
}


@pytest.fixture
def in_time() -> None:
    if time.time() > UNTIL:
        pytest.skip("the time that CI has for schedules is over")


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("first", "end"), PLAYED)
def test_whatever_happens_the_app_ends_as_the_model_says(first: int, end: int, notes: Path) -> None:
    """The last of them to end, in whatever process, looks whether each kind of fault befell them."""
    faults: Counter[str] = Counter()
    failed = play(range(first, end), faults=faults)
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0])}): {failed[0][1]}"
    own = notes / f"{first}.part"
    own.write_text(json.dumps(faults))
    own.rename(own.with_suffix(".json"))
    noted = list(notes.glob("*.json"))
    if len(noted) == len(PLAYED) and SEEDS >= 500:
        befell: Counter[str] = sum((Counter(json.loads(f.read_text())) for f in noted), Counter())
        rare = {kind: befell[kind] for kind, wanted in FAULTS.items() if befell[kind] < wanted * SEEDS / 1000}
        assert not rare, f"these came seldom: {rare}"


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize(("first", "end"), chunks(*((middle, end) for _, middle, end in MIDDLES)))
def test_so_it_does_with_all_that_is_kept_in_a_server(first: int, end: int, cluster: Cluster) -> None:
    failed = play(range(first, end), cluster)
    assert not failed, f"seed {failed[0][0]} (replay: {replay(failed[0][0], cluster)}): {failed[0][1]}"
