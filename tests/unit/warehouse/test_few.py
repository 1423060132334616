"""Few rows of a large table: which they are, and whether they stand apart."""

from __future__ import annotations

import pytest

from oploop.warehouse import Warehouse
from oploop.warehouse import duckdb as engine
from tests.warehouses import columnar, warehouse

__all__ = ["warehouse"]


def few(warehouse: Warehouse, table: str, where: str, columns: str = "*") -> list[tuple[object, ...]]:
    return warehouse.rows(f"SELECT {columns} FROM {warehouse.few(table, where)} AS s ORDER BY 1, 2")


@pytest.mark.parametrize("name", ["other", "rowid", "RowId"])
def test_they_are_those_that_the_condition_names(warehouse: Warehouse, name: str) -> None:
    """Whatever the columns are called: one may have the name that DuckDB gives to a row's place."""
    warehouse.execute("CREATE SCHEMA IF NOT EXISTS s")
    warehouse.execute(f'CREATE OR REPLACE TABLE s."a.b" (id VARCHAR, "{name}" BIGINT)')
    warehouse.execute("INSERT INTO s.\"a.b\" VALUES ('a', 1), ('b', 1), ('c', NULL), ('d', 2), (NULL, 2)")
    assert few(warehouse, 's."a.b"', "t.id IN ('a', 'c', 'x')") == [("a", 1), ("c", None)]
    assert few(warehouse, 's."a.b"', "t.id IS NULL") == [(None, 2)]
    assert few(warehouse, 's."a.b"', "FALSE") == []
    assert not warehouse.apart('s."a.b"', "t.id IS NOT NULL")
    assert not warehouse.apart('s."a.b"', "FALSE")
    warehouse.execute('CREATE OR REPLACE VIEW s.v AS SELECT id, 1 AS n FROM s."a.b"')
    assert few(warehouse, "s.v", "t.id = 'd'") == [("d", 1)]
    warehouse.execute("DROP VIEW s.v")


@columnar
def test_they_stand_apart_where_a_change_of_them_would_write_most_of_the_table(warehouse: Warehouse) -> None:
    group = engine.ROW_GROUP
    warehouse.execute(f"CREATE OR REPLACE TABLE wide AS SELECT i AS id FROM range({4 * group}) t(i)")
    assert warehouse.apart("wide", f"t.id % {group} = 7")
    assert not warehouse.apart("wide", f"t.id BETWEEN 7 AND {group}"), "side by side"
    assert not warehouse.apart("wide", "t.id % 2 = 0"), "so many that most is written in any case"
    warehouse.execute(f"DELETE FROM wide WHERE id % {group} = 7")
    warehouse.execute("INSERT INTO wide SELECT -i FROM range(1, 5) t(i)")
    assert not warehouse.apart("wide", "t.id < 0"), "they took a new place"
    assert few(warehouse, "wide", "t.id < 0", "id, 1") == [(-4, 1), (-3, 1), (-2, 1), (-1, 1)]
