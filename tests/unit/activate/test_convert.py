"""What a model's column becomes in a field: converted without loss, or held with the reason; never sent wrong."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from oploop.activate.proving import prove
from oploop.errors import FixConfig
from oploop.project import Check, FieldMapping
from oploop.records import Canonical, FieldType
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at

TEXT, INTEGER, NUMBER, BOOLEAN = FieldType.TEXT, FieldType.INTEGER, FieldType.NUMBER, FieldType.BOOLEAN
DATE, TIMESTAMP, LIST, JSON = FieldType.DATE, FieldType.TIMESTAMP, FieldType.LIST, FieldType.JSON
UTC = dt.UTC
HELD = object()
BIG = 170141183460469231731687303715884105727

CASES: list[tuple[str, FieldType, Any]] = [
    ("'plain'", TEXT, "plain"),
    ("''", TEXT, ""),
    ("12::BIGINT", TEXT, "12"),
    ("0.1::DOUBLE", TEXT, "0.1"),
    ("12.50::DECIMAL(10, 2)", TEXT, "12.50"),
    (f"{BIG}::HUGEINT", TEXT, str(BIG)),
    ("true", TEXT, "true"),
    ("DATE '2025-03-01'", TEXT, "2025-03-01"),
    ("uuid '6f1b0a52-8f5b-4c5a-9f1e-0d3ad2f6c001'", TEXT, "6f1b0a52-8f5b-4c5a-9f1e-0d3ad2f6c001"),
    ("'\"quoted\"'::JSON", TEXT, "quoted"),
    ("'null'::JSON", TEXT, None),
    ("['b', 'a']", TEXT, '["b","a"]'),
    ("{'a': 1}", TEXT, '{"a":1}'),
    (
        "'it''s 100% \"so\" \\ {} ?' || chr(10) || chr(9) || chr(0) || chr(128640)",
        TEXT,
        'it\'s 100% "so" \\ {} ?\n\t\0🚀',
    ),
    ("12::TINYINT", INTEGER, 12),
    ("9223372036854775807::BIGINT", INTEGER, 2**63 - 1),
    ("9223372036854775807::HUGEINT", INTEGER, 2**63 - 1),
    ("9223372036854775808::HUGEINT", INTEGER, HELD),
    ("9223372036854775808::UBIGINT", INTEGER, HELD),
    ("12.0::DOUBLE", INTEGER, 12),
    ("12.7::DOUBLE", INTEGER, HELD),
    ("'nan'::DOUBLE", INTEGER, HELD),
    ("1e30::DOUBLE", INTEGER, HELD),
    ("12.00::DECIMAL(10, 2)", INTEGER, 12),
    ("12.01::DECIMAL(10, 2)", INTEGER, HELD),
    ("9007199254740993.4::DECIMAL(20, 1)", INTEGER, HELD),
    ("9007199254740993.0::DECIMAL(20, 1)", INTEGER, 9007199254740993),
    ("'12'", INTEGER, 12),
    ("' 12 '", INTEGER, 12),
    ("'9007199254740993'", INTEGER, 9007199254740993),
    ("'12.7'", INTEGER, HELD),
    ("'abc'", INTEGER, HELD),
    ("''", INTEGER, HELD),
    ("true", INTEGER, HELD),
    ("DATE '2025-03-01'", INTEGER, HELD),
    ("TIMESTAMP '2025-03-01 12:00:00'", INTEGER, HELD),
    ("['a']", INTEGER, HELD),
    ("'12'::JSON", INTEGER, 12),
    ("'null'::JSON", INTEGER, None),
    ("0.1::DOUBLE", NUMBER, 0.1),
    ("'nan'::DOUBLE", NUMBER, HELD),
    ("'inf'::DOUBLE", NUMBER, HELD),
    ("'-inf'::DOUBLE", NUMBER, HELD),
    ("'nan'", NUMBER, HELD),
    ("0.5::FLOAT", NUMBER, 0.5),
    ("12::INTEGER", NUMBER, 12.0),
    ("9007199254740992::BIGINT", NUMBER, 9007199254740992.0),
    ("9007199254740993::BIGINT", NUMBER, HELD),
    ("1152921504606846976::BIGINT", NUMBER, float(2**60)),
    (f"{BIG}::HUGEINT", NUMBER, HELD),
    ("1234.56::DECIMAL(18, 2)", NUMBER, 1234.56),
    ("0.1::DECIMAL(18, 10)", NUMBER, 0.1),
    ("123456789012345678901.55::DECIMAL(38, 2)", NUMBER, HELD),
    ("'1e3'", NUMBER, 1000.0),
    ("'12,5'", NUMBER, HELD),
    ("true", NUMBER, HELD),
    ("TIMESTAMP '2025-03-01 12:00:00'", NUMBER, HELD),
    ("true", BOOLEAN, True),
    ("1::INTEGER", BOOLEAN, True),
    ("0::INTEGER", BOOLEAN, False),
    ("2::INTEGER", BOOLEAN, HELD),
    ("0.5::DOUBLE", BOOLEAN, HELD),
    ("'true'", BOOLEAN, True),
    ("'maybe'", BOOLEAN, HELD),
    ("'false'::JSON", BOOLEAN, False),
    ("DATE '2025-03-01'", DATE, dt.date(2025, 3, 1)),
    ("TIMESTAMP '2025-03-01 00:00:00'", DATE, dt.date(2025, 3, 1)),
    ("TIMESTAMP '2025-03-01 12:00:00'", DATE, HELD),
    ("TIMESTAMPTZ '2025-03-01 02:00:00+02'", DATE, dt.date(2025, 3, 1)),
    ("TIMESTAMPTZ '2025-03-01 23:00:00-02'", DATE, HELD),
    ("'2025-03-01'", DATE, dt.date(2025, 3, 1)),
    ("'2025-03-01 12:34'", DATE, HELD),
    ("'2025-02-30'", DATE, HELD),
    ("'abc'", DATE, HELD),
    ("20250301::INTEGER", DATE, HELD),
    ("'infinity'::DATE", DATE, HELD),
    ("DATE '10000-01-01'", DATE, HELD),
    ("DATE '0044-03-15 (BC)'", DATE, HELD),
    ("DATE '9999-12-31'", DATE, dt.date(9999, 12, 31)),
    ("TIMESTAMPTZ '2025-03-01 12:00:00.123456+02'", TIMESTAMP, dt.datetime(2025, 3, 1, 10, 0, 0, 123456, UTC)),
    ("TIMESTAMP '2025-03-01 12:00:00'", TIMESTAMP, dt.datetime(2025, 3, 1, 12, tzinfo=UTC)),
    ("DATE '2025-03-01'", TIMESTAMP, dt.datetime(2025, 3, 1, tzinfo=UTC)),
    ("'2025-03-01T12:00:00+02:00'", TIMESTAMP, dt.datetime(2025, 3, 1, 10, tzinfo=UTC)),
    ("'2025-03-01 12:00:00'", TIMESTAMP, dt.datetime(2025, 3, 1, 12, tzinfo=UTC)),
    ("'noon'", TIMESTAMP, HELD),
    ("1740830400::BIGINT", TIMESTAMP, HELD),
    ("'infinity'::TIMESTAMPTZ", TIMESTAMP, HELD),
    ("TIMESTAMP '12000-01-01 00:00:00'", TIMESTAMP, HELD),
    ("['b', 'a', 'b', NULL]", LIST, ["a", "b"]),
    ("[]::VARCHAR[]", LIST, []),
    ("[2, 1]", LIST, ["1", "2"]),
    ('\'["b", "a"]\'', LIST, ["a", "b"]),
    ("'[\"b\"]'::JSON", LIST, ["b"]),
    ("'a, b'", LIST, HELD),
    ("'{\"a\": 1}'::JSON", LIST, HELD),
    ("12::INTEGER", LIST, HELD),
    ("'gold'", JSON, "gold"),
    ('\'{"b": 1, "a": [2, 1]}\'::JSON', JSON, {"a": [2, 1], "b": 1}),
    ('\'{"a": [1, {"b": -1e400}]}\'::JSON', JSON, HELD),
    ('\'{"a": [1, {"b": -1e308}]}\'::JSON', JSON, {"a": [1, {"b": -1e308}]}),
    (f"""'{{"a": "{"9" * 400}"}}'::JSON""", JSON, {"a": "9" * 400}),
    ("{'b': 1, 'a': ['x']}", JSON, {"a": ["x"], "b": 1}),
    ("12.5::DOUBLE", JSON, 12.5),
    ("12.50::DECIMAL(10, 2)", JSON, 12.5),
    ("9223372036854775807::BIGINT", JSON, 2**63 - 1),
    (f"{BIG}::HUGEINT", JSON, HELD),
    ("'nan'::DOUBLE", JSON, HELD),
    ("['nan'::DOUBLE, 1.5]", JSON, HELD),
    ("[1.5::DOUBLE, NULL]", JSON, [1.5, None]),
    ("NULL::DOUBLE[]", JSON, None),
    ("['infinity'::TIMESTAMPTZ]", JSON, HELD),
    ("['infinity'::DATE]", JSON, HELD),
    ("['nan'::DOUBLE]", TEXT, HELD),
    ("['inf'::FLOAT]", LIST, HELD),
    ("[1.5::DOUBLE, NULL]", LIST, ["1.5"]),
    ("[1.5::DECIMAL(10, 2)]", JSON, [1.5]),
    ("[123456789012345678901.55::DECIMAL(38, 2)]", JSON, HELD),
    ("true", JSON, True),
    ("DATE '2025-03-01'", JSON, "2025-03-01"),
    ("'null'::JSON", JSON, None),
]


def sent(engine: Engine, expression: str, kind: FieldType, m: FieldMapping, **more: Any) -> Any:
    """What is sent of a model's value, HELD, or None when the field is not sent at all."""
    engine.select(f"SELECT 'a@x' AS email, {expression} AS v")
    engine.records({"email": "VARCHAR", "f": "JSON"}, [])
    found = engine.diff(engine.bind(a_sync(m), an_object(a_field("f", kind, **more))))
    if found.counts == {"held": 1}:
        (reason,) = (why for _, why in engine.held(found))
        assert reason.startswith("f: "), reason
        assert "\n" not in reason
        return HELD
    (change,) = engine.changes(found)
    return change.fields.get("f")


