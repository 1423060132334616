"""SQL that stands in sync files: one expression over one row of the model, without files, network or subqueries."""

from __future__ import annotations

import re
from functools import lru_cache

from oploop.errors import FixConfig, Place

#: Functions that read files, the network, the process or other tables, or that have effects.
_OUTSIDE = re.compile(
    r"(read_|write_|st_read|parquet_|sniff_|load_|http_|pragma_|duckdb_|iceberg_|delta_|postgres_|mysql_|sqlite_)\w*"
    r"|\w+_scan(_\w+)?|scan_\w+|glob|getenv|getvariable|current_setting|set_config|query|query_table|nextval|currval"
    r"|readcsv|readparquet|sleep\w*|checkpoint|force_checkpoint|which_secret|url_\w+|from_substrait\w*|get_substrait\w*"
    r"|txid_current|unnest|explode|generate_series|copy\w*|shellfs\w*|add_parquet_key|in_search_path",
    re.IGNORECASE,
)


def check_expression(sql: str, place: Place, name: str) -> None:
    """FixConfig, with the place, unless `sql` is one expression that looks at nothing but its own row."""
    wrong = _wrong(sql)
    if wrong is not None:
        message, mend = wrong
        raise FixConfig(f"{name}: {message}", mend=mend, place=place)


@lru_cache(maxsize=512)
def _wrong(sql: str) -> tuple[str, str] | None:
    """What is wrong with the text, and the mend; None when it is right."""
    # Only a project with SQL in its syncs pays for loading the parser.
    from sqlglot import exp, parse
    from sqlglot.errors import SqlglotError

    if "\x00" in sql:
        return "holds a NUL character", "remove it"
    try:
        # Without parentheses around it, so that `a) or (b` does not pass.
        statements = parse(f"SELECT {sql}", read="duckdb")
    except (SqlglotError, RecursionError, ValueError, IndexError, AttributeError, TypeError, KeyError):
        return f"{_shown(sql)} is no SQL expression", "write one expression, like `score between 0 and 100`"
    if len(statements) != 1 or ";" in _without_texts(sql):
        return "holds more than one statement", "write one expression, without a semicolon"
    select = statements[0]
    if type(select) is not exp.Select or any(
        v for k, v in select.args.items() if k not in ("expressions", "kind") or (k == "kind" and v)
    ):
        return (
            f"{_shown(sql)} is more than an expression",
            "write only the expression, without SELECT, FROM, DISTINCT or the like",
        )
    if len(select.expressions) != 1:
        return "holds several expressions", "write one, without a comma"
    return _forbidden(select.expressions[0])


def _forbidden(expression: object) -> tuple[str, str] | None:
    from sqlglot import exp

    assert isinstance(expression, exp.Expression)
    for node in expression.walk():
        if node.comments:
            return "holds an SQL comment", "remove it; YAML has comments of its own (#)"
        if isinstance(node, (exp.Query, exp.Table, exp.Command, exp.DDL, exp.DML, exp.From)):
            return "holds a subquery", "put it into the model"
        if isinstance(node, (exp.Alias, exp.Aliases)) and node is expression:
            return "names its result", "leave out the `as ...`"
        if isinstance(node, (exp.Star, exp.Columns)):
            return "holds a *", "name one column"
        if isinstance(node, (exp.AggFunc, exp.Window)):
            return "counts over several rows", "put aggregates and windows into the model"
        if isinstance(node, (exp.Placeholder, exp.Parameter, exp.SessionParameter)):
            return "holds a parameter", "write the value itself"
        outside = next((n for n in _names(node) if _OUTSIDE.fullmatch(n)), None)
        if outside is not None:
            return f"calls {outside}, which looks beyond the row", "put it into the model"
    return None


def _names(node: object) -> list[str]:
    """The names under which a function may be called; none for other nodes."""
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return [str(node.name)]
    return [n for n in type(node).sql_names() if n] if isinstance(node, exp.Func) else []


def _without_texts(sql: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", sql)


def _shown(sql: str) -> str:
    one_line = " ".join(sql.split())
    return repr(one_line if len(one_line) <= 60 else one_line[:57] + "...")
