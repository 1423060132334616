"""Records as texts become the same columns as parsed ones."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from oploop.apps import jsonrows
from oploop.apps.arrow import table_from_records
from oploop.apps.jsonrows import MOST_UNDECLARED, Columns, Records, records_in, texts_of
from oploop.apps.policy import Answer, NotTheApi, Request
from oploop.errors import FixData
from oploop.records import ColumnType, Stream

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
STREAM = Stream(
    "things",
    primary_key=("id",),
    columns={
        "id": ColumnType.INTEGER,
        "name": ColumnType.TEXT,
        "price": ColumnType.NUMBER,
        "live": ColumnType.BOOLEAN,
        "at": ColumnType.TIMESTAMP,
        "made": ColumnType.UNIX,
        "seen": ColumnType.UNIX_MS,
        "day": ColumnType.DATE,
        "more": ColumnType.JSON,
    },
)
WHOLE: dict[str, Any] = {
    "id": 1, "name": "Büch 📖", "price": 1.5, "live": True, "at": "2026-03-01T12:00:00Z", "made": 1_700_000_000,
    "seen": 1_700_000_000_123, "day": "2026-03-01", "more": {"a": [1, "x\"y", None]},
}  # fmt: skip


def answer(body: bytes) -> Answer:
    return Answer(200, {}, body, Request("GET", "https://api.example/things"))


def both(records: list[dict[str, Any]], exclude: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The tables of records as texts, and of the same ones parsed."""
    texts = Records(list(map(orjson.dumps, records)))
    more: dict[str, Any] = {"versions": 7, "extracted_at": NOON, "exclude": exclude}
    return table_from_records(STREAM, texts, **more), table_from_records(STREAM, records, **more)


@pytest.mark.parametrize(
    "records",
    [
        [WHOLE],
        [WHOLE, dict.fromkeys(WHOLE), {"id": 2}],
        [{"id": "12"}, {"id": 1.0}, {"id": 1.5}, {"id": True}, {"id": 3}],
        [{"name": 12}, {"name": {"a": 1}}, {"name": True}, {"name": "x"}],
        [{"at": "yesterday"}, {"at": 12}, {"at": "2026-03-01T12:00:00+02:00"}, {"at": ""}],
        [{"made": 1.25}, {"made": "1"}, {"made": None}, {"made": 7}],
        [{"price": 3}, {"price": "3"}, {"price": 2.5}],
        [{"live": 1}, {"live": "true"}, {"live": False}],
        [{"id": 1, "new": {"z": 1}}, {"id": 2}, {"id": 3, "new": None, "_raw": 5, "also": "text"}],
        [{"id": 1, 'quo"ted': 1}, {"id": 2, "back\\slash": [1]}],
        [{"id": 1, **{f"n{i}": i for i in range(MOST_UNDECLARED + 1)}}],
        [],
    ],
)
def test_texts_become_what_parsed_records_become(records: list[dict[str, Any]]) -> None:
    quick, slow = both(records)
    assert quick.schema.equals(slow.schema, check_metadata=True)
    assert quick.to_pylist() == slow.to_pylist()


def test_what_a_decoder_has_learned_shows_in_no_later_table() -> None:
    both([{"id": 1, "once": 1, "name": 5}])
    quick, slow = both([WHOLE])
    assert quick.column_names == slow.column_names
    assert quick.to_pylist() == slow.to_pylist()


def test_excluded_fields_are_in_no_text() -> None:
    quick, slow = both([WHOLE, {"id": 2}], exclude=("name", "more"))
    assert quick.to_pylist() == slow.to_pylist()
    assert "Büch" not in str(quick.to_pylist())


def test_what_is_left_beside_excluded_fields_stands_as_it_came() -> None:
    long = "123456789012345678901234567890"
    body = (
        b'{"data":[{"id":1,"na\\u006de":"x","price":19.90,"more":{"n":%s},"new":[1.0,1e2,"\\u00e9"]}]}' % long.encode()
    )
    _, records = records_in(answer(body), "data")
    [row] = table_from_records(STREAM, records or [], versions=7, extracted_at=NOON, exclude=["name"]).to_pylist()
    assert row["_raw"] == '{"id":1,"price":19.90,"more":{"n":LONG},"new":[1.0,1e2,"\\u00e9"]}'.replace("LONG", long)
    assert (row["price"], row["more"], "name" in row) == (19.9, f'{{"n":{long}}}', False)


@pytest.mark.parametrize("exclude", [(), ("name",)])
@pytest.mark.parametrize("number", ["1e400", "-1E999", "9" * 400, "9" * 5_000])
def test_a_number_that_no_double_holds_stops_nothing(number: str, exclude: tuple[str, ...]) -> None:
    body = b'{"data":[{"id":1,"name":"a","price":%s,"more":[%s]},{"id":2,"price":1.5}]}' % ((number.encode(),) * 2)
    _, records = records_in(answer(body), "data")
    rows = table_from_records(STREAM, records or [], versions=7, extracted_at=NOON, exclude=exclude).to_pylist()
    assert [(r["id"], r["price"]) for r in rows] == [(1, None), (2, 1.5)]
    assert rows[0]["more"] in (f"[{number}]", "[null]")
    assert f'"price":{number}' in rows[0]["_raw"]


