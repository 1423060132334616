"""How long `oploop --help` takes, whole process. Bar: 0.3 s. Beside it: a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.table import Row, median_of

OPLOOP = Path(sys.executable).with_name("oploop")


def seconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def run() -> list[Row]:
    bare = median_of(9, lambda: seconds([sys.executable, "-c", "pass"]))
    ours = median_of(9, lambda: seconds([str(OPLOOP), "--help"]))
    return [
        Row(
            "oploop --help",
            f"{ours:.2f} s",
            f"python -c pass {bare:.2f} s",
            f"bar 0.3 s: {'met' if ours < 0.3 else 'NOT met'}",
        )
    ]
