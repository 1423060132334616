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
        case Canonical.MOMENT if kind != "TIMESTAMP_NS":  # which has more digits than a moment
            moment = f"TRY_CAST({expr} AS TIMESTAMPTZ)"
            short = f"regexp_replace(CAST({moment} AS VARCHAR), '( 00:00:00)?[+]00$', '')"
            return f"COALESCE({short}, NULLIF({text}, ''))"
        case _:
            return f"NULLIF({text}, '')"


def _as_number(expr: str, text: str, kind: str) -> str:
    """A number's digits without zeros that say nothing, whatever its type: of any length, whole ones without a point."""
    if kind in INTEGERS | LARGE:
        return text
    bare, whole = f"trim({text})", f"TRY_CAST({expr} AS DECIMAL(38, 0))"
    if kind.startswith("DECIMAL"):
        return _digits_of(text)
    by_text = (
        f"WHEN regexp_matches({bare}, '^(0|-?[1-9][0-9]*)$') THEN {bare} "
        f"WHEN regexp_matches({bare}, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)$') THEN {_digits_of(bare)}"
    )
    if kind in ("DOUBLE", "FLOAT"):
        by_text = f"WHEN {expr} = CAST({whole} AS DOUBLE) THEN CAST({whole} AS VARCHAR) {by_text}"
    else:
        test = f"regexp_matches({bare}, '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)[eE][+-]?[0-9]+$')"
        by_text += (
            f" WHEN {test} AND TRY_CAST({bare} AS DOUBLE) = CAST({whole} AS DOUBLE) THEN CAST({whole} AS VARCHAR)"
        )
    return f"CASE {by_text} ELSE NULLIF({text}, '') END"


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
