"""Statements in DuckDB's dialect as Postgres takes them: parsed by sqlglot, changed where it does not know better, written.

What depends on the type of an expression (TRY_CAST, typeof, a value's comparable form) becomes a call of an overloaded
function of `postgres_functions.sql`, since only Postgres knows the types.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ErrorLevel, SqlglotError, UnsupportedError
from sqlglot.tokens import Token, TokenType

from oploop.warehouse.base import SqlError

#: The schema of our functions.
FUNCTIONS = "oploop_fn"
#: What our own expressions call them in DuckDB's dialect: `oploop_to_text(x)` is `oploop_fn.to_text(x)`.
PREFIX = "oploop_"
#: The longest name that Postgres keeps whole.
NAME_BYTES = 63

Columns: TypeAlias = Callable[[str], Sequence[str]]


class Dialect(DuckDB):  # type: ignore[misc]
    """DuckDB's, but a DECIMAL without digits has as many as its values."""

    class Parser(DuckDB.Parser):  # type: ignore[misc]
        TYPE_CONVERTERS: Mapping[Any, Any] = {}


@dataclass(frozen=True, slots=True)
class Translated:
    """`sql` with `$1`, `$2` ... for its parameters. `temporary`: it makes, or drops, a temporary table. `fixed`: it does
    not depend on what stands in the catalog, and may be kept."""

    sql: str
    temporary: bool = False
    fixed: bool = True


def short(name: str) -> str:
    """A name as Postgres can keep it: long ones get a hash for their end."""
    data = name.encode()
    if len(data) <= NAME_BYTES:
        return name
    own = hashlib.blake2b(data, digest_size=6).hexdigest()
    return data[: NAME_BYTES - 13].decode(errors="ignore") + "_" + own


def translate(sql: str, columns: Columns) -> Translated:
    """A statement of DuckDB's dialect as Postgres takes it. `columns`: the columns of a table that stands."""
    parsed = _parsed(sql)
    if isinstance(parsed, exp.Command):
        raise SqlError(f"{parsed.name} is no statement that every warehouse takes")
    stars = _Stars(columns)
    found = list(parsed.find_all(exp.Select, exp.CTE))  # a walk through the whole tree takes its time
    for select in found:
        if isinstance(select, exp.Select):
            stars.expand(select)
            _qualify(select)
    changed = parsed.transform(_change, copy=False)
    for cte in found:
        if isinstance(cte, exp.CTE):
            _fence(cte)
    fixed = not stars.looked
    if isinstance(changed, exp.Create):
        return _create(changed, fixed)
    return Translated(_written(changed, last=True), fixed=fixed)


def _parsed(sql: str) -> exp.Expression:
    """A statement's tree, with each `?` as `$1`, `$2` ... in the order of the text."""
    dialect = Dialect()
    try:
        tokens, numbered = [], 0
        for token in dialect.tokenize(sql):
            if token.token_type is TokenType.PLACEHOLDER:
                numbered += 1
                at = (token.line, token.col, token.start, token.end)
                tokens += [Token(TokenType.PARAMETER, "$", *at), Token(TokenType.NUMBER, str(numbered), *at)]
            else:
                tokens.append(token)
        statements = dialect.parser().parse(tokens, sql)
    except SqlglotError as e:
        raise SqlError(" ".join(str(e).split())[:300]) from None
    if len(statements) != 1 or statements[0] is None:
        raise SqlError("one statement at a time")
    return statements[0]


def _written(node: exp.Expression, *, last: bool = False) -> str:
    """As Postgres takes it; SqlError for what would mean something else there. `last`: the tree is of no use afterwards, as
    writing changes it unless it is copied first, which takes as long again."""
    try:
        text: str = node.sql("postgres", copy=not last, normalize_functions=False, unsupported_level=ErrorLevel.RAISE)
    except UnsupportedError as e:
        raise SqlError(" ".join(str(e).split())[:300]) from None
    return text


