"""How a field's value is found in a raw table of DuckDB, and brought to the form in which values are compared.

The expressions choose by `typeof`, which DuckDB folds while it binds: a column that already has the right type costs
nothing, and a JSON column is read as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from oploop.records import Column, FieldSource, FieldType, JsonEntry, JsonPath
from oploop.warehouse.base import literal, quote
from oploop.warehouse.duckdb_nested import within

#: The function, made by each connection, that sorts the keys of a JSON text.
SORTED_JSON = "oploop_sorted_json"

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

#: Up to so many numbers a median is exact.
EXACT_MEDIAN = 1_000_000
_INTEGERS = "('BIGINT', 'INTEGER', 'SMALLINT', 'TINYINT', 'HUGEINT', 'UBIGINT', 'UINTEGER', 'USMALLINT', 'UTINYINT')"


def field_value(source: FieldSource, kind: FieldType, alias: str) -> str:
    """An expression for a field's present value, from the raw table called `alias`."""
    column = f"{quote(alias)}.{quote(source.column if not isinstance(source, Column) else source.name)}"
    match source:
        case Column():
            found = column
        case JsonPath():
            found = f"json_extract({_json(column)}, {literal(pointer(source.path))})"
        case JsonEntry():
            # not by $[*] paths: these leave entries without the key out, and then positions no longer agree
            match_id = f"x ->> {literal(pointer((source.key,)))} = {literal(str(source.equals))}"
            entry = f"list_filter(TRY_CAST({_json(column)} AS JSON[]), lambda x: {match_id})[1]"
            found = f"json_extract({entry}, {literal(pointer((source.value,)))})"
    return typed_value(found, kind)


def typed_value(expression: str, kind: FieldType) -> str:
    """An expression that brings another to `SQL_TYPES[kind]`; what does not fit becomes NULL."""
    text = _text(expression)
    match kind:
        case FieldType.TEXT:
            return text
        case FieldType.INTEGER:
            return (
                f"CASE WHEN typeof({expression}) IN {_INTEGERS} THEN TRY_CAST({expression} AS BIGINT) "
                f"WHEN TRY_CAST({text} AS DOUBLE) = TRY_CAST({text} AS BIGINT) THEN TRY_CAST({text} AS BIGINT) END"
            )
        case FieldType.LIST:
            texts = f"list_sort(list_distinct(TRY_CAST({_json(expression)} AS VARCHAR[])))"
            return f"CAST(to_json({texts}) AS VARCHAR)"
        case FieldType.JSON:
            return f"NULLIF({SORTED_JSON}(CAST({_json(expression)} AS VARCHAR)), 'null')"
        case _:
            wanted = SQL_TYPES[kind]
            native = "'TIMESTAMP WITH TIME ZONE'" if kind is FieldType.TIMESTAMP else literal(wanted)
            return (
                f"CASE WHEN typeof({expression}) = {native} THEN TRY_CAST({expression} AS {wanted}) "
                f"ELSE TRY_CAST({text} AS {wanted}) END"
            )


def every(expression: str, kind: str, test: Callable[[str, str], str | None]) -> str | None:
    """See `Values.every`."""
    return within(expression, kind, test)


def list_merge(expression: str, add: Sequence[str], remove: Sequence[str]) -> str:
    """A canonical list text with some texts added and others removed; a NULL list counts as empty."""
    merged = f"COALESCE(TRY_CAST({_json(expression)} AS VARCHAR[]), CAST([] AS VARCHAR[]))"
    if remove:
        merged = f"list_filter({merged}, lambda x: x NOT IN ({', '.join(map(literal, remove))}))"
    if add:
        merged = f"list_concat({merged}, [{', '.join(map(literal, add))}])"
    return f"CAST(to_json(list_sort(list_distinct({merged}))) AS VARCHAR)"


def pointer(path: tuple[str, ...]) -> str:
    """A JSON pointer (RFC 6901): the one form of path in which a key may have any character."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def _json(expression: str) -> str:
    """The expression as JSON; text that is no JSON becomes NULL."""
    return f"TRY_CAST({expression} AS JSON)"


def _text(expression: str) -> str:
    """The expression as plain text: a JSON string without its quotes, nested values as JSON text."""
    nested = f"regexp_matches(typeof({expression}), '^(JSON$|STRUCT|MAP|.*\\]$)')"
    return f"CASE WHEN {nested} THEN to_json({expression}) ->> '$' ELSE TRY_CAST({expression} AS VARCHAR) END"


def json_keys(expr: str) -> str:
    """See `Values.json_keys`."""
    return f"unnest(json_keys(CAST({expr} AS JSON)))"


def median(expr: str, rows: int) -> tuple[str, bool]:
    """See `Values.median`. DuckDB's own holds every value in memory, whatever its bound."""
    if rows <= EXACT_MEDIAN:
        return f"median({expr})", True
    return f"approx_quantile(CAST({expr} AS DOUBLE), 0.5)", False


def json_of(members: Sequence[tuple[str, str]]) -> str | None:
    """See `Values.json_of`."""
    if len({name.lower() for name, _ in members}) < len(members):  # a struct tells its fields apart by more than case
        return None
    return f"CAST(to_json({{{', '.join(f'{literal(name)}: {e}' for name, e in members)}}}) AS VARCHAR)"
