"""Canonical texts: one form for each number and each moment, whatever its type and whatever the engine."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.records import Canonical
from oploop.warehouse import Warehouse
from oploop.warehouse.base import literal
from oploop.warehouse.forms import canonical
from tests.warehouses import warehouse

__all__ = ["warehouse"]

#: Up to 60 digits on each side of the point, which no type of DuckDB's holds, and zeros that say nothing.
_digits = st.text("0123456789", max_size=60) | st.text("0", max_size=5)
NUMBERS = st.tuples(st.sampled_from(["", "-", "+"]), _digits, st.sampled_from(["", "."]), _digits).map("".join)
SOME = [-3, 0, 1, 12, 100, 1200, 10**15, -(2**53), 2**62, 987654321012345678]


def formed(w: Warehouse, form: Canonical, kind: str, *values: object) -> list[str | None]:
    """The canonical texts of values of a SQL type, where it is told and where it is not, and of their texts: all are one."""
    rows = ", ".join(f"({n}, {literal(str(v))})" for n, v in enumerate(values))
    found = f"(SELECT n, CAST(v AS {kind}) AS x FROM (VALUES {rows}) AS t(n, v))"
    its = w.rows(f"SELECT typeof(x) FROM {found} AS t LIMIT 1")[0][0]
    shown = "CAST(x AS VARCHAR)"  # as keys of it were written down before there were forms
    forms = f"{canonical('x', form, its)}, {canonical('x', form)}, {canonical(shown, form)}"
    texts = w.rows(f"SELECT {forms} FROM {found} AS t ORDER BY n")
    assert [(told, told, told) for told, _, _ in texts] == texts
    return [told for told, _, _ in texts]


def test_a_whole_number_is_one_text_in_each_type(warehouse: Warehouse) -> None:
    texts = [str(n) for n in SOME]
    for kind in ("BIGINT", "DECIMAL(20, 0)", "HUGEINT", "VARCHAR", "DECIMAL(30, 4)"):
        assert formed(warehouse, Canonical.NUMBER, kind, *SOME) == texts, kind
    for kind in ("INTEGER", "SMALLINT", "FLOAT", "DECIMAL(9, 2)"):
        assert formed(warehouse, Canonical.NUMBER, kind, *SOME[:6]) == texts[:6], kind
    assert formed(warehouse, Canonical.NUMBER, "DOUBLE", *SOME[:-1]) == texts[:-1]  # as no double is the last
    assert formed(warehouse, Canonical.NUMBER, "VARCHAR", *(f" +0{n}.00 " for n in SOME if n >= 0)) == [
        t for t in texts if t[0] != "-"
    ]


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(NUMBERS, min_size=1, max_size=100))
def test_a_number_of_any_length_is_one_text(warehouse: Warehouse, texts: list[str]) -> None:
    assert formed(warehouse, Canonical.NUMBER, "VARCHAR", *texts) == [_plain(t) for t in texts]


def _plain(text: str) -> str | None:
    """Python's own idea of it: what is no number stays as it is."""
    if not any(c.isdigit() for c in text):
        return text or None
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int)
    whole = "".join(map(str, digits)).zfill(1 - exponent)
    whole, rest = (whole[:exponent], whole[exponent:]) if exponent < 0 else (whole, "")
    short = f"{whole.lstrip('0') or '0'}.{rest}".rstrip("0").rstrip(".")
    return f"-{short}" if sign and short != "0" else short


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.decimals(-(10**16), 10**16, places=4), min_size=1, max_size=50))
def test_a_decimal_and_its_text_are_one(warehouse: Warehouse, numbers: list[Decimal]) -> None:
    for kind in ("DECIMAL(30, 6)", "VARCHAR"):
        assert formed(warehouse, Canonical.NUMBER, kind, *numbers) == [_plain(str(n)) for n in numbers]


def test_a_double_is_as_its_digits(warehouse: Warehouse) -> None:
    values = {
        "1e20": "1" + 20 * "0",
        "-0.0": "0",
        "0.1": "0.1",
        "-12.5": "-12.5",
        "1e15": "1" + 15 * "0",
        "5e-07": "5e-07",
    }
    for kind in ("DOUBLE", "VARCHAR"):
        assert formed(warehouse, Canonical.NUMBER, kind, *values) == [*values.values()]


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=50))
def test_a_double_is_one_with_its_text(warehouse: Warehouse, numbers: list[float]) -> None:
    for kind in ("DOUBLE", "FLOAT"):
        found = formed(warehouse, Canonical.NUMBER, kind, *numbers, 1e30, 1.2345678901234567e18, 1234567890123456768)
        assert kind == "FLOAT" or found[-1] == found[-2], "what is read back is known again"


def test_what_is_no_number_and_no_moment_stays_as_it_is_and_nothing_is_no_key(warehouse: Warehouse) -> None:
    texts = ["abc", "1.2.3", "1,5", "--1", "1 2", "e5", ".", "1e", "0x10", "²", "2024-13-01", " x ", "1e400"]
    for form in (Canonical.NUMBER, Canonical.MOMENT):
        assert formed(warehouse, form, "VARCHAR", *texts, "") == [*texts, None]
        assert warehouse.rows(f"SELECT {canonical('CAST(NULL AS VARCHAR)', form)}") == [(None,)]


@settings(max_examples=25, deadline=None)
@given(moments=st.lists(st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2900, 1, 1)), min_size=1, max_size=50))
def test_a_moment_is_one_text_in_each_type_and_zone(warehouse: Warehouse, moments: list[dt.datetime]) -> None:
    texts = []
    for m in moments:
        micros = f"{m:%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip(".") if m.microsecond else f"{m:%Y-%m-%d %H:%M:%S}"
        texts.append(micros.removesuffix(" 00:00:00"))
    east = dt.timezone(dt.timedelta(hours=5, minutes=30))
    there = [m.replace(tzinfo=dt.UTC).astimezone(east) for m in moments]
    assert formed(warehouse, Canonical.MOMENT, "TIMESTAMP", *moments) == texts
    assert formed(warehouse, Canonical.MOMENT, "TIMESTAMPTZ", *there) == texts
    assert formed(warehouse, Canonical.MOMENT, "VARCHAR", *moments, *there) == texts * 2


def test_an_instant_of_nanoseconds_is_the_moment_that_it_is_or_its_text(warehouse: Warehouse) -> None:
    texts = ["2024-02-29 10:00:00.123456789", "2024-02-29 10:00:00.123456", "2024-02-29 10:00:00", "2024-02-29"]
    assert formed(warehouse, Canonical.MOMENT, "VARCHAR", *texts) == texts
    if warehouse.dialect == "duckdb":
        assert formed(warehouse, Canonical.MOMENT, "TIMESTAMP_NS", *texts) == texts


def test_a_day_is_its_first_instant(warehouse: Warehouse) -> None:
    for kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "VARCHAR"):
        assert formed(warehouse, Canonical.MOMENT, kind, "2024-02-29") == ["2024-02-29"]
    assert formed(warehouse, Canonical.MOMENT, "TIMESTAMP", "2024-02-29 00:00:01") == ["2024-02-29 00:00:01"]
