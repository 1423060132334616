"""JSON text of rows, made column by column: what reads it finds the same as in objects made row by row."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.apps.jsonvalues import plain
from oploop.apps.rowtexts import Member, rows_of

TEXTS = (
    st.none() | st.text(max_size=12) | st.sampled_from(['"', "\\", "a\nb", "\x00", "\x1f", "’é🎉", "null", "},{", ""])
)
COLUMNS: dict[Any, st.SearchStrategy[Any]] = {
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
    pa.bool_(): st.none() | st.booleans(),
    pa.float64(): st.none() | st.floats(),
    pa.date32(): st.none() | st.dates(),
    pa.timestamp("us", "UTC"): st.none() | st.datetimes(datetime(1900, 1, 1), timezones=st.just(UTC)),
    pa.decimal128(18, 3): st.none() | st.decimals(-(10**9), 10**9, places=3),
}


@st.composite
def columns(draw: Any) -> tuple[int, list[tuple[Any, list[Any], list[bool] | None]]]:
    count = draw(st.integers(1, 6))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=4))
    masks = st.none() | st.lists(st.booleans(), min_size=count, max_size=count)
    made = [
        (k, draw(st.lists(COLUMNS[k], min_size=count, max_size=count)), draw(masks) if n else None)
        for n, k in enumerate(kinds)
    ]
    return count, made


@given(columns(), st.data())
@settings(database=None, derandomize=True, max_examples=120, deadline=None)
def test_the_text_is_that_of_objects_made_row_by_row(made: tuple[int, list[Any]], data: Any) -> None:
    count, given_ = made
    names = [f'f"{i}\n' for i in range(len(given_))]
    members = [
        Member(n, pa.array(values, kind), None if mask is None else pa.array(mask))
        for n, (kind, values, mask) in zip(names, given_, strict=True)
    ]
    rows = [
        {n: values[i] for n, (_, values, mask) in zip(names, given_, strict=True) if mask is None or mask[i]}
        for i in range(count)
    ]
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    found = rows_of(members)
    assert found is not None
    wanted = orjson.loads(orjson.dumps(rows[start:stop], default=plain))
    assert orjson.loads(found.text(start, stop)) == wanted


def test_json_stays_json_and_a_slice_of_columns_is_its_own() -> None:
    whole = pa.array(['["x"]', None, '{"a":1}', "[]"])
    found = rows_of([Member("id", pa.array([1, 2, 3, 4]).slice(1)), Member("tags", whole.slice(1), as_json=True)])
    assert found is not None
    assert orjson.loads(found.text(0, 3)) == [
        {"id": 2, "tags": None},
        {"id": 3, "tags": {"a": 1}},
        {"id": 4, "tags": []},
    ]


@pytest.mark.parametrize("members", [[], [Member("a", pa.array([1, 2]), pa.array([True, False]))]])
def test_where_commas_could_not_be_told_there_is_none(members: list[Member]) -> None:
    assert rows_of(members) is None


def test_a_date_and_a_decimal_are_written_as_for_one_record() -> None:
    values = {"d": date(2026, 1, 2), "n": Decimal("1.50"), "t": datetime(2026, 1, 2, 3, tzinfo=UTC)}
    found = rows_of([Member(n, pa.array([v])) for n, v in values.items()])
    assert found is not None
    assert found.text(0, 1) == b"[" + orjson.dumps(values, default=plain) + b"]"