# -- statements ------------------------------------------------------------------------------------------------------


def _create(node: exp.Create, fixed: bool) -> Translated:
    """CREATE OR REPLACE, which Postgres has for views only, and there only if the columns stay."""
    kind = str(node.args.get("kind")).upper()
    properties = node.args.get("properties")
    temporary = bool(properties and properties.find(exp.TemporaryProperty))
    if not node.args.get("replace"):
        return Translated(_written(node, last=True), temporary, fixed)
    target = node.this.this if isinstance(node.this, exp.Schema) else node.this
    name = _written(target)
    if kind == "VIEW":
        again = _written(node)
        node.set("replace", False)
        made = _written(node, last=True)
        body = "".join(f"EXECUTE {_dollars(s)};" for s in (f"DROP VIEW {name}", made))
        return Translated(
            f"DO $oploop$BEGIN EXECUTE {_dollars(again)}; EXCEPTION WHEN invalid_table_definition THEN {body} END$oploop$",
            fixed=fixed,
        )
    node.set("replace", False)
    where = "pg_temp." if temporary else ""
    if node.expression and _named(target) in map(_named, node.expression.find_all(exp.Table)):
        node.this.this.set("this", exp.to_identifier(short(node.this.name + "__new"), quoted=True))
        again = f"ALTER TABLE {_written(node.this)} RENAME TO {name.rpartition('.')[2]}"
        return Translated(f"{_written(node, last=True)}; DROP TABLE {where}{name}; {again}", temporary, fixed)
    return Translated(f"DROP TABLE IF EXISTS {where}{name}; {_written(node, last=True)}", temporary, fixed)


def _named(table: exp.Table) -> list[tuple[str, bool]]:
    """A table's name as it is written, part by part, without its alias."""
    return [(part.name, bool(part.args.get("quoted"))) for part in table.parts]


def _dollars(text: str) -> str:
    return f"$oploop_s${text}$oploop_s$"


def _fence(cte: exp.CTE) -> None:
    """Keep Postgres from writing a CTE's expressions wherever they are used: each is worked out once a row."""
    query = cte.this
    if isinstance(query, exp.Select) and not query.args.get("limit") and not query.args.get("offset"):
        query.set("offset", exp.Offset(expression=exp.Literal.number(0)))


def _qualify(select: exp.Select) -> None:
    """QUALIFY, which Postgres does not know, as a column that is asked outside. sqlglot's own way repeats columns of *."""
    qualify = select.args.get("qualify")
    if qualify is None:
        return
    names = [item.alias_or_name for item in select.expressions]
    starred = any(
        isinstance(item.this if isinstance(item, exp.Column) else item, exp.Star) for item in select.expressions
    )
    inner = exp.Select(**{k: v for k, v in select.args.items() if k not in ("qualify", "with_")})
    inner.append("expressions", exp.alias_(exp.Paren(this=qualify.this), "__qualify"))
    for key in list(select.args):
        if key != "with_":
            select.set(key, None)
    shown = [exp.Star()] if starred else [exp.column(exp.to_identifier(n, quoted=True)) for n in names]
    select.set("expressions", shown)
    select.set(
        "from_", exp.From(this=exp.Subquery(this=inner, alias=exp.TableAlias(this=exp.to_identifier("__qualified"))))
    )
    select.set("where", exp.Where(this=exp.column("__qualify")))


# -- columns of * ----------------------------------------------------------------------------------------------------


