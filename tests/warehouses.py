"""The kinds of warehouses that tests run on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from tests.postgres import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    if request.param == "duckdb":
        opened = open_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", read_only=False, runtime=Runtime())
    else:
        from oploop.warehouse.postgres import open_postgres

        cluster: Cluster = request.getfixturevalue("cluster")
        opened = open_postgres(cluster.made(f"w{next(_numbers)}"), read_only=False)
    yield opened
    opened.close()
