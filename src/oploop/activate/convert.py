"""A model's values in the types of an app's fields: converted without loss, or NULL.

`kind` is always the SQL type of the expression, since what is a loss depends on it: 12.7 is no integer, a time of day
is no date, the integer 2^53 + 1 is no double.
"""

from __future__ import annotations

from oploop.records import Canonical, Field, FieldType
from oploop.warehouse.base import Warehouse
from oploop.warehouse.forms import INTEGERS, LARGE

_TIMESTAMPS = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"})
#: What keys of a type are compared by, where the app's field declares nothing else.
_FORMS = {
    FieldType.INTEGER: Canonical.NUMBER,
    FieldType.NUMBER: Canonical.NUMBER,
    FieldType.DATE: Canonical.MOMENT,
    FieldType.TIMESTAMP: Canonical.MOMENT,
}
#: A decimal of so many digits is told apart from all others as a double.
_EXACT_DIGITS = 15


def is_integer(kind: str) -> bool:
    """Whether a SQL type holds whole numbers that fit 64 bits."""
    return kind in INTEGERS


def sure(kind: str, to: FieldType) -> bool:
    """Whether each value of a SQL type can be converted."""
    match to:
        case FieldType.TEXT:  # what is nested may have such values within
            return not _endless(kind) and not _nested(kind)
        case FieldType.INTEGER:
            return is_integer(kind)
        case FieldType.NUMBER:
            return (
                kind in ("DOUBLE", "FLOAT") or (is_integer(kind) and kind != "BIGINT") or _digits(kind) <= _EXACT_DIGITS
            )
        case FieldType.BOOLEAN:
            return kind == "BOOLEAN"
        case FieldType.DATE:
            return kind == "DATE"
        case FieldType.TIMESTAMP:
            return kind == "TIMESTAMP WITH TIME ZONE"
        case FieldType.JSON:
            return is_integer(kind) or kind in ("VARCHAR", "BOOLEAN")
        case FieldType.LIST:
            return False


def convert(source: str, kind: str, to: FieldType, warehouse: Warehouse) -> str:
    """`source`, of the SQL type `kind`, as `warehouse.sql_type(to)`; NULL where that would lose something."""
    if sure(kind, to) and to not in (FieldType.TEXT, FieldType.JSON):
        return f"CAST({source} AS {warehouse.sql_type(to)})"
    match to:
        case FieldType.TEXT:
            text = source if kind == "VARCHAR" else warehouse.typed_value(source, to)
            return _where(warehouse.every(source, kind, _finite), text)
        case FieldType.LIST:
            return _where(warehouse.every(source, kind, _finite), warehouse.typed_value(source, to))
        case FieldType.INTEGER:
            return _integer(source, kind, warehouse)
        case FieldType.NUMBER:
            return _number(source, kind, warehouse)
        case FieldType.DATE:
            return _date(source, kind, warehouse)
        case FieldType.TIMESTAMP if kind in _TIMESTAMPS or kind == "DATE":
            return f"TRY_CAST({source} AS {warehouse.sql_type(to)})"
        case FieldType.JSON:
            return _json(source, kind, warehouse)
        case _:
            return warehouse.typed_value(source, to)


def shown(source: str, kind: str, warehouse: Warehouse) -> str:
    """What messages show of a value; NULL just where the value is (JSON's null is)."""
    return warehouse.typed_value(source, FieldType.TEXT) if kind == "JSON" else source


def _integer(source: str, kind: str, warehouse: Warehouse) -> str:
    whole = f"TRY_CAST({source} AS {warehouse.sql_type(FieldType.INTEGER)})"
    if kind in LARGE:
        return whole
    if kind in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN {source} = {whole} THEN {whole} END"
    if kind.startswith("DECIMAL"):
        return f"CASE WHEN {source} % 1 = 0 THEN {whole} END"
    return warehouse.typed_value(source, FieldType.INTEGER)


def _number(source: str, kind: str, warehouse: Warehouse) -> str:
    double = f"TRY_CAST({source} AS {warehouse.sql_type(FieldType.NUMBER)})"
    if kind in LARGE or kind == "BIGINT":
        return f"CASE WHEN TRY_CAST({double} AS HUGEINT) = TRY_CAST({source} AS HUGEINT) THEN {double} END"
    if kind.startswith("DECIMAL"):
        return f"CASE WHEN TRY_CAST(CAST({double} AS VARCHAR) AS {kind}) = {source} THEN {double} END"
    return warehouse.typed_value(source, FieldType.NUMBER)


def _date(source: str, kind: str, warehouse: Warehouse) -> str:
    if kind in _TIMESTAMPS:
        return f"CASE WHEN {source} = date_trunc('day', {source}) THEN CAST({source} AS DATE) END"
    text = warehouse.typed_value(source, FieldType.TEXT)
    return f"CASE WHEN TRY_CAST({text} AS TIMESTAMP) = TRY_CAST({text} AS DATE) THEN TRY_CAST({text} AS DATE) END"


def _json(source: str, kind: str, warehouse: Warehouse) -> str:
    def exact(e: str, k: str) -> str | None:
        tests = [f"TRY_CAST({e} AS BIGINT) IS NOT NULL"] if k in ("HUGEINT", "UHUGEINT") else []
        tests += [f"isfinite({e})"] if _endless(k) else []
        if _digits(k) > _EXACT_DIGITS and k.startswith("DECIMAL"):
            tests.append(f"{_number(e, k, warehouse)} IS NOT NULL")
        return f"({e} IS NULL OR {' AND '.join(tests)})" if tests else None

    value = warehouse.typed_value(f"to_json({source})", FieldType.JSON)
    return _where(warehouse.every(source, kind, exact), value)


def _where(condition: str | None, value: str) -> str:
    return value if condition is None else f"CASE WHEN {condition} THEN {value} END"


def _finite(expression: str, kind: str) -> str | None:
    return f"isfinite({expression})" if _endless(kind) else None


def _endless(kind: str) -> bool:
    """Whether a SQL type holds what is no number and no time (NaN, infinity), and would go as a word; a DECIMAL does in Postgres."""
    return kind in ("DOUBLE", "FLOAT", "DATE") or kind in _TIMESTAMPS or kind.startswith("DECIMAL")


def _nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION("))


def _digits(kind: str) -> int:
    """How many digits a DECIMAL type has; more than any for other types."""
    return int(kind[8:].split(",")[0]) if kind.startswith("DECIMAL(") else 1_000


def key_form(field: Field) -> Canonical:
    """The canonical form of a key: what the field declares; numbers as numbers, times as moments."""
    return _FORMS.get(field.type, Canonical.EXACT) if field.canonical is Canonical.EXACT else field.canonical


def form_of_kind(kind: str) -> Canonical:
    """The canonical form of a key that no app's field describes, by its column's SQL type."""
    if kind in INTEGERS | LARGE or kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL"):
        return Canonical.NUMBER
    return Canonical.MOMENT if kind == "DATE" or kind in _TIMESTAMPS else Canonical.EXACT
