"""A condition on each value within one of a nested type of DuckDB: lists, arrays, maps, structs, unions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from oploop.warehouse.base import literal


def within(expression: str, kind: str, test: Callable[[str, str], str | None], depth: int = 0) -> str | None:
    """See `Values.every`. A NULL fails no test."""
    if kind.endswith("]"):
        inner, each = kind[: kind.rindex("[")], f"__e{depth}"
        found = within(each, inner, test, depth + 1)
        if found is None:
            return None
        return f"COALESCE(len(list_filter(CAST({expression} AS {inner}[]), lambda {each}: NOT ({found}))), 0) = 0"
    name, _, rest = kind.partition("(")
    if name not in ("STRUCT", "MAP", "UNION"):
        return test(expression, kind)
    parts = list(_parts(rest.removesuffix(")")))
    if name == "MAP":
        tests = [
            within(f"map_{which}({expression})", f"{k}[]", test, depth)
            for which, k in zip(("keys", "values"), parts, strict=True)
        ]
    else:
        get = "struct_extract" if name == "STRUCT" else "union_extract"
        tests = [within(f"{get}({expression}, {literal(m)})", k, test, depth) for m, k in map(_member, parts)]
    return " AND ".join(f"({t}) IS NOT FALSE" for t in tests if t is not None) or None


def _parts(text: str) -> Iterator[str]:
    """What stands between the commas that are within neither brackets nor quotes."""
    depth, quote, start = 0, "", 0
    for i, c in enumerate(text):
        if c == quote or (not quote and c in "\"'"):
            quote = "" if quote else c  # a doubled one is the end and a beginning
        elif not quote and c in "()[]":
            depth += 1 if c in "([" else -1
        elif c == "," and not quote and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    yield text[start:].strip()


def _member(text: str) -> tuple[str, str]:
    """A member's name and type."""
    if not text.startswith('"'):
        name, _, kind = text.partition(" ")
        return name, kind
    end = 1
    while text[end] != '"' or text[end + 1 : end + 2] == '"':
        end += 2 if text[end] == '"' else 1
    return text[1:end].replace('""', '"'), text[end + 1 :].strip()
