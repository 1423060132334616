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


def peak_of(words: list[str], folder: Path) -> float:
    """The most memory that a command has at once, in MiB; it must succeed."""
    with (folder / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, "-m", "oploop", *words], stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "said").read_text()[-500:]
    return used.ru_maxrss / 1024
