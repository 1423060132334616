"""Values that are written into a statement arrive as those that the driver binds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.warehouse.duckdb_params import written

ZONES = st.one_of(st.none(), st.just(UTC), st.just(timezone(timedelta(hours=5, minutes=45))))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.dates(),
    st.datetimes(timezones=ZONES),
)


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


@settings(deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_each_value_arrives_as_it_is(db: duckdb.DuckDBPyConnection, values: list[Any]) -> None:
    sql = f"SELECT {', '.join('?' * len(values))}, '?' AS \"?\" -- ?\n /* '? */"
    text = written(sql, values)
    assert text is not None
    (*got, mark) = db.execute(text).fetchone() or ()
    assert got == values
    assert mark == "?"
    assert [type(g) for g in got] == [type(v) for v in values]


def test_what_is_no_number(db: duckdb.DuckDBPyConnection) -> None:
    text = written("SELECT ?, ?, isnan(?)", [float("inf"), float("-inf"), float("nan")])
    assert text is not None
    assert db.execute(text).fetchone() == (float("inf"), float("-inf"), True)


def test_other_types_are_the_drivers(db: duckdb.DuckDBPyConnection) -> None:
    assert written("SELECT ?", [[1]]) is None
    assert written("SELECT ?", [2**200]) is None


def test_years_and_days() -> None:
    assert written("?", [date(1, 1, 1)]) == "DATE '0001-01-01'"
    assert written("?", [datetime(2026, 1, 2, 3, 4, 5, 6, UTC)]) == "TIMESTAMPTZ '2026-01-02 03:04:05.000006+00:00'"