class _Stars:
    """Writes out the columns of `* EXCLUDE (...)` and `* REPLACE (...)`, which Postgres does not know."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self.looked = False

    def expand(self, select: exp.Select) -> None:
        written: list[exp.Expression] = []
        for item in select.expressions:
            star = item.this if isinstance(item, exp.Column) else item
            if not isinstance(star, exp.Star) or not (star.args.get("except_") or star.args.get("replace")):
                written.append(item)
                continue
            out = {c.name for c in star.args.get("except_") or ()}
            new = {a.alias: a for a in star.args.get("replace") or ()}
            table = item.table if isinstance(item, exp.Column) else None
            for name in self._of(select, table):
                if name not in out:
                    column = exp.column(exp.to_identifier(name, quoted=True), table=table or None)
                    written.append(new[name].copy() if name in new else column)
        select.set("expressions", written)

    def _of(self, select: exp.Select, table: str | None) -> list[str]:
        """The names of `*`, or of `table.*`, in a select."""
        sources = [select.args["from_"].this, *(j.this for j in select.args.get("joins") or ())]
        names: list[str] = []
        for source in sources:
            if table is None or source.alias_or_name == table:
                names += self._source(source, select)
        return names

    def _source(self, source: exp.Expression, select: exp.Select) -> list[str]:
        if isinstance(source, exp.Subquery):
            return self._query(source.this)
        if not source.args.get("db"):
            scope: exp.Expression | None = select
            while scope is not None:
                for cte in getattr(scope, "ctes", ()):
                    if cte.alias == source.name:
                        return self._query(cte.this)
                scope = scope.parent
        self.looked = True
        return list(self._columns(".".join(part.name for part in source.parts)))

    def _query(self, query: exp.Expression) -> list[str]:
        while not isinstance(query, exp.Select):
            query = query.this  # of a union, the first names the columns
        names: list[str] = []
        for item in query.expressions:
            star = item.this if isinstance(item, exp.Column) else item
            if isinstance(star, exp.Star):
                out = {c.name for c in star.args.get("except_") or ()}
                table = item.table if isinstance(item, exp.Column) else None
                names += [n for n in self._of(query, table) if n not in out]
            else:
                names.append(item.alias_or_name)
        return names


# -- expressions -----------------------------------------------------------------------------------------------------

_T = exp.DataType.Type
#: Types that have other names, or no like, in Postgres.
_TYPES: Mapping[Any, str] = {
    _T.JSON: "jsonb",
    _T.INT128: "numeric",
    _T.UINT128: "numeric",
    _T.UBIGINT: "numeric(20, 0)",
    _T.UINT: "bigint",
    _T.USMALLINT: "integer",
    _T.UTINYINT: "smallint",
    _T.TIMESTAMP_S: "timestamp",
    _T.TIMESTAMP_MS: "timestamp",
    _T.TIMESTAMP_NS: "timestamp",
    _T.VARBINARY: "bytea",
    _T.BLOB: "bytea",
}
_TRY: Mapping[Any, str] = {
    _T.VARCHAR: "to_text",
    _T.TEXT: "to_text",
    _T.BIGINT: "try_bigint",
    _T.DOUBLE: "try_double",
    _T.BOOLEAN: "try_boolean",
    _T.DATE: "try_date",
    _T.TIMESTAMP: "try_timestamp",
    _T.TIMESTAMPTZ: "try_timestamptz",
    _T.JSON: "try_json",
    _T.INT128: "try_numeric",
    _T.UINT128: "try_numeric",
}


def ours(name: str, *arguments: exp.Expression) -> exp.Expression:
    """A call of one of our functions."""
    call = exp.Anonymous(this=name, expressions=list(arguments))
    return exp.Dot(this=exp.to_identifier(FUNCTIONS), expression=call)


def _change(node: exp.Expression) -> exp.Expression:
    change = _CHANGES.get(type(node))
    return change(node) if change is not None else node


def _identifier(node: exp.Identifier) -> exp.Expression:
    name = short(node.name)
    return node if name == node.name else exp.to_identifier(name, quoted=True)


def _type(node: exp.DataType) -> exp.Expression:
    name = _TYPES.get(node.this)
    return node if name is None else _built(name).copy()


@cache
def _built(name: str) -> exp.DataType:
    """A type of Postgres, by its name."""
    return exp.DataType.build(name, dialect="postgres")


def _cast(node: exp.Cast) -> exp.Expression:
    """A cast of JSON to text writes it as DuckDB does, without blanks."""
    if node.to.this in (_T.VARCHAR, _T.TEXT) and _is_json(node.this):
        return ours("json_text", node.this.transform(_change, copy=False))
    return node


def _is_json(node: exp.Expression) -> bool:
    if isinstance(node, exp.Cast | exp.TryCast):
        return bool(node.to.this == _T.JSON)
    return isinstance(node, exp.JSONExtract)


def _try_cast(node: exp.TryCast) -> exp.Expression:
    inner = node.this.transform(_change, copy=False)
    to = node.to
    if to.this == _T.ARRAY:
        return ours("try_texts", inner)
    if to.this == _T.DECIMAL:
        number = ours("try_numeric", inner)
        if not to.expressions:
            return number
        digits = [e.this.copy() for e in to.expressions]
        scale = digits[1] if len(digits) > 1 else exp.Literal.number(0)
        return ours("in_decimal", number, digits[0], scale)
    name = _TRY.get(to.this)
    if name is not None:
        return ours(name, inner)
    kind = _written(_type(to))
    text = ours("to_text", inner)
    valid = exp.Anonymous(this="pg_input_is_valid", expressions=[text, exp.Literal.string(kind)])
    cast = exp.Cast(this=text.copy(), to=_type(to.copy()))
    return exp.Case(ifs=[exp.If(this=valid, true=cast)])


def _typeof(node: exp.Typeof) -> exp.Expression:
    kind = exp.Anonymous(this="pg_typeof", expressions=[node.this.transform(_change, copy=False)])
    return ours("type_name", kind)


def _best(descending: bool) -> Callable[[Any], exp.Expression]:
    """arg_max and arg_min: of the rows where the argument is not NULL."""

    def change(node: Any) -> exp.Expression:
        value, by = node.this.transform(_change, copy=False), node.expression.transform(_change, copy=False)
        order = exp.Ordered(this=by, desc=descending, nulls_first=False)
        collected = exp.ArrayAgg(this=exp.Order(this=value, expressions=[order]))
        some = exp.Where(this=exp.Not(this=exp.Is(this=value.copy(), expression=exp.Null())))
        chosen = exp.Paren(this=exp.Filter(this=collected, expression=some))
        return exp.Var(this=f"{_written(chosen)}[1]")

    return change


def _explode(node: exp.Explode) -> exp.Expression:
    series: exp.Expression = node.this
    return series.transform(_change, copy=False) if isinstance(series, exp.GenerateSeries) else node


def _round(node: exp.Round) -> exp.Expression:
    if node.args.get("decimals") is None:
        return node
    value = exp.Cast(this=node.this.transform(_change, copy=False), to=_built("numeric").copy())
    return exp.Anonymous(this="round", expressions=[value, node.args["decimals"].copy()])


def _concat_ws(node: exp.ConcatWs) -> exp.Expression:
    """Not by concat_ws: a function takes 100 arguments, and an object may have more fields."""
    by, *values = (e.transform(_change, copy=False) for e in node.expressions)
    return exp.Anonymous(this="array_to_string", expressions=[exp.Array(expressions=values), by])


def _extract(node: exp.JSONExtract) -> exp.Expression:
    path = _path(node.expression)
    if path is None:
        return node
    return exp.Paren(this=exp.JSONBExtract(this=node.this.transform(_change, copy=False), expression=path))


def _extract_text(node: exp.JSONExtractScalar) -> exp.Expression:
    path = _path(node.expression)
    if path is None:
        return node
    return exp.Paren(this=exp.JSONBExtractScalar(this=node.this.transform(_change, copy=False), expression=path))


def _path(node: exp.Expression) -> exp.Expression | None:
    """A JSON pointer, or a path of keys and positions, as Postgres's list of them; None for any other expression."""
    if isinstance(node, exp.Literal) and node.is_string:
        text = str(node.this)
        if text.startswith("/"):
            keys = [k.replace("~1", "/").replace("~0", "~") for k in text.split("/")[1:]]
        else:
            keys = [] if text == "$" else [text]
    elif isinstance(node, exp.JSONPath):
        parts = [p for p in node.expressions if not isinstance(p, exp.JSONPathRoot)]
        if not all(isinstance(p, exp.JSONPathKey | exp.JSONPathSubscript) for p in parts):
            return None
        keys = [str(p.this) for p in parts]
    else:
        return None
    listed = exp.Array(expressions=[exp.Literal.string(k) for k in keys])
    return exp.Cast(this=listed, to=_built("text[]").copy())


