"""Schedules written by hand hold, like those of chance."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault import directed
from tests.fault.sim import schedule


@pytest.mark.parametrize("name", directed.SCHEDULES)
def test_a_directed_schedule_ends_as_the_model_says(name: str, tmp_path: Path) -> None:
    warehouse = schedule.warehouse()
    try:
        directed.play(name, warehouse, tmp_path)
    finally:
        warehouse.close()
