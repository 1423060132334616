"""Postgres types as oploop's: how a value is read, how it is staged and written, and what loses nothing on the way.

Expressions have `{}` where the column, or the staged value, stands. What a column's type cannot show exactly as a
number is text: `numeric` without precision, or of more than 15 digits, keeps each digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oploop.apps.sql.columns import Kind, form_of
from oploop.records import Canonical, ColumnType

#: Digits that a double keeps apart (as in activate/convert.py), and those that fit 64 bits.
_DOUBLE_DIGITS, _BIGINT_DIGITS = 15, 18


@dataclass(frozen=True, slots=True)
class PgType:
    """A column's type as the catalog has it, domains resolved. `cast` is its name without modifiers, qualified."""

    name: str  #: pg_type.typname
    kind: str  #: pg_type.typtype: b base, e enum, c composite, r range ...
    category: str  #: pg_type.typcategory: A array ...
    modifier: int  #: -1: none
    cast: str


@dataclass(frozen=True, slots=True)
class PgKind(Kind):
    """How values of a column travel; `stage` is the type in which they are staged."""

    stage: str = "text"
    array: bool = False  #: staged as an array literal, read as JSON


def kind_of(of: PgType) -> PgKind:
    """How values of a Postgres type travel."""
    write = f"CAST({{}} AS {of.cast})"
    if of.category == "A":
        return PgKind(ColumnType.JSON, "to_json({})::text", write, array=True)
    if of.kind == "c":
        composite = f"jsonb_populate_record(CAST(NULL AS {of.cast}), CAST({{}} AS jsonb))"
        return PgKind(ColumnType.JSON, "to_json({})::text", composite)
    if of.kind == "b" and of.name in _SIMPLE:
        return _SIMPLE[of.name]
    if of.name == "numeric":
        return _numeric(of.modifier)
    if of.name in ("varchar", "bpchar"):
        length = of.modifier - 4 if of.modifier > 4 else None
        return PgKind(ColumnType.TEXT, "{}::text", write, max_length=length)
    forms = {"citext": Canonical.LOWER, "uuid": Canonical.LOWER}
    return PgKind(ColumnType.TEXT, "{}::text", write, canonical=forms.get(of.name, Canonical.EXACT), folded=True)


def as_text(kind: PgKind, of: PgType) -> PgKind:
    """The kind for a column that identifies records: text where its value would not be the same text everywhere."""
    if kind.column in (ColumnType.TEXT, ColumnType.INTEGER):
        return kind
    return PgKind(ColumnType.TEXT, "{}::text", f"CAST({{}} AS {of.cast})", canonical=form_of(kind.column))


def _integer(name: str) -> PgKind:
    return PgKind(ColumnType.INTEGER, "{}::int8", f"CAST({{}} AS {name})", "int8")


def _json(name: str) -> PgKind:
    return PgKind(ColumnType.JSON, "{}::text", f"CAST({{}} AS {name})")


# Infinity, and years that neither Python nor most warehouses have, are NULL in their column.
_TIME = "CASE WHEN {0} >= '0001-01-01' AND {0} < '9999-12-31' THEN {0}"
_SIMPLE: Mapping[str, PgKind] = {
    "bool": PgKind(ColumnType.BOOLEAN, "{}", "{}", "bool"),
    "int2": _integer("int2"),
    "int4": _integer("int4"),
    "int8": _integer("int8"),
    "oid": _integer("oid"),
    # by its text, since 0.1 as a float4 would be 0.10000000149 as a double
    "float4": PgKind(ColumnType.NUMBER, "{}::text::float8", "CAST({} AS float4)", "float8"),
    "float8": PgKind(ColumnType.NUMBER, "{}", "{}", "float8"),
    "money": PgKind(ColumnType.TEXT, "{}::numeric::text", "CAST(CAST({} AS numeric) AS money)"),
    "date": PgKind(ColumnType.DATE, "CASE WHEN {0} BETWEEN '0001-01-01' AND '9999-12-31' THEN {0} END", "{}", "date"),
    "timestamptz": PgKind(ColumnType.TIMESTAMP, f"{_TIME} END", "{}", "timestamptz"),
    "timestamp": PgKind(
        ColumnType.TIMESTAMP, f"{_TIME} AT TIME ZONE 'UTC' END", "{} AT TIME ZONE 'UTC'", "timestamptz"
    ),
    "json": _json("json"),
    "jsonb": _json("jsonb"),
    "bytea": PgKind(ColumnType.TEXT, "translate(encode({}, 'base64'), E'\\n', '')", "decode({}, 'base64')"),
    # the cast to text would add a netmask that the value does not show
    "inet": PgKind(ColumnType.TEXT, "CASE WHEN {0} IS NOT NULL THEN format('%s', {0}) END", "CAST({} AS inet)"),
}


def _numeric(modifier: int) -> PgKind:
    """A number where a number is exact, else text."""
    if modifier >= 4:
        precision = (modifier - 4) >> 16 & 0xFFFF
        scale = ((modifier - 4 & 0x7FF) ^ 1024) - 1024  # eleven bits, signed
        number = "CASE WHEN {0} <> 'NaN' THEN {0} END"
        if scale <= 0 and precision - scale <= _BIGINT_DIGITS:
            return PgKind(ColumnType.INTEGER, f"({number})::int8", "CAST({} AS numeric)", "int8")
        if max(precision, scale) <= _DOUBLE_DIGITS:
            return PgKind(ColumnType.NUMBER, f"({number})::float8", "CAST({} AS numeric)", "float8")
    return PgKind(ColumnType.TEXT, "{}::text", "CAST({} AS numeric)", canonical=Canonical.NUMBER)


def quote(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A quoted text; transactions of ours have standard_conforming_strings on."""
    return "'" + value.replace("'", "''") + "'"
