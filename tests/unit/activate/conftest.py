"""All tests run on each kind of warehouse: one for all tests of a module; each test begins with empty tables."""

from __future__ import annotations

import pytest

from oploop.warehouse import Warehouse
from tests.unit.activate.engine import Engine
from tests.warehouses import warehouse

__all__ = ["warehouse"]


@pytest.fixture
def engine(warehouse: Warehouse) -> Engine:
    made = Engine(warehouse)
    made.reset()
    return made
