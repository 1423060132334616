"""Postgres as a warehouse: what only a server has, and what only its dialect needs."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator

import psycopg
import pyarrow as pa
import pytest

from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.runtime import Runtime
from oploop.state.postgres import PostgresStore
from oploop.warehouse.base import SqlError
from oploop.warehouse.postgres import PostgresWarehouse, open_postgres
from oploop.warehouse.postgres_sql import short, translate
from tests.postgres import PASSWORD, Cluster, free_port

_numbers = itertools.count(1)


@pytest.fixture
def dsn(cluster: Cluster) -> str:
    return cluster.made(f"pgw{next(_numbers)}")


@pytest.fixture
def w(dsn: str) -> Iterator[PostgresWarehouse]:
    opened = open_postgres(dsn, read_only=False)
    yield opened
    opened.close()


def test_a_session_for_reading_writes_nothing_but_temporary_tables(w: PostgresWarehouse, dsn: str) -> None:
    w.execute("CREATE SCHEMA mart")
    w.execute("CREATE TABLE mart.t AS SELECT i AS n FROM range(3) t(i)")
    reader = open_postgres(dsn, read_only=True)
    for statement in ("INSERT INTO mart.t VALUES (9)", "DROP TABLE mart.t", "CREATE TABLE mart.u (a BIGINT)"):
        with pytest.raises(SqlError, match="read-only transaction"):
            reader.execute(statement)
    reader.execute("CREATE OR REPLACE TEMP TABLE mine AS SELECT n + ? AS n FROM mart.t", [10])
    reader.execute("CREATE OR REPLACE TEMP TABLE mine AS SELECT * REPLACE (n + 1 AS n) FROM mine")
    reader.register("shown", pa.table({"n": [11, 12]}))
    assert reader.rows("SELECT n FROM mine JOIN shown USING (n) ORDER BY 1") == [(11,), (12,)]
    reader.unregister("shown")
    with pytest.raises(SqlError, match="shown"):
        reader.rows("SELECT * FROM shown")
    assert reader.rows("SELECT count(*) FROM mine") == [(3,)]
    reader.close()


def test_a_database_that_oploop_never_wrote_is_no_warehouse_to_read(dsn: str) -> None:
    with pytest.raises(FixConfig, match=r"no warehouse yet at pgw.*run oploop extract"):
        open_postgres(dsn, read_only=True)


def test_a_user_without_rights_is_told_which_are_missing(cluster: Cluster, dsn: str) -> None:
    name = dsn.rpartition("/")[2]
    with cluster.admin() as admin:
        admin.execute(f"CREATE ROLE {name}_guest LOGIN PASSWORD 'g'")  # type: ignore[call-overload]
    guest = cluster.dsn(name, user=f"{name}_guest", password="g")
    with pytest.raises(
        FixConfig, match=f"permission denied.*GRANT CREATE, TEMPORARY ON DATABASE {name} TO {name}_guest"
    ):
        open_postgres(guest, read_only=False)
    with pytest.raises(FixConfig, match=r"the state in the warehouse cannot be had: permission denied.*GRANT CREATE"):
        PostgresStore(lambda: psycopg.connect(guest, autocommit=True), Runtime(), "the warehouse")


def test_functions_of_another_release_are_made_anew(w: PostgresWarehouse, dsn: str) -> None:
    w.connection.execute("COMMENT ON SCHEMA oploop_fn IS 'old'; DROP FUNCTION oploop_fn.whole")
    w.close()
    with pytest.raises(FixConfig, match="no warehouse yet"):
        open_postgres(dsn, read_only=True)
    again = open_postgres(dsn, read_only=False)
    assert again.rows("SELECT TRY_CAST('12' AS BIGINT)") == [(12,)]
    again.close()


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"password": "wrong-Wort"}, FixConfig, "refuses user 'oploop_test'"),
        ({"host": "nowhere.invalid"}, FixConfig, "there is no host 'nowhere.invalid'"),
        ({"port": 0}, RetryLater, "cannot reach the warehouse"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(
    cluster: Cluster, changed: dict[str, object], kind: type[OploopError], says: str
) -> None:
    if "port" in changed:
        changed = {"port": free_port()}
    with pytest.raises(kind, match=says) as e:
        open_postgres(cluster.dsn("postgres", **changed), read_only=False)
    assert PASSWORD not in str(e.value)
    assert "wrong-Wort" not in str(e.value)
    with pytest.raises(FixConfig, match="there is no database 'gone'"):
        open_postgres(cluster.dsn("gone"), read_only=False)
    with pytest.raises(FixConfig, match="no address"):
        open_postgres("host=a =", read_only=False)


def test_a_registered_table_comes_back_as_it_was(w: PostgresWarehouse) -> None:
    table = pa.table(
        {
            "t": pa.array(['it\'s "so"', "", None, "a,b\nc\\", "\\N", "\\."]),
            "n": pa.array([1, None, -(2**63), 2**63 - 1, 0, 5]),
            "d": pa.array([0.1, float("inf"), None, 5e-324, -0.5, 1e300]),
            "b": pa.array([True, False, None, True, True, True]),
            "day": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31), *[dt.date(2025, 3, 1)] * 3]),
            "at": pa.array(
                [dt.datetime(2025, 3, 1, 12, 0, 0, 123456, dt.UTC), None, *[dt.datetime(1, 1, 1, tzinfo=dt.UTC)] * 4],
                pa.timestamp("us", "UTC"),
            ),
        }
    )
    w.register("shown", table)
    assert w.query("SELECT * FROM shown").cast(table.schema).equals(table)
    w.register("shown", pa.table({"t": ["a\0b"]}))  # another under the same name; no text of Postgres holds U+0000
    assert w.rows("SELECT t FROM shown") == [("a\ufffdb",)]


def test_times_that_python_does_not_have_come_as_text(w: PostgresWarehouse) -> None:
    """A model may have them; the rows are held, and shown."""
    asked = (
        "SELECT DATE 'infinity', TIMESTAMP '12000-01-01 00:00:00', CAST('-infinity' AS TIMESTAMPTZ), DATE '2024-02-29'"
    )
    assert w.rows(asked) == [("infinity", "12000-01-01 00:00:00", "-infinity", dt.date(2024, 2, 29))]


def test_a_stream_sees_what_is_committed_in_batches(w: PostgresWarehouse) -> None:
    w.execute("CREATE TABLE t AS SELECT i AS n, 'x' || i AS t, TIMESTAMPTZ '2025-03-01' AS at FROM range(1000) t(i)")
    with w.transaction():
        w.execute("DELETE FROM t")
        batches = list(w.stream("SELECT * FROM t WHERE n < ? ORDER BY n", [900], batch_rows=250))
    assert [b.num_rows for b in batches] == [250, 250, 250, 150]
    assert batches[3].to_pylist()[-1] == {"n": 899, "t": "x899", "at": dt.datetime(2025, 3, 1, tzinfo=dt.UTC)}
    assert batches[0].schema.field("at").type == pa.timestamp("us", "UTC")
    with pytest.raises(SqlError, match="nothing"):
        list(w.stream("SELECT nothing FROM t"))


def test_names_that_are_too_long_are_told_apart_and_found(w: PostgresWarehouse) -> None:
    long = [f"{'ein sehr langer Name für ein Feld, ' * 3}{n}.sent" for n in "ab"]
    w.execute(f'CREATE TABLE t ("{long[0]}" VARCHAR)')
    w.execute(f'ALTER TABLE t ADD COLUMN "{long[1]}" BIGINT')
    w.execute(f'INSERT INTO t ("{long[0]}", "{long[1]}") VALUES (?, ?)', ["x", 1])
    found = w.columns("t")
    assert [n in found for n in (*long, "c")] == [True, True, False]
    assert (found[long[1]], found.get(long[0]), found.get("c")) == ("BIGINT", "VARCHAR", None)
    assert all(len(n.encode()) <= 63 for n in found)
    assert w.rows(f'SELECT "{long[1]}" FROM t') == [(1,)]
    assert short("short") == "short"


def test_a_transaction_is_all_or_nothing(w: PostgresWarehouse) -> None:
    w.execute("CREATE TABLE t (n BIGINT)")
    with pytest.raises(ZeroDivisionError), w.transaction():  # noqa: PT012
        w.execute("INSERT INTO t VALUES (1)")
        with w.transaction():
            w.execute("INSERT INTO t VALUES (2)")
        raise ZeroDivisionError
    with pytest.raises(SqlError, match="nothing"), w.transaction():  # noqa: PT012
        w.execute("INSERT INTO t VALUES (1)")
        w.register("shown", pa.table({"n": [1]}))
        try:
            w.execute("INSERT INTO nothing VALUES (1)")
        finally:
            w.unregister("shown")
    assert w.rows("SELECT * FROM t") == []
    with w.transaction():
        assert w.execute("INSERT INTO t VALUES (1), (2)") == 2
    assert w.execute("UPDATE t SET n = n + 1 WHERE n > 1") == 1


def test_a_session_that_breaks_is_said(w: PostgresWarehouse, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
        )
    with pytest.raises(RetryLater, match="cannot reach the warehouse pgw"):
        w.rows("SELECT 1")


def test_a_row_that_cannot_be_made_while_rows_come_is_refused(w: PostgresWarehouse) -> None:
    w.execute("CREATE TABLE t AS SELECT CAST(i AS VARCHAR) AS n FROM range(50000) t(i) UNION ALL SELECT 'x'")
    with pytest.raises(SqlError, match="refused a statement: invalid input syntax"):
        list(w.stream("SELECT CAST(n AS BIGINT) FROM t"))
    with pytest.raises(SqlError, match='refused a statement: relation "nothing" does not exist'):
        list(w.stream("SELECT * FROM nothing"))


def test_a_server_that_goes_while_rows_come_or_go_is_said(w: PostgresWarehouse, dsn: str) -> None:
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"
    with psycopg.connect(dsn, autocommit=True) as other:
        coming = w.stream("SELECT i, repeat('x', 1000) FROM range(100000) t(i)", batch_rows=10)
        next(coming)
        other.execute(f"SELECT pg_terminate_backend(pid, 5000) {ours}")
        with pytest.raises(RetryLater, match="cannot reach the warehouse pgw"):
            list(coming)
        with pytest.raises(RetryLater, match="cannot reach the warehouse pgw"):
            w.register("shown", pa.table({"n": [1]}))


def test_a_view_is_replaced_also_when_its_columns_change(w: PostgresWarehouse) -> None:
    for columns in ("1 AS a", "1 AS a, 2 AS b", "'x' AS b"):
        w.execute(f"CREATE OR REPLACE VIEW v AS SELECT {columns}")
    assert w.rows("SELECT b FROM v") == [("x",)]


def test_types_have_duckdbs_names(w: PostgresWarehouse) -> None:
    w.execute(
        "CREATE TABLE t (a VARCHAR, b DECIMAL(10, 2), c DOUBLE, d TIMESTAMPTZ, e TIMESTAMP, f JSON, g VARCHAR[], h UBIGINT, "
        "i TIME, j BLOB, k FLOAT, l SMALLINT, m UUID)"
    )
    assert list(w.columns("t").values()) == [
        "VARCHAR", "DECIMAL(10,2)", "DOUBLE", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "JSON", "VARCHAR[]", "DECIMAL(20,0)",
        "TIME", "BLOB", "FLOAT", "SMALLINT", "UUID",
    ]  # fmt: skip
    [(database,)] = w.rows("SELECT current_database()")
    assert w.columns(f"{database}.public.t") == w.columns("public.t") == w.columns("t")
    assert w.columns("public.nothing") == {}


@pytest.mark.parametrize(
    ("sql", "translated"),
    [
        ("SELECT x ->> '/a/b' FROM t WHERE y = ? AND z = '?'", "SELECT (x #>> CAST(ARRAY['a', 'b'] AS TEXT[])) FROM t WHERE y = $1 AND z = '?'"),
        ("SELECT a.* EXCLUDE (n) FROM (SELECT 1 AS n, 2 AS m) a", 'SELECT a."m" FROM (SELECT 1 AS n, 2 AS m) AS a'),
        ("SELECT n FROM t QUALIFY row_number() OVER (ORDER BY n) = 1",
         'SELECT "n" FROM (SELECT n, (ROW_NUMBER() OVER (ORDER BY n) = 1) AS __qualify FROM t) AS __qualified WHERE __qualify'),
    ],
)  # fmt: skip
def test_what_sqlglot_does_not_know_better_is_translated_here(sql: str, translated: str) -> None:
    assert translate(sql, lambda _: []).sql == translated


def test_what_would_mean_something_else_there_is_refused_and_not_sent(w: PostgresWarehouse) -> None:
    with pytest.raises(SqlError, match="IGNORE NULLS"):
        w.rows("SELECT first_value(a IGNORE NULLS) OVER (ORDER BY b) FROM (VALUES (1, 2)) t(a, b)")
    assert w.rows("SELECT any_value(a) FILTER (WHERE b > 1) FROM (VALUES (NULL, 2), (7, 3), (8, 1)) t(a, b)") == [(7,)]


def test_what_is_no_statement_is_said_in_one_line(w: PostgresWarehouse) -> None:
    for wrong in ("SELECT (", "CHECKPOINT", "SELECT nothing FROM nowhere"):
        with pytest.raises(SqlError) as e:
            w.execute(wrong)
        assert "\n" not in str(e.value)