def _json_of(node: Any) -> exp.Expression:
    """to_json: as text where its text is wanted, else as a value that can be compared."""
    inner = node.this if not isinstance(node, exp.Anonymous) else node.expressions[0]
    inner = inner.transform(_change, copy=False)
    if isinstance(inner, exp.Literal) and inner.is_string:
        inner = exp.Cast(this=inner, to=_built("text").copy())
    as_text = isinstance(node.parent, exp.Cast) and node.parent.to.this in (_T.VARCHAR, _T.TEXT)
    return exp.Anonymous(this="to_json" if as_text else "to_jsonb", expressions=[inner])


def _anonymous(node: exp.Anonymous) -> exp.Expression:
    name = str(node.this).lower()
    if name.startswith(PREFIX):
        return ours(name.removeprefix(PREFIX), *(e.transform(_change, copy=False) for e in node.expressions))
    if name == "to_json":
        return _json_of(node)
    if name == "isfinite":
        return ours("isfinite", node.expressions[0].transform(_change, copy=False))
    if name == "json_exists":
        path = _path(node.expressions[1])
        if path is not None:
            found = exp.JSONBExtract(this=node.expressions[0].transform(_change, copy=False), expression=path)
            return exp.Paren(this=exp.Not(this=exp.Is(this=exp.Paren(this=found), expression=exp.Null())))
    return node


