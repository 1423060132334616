"""A condition on each value within one of a nested type of DuckDB: lists, arrays, maps, structs, unions."""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from oploop.warehouse.base import literal


def within(expression: str, kind: str, test: Callable[[str, str], str | None], depth: int = 0) -> str | None:
    """See `Values.every`. A NULL fails no test."""
    if not kind.endswith(("]", ")")):
        return test(expression, kind)
    of = duckdb.sqltype(kind)
    if of.id in ("list", "array"):
        inner, each = str(of.children[0][1]), f"__e{depth}"
        found = within(each, inner, test, depth + 1)
        if found is None:
            return None
        return f"COALESCE(len(list_filter(CAST({expression} AS {inner}[]), lambda {each}: NOT ({found}))), 0) = 0"
    if of.id == "map":
        members = [(f"map_{part}s({expression})", f"{k}[]") for part, k in of.children]
    elif of.id in ("struct", "union"):  # a union's first one, without a name, tells which it holds
        members = [(f"{of.id}_extract({expression}, {literal(m)})", str(k)) for m, k in of.children if m]
    else:
        return test(expression, kind)
    tests = [within(e, k, test, depth) for e, k in members]
    return " AND ".join(f"({t}) IS NOT FALSE" for t in tests if t is not None) or None
