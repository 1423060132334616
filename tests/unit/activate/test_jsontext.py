"""The quick way to a change's JSON text writes what the slow one does."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oploop.activate.jsontext import json_object
from oploop.runtime import Runtime
from oploop.warehouse import open_warehouse
from oploop.warehouse.base import Warehouse

LABELS = ["text", "whole", "number", 'it\'s "odd"', "day", "at", "ünï/~code"]
SCHEMA = pa.schema(
    [
        ("v0", pa.string()),
        ("v1", pa.int64()),
        ("v2", pa.float64()),
        ("v3", pa.bool_()),
        ("v4", pa.date32()),
        ("v5", pa.timestamp("us", "UTC")),
        ("v6", pa.string()),
    ]
)
TEXTS = st.one_of(st.none(), st.text(), st.sampled_from(["NaN", "Infinity", '"', "\\", "\n\t\x01", "\u2028", "😀"]))
ROWS = st.lists(
    st.tuples(
        TEXTS,
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), st.dates()),
        st.one_of(st.none(), st.datetimes()),
        TEXTS,
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return open_warehouse(tmp_path_factory.mktemp("json") / "w.duckdb", read_only=False, runtime=Runtime())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_both_ways_write_the_same(duck: Warehouse, rows: list[tuple[Any, ...]]) -> None:
    columns = [pa.array([r[i] for r in rows], f.type) for i, f in enumerate(SCHEMA)]
    duck.register("given_rows", pa.Table.from_arrays(columns, schema=SCHEMA))
    quick = duck.json_of([(label, f"v{i}") for i, label in enumerate(LABELS)])
    slow = json_object([(label, f"v{i}", "TRUE") for i, label in enumerate(LABELS)])
    assert quick is not None
    for one, other in duck.rows(f"SELECT {quick}, {slow} FROM given_rows"):
        assert one == other


def test_names_that_differ_by_case_have_no_quick_way(duck: Warehouse) -> None:
    assert duck.json_of([("a", "1"), ("A", "2")]) is None
