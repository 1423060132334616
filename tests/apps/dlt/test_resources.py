"""A project's own dlt resources, through whole reads into raw tables."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.apps.dlt import DltApp, DltConfig
from oploop.errors import FixConfig, FixData
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import ReadOptions
from oploop.runtime import Runtime
from oploop.workspace import Workspace

_numbers = itertools.count(1)
PROJECT = """\
name: acme
models: {engine: none}
apps:
  shop:
    type: dlt
    source: sources/%s.py:shop
    args: {token: "${SHOP_TOKEN}"}
    read: %s
"""
SHOP = """\
import datetime, decimal
import dlt
import pandas, pyarrow
from pathlib import Path

TURN = Path(__file__).with_suffix(".turn")

def turn():
    return int(TURN.read_text()) if TURN.exists() else 1

@dlt.resource(primary_key="id", write_disposition="merge", columns={"gone": {"data_type": "bool", "hard_delete": True}})
def orders(changed=dlt.sources.incremental("changed", initial_value=1)):
    rows = [dict(id=f"o{i}", changed=i, note=None if i < 3 else "späť 🌻", gone=i == 4 and turn() > 1) for i in range(1, 5)]
    yield [r for r in rows if r["changed"] >= changed.last_value]
    if turn() > 1:
        yield {"id": "o4", "changed": 9, "note": "it's gone", "gone": True}
        yield {"id": "o5", "changed": 10, "note": {"now": "an object"}, "gone": False}

@dlt.resource(write_disposition="replace", primary_key=("shop", "sku"))
def stock():
    yield {"shop": "a", "sku": 1, "price": decimal.Decimal("12.50"), "at": datetime.datetime(2026, 1, 2, 3, 4, 5)}
    if turn() == 1:
        yield {"shop": "b", "sku": 2, "price": decimal.Decimal("1"), "at": None}

@dlt.resource(write_disposition="append")
def log():
    yield [{"text": "first", "n": 1}, {"text": "second", "n": 2.5, "tags": ["x"]}]

@dlt.resource(primary_key="id", write_disposition="merge")
def tables():
    yield pyarrow.table({"id": [1, 2], "at": pyarrow.array([0, None], pyarrow.timestamp("us", tz="UTC")), "l": [[1], None]})
    yield {"id": 3, "more": "a record among tables"}
    yield pandas.DataFrame({"id": [4]})

@dlt.transformer(data_from=orders, primary_key="of", write_disposition="merge")
def lines(items):
    for order in items if isinstance(items, list) else [items]:
        yield {"of": order["id"]}

@dlt.source
def shop(token: str = dlt.secrets.value):
    if token == "refused":
        raise ValueError(f"{token} is not a token of the shop")
    return orders, stock, log, tables, lines
"""


class Shop:
    """A project with the source in a file of its own name, so that no test sees another's module."""

    def __init__(self, folder: Path, read: str) -> None:
        self.folder, self.name = folder, f"shop_{next(_numbers)}"
        (folder / "sources").mkdir()
        (folder / "sources" / f"{self.name}.py").write_text(SHOP)
        (folder / "oploop.yml").write_text(PROJECT % (self.name, read))

    def workspace(self) -> Workspace:
        return Workspace(load_project(self.folder, {"SHOP_TOKEN": "s3cret"}), "prod", Runtime(), "test")

    async def turn(self, number: int = 1) -> loop.RunReport:
        (self.folder / "sources" / f"{self.name}.turn").write_text(str(number))
        async with self.workspace() as ws:
            report = await loop.run(ws, Options(yes=True))
        assert report.status == "ok", report.as_json()
        return report

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.workspace() as ws:
            return ws.warehouse.rows(sql)


async def test_what_is_new_comes_once_and_a_marked_row_is_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "[orders, lines]")
    assert [r.rows for r in (await shop.turn()).extracted] == [4, 4]
    assert await shop.rows("SELECT id, changed, note FROM raw_shop.orders WHERE id = 'o3'") == [("o3", 3, "späť 🌻")]
    second = await shop.turn(2)
    assert next((r.read, r.deleted) for r in second.extracted) == (2, 1), "only what the cursor lets through"
    assert await shop.rows("SELECT id, note::text FROM raw_shop.orders ORDER BY changed DESC LIMIT 2") == [
        ("o5", '{"now":"an object"}'),
        ("o3", '"späť 🌻"'),
    ]
    assert await shop.rows("SELECT count(*) FROM raw_shop.lines") == [(5,)]
    assert next(r.read for r in (await shop.turn(2)).extracted) == 0


async def test_replace_is_whole_and_types_are_those_of_the_values(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "[stock]")
    await shop.turn()
    found = await shop.rows('SELECT shop, sku, price, epoch_us("at") FROM raw_shop.stock ORDER BY 1')
    assert found == [("a", "1", "12.50", 1_767_323_045_000_000), ("b", "2", "1", None)]
    await shop.turn(2)
    assert await shop.rows("SELECT shop FROM raw_shop.stock") == [("a",)]