@pytest.mark.parametrize(("expression", "kind", "wanted"), CASES)
@pytest.mark.parametrize("by", ["column", "sql"])
def test_a_value_is_converted_without_loss_or_held(
    engine: Engine, expression: str, kind: FieldType, wanted: Any, by: str
) -> None:
    if engine.warehouse.dialect == "postgres" and "chr(0)" in expression:  # no text of Postgres holds it
        expression, wanted = expression.replace(" || chr(0)", ""), wanted.replace("\0", "")
    mapping = FieldMapping("f", column="v") if by == "column" else FieldMapping("f", sql="m.v")
    got = sent(engine, expression, kind, mapping)
    assert (got, type(got)) == (wanted, type(wanted))


@pytest.mark.parametrize("warehouse", ["duckdb"], indirect=True)  # a server's other types name no members
@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("{'x': 'nan'::DOUBLE, 'y': 1}", HELD),
        ("{'x': 1.5::DOUBLE, 'y': 'nan'}", {"x": 1.5, "y": "nan"}),
        ("{'x, a \"b': ['inf'::FLOAT], 'of (': 1}", HELD),
        ("{'x, a \"b': [0.5::FLOAT, NULL], 'of (': 1}", {'x, a "b': [0.5, None], "of (": 1}),
        ("{'e': 'a, b'::ENUM('a, b', 'it''s (', '\"'), 'x': '-inf'::DOUBLE}", HELD),
        ("{'e': 'a, b'::ENUM('a, b', 'it''s (', '\"'), 'x': NULL::DOUBLE}", {"e": "a, b", "x": None}),
        ("MAP {'a': {'q': TIMESTAMP 'infinity'}}", HELD),
        ("MAP {'a': {'q': DATE '2025-03-01'}}", {"a": {"q": "2025-03-01"}}),
        ("[[1.5::DOUBLE], ['nan'::DOUBLE]]", HELD),
        ("array_value('nan'::DOUBLE, 2.0)", HELD),
        ("array_value(1::DOUBLE, 2.0)", [1.0, 2.0]),
        (f"[{{'n': {BIG}::HUGEINT}}]", HELD),
        ("union_value(num := 'inf'::DOUBLE)", HELD),
        ("to_json(['nan'::DOUBLE])", HELD),  # which DuckDB takes for JSON, and nobody else does
    ],
)
def test_so_is_what_stands_within_another_value(engine: Engine, expression: str, wanted: Any) -> None:
    for mapping in (FieldMapping("f", column="v"), FieldMapping("f", sql="m.v")):
        assert sent(engine, expression, JSON, mapping) == wanted