def _json_type(node: Any) -> exp.Expression:
    kind = exp.Anonymous(this="jsonb_typeof", expressions=[node.this.transform(_change, copy=False)])
    return exp.Upper(this=kind)


def _list_sort(node: exp.SortArray) -> exp.Expression:
    return ours("list_sort", node.this.transform(_change, copy=False))


def _struct(node: exp.Struct) -> exp.Expression:
    """`{'a': 1}` as JSON, as rows of Postgres have no names of their own."""
    parts: list[exp.Expression] = []
    for member in node.expressions:
        parts += [exp.Literal.string(member.name), member.expression.transform(_change, copy=False)]
    return exp.Anonymous(this="jsonb_build_object", expressions=parts)


def _parameter(node: exp.Placeholder) -> exp.Expression:
    return exp.Var(this=f"${node.name}")


def _ignore_nulls(node: exp.IgnoreNulls) -> exp.Expression:
    """Of any_value, which on both engines is of the values that are not NULL."""
    return node.this.transform(_change, copy=False) if isinstance(node.this, exp.AnyValue) else node


_CHANGES: Mapping[type, Callable[[Any], exp.Expression]] = {
    exp.Identifier: _identifier,
    exp.DataType: _type,
    exp.Cast: _cast,
    exp.TryCast: _try_cast,
    exp.Typeof: _typeof,
    exp.ArgMax: _best(True),
    exp.ArgMin: _best(False),
    exp.Explode: _explode,
    exp.Round: _round,
    exp.ConcatWs: _concat_ws,
    exp.JSONExtract: _extract,
    exp.JSONExtractScalar: _extract_text,
    exp.Anonymous: _anonymous,
    exp.JSONType: _json_type,
    exp.SortArray: _list_sort,
    exp.Placeholder: _parameter,
    exp.Struct: _struct,
    exp.IgnoreNulls: _ignore_nulls,
}