def test_whole_numbers_beyond_64_bits_are_themselves() -> None:
    long = 123456789012345678901234567890
    records = answer(b'{"data":[{"id":%d,"name":%d,"more":{"n":%d},"new":%d}]}' % ((long,) * 4)).json()["data"]
    [row] = table_from_records(STREAM, records, versions=7, extracted_at=NOON).to_pylist()
    assert (row["id"], row["name"], row["more"], row["new"]) == (None, str(long), f'{{"n":{long}}}', str(long))
    assert orjson.dumps([row["_raw"]]).count(str(long).encode()) == 4


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text())
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2))


@given(st.lists(st.dictionaries(st.sampled_from([*STREAM.columns, "x", "y"]), VALUES, max_size=6), max_size=4))
def test_whatever_the_records_hold(records: list[dict[str, Any]]) -> None:
    import json

    texts = [json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") for r in records]
    exclude = ["x", "more"] if len(texts) % 2 else []
    more: dict[str, Any] = {"versions": 7, "extracted_at": NOON, "exclude": exclude}
    try:
        parsed = list(Records(texts))
    except FixData:
        return  # orjson takes no such number
    quick, slow = (table_from_records(STREAM, r, **more) for r in (Records(texts), parsed))
    assert quick.drop_columns("_raw").equals(slow.drop_columns("_raw"))
    assert [json.loads(t) for t in quick["_raw"].to_pylist()] == [json.loads(t) for t in slow["_raw"].to_pylist()]


def test_a_list_is_cut_out_of_an_answer() -> None:
    told, records = records_in(
        answer(b'{"data":[{"id":1},{"id":2,"a":[{}]}],"more":true,"x":1}'), "data", "more", "none"
    )
    assert told == {"more": True}
    assert records is not None
    assert list(records) == [{"id": 1}, {"id": 2, "a": [{}]}]
    assert (records[-1], list(records[:1]), len(records)) == ({"id": 2, "a": [{}]}, [{"id": 1}], 2)


def test_blanks_and_escapes_leave_one_form() -> None:
    body = b'{\n  "data": [\n    {"id": 1, "name": "a\\u00e9", "more": {"u": "http:\\/\\/x", "e": "\\u00e9"}}\n  ]\n}'
    _, records = records_in(answer(body), "data")
    assert records is not None
    [row] = table_from_records(STREAM, records, versions=7, extracted_at=NOON).to_pylist()
    assert row["name"] == "aé"
    assert row["more"] == '{"u":"http://x","e":"é"}'
    assert b"\n" not in row["_raw"].encode()
    assert orjson.loads(row["_raw"])["more"]["e"] == "é"


@pytest.mark.parametrize("body", [b'{"other":[]}', b'{"data":{"a":1}}', b'{"data":[1]}', b"[]", b'{"data":null}'])
def test_an_answer_without_the_list(body: bytes) -> None:
    told, records = records_in(answer(body), "data", "other")
    if body == b'{"data":[1]}':
        with pytest.raises(FixData, match="no record"):
            table_from_records(STREAM, records or [], versions=7, extracted_at=NOON)
    else:
        assert records is None
    assert told == ({"other": []} if b"other" in body else told)


def test_a_value_has_one_text_whatever_stands_beside_it() -> None:
    beside = [b'{"id":2}', b'{"id":2,"more":"\\u00e9"}']
    pages = [records_in(answer(b'{"data":[{"id":1,"more":{"p":19.90}},%s]}' % other), "data")[1] for other in beside]
    stream = Stream("priced", primary_key=("id",), columns={"id": ColumnType.INTEGER, "more": ColumnType.JSON})
    rows = [table_from_records(stream, p or [], versions=7, extracted_at=NOON).to_pylist()[0] for p in pages]
    assert [r["more"] for r in rows] == ['{"p":19.90}'] * 2


@pytest.mark.parametrize("where", [b"more", b"zzz"])
@pytest.mark.parametrize(("depth", "error"), [(400, None), (9_000, NotTheApi)])
def test_a_record_nested_too_deeply_is_null_or_refused(where: bytes, depth: int, error: type[Exception] | None) -> None:
    body = b'{"data":[{"id":1,"%s":%s"\\u00e9"%s}]}' % (where, b"[" * depth, b"]" * depth)
    with pytest.raises(error) if error is not None else nullcontext():
        [row] = table_from_records(
            STREAM, records_in(answer(body), "data")[1] or [], versions=7, extracted_at=NOON
        ).to_pylist()
        assert (row["id"], row[where.decode()], len(row["_raw"]) > depth) == (1, None, True)


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"data":[{"id":1}'])
def test_an_answer_that_is_no_json(body: bytes) -> None:
    with pytest.raises(NotTheApi):
        records_in(answer(body), "data")


@pytest.mark.parametrize("name", ["Büch", 'a "quoted" one', ""])
def test_columns_are_written_as_records(name: str) -> None:
    columns = {name: ["a\nb", None, 'q"\\', "é"], "n": [1, 2.5, True, -3]}
    rows = [{name: a, "n": b} for a, b in zip(*columns.values(), strict=True)]
    assert list(map(orjson.loads, texts_of(columns))) == rows
    assert texts_of({name: [], "n": []}) == texts_of({}) == []


def test_text_that_is_not_utf_8_is_refused() -> None:
    _, records = records_in(answer(b'{"data":[{"id":1,"zzz":{"a":"\xff"}}]}'), "data")
    with pytest.raises(FixData):
        table_from_records(STREAM, records or [], versions=7, extracted_at=NOON)


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([b"[]", b"[]", b"[]"], ["[]"] * 3),
        ([b"null", b"null"], [None, None]),
        ([b"null", b'"null"', b"{}"], [None, '"null"', "{}"]),
        ([b'"\\u00e9"', b'"\\u00e9"'], ['"é"', '"é"']),
        ([b'"a\\nb"', b'"a\\nb"'], ['"a\\nb"'] * 2),
        ([b"[1]", b"[1,2]", b"[1]"], ["[1]", "[1,2]", "[1]"]),
        ([b"[\n1]", b"[\n1]"], ["[\n1]"] * 2),
        ([b"19.90", b"19.90"], ["19.90"] * 2),
    ],
)
def test_a_json_column_is_its_texts_whether_they_are_alike_or_not(texts: list[bytes], wanted: list[str | None]) -> None:
    stream = Stream("alike", primary_key=("id",), columns={"id": ColumnType.INTEGER, "more": ColumnType.JSON})
    records = Records([b'{"id":%d,"more":%s}' % (i, text) for i, text in enumerate(texts)])
    table = table_from_records(stream, records, versions=7, extracted_at=NOON)
    assert table["more"].to_pylist() == wanted
    assert table["id"].to_pylist() == list(range(len(texts)))


