"""Records of an API as Arrow columns: what fits its type is kept, what does not is NULL there and whole in `_raw`."""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oploop.apps.arrow import ARROW_TYPES, JSON_MARK, TIMESTAMP, convert, empty_table, instants, table_from_records
from oploop.records import META_COLUMNS, ColumnType, Stream

UTC = dt.UTC
NOON = dt.datetime(2025, 3, 1, 12, tzinfo=UTC)
T, I, N, B, TS = ColumnType.TEXT, ColumnType.INTEGER, ColumnType.NUMBER, ColumnType.BOOLEAN, ColumnType.TIMESTAMP  # noqa: E741
U, MS, D, J = ColumnType.UNIX, ColumnType.UNIX_MS, ColumnType.DATE, ColumnType.JSON

FITS: list[tuple[ColumnType, Any, Any]] = [
    (T, "it's 🚀\x00", "it's 🚀\x00"),
    (T, "", ""),
    (T, 12, "12"),
    (T, 0.1, "0.1"),
    (T, True, "true"),
    (T, {"a": [1]}, '{"a":[1]}'),
    (I, 2**63 - 1, 2**63 - 1),
    (I, -(2**63), -(2**63)),
    (N, 0.1, 0.1),
    (N, 12, 12.0),
    (B, True, True),
    (TS, "2025-03-01T12:00:00Z", NOON),
    (TS, "2025-03-01T14:00:00+02:00", NOON),
    (TS, "2025-03-01T12:00:00.123456Z", NOON.replace(microsecond=123456)),
    (TS, "2025-03-01T12:00:00", NOON),
    (TS, "", None),
    (U, 1740830400, NOON),
    (U, 0, dt.datetime(1970, 1, 1, tzinfo=UTC)),
    (U, 1740830400.5, NOON.replace(microsecond=500000)),
    (I, 12.0, 12),
    (U, -1, dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (MS, 1740830400001, NOON.replace(microsecond=1000)),
    (D, "2025-03-01", dt.date(2025, 3, 1)),
    (J, {"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
    (J, "text", '"text"'),
    (J, 0, "0"),
    (J, False, "false"),
    (J, [], "[]"),
]
MISFITS: list[tuple[ColumnType, Any]] = [
    (I, 2**63),
    (I, 1.5),
    (I, "12"),
    (I, [1]),
    (I, True),
    (N, "12.5"),
    (N, {}),
    (B, 1),
    (B, "true"),
    (TS, "yesterday"),
    (TS, 1740830400),
    (TS, "2025-13-01T00:00:00Z"),
    (TS, {}),
    (U, "1740830400"),
    (U, 10**18),
    (U, True),
    (MS, "x"),
    (MS, 10**30),
    (D, "2025-02-30"),
    (D, 20250301),
    (D, "soon"),
]


@pytest.mark.parametrize(("kind", "value", "wanted"), FITS)
def test_what_fits_is_kept(kind: ColumnType, value: Any, wanted: Any) -> None:
    column = convert([value, None], kind)
    assert column.type == ARROW_TYPES[kind]
    assert column.to_pylist() == [wanted, None]


@pytest.mark.parametrize(("kind", "value"), MISFITS)
def test_what_does_not_fit_is_null_and_spoils_no_neighbour(kind: ColumnType, value: Any) -> None:
    good, wanted = next((v, w) for k, v, w in FITS if k is kind)
    for values, found in (([value], [None]), ([good, value, good], [wanted, None, wanted])):
        column = convert(values, kind)
        assert column.type == ARROW_TYPES[kind]
        assert column.to_pylist() == found


@pytest.mark.parametrize("kind", list(ColumnType))
def test_nothing_is_a_column_of_its_type(kind: ColumnType) -> None:
    assert convert([], kind).type == ARROW_TYPES[kind]
    assert convert([None, None], kind).to_pylist() == [None, None]


STREAM = Stream("things", ("id",), {"id": I, "name": T, "at": U, "more": J})


def table(records: list[dict[str, Any]], **more: Any) -> pa.Table:
    return table_from_records(STREAM, records, **({"versions": 7, "extracted_at": NOON} | more))


def test_a_record_is_typed_columns_and_itself() -> None:
    found = table(
        [{"id": 1, "name": "a", "at": 0, "more": {"x": 1}}, {"id": 2}], versions=[5, 6], deleted=[False, True]
    )
    assert found.column_names == ["id", "name", "at", "more", *META_COLUMNS]
    assert found.schema.field("more").metadata == found.schema.field("_raw").metadata == JSON_MARK
    assert found.schema.field("name").metadata is None
    first, second = found.to_pylist()
    assert orjson.loads(first["_raw"]) == {"id": 1, "name": "a", "at": 0, "more": {"x": 1}}
    assert (first["_version"], first["_deleted"], first["_extracted_at"]) == (5, False, NOON)
    assert (second["name"], second["more"], second["_version"], second["_deleted"]) == (None, None, 6, True)


def test_a_value_that_does_not_fit_stays_whole_in_raw() -> None:
    (row,) = table([{"id": "no number", "at": {"nested": 1}}]).to_pylist()
    assert (row["id"], row["at"]) == (None, None)
    assert orjson.loads(row["_raw"]) == {"id": "no number", "at": {"nested": 1}}


def test_fields_that_the_stream_does_not_know_become_json_columns() -> None:
    found = table([{"id": 1, "new": 1.5}, {"id": 2, "new": "x", 'it\'s "odd".é': None}])
    assert found.column_names == ["id", "name", "at", "more", 'it\'s "odd".é', "new", *META_COLUMNS]
    assert found["new"].to_pylist() == ["1.5", '"x"']
    assert found.schema.field("new").metadata == JSON_MARK


def test_excluded_fields_leave_raw_too() -> None:
    found = table([{"id": 1, "name": "secret", "new": "secret", "more": 1}], exclude={"name", "new"})
    assert found.column_names == ["id", "at", "more", *META_COLUMNS]
    assert "secret" not in str(found.to_pylist())
    assert empty_table(STREAM, {"name"}).column_names == ["id", "at", "more", *META_COLUMNS]


def test_a_field_of_our_own_columns_name_stays_in_raw_and_disturbs_nothing() -> None:
    (row,) = table([{"id": 1, "_deleted": True, "_raw": "x", "_version": 9}]).to_pylist()
    assert (row["_deleted"], row["_version"]) == (False, 7)
    assert orjson.loads(row["_raw"]) == {"id": 1, "_deleted": True, "_raw": "x", "_version": 9}


def test_a_last_batch_without_rows_has_the_same_columns() -> None:
    assert empty_table(STREAM).schema == table([]).schema
    assert empty_table(STREAM).num_rows == 0


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
)
anything = st.recursive(
    scalars, lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text("ab", max_size=2), x, max_size=2), max_leaves=4
)


@given(st.lists(st.dictionaries(st.sampled_from(["id", "name", "at", "more", "x", "_deleted"]), anything), max_size=4))
@settings(database=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_no_record_is_lost_whatever_is_in_it(records: list[dict[str, Any]]) -> None:
    found = table(records)
    assert found.num_rows == len(records)
    assert found.schema.field("at").type == TIMESTAMP
    assert [orjson.loads(r) for r in found["_raw"].to_pylist()] == orjson.loads(orjson.dumps(records))
    for record, shown in zip(records, found["more"].to_pylist(), strict=True):
        assert shown == (None if record.get("more") is None else orjson.dumps(record["more"]).decode())


TEXTS: list[tuple[ColumnType, Any, Any]] = [
    (I, "12", 12), (I, "1.5", None), (I, "", None), (N, "12.5", 12.5), (N, "much", None), (B, "true", True), (B, "no way", None),
    (D, "2025-03-01", dt.date(2025, 3, 1)), (TS, "2025-03-01T12:00:00.000Z", NOON), (T, "", None), (T, "x", "x"),
    (J, ["a"], '["a"]'), (B, True, True), (T, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), TEXTS)
def test_an_api_that_writes_all_values_as_text(kind: ColumnType, value: Any, expected: Any) -> None:
    """Alone, and beside a value that fits, in one column."""
    assert convert([value], kind, texts=True).to_pylist() == [expected]
    assert convert([None, value, None], kind, texts=True).to_pylist() == [None, expected, None]


def test_instants_are_microseconds_and_none_is_zero() -> None:
    texts = ["2026-01-01T00:00:00.123Z", None, "", "2026-01-01T01:00:00.123+01:00", "2025-12-31T23:00:00.123456-0100"]
    assert instants(texts) == [1_767_225_600_123_000, 0, 0, 1_767_225_600_123_000, 1_767_225_600_123_456]
    assert instants([]) == []
    assert instants([None]) == [0]


def test_versions_and_deletes_may_be_told_by_columns_that_are_left_out() -> None:
    found = table(
        [{"id": 1, "name": "gone", "at": 5}, {"id": 2, "name": "a", "at": 6}],
        versions=lambda rows: rows["at"].cast(pa.int64()),
        deleted=lambda rows: pc.equal(rows["name"], "gone"),
        exclude=("at", "name"),
    )
    assert found.column_names == ["id", "more", *META_COLUMNS]
    assert found["_version"].to_pylist() == [5_000_000, 6_000_000]
    assert found["_deleted"].to_pylist() == [True, False]
    assert found["_raw"].to_pylist() == ['{"id":1}', '{"id":2}']


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 10**20, -(2**63) - 1, 10**300])
@pytest.mark.parametrize("beside", [[], [None], [1.5], [3]])
def test_a_whole_number_beyond_64_bits_is_a_double_where_numbers_are(number: int, beside: list[Any]) -> None:
    assert convert([number, *beside], ColumnType.NUMBER).to_pylist() == [float(number), *beside]
    assert convert([number, *beside], ColumnType.INTEGER).to_pylist()[0] is None
