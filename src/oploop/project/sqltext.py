"""SQL that stands in sync files: one expression over one row of the model, without files, network or subqueries."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.records import DIALECT

#: Functions that read files, the network, the process or other tables, that have effects, or that make many rows.
_OUTSIDE = re.compile(
    r"(read_|write_|st_read|parquet_|sniff_|load_|http_|pragma_|duckdb_|iceberg_|delta_|postgres_|mysql_|sqlite_)\w*"
    r"|readcsv|readparquet|\w+_scan(_\w+)?|scan_\w+|glob|getenv|getvariable|current_setting|set_config|which_secret"
    r"|query|query_table|nextval|currval|sleep\w*|checkpoint|force_checkpoint|txid_current|write_log|\w*_?substrait\w*"
    r"|unnest|explode|generate_series|generate_subscripts"
    r"|pg_\w+|lo_\w+|dblink\w*|\w+_to_xml\w*|setval|lastval|inet_\w+|txid_\w+|query_to_\w+|ts_stat|notify",  # Postgres's
    re.IGNORECASE,
)


def check_expression(sql: str, place: Place, name: str) -> None:
    """FixConfig, with the place, unless `sql` is one expression that looks at nothing but its own row."""
    wrong = None if is_simple(sql) else wrong_with(sql)
    if wrong is not None:
        message, mend = wrong
        raise FixConfig(f"{name}: {message}", mend=mend, place=place)


def check_columns(sql: str, columns: Collection[str], place: Place, name: str) -> None:
    """FixConfig, with the place and the nearest right one, when an expression names a column that is not there."""
    from sqlglot import exp, parse_one

    known = {c.lower() for c in columns}
    for column in parse_one(f"SELECT {sql}", read=DIALECT).find_all(exp.Column):
        if column.name.lower() not in known and not column.table:
            raise FixConfig(
                f"{name}: there is no column {column.name!r}", mend=did_you_mean(column.name, columns), place=place
            )


# -- simple expressions ---------------------------------------------------------------------------------------------
# The parser takes 0.3 s to load, as long as everything else that a command does at its start. Most rules are as simple
# as `score between 0 and 100`: what this grammar takes is right without asking the parser (a test holds them together).

_RESERVED = (
    r"all|alter|analyse|analyze|and|anti|any|array|as|asc|asof|asymmetric|at|authorization|between|binary|both|by|case|cast|check"
    r"|collate|collation|column|columns|concurrently|connect_by_root|constraint|create|cross|cube|current_\w+|cursor|date|datetime|day|default"
    r"|deferrable|desc|describe|distinct|div|do|drop|else|end|escape|except|exists|extract|false|fetch|filter|first|for|force|foreign|freeze|from"
    r"|full|glob|grant|group|having|if|ilike|in|initially|inner|insert|install|intersect|interval|into|is|isnull|join|kill|lambda|last|lateral"
    r"|leading|left|like|limit|list|localtime|localtimestamp|map|month|natural|next|not|notnull|null|object|of|offset|on|only|or|order|out|outer"
    r"|over|overlaps|partition|partitioned_by|percent|pivot\w*|placing|position|positional|primary|prior|qualify|references|regexp|returning|revoke"
    r"|right|rlike|rollback|rollup|row|rows|select|semi|session_user|set|show|similar|some|straight_join|struct|substring|summarize|symmetric"
    r"|table|tablesample|then|time|timestamp\w*|to|trailing|trim|true|try|try_cast|uncache|union|unique|unnest|unpack|unpivot|user|using|values"
    r"|variadic|verbose|when|where|window|with|within|xor|year"
)
_COLUMN = rf"(?!(?:{_RESERVED})\b)[a-z_]\w*"
_CONSTANT = r"(?:\d{1,15}(?:\.\d{1,15})?\b|'[^']*')"
_ATOM = rf"(?:{_CONSTANT}|(?:lower|upper|length|abs|round)\({_COLUMN}\)|{_COLUMN}(?!\())"
_SUM = rf"{_ATOM}(?:\s*(?:\+|\*|\|\|)\s*{_ATOM}){{0,8}}"
_TEST = (
    rf"(?:\s*(?:<=|>=|<>|!=|=|<|>)\s*{_SUM}|\s+is\s+(?:not\s+)?null\b|\s+(?:not\s+)?between\s+{_SUM}\s+and\s+{_SUM}"
    rf"|\s+(?:not\s+)?in\s*\({_CONSTANT}(?:,\s*{_CONSTANT})*\)|\s+(?:not\s+)?like\s+'[^']*')"
)
_SIMPLE = rf"(?:{_SUM}|(?:not\s+)?{_SUM}{_TEST}(?:\s+(?:and|or)\s+(?:not\s+)?{_SUM}{_TEST}){{0,8}})"
_LONGEST = 300


def is_simple(sql: str) -> bool:
    """Whether the text is so simple that it is known to be right: columns, constants, comparisons, `and`, `or`."""
    return len(sql) <= _LONGEST and _simple().fullmatch(sql.strip()) is not None


@lru_cache(maxsize=1)
def _simple() -> re.Pattern[str]:
    """The grammar, made when it is first needed: that takes as long as reading a small project."""
    return re.compile(_SIMPLE, re.IGNORECASE | re.ASCII)


# -- all others -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def wrong_with(sql: str) -> tuple[str, str] | None:
    """What is wrong with a text as an expression, and the mend; None when nothing is."""
    from sqlglot import exp, parse, tokenize
    from sqlglot.errors import SqlglotError
    from sqlglot.tokens import TokenType

    if "\x00" in sql:
        return "holds a NUL character", "remove it"
    try:
        tokens = tokenize(sql, read=DIALECT)
        # Without parentheses around it, so that `a) or (b` does not pass.
        statements = parse(f"SELECT {sql}", read=DIALECT)
    except (SqlglotError, RecursionError, ValueError, IndexError, AttributeError, TypeError, KeyError):
        return f"{_shown(sql)} is no SQL expression", "write one expression, like `score between 0 and 100`"
    if any(t.comments for t in tokens):
        return "holds an SQL comment", "remove it; YAML has comments of its own (#)"
    if len(statements) != 1 or any(t.token_type is TokenType.SEMICOLON for t in tokens):
        return "holds more than one statement", "write one expression, without a semicolon"
    select = statements[0]
    if type(select) is not exp.Select or any(v for k, v in select.args.items() if k != "expressions"):
        return f"{_shown(sql)} is more than an expression", "leave out SELECT, FROM, DISTINCT and the like"
    if len(select.expressions) != 1:
        return "must hold one expression", "write one, without a comma"
    return _forbidden(select.expressions[0])


def _forbidden(expression: Any) -> tuple[str, str] | None:
    """The first part of a parsed expression that is not allowed, and the mend."""
    from sqlglot import exp

    for node in expression.walk():
        if isinstance(node, (exp.Query, exp.DerivedTable, exp.Table, exp.Command, exp.DDL, exp.DML, exp.From)):
            return "holds a subquery", "put it into the model"
        if isinstance(node, (exp.Alias, exp.Aliases)):
            return "names its result", "leave out the `as ...`, or the word that follows a column"
        if isinstance(node, (exp.Star, exp.Columns)):
            return "holds a *", "name one column"
        if isinstance(node, (exp.AggFunc, exp.Window)):
            return "counts over several rows", "put aggregates and windows into the model"
        if isinstance(node, (exp.Placeholder, exp.Parameter, exp.SessionParameter)):
            return "holds a parameter", "write the value itself"
        outside = next((n for n in _names(node) if _OUTSIDE.fullmatch(n)), None)
        if outside is not None:
            return f"calls {outside.lower()}, which looks beyond the row", "put it into the model"
    return None


def _names(node: Any) -> list[str]:
    """The names under which a function may be called; none for other nodes."""
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return [str(node.name)]
    return [n for n in type(node).sql_names() if n] if isinstance(node, exp.Func) else []


def _shown(sql: str) -> str:
    one_line = " ".join(sql.split())
    return repr(one_line if len(one_line) <= 60 else one_line[:57] + "...")