#: Keys of which the app shows something else than the model's own text, and how many of the types they are values of.
KEYS = [
    ("0.1::FLOAT", {TEXT: "0.1", NUMBER: 0.10000000149011612}),
    ("0.000000001::DECIMAL(38, 9)", {TEXT: "0.000000001", NUMBER: 1e-09}),
    ("1e20::DOUBLE", {TEXT: "1e+20", NUMBER: 1e20}),
    ("12.50::DECIMAL(10, 2)", {TEXT: "12.50", NUMBER: 12.5}),
    ("0::BIGINT", {TEXT: "0", NUMBER: 0.0, INTEGER: 0, BOOLEAN: False}),
    ("'a''b 👋'", {TEXT: "a'b 👋"}),
    ("'2025-03-01'", {TEXT: "2025-03-01", DATE: dt.date(2025, 3, 1), TIMESTAMP: dt.datetime(2025, 3, 1, tzinfo=UTC)}),
    (
        "DATE '2025-03-01'",
        {TEXT: "2025-03-01", DATE: dt.date(2025, 3, 1), TIMESTAMP: dt.datetime(2025, 3, 1, tzinfo=UTC)},
    ),
    (
        "TIMESTAMPTZ '2025-03-01 12:00:00+02'",
        {TEXT: "2025-03-01 10:00:00+00", TIMESTAMP: dt.datetime(2025, 3, 1, 10, tzinfo=UTC)},
    ),
    ("[2, 1, NULL]", {TEXT: "[2,1,null]"}),
    ("'{\"a\": [1]}'::JSON", {TEXT: '{"a":[1]}'}),
    ("'nan'::DOUBLE", {}),
    ("'-inf'", {TEXT: "-inf"}),
    ("'infinity'", {TEXT: "infinity"}),
    ("DATE 'infinity'", {TEXT: HELD}),
]


