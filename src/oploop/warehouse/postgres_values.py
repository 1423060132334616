"""How a field's value is found in a raw table of Postgres, and brought to the form in which values are compared.

Written in DuckDB's dialect, like all that calls it; the functions are those of `postgres_functions.sql`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from oploop.records import Column, FieldSource, FieldType, JsonEntry, JsonPath
from oploop.warehouse.base import literal, quote

SQL_TYPES: Mapping[FieldType, str] = {
    FieldType.TEXT: "VARCHAR",
    FieldType.INTEGER: "BIGINT",
    FieldType.NUMBER: "DOUBLE",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
    FieldType.TIMESTAMP: "TIMESTAMPTZ",
    FieldType.LIST: "VARCHAR",
    FieldType.JSON: "VARCHAR",
}

_TO: Mapping[FieldType, str] = {
    FieldType.TEXT: "oploop_to_text({})",
    FieldType.INTEGER: "oploop_to_bigint({})",
    FieldType.NUMBER: "oploop_to_double({})",
    FieldType.BOOLEAN: "oploop_try_boolean({})",
    FieldType.DATE: "oploop_try_date({})",
    FieldType.TIMESTAMP: "oploop_try_timestamptz({})",
    FieldType.LIST: "oploop_list_text(oploop_try_texts({}))",
    FieldType.JSON: "oploop_json_value({})",
}


def field_value(source: FieldSource, kind: FieldType, alias: str) -> str:
    """An expression for a field's present value, from the raw table called `alias`."""
    column = f"{quote(alias)}.{quote(source.column if not isinstance(source, Column) else source.name)}"
    match source:
        case Column():
            found = column
        case JsonPath():
            path = "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in source.path)
            found = f"json_extract(TRY_CAST({column} AS JSON), {literal(path)})"
        case JsonEntry():
            names = ", ".join(map(literal, (source.key, str(source.equals), source.value)))
            found = f"oploop_json_entry(TRY_CAST({column} AS JSON), {names})"
    return typed_value(found, kind)


def typed_value(expression: str, kind: FieldType) -> str:
    """An expression that brings another to `SQL_TYPES[kind]`; what does not fit becomes NULL."""
    return _TO[kind].format(expression)


def every(expression: str, kind: str, test: Callable[[str, str], str | None]) -> str | None:
    """See `Values.every`. Only lists are looked into: a server's other types name no members."""
    if not kind.endswith("]"):
        return test(expression, kind)
    found = test("__e", kind[: kind.index("[")])
    return None if found is None else f"NOT EXISTS (SELECT 1 FROM unnest({expression}) AS __u(__e) WHERE NOT ({found}))"


def list_merge(expression: str, add: Sequence[str], remove: Sequence[str]) -> str:
    """A canonical list text with some texts added and others removed; a NULL list counts as empty."""
    added, removed = (f"[{', '.join(map(literal, texts))}]::VARCHAR[]" for texts in (add, remove))
    return f"oploop_list_merge({expression}, {added}, {removed})"


def json_keys(expr: str) -> str:
    """See `Values.json_keys`."""
    return f"oploop_json_keys({expr})"


def median(expr: str, rows: int) -> tuple[str, bool]:
    """See `Values.median`. A server sorts on its disk what is too much."""
    return f"median({expr})", True


def json_of(members: Sequence[tuple[str, str]]) -> str | None:
    """See `Values.json_of`."""
    return None
