"""Play many schedules: `python -m tests.fault.soak --seeds 100000 [--from 0] [--jobs 2]`, or one with its trace: `--only SEED`.

From seed 10,000 on worlds have rows that leave, appends, undos, pauses, canaries (`sim/extras.py`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest.mock import patch

from oploop.activate import volumes
from tests.fault.sim import schedule

CHUNK = 20
#: Where the state's files stand: each commit is synced, which need not reach a disk, as crashes are simulated.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def play(seeds: range) -> list[tuple[int, str]]:
    """Seeds played one after the other in this process; what broke, with its trace."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="oploop-sim-", dir=IN_MEMORY) as folder:
        warehouse = schedule.warehouse()
        for seed in seeds:
            sim = schedule.Simulation(seed, warehouse, Path(folder))
            try:
                with patch.object(volumes, "FROM", 1 if seed % 2 else volumes.FROM):  # as large deliveries are folded
                    sim.play()
            except BaseException as e:
                failed.append((seed, f"{type(e).__name__}: {e}\n" + "\n".join(sim.trace[-200:])))
                warehouse.close()
                warehouse = schedule.warehouse()
        warehouse.close()
    return failed


def soak(first: int, count: int, jobs: int) -> Iterator[tuple[int, str]]:
    """All seeds over some processes; failures as they come."""
    chunks = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    if jobs == 1:
        yield from itertools.chain.from_iterable(map(play, chunks))
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from itertools.chain.from_iterable(pool.map(play, chunks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    began = time.monotonic()
    if given.only is not None:
        failed = play(range(given.only, given.only + 1))
        print(failed[0][1] if failed else f"seed {given.only} holds")
        sys.exit(bool(failed))
    found = []
    for seed, why in soak(given.first, given.seeds, given.jobs):
        found.append(seed)
        print(
            f"seed {seed} FAILS: {why.splitlines()[0][:300]}\n  replay: python -m tests.fault.soak --only {seed}",
            flush=True,
        )
    print(f"{given.seeds - len(found):,} of {given.seeds:,} schedules hold, {time.monotonic() - began:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
