"""A whole turn of the demo's loop with nothing new, as a user runs it: `oploop run`, process start to end."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from bench.startup import OPLOOP
from bench.table import Row, median_of
from oploop.demo.play import serving
from oploop.runtime import Runtime


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "acme"
        subprocess.run([str(OPLOOP), "demo", "--folder", str(folder)], check=True, stdout=subprocess.DEVNULL)
        return asyncio.run(measured(folder))


async def measured(folder: Path) -> list[Row]:
    async with serving(folder, Runtime()):
        run = await asyncio.to_thread(median_of, 3, lambda: command(folder, "run"))
        plan = await asyncio.to_thread(median_of, 3, lambda: command(folder, "plan"))
    return [
        Row("demo: oploop run, nothing new", f"{run:.1f} s", "", "whole process"),
        Row(
            "demo: oploop plan, nothing new", f"{plan:.1f} s", f"run {run:.1f} s", "whole process, SQLMesh not started"
        ),
    ]


def command(folder: Path, name: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [str(OPLOOP), name, "--env", "prod", "--project", str(folder)], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began
