"""Peak memory of a run that delivers 100,000 changes over HTTP, beside one that delivers many more (10M; BENCH_ROWS lessens it).

It is the whole process's, as the system counts it, so that what DuckDB keeps of its tables is in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.http_delivery import BATCHED, project
from bench.sink import sink
from bench.table import Row

FEW = 100_000
MANY = int(os.environ.get("BENCH_ROWS", 10_000_000))


def run() -> list[Row]:
    with sink() as url:
        few, many = (_peak(url, rows) for rows in (FEW, MANY))
    ratio = many / few
    said = f"{ratio:.1f}x; bar 1.3x: {'met' if ratio <= 1.3 else 'NOT met'}"
    return [
        Row(f"peak memory, {MANY:,} changes delivered", f"{many:,.0f} MiB", f"{FEW:,} changes {few:,.0f} MiB", said)
    ]


def _peak(url: str, rows: int) -> float:
    """MiB."""
    with project(url, rows, "take", BATCHED) as folder:
        return peak_of(["run", "--env", "prod", "--yes", "--project", str(folder)], folder)


#: Starts oploop by a fork of a small process, and says the most memory that it had, in KiB, and its exit status.
LAUNCHER = """
import os, sys
child = os.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "oploop", *sys.argv[2:]])
_, status, used = os.wait4(child, 0)
os.write(int(sys.argv[1]), f"{used.ru_maxrss} {os.waitstatus_to_exitcode(status)}".encode())
"""


def peak_of(words: list[str], folder: Path) -> float:
    """The most memory that a command has at once, in MiB; it must succeed.

    What the system counts as a process's most begins with what its starter has had, where both shared their memory until it
    began, as with `subprocess`: here that would be the benchmark's own, which made the tables.
    """
    read, write = os.pipe()
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-c", LAUNCHER, str(write), *words]
        subprocess.run(command, stdout=said, stderr=said, pass_fds=[write], check=False)
    os.close(write)
    with open(read) as told:
        most, code = map(int, told.read().split())
    assert code == 0, (folder / "said").read_text()[-500:]
    return most / 1024
