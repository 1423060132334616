"""SQL in sync files: one expression over one row."""

from __future__ import annotations

import re
import time

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.errors import FixConfig, Place
from oploop.project.sqltext import check_expression, is_simple, wrong_with

PLACE = Place("syncs/one.yml", 7)

RIGHT = [
    "tier <> 'free'",
    "health_score between 0 and 100",
    "'score ' || health_score",
    "a is not null and b in ('x', 'y') or not c like 'z%'",
    "coalesce(a, 'none')",
    "case when a > 1 then 'x; y' else 'select' end",
    "regexp_matches(email, '^[^@]+@[^@]+$')",
    "a::varchar || '-' || try_cast(b as integer)",
    "list_transform(l, x -> x + 1)",
    "[x for x in l if x > 1]",
    "due < current_date + interval 3 day",
    "payload->>'$.plan' = 'pro'",
    "a at time zone 'UTC' > timestamp '2025-01-01'",
    "a is distinct from b",
    "{'a': 1}.a",
]

WRONG = [
    ("", "must hold one expression"),
    ("a, b", "must hold one expression"),
    ("a >", "is no SQL expression"),
    ("(a", "is no SQL expression"),
    ("'a", "is no SQL expression"),
    ("1) or (1", "is no SQL expression"),
    ("drop table x", "is no SQL expression"),
    ("a; drop table x", "more than one statement"),
    ("a;", "more than one statement"),
    ("a -- b", "SQL comment"),
    ("a /* b */", "SQL comment"),
    ("a from t", "more than an expression"),
    ("distinct a", "more than an expression"),
    ("a limit 1", "more than an expression"),
    ("a union select 1", "more than an expression"),
    ("a into t", "more than an expression"),
    ("(select max(x) from t)", "subquery"),
    ("a in (select b from t)", "subquery"),
    ("exists (from t)", "subquery"),
    ("(values (1))", "subquery"),
    ("array(select 1)", "subquery"),
    ("unnest(l)", "subquery"),
    ("a as b", "names its result"),
    ("a b", "names its result"),
    ("(table x)", "names its result"),
    ("(show tables)", "names its result"),
    ("t.*", "holds a *"),
    ("columns('a.*')", "holds a *"),
    ("sum(a)", "several rows"),
    ("row_number() over ()", "several rows"),
    ("$1 = a", "parameter"),
    ("a = ?", "parameter"),
    ("read_csv('/etc/passwd')", "calls read_csv"),
    ("\"read_text\"('/etc/passwd')", "calls read_text"),
    ("system.main.getenv('HOME')", "calls getenv"),
    ("a.getenv()", "calls getenv"),
    ("GetEnv('HOME')", "calls getenv"),
    ("current_setting('x')", "calls current_setting"),
    ("nextval('s')", "calls nextval"),
    ("pg_read_file('/etc/passwd')", "calls pg_read_file"),
    ("pg_sleep(9) is null", "calls pg_sleep"),
    ("lo_import('/etc/passwd') > 0", "calls lo_import"),
    ("query_to_xml('select 1', true, false, '')", "calls query_to_xml"),
    ("dblink_exec('host=h', 'select 1')", "calls dblink_exec"),
    ("a\x00b", "NUL"),
    ("(" * 3000 + "a" + ")" * 3000, "is no SQL expression"),
]


@pytest.mark.parametrize("sql", RIGHT)
def test_right(sql: str) -> None:
    check_expression(sql, PLACE, "where")
    assert wrong_with(sql) is None


@pytest.mark.parametrize(("sql", "what"), WRONG, ids=[w[0][:30] for w in WRONG])
def test_wrong(sql: str, what: str) -> None:
    with pytest.raises(FixConfig, match=re.escape(what)) as found:
        check_expression(sql, PLACE, "where")
    assert found.value.place == PLACE
    assert found.value.mend


def _words() -> list[str]:
    """Every word that DuckDB or the parser knows, which is where the simple grammar could be fooled."""
    from sqlglot import exp
    from sqlglot.dialects.duckdb import DuckDB

    with duckdb.connect() as db:
        known = {r[0] for r in db.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()}
    known |= {k.lower() for k in DuckDB.Tokenizer.KEYWORDS} | {n.lower() for n in exp.FUNCTION_BY_NAME}
    return sorted(k for k in known if re.fullmatch(r"[a-z_]\w*", k))


def test_what_is_known_to_be_simple_is_right_with_any_word() -> None:
    """The words that a column cannot have as its name are left to the parser."""
    simple = 0
    with duckdb.connect() as db:
        for word in _words():
            for sql in (word, f"{word} = 1", f"not {word} is null", f"'a' || {word}"):
                if is_simple(sql):
                    simple += 1
                    assert wrong_with(sql) is None, sql
            if is_simple(f"{word} is null"):
                db.execute(f'SELECT ({word} is null) FROM (SELECT 1 AS "{word}")')
    assert simple > 1000


COLUMN = st.sampled_from(["score", "tier", "a_1", "select", "date", "current_date", "Total", "x"])
ATOM = COLUMN | st.sampled_from(
    ["1", "2.5", "'a'", "'it''s'", "''", "lower(tier)", "round(score)", "now()", "getenv('X')", "(x)"]
)
OPERATOR = st.sampled_from(["=", "<>", "||", "+", "*", " and ", " or ", " between 1 and ", " is null", " is not null and ", " in (1, 2)", " like 'a%'", ",", ";", " not ", "--", "(", ")", " "])  # fmt: skip


@given(st.lists(st.tuples(ATOM, OPERATOR), min_size=1, max_size=5), ATOM | st.just(""))
@settings(max_examples=400, deadline=None)
def test_what_is_known_to_be_simple_is_right(parts: list[tuple[str, str]], last: str) -> None:
    sql = "".join(a + o for a, o in parts) + last
    if is_simple(sql):
        assert wrong_with(sql) is None


@given(st.text(max_size=40) | st.lists(ATOM | OPERATOR, max_size=12).map(" ".join))
@settings(max_examples=400, deadline=None)
def test_any_text_is_taken_or_explained(sql: str) -> None:
    try:
        check_expression(sql, PLACE, "where")
    except FixConfig as e:
        said = e
    else:
        return
    assert said.mend
    assert "\n" not in str(said)


def test_the_grammar_does_not_hang() -> None:
    began = time.perf_counter()
    for sql in ("a " * 140, "a=" * 149, "not " * 70, "'" * 299, "a || " * 59, "a between 1 and " * 18, "a and " * 49):
        assert not is_simple(sql)
    assert time.perf_counter() - began < 10  # a grammar that backtracks takes minutes
