"""The merge into raw tables equals a fold over the rows, however they are cut into chunks."""

from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oploop.errors import FixData
from oploop.extract import ensure_raw_table, load_fetched, stream_states
from oploop.extract.load import Loader, Part
from oploop.extract.nouns import StreamRequest
from oploop.records import Batch, ColumnType, Stream
from oploop.warehouse import Warehouse
from oploop.warehouse.base import quote
from tests.unit.extract.listed import CHARGES, START, Clock, ListedApp, Page, always, batch
from tests.warehouses import warehouse as opened

__all__ = ["opened"]


PAIRS = Stream("pairs", ("a", "b"), {"a": ColumnType.TEXT, "b": ColumnType.INTEGER, "x": ColumnType.TEXT})


@pytest.fixture
def warehouse(opened: Warehouse) -> Warehouse:
    clean(opened)
    return opened


def clean(warehouse: Warehouse) -> None:
    for schema in ("raw_shop", "oploop"):
        warehouse.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def fold(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a merge must equal: each row in turn, if its version is at least the stored one."""
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        has = kept.get(row["id"])
        if has is not None and row["v"] < has["v"]:
            continue
        bare = row.get("gone") and row.get("amount") is None and row.get("metadata") is None
        values = has if bare and has is not None else row
        kept[row["id"]] = {
            "id": row["id"],
            "amount": values.get("amount"),
            "metadata": values.get("metadata"),
            "v": row["v"],
            "gone": bool(row.get("gone")),
        }
    return kept


def stored(warehouse: Warehouse) -> dict[str, dict[str, Any]]:
    rows = warehouse.rows('SELECT id, amount, metadata, "_version", "_deleted" FROM raw_shop.charges__all')
    assert len({r[0] for r in rows}) == len(rows)
    return {
        i: {"id": i, "amount": a, "metadata": None if m is None else m.strip('"'), "v": v, "gone": g}
        for i, a, m, v, g in rows
    }


rows = st.builds(
    lambda i, v, kind, amount, text: (
        {"id": i, "v": v, "gone": True}
        if kind == 0
        else {"id": i, "v": v, "gone": kind == 1, "amount": amount, "metadata": text}
    ),
    st.sampled_from("abc"),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 3),
    st.sampled_from(["x", "y"]),
)
chunks = st.lists(st.lists(rows, min_size=1, max_size=6), min_size=1, max_size=4)
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(chunks)
def test_fetched_records_fold(opened: Warehouse, chunks: list[list[dict[str, Any]]]) -> None:
    clean(opened)
    clock = Clock()
    for chunk in chunks:
        load_fetched(opened, "shop", CHARGES, batch(CHARGES, Page(chunk), clock.tick()))
    assert stored(opened) == fold([r for chunk in chunks for r in chunk])


@quick
@given(chunks)
def test_read_chunks_fold_and_count_what_is_gone(opened: Warehouse, chunks: list[list[dict[str, Any]]]) -> None:
    clean(opened)
    clock = Clock()
    app = ListedApp(clock, {"charges": always()})
    loader = Loader(opened, clock.runtime())
    loader.prepare([app.request()])
    seen: list[dict[str, Any]] = []
    for chunk in chunks:
        live = {k for k, r in fold(seen).items() if not r["gone"]}
        part = Part(app.request(), clock.now, None, [batch(CHARGES, Page([r], {"at": 1}), clock.tick()) for r in chunk])
        [loaded] = loader.load([part])
        assert loaded.error is None
        seen += chunk
        after = fold(seen)
        assert loaded.deleted == len({k for k in live if after[k]["gone"]})
        assert stored(opened) == after
    view = opened.rows("SELECT id FROM raw_shop.charges ORDER BY id")
    assert [i for (i,) in view] == sorted(k for k, r in fold(seen).items() if not r["gone"])


def tight(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows whose texts are alike on all engines: JSON without blanks and in order, whole doubles without their `.0`."""

    def plain(value: Any) -> Any:
        if isinstance(value, str) and value[:1] in "{[":
            return orjson.dumps(orjson.loads(value), option=orjson.OPT_SORT_KEYS).decode()
        return value.removesuffix(".0") if isinstance(value, str) else value

    return [tuple(map(plain, row)) for row in rows]


def one(warehouse: Warehouse, *records: dict[str, Any], stream: Stream = CHARGES, at: int = 0) -> int:
    clock = Clock()
    clock.tick(at)
    return load_fetched(warehouse, "shop", stream, batch(stream, Page(records), clock.now))


def test_an_older_record_never_replaces_a_newer_one_but_shows_that_it_is_there(warehouse: Warehouse) -> None:
    clock = Clock()
    app = ListedApp(clock, {"charges": always()})
    loader = Loader(warehouse, clock.runtime())
    loader.prepare([app.request()])
    for version, at in ((5, 10), (4, 10)):
        page = Page([{"id": "a", "v": version, "amount": version * 10}], {"at": 1})
        loader.load([Part(app.request(), clock.now, None, [batch(CHARGES, page, clock.tick(at))])])
    assert warehouse.rows('SELECT amount, "_version", "_extracted_at" FROM raw_shop.charges') == [(50, 5, clock.now)]


def test_an_older_record_that_was_fetched_tells_nothing(warehouse: Warehouse) -> None:
    """Where versions are told by the second, what stands here may be of before a write of the second in which it was fetched."""
    one(warehouse, {"id": "a", "v": 5, "amount": 50}, at=10)
    one(warehouse, {"id": "a", "v": 4, "amount": 40}, at=20)
    assert warehouse.rows('SELECT amount, "_version", "_extracted_at" FROM raw_shop.charges') == [
        (50, 5, Clock().tick(10))
    ]


def test_a_record_that_is_gone_keeps_its_last_values_and_leaves_the_view(warehouse: Warehouse) -> None:
    one(warehouse, {"id": "a", "v": 1, "amount": 10})
    assert one(warehouse, {"id": "a", "v": 2, "gone": True}) == 1
    assert one(warehouse, {"id": "a", "v": 3, "gone": True}) == 0
    assert tight(warehouse.rows('SELECT amount, "_deleted", "_version", "_raw" FROM raw_shop.charges__all')) == [
        (10, True, 3, '{"amount":10,"id":"a"}')
    ]
    assert warehouse.rows("SELECT * FROM raw_shop.charges") == []
    one(warehouse, {"id": "a", "v": 4, "amount": 11})
    assert warehouse.rows("SELECT amount FROM raw_shop.charges") == [(11,)]


def test_a_key_of_several_columns(warehouse: Warehouse) -> None:
    records = [{"a": "x", "b": 1, "x": "1"}, {"a": "x", "b": 2, "x": "2"}, {"a": "x", "b": 1, "x": "3", "v": 2}]
    one(warehouse, *records, stream=PAIRS)
    assert warehouse.rows("SELECT a, b, x FROM raw_shop.pairs ORDER BY b") == [("x", 1, "3"), ("x", 2, "2")]


def test_models_can_name_a_stream_before_its_first_rows(warehouse: Warehouse) -> None:
    ensure_raw_table(warehouse, "shop", CHARGES)
    ensure_raw_table(warehouse, "shop", CHARGES)
    assert warehouse.columns("raw_shop.charges") == {
        "id": "VARCHAR",
        "amount": "BIGINT",
        "created": "TIMESTAMP WITH TIME ZONE",
        "metadata": "JSON",
        "_raw": "JSON",
        "_extracted_at": "TIMESTAMP WITH TIME ZONE",
        "_version": "BIGINT",
        "_deleted": "BOOLEAN",
    }
    assert stream_states(warehouse) == {}


ODD = [
    "a b",
    "a.b",
    'a"b',
    "it's",
    "ID",
    "Amount",
    "select",
    "",
    "_version",
    "_RAW",
    "%s",
    "été",
    "c0",
    "seq",
    "x" * 200,
]


def test_fields_that_nobody_declared_are_kept_under_their_names(warehouse: Warehouse) -> None:
    one(warehouse, {"id": "a", "amount": 1})
    one(warehouse, {"id": "a", **{name: [name] for name in ODD}})
    columns = warehouse.columns("raw_shop.charges")
    renamed = {"ID": "ID__2", "Amount": "Amount__2", "_RAW": "_RAW__2", "": "_"}
    for name in ODD:
        column = warehouse.kept_name(renamed.get(name, name))
        if name == "_version":  # called like one of our own: it stands in _raw only
            assert warehouse.rows("SELECT _raw ->> '$._version[0]' FROM raw_shop.charges") == [(name,)]
            continue
        assert columns[column] == "JSON"
        assert warehouse.rows(f"SELECT {quote(column)} ->> '$[0]' FROM raw_shop.charges") == [(name,)]
    one(warehouse, {"id": "b", "Amount": 7}, {"id": "c", "ID": 8})
    assert warehouse.columns("raw_shop.charges") == columns
    assert warehouse.rows('SELECT id, "Amount__2", "ID__2" FROM raw_shop.charges WHERE id > \'a\' ORDER BY id') == [
        ("b", "7", None),
        ("c", None, "8"),
    ]


def test_a_field_that_is_gone_from_the_record_is_null_but_an_excluded_one_stays(warehouse: Warehouse) -> None:
    clock = Clock()
    app = ListedApp(clock, {"charges": always()})
    loader = Loader(warehouse, clock.runtime())
    loader.prepare([app.request()])
    full = {"id": "a", "amount": 1, "metadata": {"k": 1}, "plan": "gold"}
    loader.load([Part(app.request(), clock.now, None, [batch(CHARGES, Page([full]), clock.tick())])])
    excluding = app.request(exclude=["metadata"])
    less = batch(CHARGES, Page([{"id": "a", "amount": 2, "metadata": {"k": 2}}]), clock.tick(), frozenset({"metadata"}))
    loader.load([Part(excluding, clock.now, None, [less])])
    assert tight(warehouse.rows('SELECT amount, metadata, plan, "_raw" FROM raw_shop.charges')) == [
        (2, '{"k":1}', None, '{"amount":2,"id":"a"}')
    ]


def typed(kind: ColumnType) -> Stream:
    return Stream("charges", ("id",), {"id": ColumnType.TEXT, "x": kind})


@pytest.mark.parametrize(
    ("before", "value", "after", "next_value", "type_then", "values"),
    [
        (ColumnType.INTEGER, 1, ColumnType.NUMBER, 1.5, "DOUBLE", ["1.0", "1.5"]),
        (ColumnType.NUMBER, 1.5, ColumnType.INTEGER, 2, "DOUBLE", ["1.5", "2.0"]),
        (ColumnType.INTEGER, 1, ColumnType.TEXT, "one", "VARCHAR", ["1", "one"]),
        (ColumnType.TEXT, "one", ColumnType.INTEGER, 2, "VARCHAR", ["one", "2"]),
        (ColumnType.INTEGER, 1, ColumnType.JSON, {"a": 1}, "JSON", ["1", '{"a":1}']),
        (ColumnType.TEXT, 'o"ne', ColumnType.JSON, None, "JSON", ['"o\\"ne"', None]),
        (ColumnType.JSON, "one", ColumnType.TEXT, "two", "VARCHAR", ["one", "two"]),
        (ColumnType.JSON, 12, ColumnType.INTEGER, 13, "BIGINT", ["12", "13"]),
        (ColumnType.JSON, 12.5, ColumnType.INTEGER, 13, "JSON", ["12.5", "13"]),
        (ColumnType.JSON, {"a": 1}, ColumnType.BOOLEAN, True, "JSON", ['{"a":1}', "true"]),
        (ColumnType.BOOLEAN, True, ColumnType.TIMESTAMP, "2026-01-01T00:00:00Z", "BOOLEAN", ["true", None]),
        (ColumnType.DATE, "2026-01-01", ColumnType.TIMESTAMP, "2026-01-02T03:00:00Z",
         "TIMESTAMP WITH TIME ZONE", ["2026-01-01 00:00:00+00", "2026-01-02 03:00:00+00"]),
    ],
)  # fmt: skip
def test_a_type_that_changes_is_widened_or_kept(
    warehouse: Warehouse, before: Any, value: Any, after: Any, next_value: Any, type_then: str, values: list[Any]
) -> None:
    one(warehouse, {"id": "a", "x": value}, stream=typed(before))
    one(warehouse, {"id": "b", "x": next_value}, stream=typed(after))
    assert warehouse.columns("raw_shop.charges")["x"] == type_then
    found = warehouse.rows("SELECT x::VARCHAR FROM raw_shop.charges ORDER BY id")
    assert tight(found) == tight([(v,) for v in values])
    assert warehouse.rows('SELECT count(*) FROM raw_shop.charges WHERE "_raw" IS NULL') == [(0,)]


@pytest.mark.parametrize(
    ("record", "said"),
    [({"id": None}, "1 records of charges have no 'id'"), ({"id": "a", "v": None}, "without _version")],
)
def test_records_without_key_or_version_are_refused(warehouse: Warehouse, record: dict[str, Any], said: str) -> None:
    with pytest.raises(FixData, match=said):
        one(warehouse, record)


def test_nested_and_unusual_arrow_types_are_kept(warehouse: Warehouse) -> None:
    plain = batch(CHARGES, Page([{"id": "a"}]), START).table
    more = {
        "nested": pa.array([{"a": [1, None]}]),
        "words": pa.array(["x"]).dictionary_encode(),
        "small": pa.array([3], pa.int16()),
        "money": pa.array(["12.50"]).cast(pa.decimal128(10, 2)),
        "nothing": pa.nulls(1),
        "bytes": pa.array([b"\x00"]),
    }
    table = pa.table({**more, **{n: plain[n] for n in plain.column_names}})
    load_fetched(warehouse, "shop", CHARGES, Batch("charges", table))
    columns = warehouse.columns("raw_shop.charges")
    assert [columns[n] for n in more] == ["JSON", "VARCHAR", "BIGINT", "DECIMAL(10,2)", "JSON", "BLOB"]
    assert tight(
        warehouse.rows("SELECT nested, words, small, money::VARCHAR, nothing, bytes FROM raw_shop.charges")
    ) == [('{"a":[1,null]}', "x", 3, "12.50", None, b"\x00")]


def test_a_column_whose_batches_disagree_is_text_or_json(warehouse: Warehouse) -> None:
    """A number here and a text there; a text and a JSON value; NULLs alone have no say."""
    stream = Stream("mixed", ("id",), {"id": ColumnType.TEXT})

    def table(key: str, x: Any, y: Any, z: Any) -> pa.Table:
        values = {"id": [key], "x": [x], "y": [y], "z": [z]}
        fields = {"_raw": ["{}"], "_extracted_at": [START], "_version": [1], "_deleted": [False]}
        return pa.table({n: pa.array(v) for n, v in {**values, **fields}.items()})

    tables = [table("a", 1, "text", None), table("b", "one", {"k": 1}, "late"), table("c", None, None, "später")]
    clock = Clock()
    app = ListedApp(clock, {})
    part = Part(StreamRequest(app, stream), START, None, [Batch("mixed", t) for t in tables])
    ensure_raw_table(warehouse, "shop", stream)
    [loaded] = Loader(warehouse, clock.runtime()).load([part])
    assert loaded.error is None
    rows = warehouse.rows("SELECT id, x, CAST(y AS TEXT), z FROM raw_shop.mixed ORDER BY id")
    assert [r[:2] + r[3:] for r in rows] == [("a", "1", None), ("b", "one", "late"), ("c", None, "später")]
    assert [None if r[2] is None else orjson.loads(r[2]) for r in rows] == ["text", {"k": 1}, None]