@pytest.mark.parametrize(("expression", "keys"), KEYS)
def test_a_record_is_found_by_the_key_that_was_sent(
    engine: Engine, expression: str, keys: dict[FieldType, Any]
) -> None:
    engine.select(f"SELECT {expression} AS code, 'x' AS v")
    for kind in (TEXT, INTEGER, NUMBER, BOOLEAN, DATE, TIMESTAMP):
        columns = {"code": engine.warehouse.sql_type(kind), "v": "VARCHAR"}
        engine.records(columns, [])
        obj = an_object(a_field("code", kind, key=True), a_field("v"))
        b = engine.bind(a_sync("v", key={"code": "code"}), obj)
        found = engine.diff(b)
        if kind not in keys or keys[kind] == HELD:
            assert found.counts == {"held": 1}, kind
            continue
        (change,) = engine.changes(found)
        assert (change.key, type(change.key["code"])) == ({"code": keys[kind]}, type(keys[kind])), kind
        engine.records(columns, [("1", keys[kind], "x", 0, at(0), False)])
        assert engine.diff(b).counts == {}, kind


@pytest.mark.parametrize("kind", list(FieldType))
@pytest.mark.parametrize(
    "sql_type", ["VARCHAR", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP", "VARCHAR[]", "JSON", "INTEGER"]
)
def test_null_is_null_in_every_type(engine: Engine, kind: FieldType, sql_type: str) -> None:
    assert sent(engine, f"NULL::{sql_type}", kind, FieldMapping("f", column="v")) is None


def test_a_text_longer_than_the_app_takes_is_held(engine: Engine) -> None:
    for text, wanted in (("x" * 300, HELD), ("🚀" * 255, "🚀" * 255), ("🚀" * 256, HELD)):
        assert sent(engine, f"'{text}'", TEXT, FieldMapping("f", column="v"), max_length=255) == wanted


def test_a_text_that_the_app_does_not_list_is_held(engine: Engine) -> None:
    m = FieldMapping("f", column="v")
    assert sent(engine, "'low'", TEXT, m, enum=("low", "it's")) == "low"
    assert sent(engine, "'it''s'", TEXT, m, enum=("low", "it's")) == "it's"
    assert sent(engine, "'Low'", TEXT, m, enum=("low", "it's")) is HELD
    assert sent(engine, "''", TEXT, m, enum=("low", "it's")) is HELD


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (INTEGER, 12, 12),
        (INTEGER, "12", 12),
        (NUMBER, 12.5, 12.5),
        (BOOLEAN, True, True),
        (DATE, "2025-03-01", dt.date(2025, 3, 1)),
        (TEXT, "it's", "it's"),
        (TEXT, 12, "12"),
        (JSON, "gold", "gold"),
        (JSON, 12, 12),
        (LIST, ("b", "a"), ["a", "b"]),
    ],
)
def test_a_constant_is_of_the_fields_type(engine: Engine, kind: FieldType, value: Any, wanted: Any) -> None:
    assert sent(engine, "1", kind, FieldMapping("f", value=value)) == wanted
    assert sent(engine, "'x'", kind, FieldMapping("f", column="v", map={"x": value})) == wanted


