"""What is SQLite's own."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from oploop.apps.sqlite import SqliteApp, SqliteConfig
from oploop.errors import FixConfig, FixData
from oploop.records import Change, ColumnType, Op, ReadOptions
from oploop.runtime import Runtime
from tests.apps.sql.boxes import SqliteBox
from tests.apps.sql.test_databases import read, send


async def test_rows_that_are_only_added_are_read_on_by_their_number() -> None:
    box = SqliteBox()
    box.sql("CREATE TABLE log (at TEXT, note)")
    for i in range(3):
        box.sql("INSERT INTO log VALUES (%s, %s)", f"2026-01-0{i + 1}", i)
    app = box.made(cursor={"log": "rowid"}, key={"log": ["rowid"]})
    rows, _, cursor = await read(app, "log")
    assert [(r["rowid"], r["note"]) for r in rows] == [(1, "0"), (2, "1"), (3, "2")]
    box.sql("INSERT INTO log VALUES ('2026-01-04', 3.5)")
    rows, keys, _ = await read(app, "log", cursor)
    assert [r["rowid"] for r in rows] == [3, 4]
    assert len(keys) == 4


async def test_values_that_are_not_of_their_declared_type_stay_in_raw() -> None:
    box = SqliteBox()
    box.sql("CREATE TABLE odd (id INTEGER PRIMARY KEY, n INTEGER, at DATETIME, ok BOOLEAN, x)")
    box.sql("INSERT INTO odd VALUES (1, 'many', 'soon', 1, x'00ff'), (2, 2, '2026-01-01T00:00:00Z', 0, NULL)")
    rows, _, _ = await read(box.made(), "odd")
    assert (rows[0]["n"], rows[0]["at"], rows[0]["ok"], rows[0]["x"]) == (None, None, True, "00FF")
    assert '"many"' in rows[0]["_raw"]
    assert (rows[1]["n"], rows[1]["at"].year, rows[1]["ok"]) == (2, 2026, False)


async def test_computed_columns_are_read_and_not_written() -> None:
    box = SqliteBox()
    box.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, twice INT AS (a * 2) STORED)")
    app = box.made()
    assert (await app.describe("t"))["twice"].read_only
    await send(app, "t", Op.CREATE, [Change(1, Op.CREATE, {"id": 1}, {"id": 1, "a": 4})])
    assert (await read(app, "t"))[0][0]["twice"] == 8
    assert app.streams["t"].columns["twice"] is ColumnType.INTEGER


async def test_a_write_waits_for_anothers_to_end() -> None:
    box = SqliteBox()
    box.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, a INT)")
    other = sqlite3.connect(box.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    await send(box.made(), "t", Op.CREATE, [Change(1, Op.CREATE, {"id": 1}, {"id": 1, "a": 4})])
    assert box.sql("SELECT a FROM t") == [(4,)]
    other.close()


async def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database at all, but long enough to be taken for one " * 30)
    for name, says in [("x.db", "x.db is no SQLite database"), ("y.db", "there is no file .*y.db")]:
        app = SqliteApp("crm", SqliteConfig(database=str(tmp_path / name)), Runtime())
        with pytest.raises(FixConfig, match=says):
            await app.check()


async def test_a_text_that_is_no_utf_8_is_named_by_its_column() -> None:
    box = SqliteBox()
    box.sql("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT, other TEXT)")
    box.sql("INSERT INTO t VALUES (1, CAST(x'ff' AS TEXT), 'fine')")
    with pytest.raises(FixData, match="a text in column 'note' is not UTF-8 — mend the text, or `exclude` the column"):
        await read(box.made(), "t")
    [row] = [
        r
        async for b in box.made().read("t", None, ReadOptions(exclude=frozenset({"note"})))
        for r in b.table.to_pylist()
    ]
    assert (row["id"], row["other"]) == (1, "fine")


@pytest.mark.parametrize(
    ("declared", "given", "made"), [("REAL", 5, "5.0"), ("NUMERIC", "007", "7"), ("STRING", "007", "7")]
)
async def test_the_id_of_a_new_row_is_its_key_as_it_is_kept(declared: str, given: object, made: str) -> None:
    box = SqliteBox()
    box.sql(f"CREATE TABLE t (id {declared} PRIMARY KEY NOT NULL, a TEXT)")
    app = box.made()
    for n, op in enumerate((Op.UPSERT, Op.CREATE)):
        key = f"{given}{n}" if isinstance(given, str) else 5 + n
        receipt = (await send(app, "t", op, [Change(1, op, {"id": key}, {"id": key, "a": "x"})]))[1]
        rows, _, _ = await read(app, "t")
        assert str(receipt.remote_id) == str(rows[-1]["id"]), (receipt, rows)
