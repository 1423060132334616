"""Canonical texts: what two values of a field have in common that an app takes for the same.

Written with what each engine has, so that a key has one form in all of them: 12, '12', 12.00 and 1.2e1 are `12`; a day and its first
instant are `2024-01-31`.
"""

from __future__ import annotations

from oploop.records import Canonical

#: SQL types of whole numbers that fit 64 bits, and of those that may not.
INTEGERS = frozenset({"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT"})
LARGE = frozenset({"HUGEINT", "UHUGEINT", "UBIGINT"})


def canonical(expr: str, form: Canonical, kind: str = "") -> str:
    """An expression for the canonical text of `expr`; an empty text is no key and becomes NULL. `kind`: its SQL type, where it is
    known: the form is the same, and found sooner."""
    text = f"CAST({expr} AS VARCHAR)"
    match form:
        case Canonical.LOWER:
            return f"NULLIF(lower(trim({text})), '')"
        case Canonical.TRIM:
            return f"NULLIF(trim({text}), '')"
        case Canonical.ID_15_18:
            return f"CASE WHEN length({text}) = 18 THEN substr({text}, 1, 15) ELSE NULLIF(trim({text}), '') END"
        case Canonical.NUMBER:
            return _as_number(expr, text, kind)
        case Canonical.MOMENT:
            return _as_moment(expr, text, kind)
        case _:
            return f"NULLIF({text}, '')"


def _as_moment(expr: str, text: str, kind: str) -> str:
    """An instant in UTC, at midnight its day; one with more digits than a moment has stays the text that it is."""
    moment = f"TRY_CAST({expr} AS TIMESTAMPTZ)"
    short = f"regexp_replace(CAST({moment} AS VARCHAR), '( 00:00:00)?[+]00$', '')"
    if kind in ("", "VARCHAR", "TIMESTAMP_NS"):
        short = f"CASE WHEN NOT regexp_matches({text}, '[.][0-9]{{6}}[0-9]*[1-9]') THEN {short} END"
    return f"COALESCE({short}, NULLIF({text}, ''))"


def _as_number(expr: str, text: str, kind: str) -> str:
    """A number's digits without zeros that say nothing, whatever its type: of any length, whole ones without a point."""
    if kind in INTEGERS | LARGE:
        return text
    if kind.startswith("DECIMAL"):
        return _digits_of(text)
    bare = f"trim({text})"
    # by way of a DOUBLE in each case: what has an exponent may be the text of one, which has fewer digits than its value
    double = expr if kind == "DOUBLE" else f"TRY_CAST({bare} AS DOUBLE)"
    whole = f"TRY_CAST({double} AS DECIMAL(38, 0))"
    written_out = f"{double} = CAST({whole} AS DOUBLE) THEN CAST({whole} AS VARCHAR)"
    by_text = (
        f"WHEN regexp_matches({bare}, '^(0|-?[1-9][0-9]*)$') THEN {bare} "
        f"WHEN regexp_matches({bare}, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)$') THEN {_digits_of(bare)}"
    )
    if kind == "DOUBLE":
        return f"CASE WHEN {written_out} {by_text} ELSE NULLIF({text}, '') END"
    exponent = f"regexp_matches({bare}, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)[eE][+-]?[0-9]+$')"
    return f"CASE {by_text} WHEN {exponent} AND {written_out} ELSE NULLIF({text}, '') END"


def _digits_of(text: str) -> str:
    """The same of a number without an exponent: 007.50 is 7.5, .0 and -0 are 0."""
    for pattern, by in (
        ("[.]0*$", ""),
        ("([.][0-9]*[1-9])0+$", "\\1"),
        ("^[+]?(-?)0*([0-9])", "\\1\\2"),
        ("^[+]?(-?)([.]|$)", "\\10\\2"),
        ("^-0$", "0"),
    ):
        text = f"regexp_replace({text}, '{pattern}', '{by}')"
    return text