@pytest.mark.parametrize(
    ("kind", "value"),
    [(INTEGER, 12.7), (INTEGER, "abc"), (BOOLEAN, "maybe"), (DATE, "1 March"), (NUMBER, float("inf")), (TIMESTAMP, 7)],
)
def test_a_constant_that_is_not_is_a_mistake_in_the_file(engine: Engine, kind: FieldType, value: Any) -> None:
    for mapping in (FieldMapping("f", value=value), FieldMapping("f", column="v", map={"x": value, "y": None})):
        with pytest.raises(FixConfig, match=f"is no {kind.value}") as e:
            sent(engine, "'x'", kind, mapping)
        assert e.value.place is not None


def test_a_map_holds_what_it_has_no_entry_for(engine: Engine) -> None:
    m = FieldMapping("f", column="v", map={"low": 1, "it's": 2})
    assert sent(engine, "'it''s'", INTEGER, m) == 2
    assert sent(engine, "'other'", INTEGER, m) is HELD
    assert sent(engine, "NULL::VARCHAR", INTEGER, m) is None


@pytest.mark.parametrize(
    ("column", "value", "held"),
    [("DOUBLE", 12.7, True), ("DOUBLE", 12.0, False), ("VARCHAR", "x1", True), ("HUGEINT", 2**70, True)],
)
def test_a_key_that_is_not_of_the_fields_type_is_held(engine: Engine, column: str, value: Any, held: bool) -> None:
    engine.model({"email": column, "v": "VARCHAR"}, [(value, "a")])
    engine.records({"number": "BIGINT", "v": "VARCHAR"}, [])
    obj = an_object(a_field("number", INTEGER, key=True), a_field("v"))
    found = engine.diff(engine.bind(a_sync("v", key={"number": "email"}), obj))
    if held:
        assert found.counts == {"held": 1}
        assert "is no integer" in engine.held(found)[0][1]
    else:
        assert [c.key for c in engine.changes(found)] == [{"number": 12}]


@pytest.mark.parametrize(
    ("form", "a", "b", "same"),
    [
        (Canonical.LOWER, "Jo@X.com ", "jo@x.com", True),
        (Canonical.TRIM, " Jo ", "Jo", True),
        (Canonical.TRIM, "Jo", "jo", False),
        (Canonical.EXACT, "Jo", "jo", False),
        (Canonical.NUMBER, "012.0", "12", True),
        (Canonical.NUMBER, "12.5", "12", False),
        (Canonical.NUMBER, "9007199254740993", "9007199254740992", False),
        (Canonical.NUMBER, "12a", "12", False),
    ],
)
def test_keys_are_the_same_by_their_canonical_form(engine: Engine, form: Canonical, a: str, b: str, same: bool) -> None:
    engine.model({"email": "VARCHAR", "v": "VARCHAR"}, [(a, "v1"), (b, "v2")])
    engine.records({"email": "VARCHAR", "v": "VARCHAR"}, [])
    bound = engine.bind(a_sync("v"), an_object(a_field("v"), canonical=form))
    assert engine.diff(bound).counts == ({"held": 2} if same else {"create": 2})
    engine.model({"email": "VARCHAR", "v": "VARCHAR"}, [(a, "v1")])
    engine.records({"email": "VARCHAR", "v": "VARCHAR"}, [("1", b, "v1", 0, None, False)])
    assert engine.diff(bound).counts == ({} if same else {"create": 1})


@pytest.mark.parametrize(
    ("sync", "says"),
    [
        (a_sync(FieldMapping("f", sql="nothing + 1")), "fields.*: 'nothing [+] 1' cannot be asked of mart.people"),
        (a_sync("f", where="tier <> 'free'"), "where: "),
        (a_sync("f", checks=(Check("f > 1"), Check("upper(g) = 'A'"))), "checks: .upper"),
    ],
)
def test_a_syncs_own_sql_must_fit_its_model(engine: Engine, sync: Any, says: str) -> None:
    engine.select("SELECT 'a@x' AS email, 2 AS f")
    with pytest.raises(FixConfig, match=says) as e:
        prove(engine.bind(sync, an_object(a_field("f", INTEGER))), engine.warehouse)
    assert "\n" not in str(e.value)
    assert e.value.place is not None
    prove(
        engine.bind(a_sync(FieldMapping("f", sql="m.f + f"), where="f > 1"), an_object(a_field("f", INTEGER))),
        engine.warehouse,
    )