async def test_without_a_key_equal_rows_are_one_and_tables_come_as_they_are(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "[log, tables]")
    for _ in range(2):
        await shop.turn()
    assert await shop.rows("SELECT text, n, tags::text, _raw ->> 'n' FROM raw_shop.log ORDER BY n") == [
        ("first", 1.0, None, "1"),
        ("second", 2.5, '["x"]', "2.5"),
    ]
    found = await shop.rows('SELECT id, epoch_us("at"), l::text, more FROM raw_shop.tables ORDER BY id::int')
    assert found == [
        ("1", 0, "[1]", None),
        ("2", None, None, None),
        ("3", None, None, "a record among tables"),
        ("4", None, None, None),
    ]


def app(folder: Path, source: str = "shop", **args: Any) -> DltApp:
    path = folder / f"src_{next(_numbers)}.py"
    path.write_text(SHOP)
    return DltApp("shop", DltConfig(source=f"{path}:{source}", args=args), Runtime())


@pytest.mark.parametrize(
    ("source", "args", "says"),
    [
        ("shop", {}, r"source: \S+:shop is not told token — add it to args of shop"),
        ("shop", {"token": "refused"}, r"ValueError: \*\*\* is not a token of the shop"),
        ("shop", {"token": "x", "colour": 1}, "unexpected keyword argument"),
        ("shpo", {}, "has no 'shpo' — did you mean 'shop'"),
        ("turn", {}, "gives no dlt source but int"),
    ],
)
async def test_what_is_wrong_is_said(tmp_path: Path, source: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(FixConfig, match=says) as e:
        await app(tmp_path, source, **args).check()
    assert "refused" not in str(e.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("/nowhere/at_all.py:shop", "there is no file /nowhere/at_all.py"),
        ("no_such_package.shop", "there is no module 'no_such_package'"),
        ("shop", "names no module"),
    ],
)
async def test_a_source_that_is_not_there_is_said(source: str, says: str) -> None:
    with pytest.raises(FixConfig, match=says):
        await DltApp("shop", DltConfig(source=source), Runtime()).check()


async def test_a_resource_that_is_none_and_since_without_a_cursor_are_refused(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    shop = app(tmp_path, token="x")
    with pytest.raises(FixConfig, match="did you mean 'orders'"):
        _ = shop.streams["order"]
    options = ReadOptions(since=datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(FixConfig, match="`since` is for resources with an incremental cursor"):
        async for _ in shop.read("stock", None, options):
            pass
    options = ReadOptions(since=datetime.fromtimestamp(3, UTC), exclude=frozenset({"note"}))
    rows = [r async for b in shop.read("orders", None, options) for r in b.table.to_pylist()]
    assert [r["id"] for r in rows] == ["o3", "o4"], "since, in the form of the cursor's own beginning: a number"
    assert all("note" not in r and "note" not in (r["_raw"] or "") for r in rows)
    one = DltApp("shop", DltConfig(source=shop.config.source.replace(":shop", ":log")), Runtime())
    assert list(one.streams) == ["log"], "a resource alone will do"


ODD = """\
import sys
import dlt

@dlt.resource(primary_key="id", write_disposition="merge")
def broken():
    yield [{"id": 1}]
    raise RuntimeError("the shop is shut")

@dlt.resource(primary_key="id", write_disposition="merge")
def leaves():
    yield [{"id": 1}]
    sys.exit(3)

@dlt.resource(primary_key="id", write_disposition="merge", columns={"id": {"data_type": "bigint"}})
def odd():
    yield {"id": 1, "big": 10**40, "torn": "a\\ud800", "numbered": {1: float("nan")}}

@dlt.resource(primary_key="id", write_disposition="merge")
def knot():
    record = {"id": 1}
    record["itself"] = record
    yield record

@dlt.source
def shop():
    return broken, leaves, odd, knot
"""


async def read_odd(folder: Path, resource: str) -> list[dict[str, Any]]:
    path = folder / f"src_{next(_numbers)}.py"
    path.write_text(ODD)
    shop = DltApp("shop", DltConfig(source=f"{path}:shop"), Runtime())
    return [r async for b in shop.read(resource, None, ReadOptions()) for r in b.table.to_pylist()]


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        ("broken", r"failed at its resource 'broken' \(src_\d+\.py:7\): RuntimeError: the shop is shut"),
        ("leaves", r"failed at its resource 'leaves' \(src_\d+\.py:12\): SystemExit: 3"),
        ("knot", "a record cannot be written as JSON"),
    ],
)
async def test_what_a_resource_raises_is_said_with_its_line(tmp_path: Path, resource: str, says: str) -> None:
    with pytest.raises(FixData, match=says):
        await read_odd(tmp_path, resource)


async def test_values_that_no_json_has_are_texts(tmp_path: Path) -> None:
    [row] = await read_odd(tmp_path, "odd")
    assert (row["id"], row["big"], row["torn"], row["numbered"]) == (1, "1" + "0" * 40, "a?", '{"1":null}')


async def test_a_module_that_ends_the_process_ends_a_read_only(tmp_path: Path) -> None:
    path = tmp_path / f"src_{next(_numbers)}.py"
    path.write_text("raise SystemExit(0)")
    with pytest.raises(FixData, match="cannot be made: SystemExit: 0"):
        await DltApp("shop", DltConfig(source=f"{path}:shop"), Runtime()).check()
