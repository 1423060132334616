"""Rows out of files and into them: CSV, JSON lines, Parquet."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pyarrow as pa
import pytest

from oploop.apps import formats
from oploop.apps.formats import csv_of, csv_tables, format_of, records_of, table_of, tables_of, typed, written
from oploop.errors import FixData
from oploop.records import Change, ColumnType, FieldType, Op

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FIELDS = {
    "id": FieldType.INTEGER,
    "name": FieldType.TEXT,
    "score": FieldType.NUMBER,
    "ok": FieldType.BOOLEAN,
    "day": FieldType.DATE,
    "at": FieldType.TIMESTAMP,
    "tags": FieldType.LIST,
    "more": FieldType.JSON,
}
FULL = {"name": "ü", "score": 0.5, "ok": True, "day": AT.date(), "at": AT, "tags": ["a"], "more": {"k": [1]}}
TABLE = table_of([Change(1, Op.CREATE, {"id": 1}, FULL), Change(2, Op.CREATE, {"id": 2}, {})], FIELDS)


@pytest.mark.parametrize(
    ("name", "made_of"),
    [
        ("a.csv", "csv"), ("a.TSV.gz", "csv"), ("x/*.jsonl.bz2", "jsonl"), ("x.json*", "jsonl"), ("*.parquet", "parquet"),
        ("a.dat", None), ("csv", None), ("**/*", None),
    ],
)  # fmt: skip
def test_a_name_tells_the_format(name: str, made_of: str | None) -> None:
    assert format_of(name) == made_of


def test_changes_are_rows_of_their_fields_and_what_is_not_sent_is_null() -> None:
    assert TABLE.column_names == list(FIELDS)
    first, second = TABLE.to_pylist()
    assert first == {"id": 1, **FULL, "tags": '["a"]', "more": '{"k":[1]}'}
    assert second == {"id": 2, **dict.fromkeys(FULL)}


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_is_read_again(packed: bool) -> None:
    text = written(TABLE, "jsonl", packed=packed, fields=FIELDS)
    assert text == written(TABLE, "jsonl", packed=packed, fields=FIELDS), "the same bytes each time"
    [records] = records_of(io.BytesIO(text), "a")
    shown = {**FULL, "day": "2026-01-02", "at": "2026-01-02T03:04:05.000000Z"}
    assert records == [{"id": 1, **shown}, {"id": 2, **dict.fromkeys(FULL)}]
    [table] = tables_of(io.BytesIO(written(TABLE, "csv", packed=packed)), "csv", "a")
    assert table.to_pylist()[0]["more"] == '{"k":[1]}'
    assert set(table.schema.types) == {pa.string()}
    parquet = written(TABLE, "parquet")
    [table] = tables_of(io.BytesIO(gzip.compress(parquet) if packed else parquet), "parquet", "a")
    assert table == TABLE


def test_columns_are_what_they_are_declared_to_be_and_rows_are_kept_as_they_came() -> None:
    [table] = csv_tables(io.BytesIO(b"id,when,more,left\n7,2026-01-02,[1],x\nno,soon,{,y\n"))
    columns = {"id": ColumnType.INTEGER, "when": ColumnType.DATE, "more": ColumnType.JSON}
    found, raw = typed(table, columns, frozenset({"left"}))
    assert found.to_pylist() == [
        {"id": 7, "when": date(2026, 1, 2), "more": "[1]"},
        {"id": None, "when": None, "more": None},
    ]
    assert orjson.loads(raw[1].as_py()) == {"id": "no", "when": "soon", "more": "{"}


def test_names_that_stand_twice_or_nowhere_get_numbers() -> None:
    [table] = csv_tables(io.BytesIO(b"\xef\xbb\xbfa;;a;a__2\n1;2;3;4\n"), delimiter=";")
    assert table.to_pylist() == [{"a": "1", "column2": "2", "a__2": "3", "a__2__2": "4"}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"\nid,name\n1,a\n", [{"id": "1", "name": "a"}]),
        (b"\xef\xbb\xbf\r\n\r\nid,name\r\n1,a\r\n", [{"id": "1", "name": "a"}]),
        (b'id,"full\nname"\n1,a\n', [{"id": "1", "full\nname": "a"}]),
        (b'"full\nname"\na\n', [{"full\nname": "a"}]),
        (b"id,name", []),
        (b"id,name\r", []),
        (b"\n\n", []),
    ],
)
def test_names_stand_in_the_first_line_that_is_not_blank(text: bytes, rows: list[dict[str, str]], packed: bool) -> None:
    tables = tables_of(io.BytesIO(gzip.compress(text) if packed else text), "csv", "a")
    assert [r for t in tables for r in t.to_pylist()] == rows


@pytest.mark.parametrize("quoted", [False, True])
def test_an_empty_value_is_none_in_quotes_only_where_it_is_said(quoted: bool) -> None:
    source = io.BytesIO(b'a,b,n\n"",,"2"\n')
    [table] = csv_tables(source, types={"n": pa.int64()}, quoted_nulls=quoted)
    assert table.to_pylist() == [{"a": None if quoted else "", "b": None, "n": 2}]


@pytest.mark.parametrize(
    ("made_of", "data", "says"),
    [
        ("csv", b"a,b\n1\n", "a is no csv file: .*Expected 2 columns, got 1"),
        ("csv", gzip.compress(b"a\n" + b"1\n" * 500_000, mtime=0)[:-9], "a is damaged or cut off"),
        ("parquet", b"PAR1 and then nothing", "a is no parquet file"),
        ("jsonl", b'{"n": 1}\n\n[1]\n', "a:3 is no JSON object"),
        ("jsonl", gzip.compress(b'{"n": 1}\n' * 99, mtime=0)[:-9], "a is damaged or cut off"),
    ],
)
def test_what_is_broken_is_said_with_its_file(made_of: Any, data: bytes, says: str) -> None:
    read = records_of(io.BytesIO(data), "a") if made_of == "jsonl" else tables_of(io.BytesIO(data), made_of, "a")
    with pytest.raises(FixData, match=says):
        list(read)


def test_lines_are_numbered_through_and_come_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "ROWS", 2)
    text = "\ufeff" + "\n\n".join(f'{{"n": "{n}ü"}}' for n in range(5))
    parts = list(records_of(io.BytesIO(text.encode("latin-1", "ignore")), "a", "latin-1"))
    assert [[r["n"] for r in part] for part in parts] == [["0ü", "1ü"], ["2ü", "3ü"], ["4ü"]]


def test_texts_as_csv() -> None:
    assert csv_of(["a", "b"], [["x,y", 'q"'], ["", "l\n"]]) == b'a,b\r\n"x,y","q"""\r\n,"l\n"\r\n'
    assert csv_of(["a"], [["ü"]], "\n") == "a\nü\n".encode()


def test_a_file_that_begins_like_a_packed_one_is_read_as_it_is() -> None:
    [table] = tables_of(io.BytesIO(b"BZhours,b\n1,2\n"), "csv", "in.csv")
    assert table.to_pylist() == [{"BZhours": "1", "b": "2"}]


@pytest.mark.parametrize("text", [b"", b"\n", b"a,b", b"a,b\n", b"\xef\xbb\xbfa,b\r\n"])
def test_a_header_alone_is_no_row(text: bytes) -> None:
    assert [row for table in csv_tables(io.BytesIO(text)) for row in table.to_pylist()] == []


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_is_too_long_is_told_and_is_no_empty_file(pack: Callable[[bytes], bytes]) -> None:
    wide = b",".join(b"column_number_%06d" % n for n in range(20_000))
    data = pack(wide + b"\n" + b"1," * 19_999 + b"1\n")
    with pytest.raises(FixData, match="is no csv file: its first line has more than 262,144 bytes"):
        list(tables_of(io.BytesIO(data), "csv", "in.csv"))
