"""One warehouse file for all tests of a module; each test begins with empty tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from tests.unit.activate.engine import Engine


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    opened = open_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", read_only=False, runtime=Runtime())
    yield opened
    opened.close()


@pytest.fixture
def engine(warehouse: Warehouse) -> Engine:
    made = Engine(warehouse)
    made.reset()
    return made
