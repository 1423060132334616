"""JSON values: as orjson has them, but for numbers that it changes or refuses."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oploop.apps.jsonvalues import parsed, written

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text())  # fmt: skip
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))


@given(VALUES, st.booleans())
def test_other_values_are_what_orjson_makes_of_them(value: Any, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "replace")
    assert orjson.dumps(parsed(text)) == orjson.dumps(orjson.loads(text)) == written(parsed(text))


@given(st.integers())
def test_whole_numbers_are_themselves(number: int) -> None:
    text = b'{"a":[%d]}' % number
    assert parsed(text) == {"a": [number]}
    assert written(parsed(text)) == text


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5_000, b"9" * 400 + b".5"])
def test_a_number_that_nothing_holds_is_none(number: bytes) -> None:
    assert parsed(b"[%s,1.5,3]" % number) == [None, 1.5, 3]


@pytest.mark.parametrize("beside", [b"1", b"1e400", b"9" * 5_000])
def test_a_long_number_is_itself_whatever_stands_beside_it(beside: bytes) -> None:
    assert parsed(b"[%s,%s]" % (b"9" * 400, beside))[0] == 10**400 - 1


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"[1", b"[1]x", b"[NaN]", b"[1e400,NaN]", b'[1e400,"\\ud800"]', b'["\\ud800"]', b'["\xff"]', b'[1e400,"\xff"]', b"[01]"],
)  # fmt: skip
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_what_is_nested_deeply() -> None:
    assert parsed(b"[" * 1_000 + b"]" * 1_000) is not None
    with pytest.raises(ValueError, match=r"depth|recursion"):
        parsed(b"[" * 100_000 + b"1e400" + b"]" * 100_000)
    with pytest.raises(orjson.JSONEncodeError):
        written(parsed(b"[" * 900 + b"]" * 900))
