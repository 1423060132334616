"""Both kinds of state: a file beside the warehouse, and tables in the server that is the warehouse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore
from oploop.state.postgres import PostgresReader, PostgresStore
from tests.postgres import Cluster

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Kind:
    """One kind of state, empty. `address`: the folder, or the server's address."""

    name: str
    address: str
    open: Callable[..., StateStore]
    look: Callable[[], StateReader]


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "sqlite":
        folder = tmp_path / ".oploop"
        return Kind("sqlite", str(folder), lambda r: StateStore(folder, r), lambda: StateReader(folder))
    cluster: Cluster = request.getfixturevalue("cluster")
    return postgres_kind(cluster)


def postgres_kind(cluster: Cluster) -> Kind:
    dsn = cluster.made(f"state{next(_numbers)}")

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(dsn, autocommit=True)

    return Kind(
        "postgres",
        dsn,
        lambda r, **more: PostgresStore(connect, r, "the warehouse", **more),
        lambda: PostgresReader(connect, "the warehouse"),
    )


@pytest.fixture
def both(kind: Kind) -> Iterator[StateStore]:
    made = kind.open(Runtime(now=lambda: NOON))
    yield made
    made.close()