def test_members_may_come_in_any_order() -> None:
    turned, some = dict(reversed(WHOLE.items())), {"more": [2], "id": 4}
    for records in ([turned, WHOLE, some], [some, turned, WHOLE], [{"new": 1, **turned}, some, WHOLE]):
        columns = Columns(STREAM.columns)
        found = columns.of(Records(list(map(orjson.dumps, records))))
        assert found is not None
        for name in STREAM.columns:
            values = [orjson.loads(bytes(v)) if isinstance(v, Raw) else v for v in found[name]]
            assert values == [r.get(name) for r in records]


#: Texts and names that look like the end of an answer.
_SLY = st.sampled_from(['}],"', '"', "paging", '}],"paging":{"a":1}}', "]", "}", "data", ":1}", ',":1}'])
_INNER = st.recursive(
    st.none() | st.integers(0, 9) | _SLY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_SLY, inner, max_size=3)
        | st.builds(lambda one, page: {"data": [{"a": one}], "paging": page}, inner, inner)
    ),
    max_leaves=8,
)


@example([{"data": [{}], "paging": 1}], {}, {}, b"")
@example([{"data": [{}], "paging": 1}, {"a": "}]"}], {}, {"paging": 2}, b"}")
@example([{}], {}, {"paging": 1, "more": [{}], "a": 2}, b"")
@example([{"a": 1}], {}, {"more": [{"b": [{}], "paging": 3}]}, b"")
@given(
    st.lists(st.dictionaries(_SLY, _INNER, max_size=3), max_size=3),
    st.dictionaries(_SLY | st.just("more"), _INNER, max_size=3),
    st.dictionaries(_SLY | st.just("more"), _INNER, max_size=3),
    st.binary(max_size=2),
)
def test_what_stands_behind_a_list_is_found_without_a_look_at_it(
    data: list[Any], before: dict[str, Any], behind: dict[str, Any], cut_off: bytes
) -> None:
    whole = {**before, "data": data, **behind}
    body = orjson.dumps(whole)
    for others in (("paging",), ("paging", "more")):
        told, records = records_in(answer(body), "data", *others)
        if not isinstance(whole["data"], list) or not all(isinstance(r, dict) for r in whole["data"]):
            continue
        assert told == {n: whole[n] for n in others if n in whole}
        assert records is not None
        assert list(records) == whole["data"]
    broken = body[:-1] + cut_off
    if not _is_json(broken):
        with pytest.raises((NotTheApi, FixData)):
            list(records_in(answer(broken), "data", "paging")[1] or _refused())


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _refused() -> list[Any]:
    raise FixData("no list")


def test_records_of_which_the_end_has_been_told_are_cut_when_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[str] = []
    own = jsonrows._cut
    monkeypatch.setattr(jsonrows, "_cut", lambda a, name, others: cuts.append(name) or own(a, name, others))
    told, records = records_in(answer(b'{"data":[{"id":1},{"id":2}],"paging":{"next":3}}'), "data", "paging")
    assert (told, cuts) == ({"paging": {"next": 3}}, [])
    assert [len(records or []), len(records or [])] == [2, 2]
    assert cuts == ["data"]
    _, spoiled = records_in(answer(b'{"data":[{"id":1},{"id"}],"paging":{}}'), "data", "paging")
    assert spoiled is not None
    with pytest.raises(NotTheApi):
        len(spoiled)
