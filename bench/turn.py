"""A whole turn of the demo's loop with nothing new, as a user runs it: `oploop run`, process start to end."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.startup import OPLOOP
from bench.table import Row, median_of


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "acme"
        began = time.perf_counter()
        subprocess.run([str(OPLOOP), "demo", "--folder", str(folder)], check=True, stdout=subprocess.DEVNULL)
        demo = time.perf_counter() - began
        with sandboxes(folder):
            turn = median_of(3, lambda: command(folder, "run"))
            plan = median_of(3, lambda: command(folder, "plan"))
    return [
        Row("oploop demo, two turns", f"{demo:.1f} s", "", f"bar 60 s: {'met' if demo < 60 else 'NOT met'}"),
        Row("oploop run, nothing new", f"{turn:.1f} s", "", "the demo's 12 models and 25 checks"),
        Row("oploop plan, nothing new", f"{plan:.1f} s", f"run {turn:.1f} s", "SQLMesh is not started"),
    ]


@contextmanager
def sandboxes(folder: Path) -> Iterator[None]:
    """The demo's sandboxes again, with what they held; ready when the first line about them stands there."""
    command = [str(OPLOOP), "demo", "--serve", "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the sandboxes did not start"
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def command(folder: Path, name: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [str(OPLOOP), name, "--env", "prod", "--project", str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began
