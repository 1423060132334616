"""Play many schedules: `python -m tests.fault.soak --seeds 100000 [--from 0] [--jobs 2]`, or one with its trace: `--only SEED`.

With `--warehouse postgres` warehouse, state and leases stand in a real server.

From seed 10,000 on worlds have rows that leave, appends, undos, pauses, canaries (`sim/extras.py`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

from oploop.activate import volumes
from oploop.warehouse.duckdb import DuckDBWarehouse
from tests.fault.sim import schedule
from tests.fault.sim.ground import Files, Ground, Server
from tests.memory import in_memory
from tests.postgres import Cluster, running

CHUNK = 20
_numbers = itertools.count(1)
#: Where the state's files stand: each commit is synced, which need not reach a disk, as crashes are simulated.
IN_MEMORY = in_memory(64 << 20)


def play(seeds: range, cluster: Cluster | None = None, faults: Counter[str] | None = None) -> list[tuple[int, str]]:
    """Seeds played one after the other in this process, in a new database of a server if there is one; what broke, with its
    trace. `faults`: counts by kind what befell them."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="oploop-sim-", dir=IN_MEMORY) as folder:
        ground = _ground(Path(folder), cluster)
        for seed in seeds:
            sim = schedule.Simulation(seed, ground, Path(folder))
            try:
                with _as_if_large(seed, faults):
                    sim.play()
            except BaseException as e:
                failed.append((seed, f"{type(e).__name__}: {e}\n" + "\n".join(sim.trace[-200:])))
                ground.close()
                ground = _ground(Path(folder), cluster)
            if faults is not None:
                faults.update(sim.faults())
        ground.close()
    return failed


@contextmanager
def _as_if_large(seed: int, faults: Counter[str] | None) -> Iterator[None]:
    """Half of the schedules are folded as large deliveries are, and a quarter as if what changed stood apart in a large table."""

    def moves(*_: object) -> bool:
        if faults is not None:
            faults["rows of the state take a new place"] += 1
        return True

    apart = patch.object(DuckDBWarehouse, "apart", moves) if seed % 4 == 0 else nullcontext()
    with patch.object(volumes, "FROM", 1 if seed % 2 else volumes.FROM), apart:
        yield


def _ground(folder: Path, cluster: Cluster | None) -> Ground:
    return Files(folder) if cluster is None else Server(cluster.made(f"sim_{os.getpid()}_{next(_numbers)}"))


def soak(first: int, count: int, jobs: int, cluster: Cluster | None = None) -> Iterator[tuple[int, str]]:
    """All seeds over some processes; failures as they come."""
    chunks = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    one = partial(play, cluster=cluster)
    if jobs == 1:
        yield from itertools.chain.from_iterable(map(one, chunks))
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from itertools.chain.from_iterable(pool.map(one, chunks))


def replay(seed: int, cluster: Cluster | None = None) -> str:
    """The command that plays a seed again."""
    return f"python -m tests.fault.soak --only {seed}" + ("" if cluster is None else " --warehouse postgres")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int)
    parser.add_argument("--warehouse", choices=("duckdb", "postgres"), default="duckdb")
    given = parser.parse_args()
    with running() if given.warehouse == "postgres" else nullcontext() as cluster:
        sys.exit(_played(given, cluster))


def _played(given: argparse.Namespace, cluster: Cluster | None) -> bool:
    """Whether anything failed; says what."""
    began = time.monotonic()
    if given.only is not None:
        failed = play(range(given.only, given.only + 1), cluster)
        print(failed[0][1] if failed else f"seed {given.only} holds")
        return bool(failed)
    found = []
    for seed, why in soak(given.first, given.seeds, given.jobs, cluster):
        found.append(seed)
        print(f"seed {seed} FAILS: {why.splitlines()[0][:300]}\n  replay: {replay(seed, cluster)}", flush=True)
    print(f"{given.seeds - len(found):,} of {given.seeds:,} schedules hold, {time.monotonic() - began:.0f} s")
    return bool(found)


if __name__ == "__main__":
    main()
