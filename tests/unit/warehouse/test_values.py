"""What a field's value is, read from raw tables as apps fill them."""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oploop.records import Column, FieldSource, FieldType, JsonEntry, JsonPath
from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from oploop.warehouse.base import SqlError, literal

ODD = ["a b", "a.b", 'a"b', "a/b", "a~b", "a~1b", "it's", "$", "*", "#", "0", "été", "[0]", "a\\b", "?", "%s", "{x}"]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    opened = open_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", read_only=False, runtime=Runtime())
    yield opened
    opened.close()


def value(warehouse: Warehouse, sql_type: str, content: str | None, source: FieldSource, kind: FieldType) -> Any:
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE one (c {sql_type})")
    warehouse.execute("INSERT INTO one VALUES (?)", [content])
    expression = warehouse.field_value(source, kind, "r")
    (found, found_type) = warehouse.rows(f"SELECT {expression}, typeof({expression}) FROM one AS r")[0]
    assert found_type.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") == warehouse.sql_type(kind)
    return found


@pytest.mark.parametrize("kept", [(True, True), (False, False), (True, False), (False, True)])
def test_json_is_brought_into_its_form_within_open_transactions_and_after_them(
    kept: tuple[bool, bool], tmp_path: Path
) -> None:
    """The function for it is made when it is first called for, and what one connection makes another may not see yet."""
    opened = open_warehouse(tmp_path / "w.duckdb", read_only=False, runtime=Runtime())
    text = literal('{"b": 1, "a": 2}')
    asked = f"SELECT {opened.typed_value(f'CAST({text} AS JSON)', FieldType.JSON)}"
    for one in kept:
        with contextlib.suppress(RuntimeError), opened.transaction():
            opened.rows("SELECT count(*) FROM duckdb_functions()")
            assert opened.rows(asked) == [('{"a":2,"b":1}',)]
            if not one:
                raise RuntimeError
    assert opened.rows(asked) == [('{"a":2,"b":1}',)]
    assert next(iter(opened.stream(asked))).num_rows == 1
    opened.close()


@pytest.mark.parametrize(
    ("sql_type", "content", "kind", "wanted"),
    [
        ("VARCHAR", "vip", FieldType.TEXT, "vip"),
        ("JSON", '"vip"', FieldType.TEXT, "vip"),
        ("JSON", "null", FieldType.TEXT, None),
        ("JSON", '{"a": 1}', FieldType.TEXT, '{"a":1}'),
        ("BIGINT", "12", FieldType.TEXT, "12"),
        ("VARCHAR[]", "[b, a]", FieldType.TEXT, '["b","a"]'),
        ("BIGINT", "9223372036854775807", FieldType.INTEGER, 9223372036854775807),
        ("JSON", "12", FieldType.INTEGER, 12),
        ("JSON", '"12"', FieldType.INTEGER, 12),
        ("DOUBLE", "12.7", FieldType.INTEGER, None),
        ("DOUBLE", "12.0", FieldType.INTEGER, 12),
        ("VARCHAR", "9007199254740993", FieldType.INTEGER, 9007199254740993),
        ("VARCHAR", "twelve", FieldType.INTEGER, None),
        ("JSON", "12.5", FieldType.NUMBER, 12.5),
        ("DECIMAL(10,2)", "12.50", FieldType.NUMBER, 12.5),
        ("JSON", "true", FieldType.BOOLEAN, True),
        ("VARCHAR", "perhaps", FieldType.BOOLEAN, None),
        ("DATE", "2025-03-01", FieldType.DATE, dt.date(2025, 3, 1)),
        ("VARCHAR", "2025-03-01", FieldType.DATE, dt.date(2025, 3, 1)),
        ("JSON", '"2025-03-01T23:30:00-02:00"', FieldType.DATE, dt.date(2025, 3, 1)),
        ("TIMESTAMPTZ", "2025-03-01 23:30:00-02:00", FieldType.DATE, dt.date(2025, 3, 2)),
        ("TIMESTAMPTZ", "2025-03-01 10:00:00+00", FieldType.TIMESTAMP, dt.datetime(2025, 3, 1, 10, tzinfo=dt.UTC)),
        ("JSON", '"2025-03-01T12:00:00+02:00"', FieldType.TIMESTAMP, dt.datetime(2025, 3, 1, 10, tzinfo=dt.UTC)),
        ("VARCHAR", "2025-03-01 10:00:00", FieldType.TIMESTAMP, dt.datetime(2025, 3, 1, 10, tzinfo=dt.UTC)),
        ("JSON", '["vip", "a", "vip", null]', FieldType.LIST, '["a","vip"]'),
        ("JSON", "[]", FieldType.LIST, "[]"),
        ("JSON", "null", FieldType.LIST, None),
        ("VARCHAR", '["é", "b\\"c"]', FieldType.LIST, '["b\\"c","é"]'),
        ("VARCHAR[]", "[b, a]", FieldType.LIST, '["a","b"]'),
        ("VARCHAR", "no list", FieldType.LIST, None),
        ("JSON", '{"b": {"z": 1, "y": [2, 1]}, "a": null}', FieldType.JSON, '{"a":null,"b":{"y":[2,1],"z":1}}'),
        ("JSON", "null", FieldType.JSON, None),
        ("VARCHAR", "no json {", FieldType.JSON, None),
        ("VARCHAR", None, FieldType.JSON, None),
    ],
)
def test_a_column_is_brought_to_the_fields_type(
    warehouse: Warehouse, sql_type: str, content: str | None, kind: FieldType, wanted: object
) -> None:
    assert value(warehouse, sql_type, content, Column("c"), kind) == wanted


