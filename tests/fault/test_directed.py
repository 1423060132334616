"""Schedules written by hand hold, like those of chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault import directed
from tests.fault.sim.ground import Files, Server


@pytest.mark.parametrize("name", directed.SCHEDULES)
def test_a_directed_schedule_ends_as_the_model_says(name: str, tmp_path: Path, dsn: str) -> None:
    ground = Server(dsn) if dsn else Files(tmp_path)
    try:
        directed.play(name, ground, tmp_path)
    finally:
        ground.close()