@pytest.mark.parametrize("key", ODD)
def test_any_key_can_be_a_path(warehouse: Warehouse, key: str) -> None:
    warehouse.execute("CREATE OR REPLACE TEMP TABLE k (c JSON)")
    warehouse.execute("INSERT INTO k SELECT json_object(?, json_object(?, 'found'), 'other', 1)", [key, key])
    expression = warehouse.field_value(JsonPath("c", (key, key)), FieldType.TEXT, "k")
    assert warehouse.rows(f"SELECT {expression} FROM k") == [("found",)]


@pytest.mark.parametrize("content", [None, "null", "{}", "[]", "7", '{"m": null}', '{"m": 3}', '{"m": {"x": null}}'])
def test_a_path_that_leads_nowhere_is_null(warehouse: Warehouse, content: str | None) -> None:
    assert value(warehouse, "JSON", content, JsonPath("c", ("m", "x")), FieldType.TEXT) is None


CUSTOM = '[{"id": 359}, {"id": 360, "value": "gold"}, {"id": 361, "value": null}, {"id": "x\'y", "value": ["b", "a"]}]'


@pytest.mark.parametrize(
    ("equals", "kind", "wanted"),
    [
        (360, FieldType.TEXT, "gold"),
        ("360", FieldType.TEXT, "gold"),
        (361, FieldType.TEXT, None),
        (359, FieldType.TEXT, None),
        (999, FieldType.TEXT, None),
        ("x'y", FieldType.LIST, '["a","b"]'),
    ],
)
def test_an_entry_of_a_list_is_found_by_its_id(
    warehouse: Warehouse, equals: str | int, kind: FieldType, wanted: object
) -> None:
    assert value(warehouse, "JSON", CUSTOM, JsonEntry("c", equals), kind) == wanted
    for nothing in (None, "null", "{}", "3", "[1, 2]"):
        assert value(warehouse, "JSON", nothing, JsonEntry("c", equals), kind) is None


@pytest.mark.parametrize(
    ("has", "add", "remove", "wanted"),
    [
        ('["b","a"]', ["vip"], [], '["a","b","vip"]'),
        (None, ["vip"], ["x"], '["vip"]'),
        ('["a","it\'s"]', ["a"], ["it's"], '["a"]'),
        ('["a"]', [], ["a"], "[]"),
        (None, [], [], "[]"),
    ],
)
def test_texts_are_added_to_a_list_and_removed(
    warehouse: Warehouse, has: str | None, add: list[str], remove: list[str], wanted: str
) -> None:
    expression = warehouse.list_merge("NULL" if has is None else literal(has), add, remove)
    assert warehouse.rows(f"SELECT {expression}") == [(wanted,)]


def test_a_full_disk_says_what_to_do() -> None:
    assert str(SqlError("Could not write file: No space left on device")).endswith(
        " — make room on its disk, then run again"
    )
    assert " — " not in str(SqlError("Parser Error"))


def test_our_function_is_there_for_whoever_asks_first(tmp_path: Path) -> None:
    """It is made when a statement first calls it: within a transaction that is taken back, by a stream, by a session."""

    text, wanted = '{"b": 1, "a": 2}', '{"a":2,"b":1}'

    def sorted_in(call: Callable[[Warehouse, str], Any]) -> Any:
        opened = open_warehouse(tmp_path / "w.duckdb", read_only=False, runtime=Runtime())
        try:
            return call(opened, f"SELECT {opened.typed_value(literal(text), FieldType.JSON)} AS v")
        finally:
            opened.close()

    def taken_back(opened: Warehouse, sql: str) -> Any:
        with contextlib.suppress(SqlError), opened.transaction():
            opened.rows(sql)
            opened.execute("SELECT * FROM nowhere")
        return opened.rows(sql)[0][0]

    assert sorted_in(taken_back) == wanted
    assert sorted_in(lambda w, sql: next(w.stream(sql)).column(0)[0].as_py()) == wanted
    assert sorted_in(lambda w, sql: w.session().execute(sql).fetchall()) == [(wanted,)]

    def within(opened: Warehouse, sql: str) -> Any:
        with opened.transaction():
            opened.execute("CREATE TEMP TABLE t (a INTEGER)")
            return opened.rows(sql)[0][0]

    assert sorted_in(within) == wanted
    assert sorted_in(lambda w, sql: [w.rows(sql)[0][0], w.query(sql).num_rows]) == [wanted, 1]
