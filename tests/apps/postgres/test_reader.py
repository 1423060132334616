"""Reading tables: types, going on by xmin and by a cursor, what is gone, and what was still open when it was read."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, date, datetime

import pytest

from oploop.apps.postgres import reader
from oploop.errors import FixConfig, RetryLater
from oploop.records import ColumnType, Deletes, ReadOptions
from tests.apps.postgres.conftest import Database, PostgresApp, read

ALL_TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN email AS varchar(60) CHECK (VALUE LIKE '%@%');
CREATE TYPE place AS (street text, no int);
CREATE TABLE types (
  id bigint PRIMARY KEY, i2 smallint, i4 int, n numeric, n122 numeric(12,2), n380 numeric(38,4), n18 numeric(18,0),
  f4 real, f8 float8, b bool, t text, v varchar(5), c char(4), ts timestamp, tz timestamptz, d date, tm time, iv interval,
  j json, jb jsonb, ints int[], texts text[], u uuid, by bytea, m mood, e email, p place, r int4range, ip inet, mo money
)
"""


async def test_values_of_all_types(db: Database, crm: PostgresApp) -> None:
    db.sql(ALL_TYPES)
    db.sql(
        """INSERT INTO types VALUES (9007199254740993, -5, 7, 12345678901234567890.123456789, 1234567890.12,
        1234567890123456789012345678901234.5678, 123456789012345678, 0.1, 1e308, true, 'Grüße 👋 ''"\\', 'abcde', 'ab',
        '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00+05:30', '2024-02-29', '23:59:59.5', '1 mon 2 days',
        '{"b": 1, "a": 2}', '{"b": [1, null]}', '{1,NULL,3}', '{"a,b","c\\"d",NULL}',
        'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '\\xdeadbeef', 'it''s ok', 'a@b.c', '("Main, St",5)', '[1,5)',
        '10.0.0.1', '12.34')"""
    )
    db.sql("INSERT INTO types (id) VALUES (1)")
    rows = {r["id"]: r for r in (await read(crm, "public.types")).rows}
    row = rows[9007199254740993]
    assert (row["i2"], row["i4"], row["n18"]) == (-5, 7, 123456789012345678)
    assert row["n"] == "12345678901234567890.123456789"
    assert row["n122"] == 1234567890.12
    assert row["n380"] == "1234567890123456789012345678901234.5678"
    assert (row["f4"], row["f8"], row["b"]) == (0.1, 1e308, True)
    assert (row["t"], row["v"], row["c"]) == ("Grüße 👋 '\"\\", "abcde", "ab")
    assert row["ts"] == datetime(2024, 2, 29, 12, 0, 0, 123456, UTC)
    assert row["tz"] == datetime(2024, 2, 29, 6, 30, tzinfo=UTC)
    assert row["d"] == date(2024, 2, 29)
    assert (row["tm"], row["iv"]) == ("23:59:59.5", "1 mon 2 days")
    assert json.loads(row["j"]) == {"b": 1, "a": 2}
    assert json.loads(row["jb"]) == {"b": [1, None]}
    assert json.loads(row["ints"]) == [1, None, 3]
    assert json.loads(row["texts"]) == ["a,b", 'c"d', None]
    assert row["u"] == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    assert row["by"] == "3q2+7w=="
    assert (row["m"], row["e"]) == ("it's ok", "a@b.c")
    assert json.loads(row["p"]) == {"street": "Main, St", "no": 5}
    assert (row["r"], row["ip"], row["mo"]) == ("[1,5)", "10.0.0.1", "12.34")
    whole = json.loads(row["_raw"])
    assert whole["n"] == 12345678901234567890.123456789
    assert '"n":12345678901234567890.123456789' in row["_raw"]
    assert whole["by"] == "\\xdeadbeef"
    meta = {"id", "_raw", "_extracted_at", "_version", "_deleted"}
    assert all(v is None for k, v in rows[1].items() if k not in meta)
    assert rows[1]["_deleted"] is False


async def test_values_beyond_what_columns_can_hold_stand_in_the_raw_record(db: Database, crm: PostgresApp) -> None:
    db.sql(
        "CREATE TABLE far (id int PRIMARY KEY, d date, ts timestamp, tz timestamptz, n numeric, w numeric(6,0), f float8)"
    )
    db.sql("INSERT INTO far VALUES (1, 'infinity', '-infinity', 'infinity', 'NaN', 'NaN', 'infinity')")
    db.sql("INSERT INTO far VALUES (2, '4000-01-01 BC', '294276-12-31', '4713-01-01 BC', '1e1000', 1, '-0')")
    one, two = (await read(crm, "public.far")).rows
    assert (one["d"], one["ts"], one["tz"], one["n"], one["w"]) == (None, None, None, "NaN", None)
    assert one["f"] == float("inf")
    assert json.loads(one["_raw"])["tz"] == "infinity"
    assert (two["d"], two["ts"], two["tz"]) == (None, None, None)
    assert json.loads(two["_raw"])["d"] == "4000-01-01 BC"
    assert two["n"] == "1" + "0" * 1000


async def test_odd_names(db: Database, crm: PostgresApp) -> None:
    db.sql('CREATE SCHEMA "Odd Schema"')
    db.sql(
        'CREATE TABLE "Odd Schema"."a.b ""c""" ("ID" int, id int, "select" text, "_raw" text, "x y" text, PRIMARY KEY ("ID"))'
    )
    db.sql('INSERT INTO "Odd Schema"."a.b ""c""" VALUES (1, 2, %s, %s, %s)', "three", "four", "five")
    name = 'Odd Schema.a.b "c"'
    assert name in crm.streams
    assert crm.streams[name].primary_key == ("ID",)
    (row,) = (await read(crm, name)).rows
    assert (row["ID"], row["id__2"], row["select"], row["_raw__2"], row["x y"]) == (1, 2, "three", "four", "five")
    assert json.loads(row["_raw"]) == {"ID": 1, "id": 2, "select": "three", "_raw": "four", "x y": "five"}


def test_a_stream_tells_its_key_and_types(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE accounts (region text, no int, amount numeric(10,2), PRIMARY KEY (no, region))")
    db.sql("COMMENT ON TABLE accounts IS 'Who pays'")
    stream = crm.streams["accounts"]
    assert (stream.name, stream.primary_key, stream.description) == ("public.accounts", ("no", "region"), "Who pays")
    assert stream.columns == {
        "region": ColumnType.TEXT,
        "no": ColumnType.INTEGER,
        "amount": ColumnType.NUMBER,
        "_key": ColumnType.TEXT,
    }
    assert (stream.incremental, stream.deletes) == (True, Deletes.MARKED)
    assert list(crm.streams) == ["public.accounts"]


def test_a_table_that_is_not_there(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE accounts (id int PRIMARY KEY)")
    assert "public.acounts" not in crm.streams
    with pytest.raises(FixConfig, match=r"no table 'public\.acounts' — did you mean 'public\.accounts'\?"):
        crm.streams["public.acounts"]


async def test_a_table_without_a_key_asks_for_one(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE log (at timestamptz, who text, what text)")
    db.sql("INSERT INTO log VALUES (now(), 'a', 'b')")
    with pytest.raises(FixConfig, match=r"no primary key.*`key: \{public\.log: \[\.\.\.\]\}`"):
        crm.streams["public.log"]
    keyed = db.app(key={"log": ["who", "what"]})
    assert (await read(keyed, "public.log")).rows[0]["_key"] == '["a", "b"]'
    wrong = db.app(key={"public.log": ["whom"]})
    with pytest.raises(FixConfig, match="no column 'whom' — did you mean 'who'"):
        wrong.streams["public.log"]


async def test_a_view_is_read_whole(db: Database) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    db.sql("CREATE VIEW w AS SELECT * FROM t WHERE id > 1")
    app = db.app(key={"w": ["id"]})
    assert (app.streams["w"].incremental, app.streams["w"].deletes) == (False, Deletes.ABSENCE)
    first = await read(app, "w")
    assert [r["id"] for r in (await read(app, "w", first.cursor)).rows] == [2]
    with pytest.raises(FixConfig, match="is no table of this database"):
        app.objects["w"]


async def test_only_what_was_written_since_is_read_again(db: Database, crm: PostgresApp) -> None:
    db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 100) i"
    )
    first = await read(crm, "public.t")
    assert len(first.rows) == 100
    nothing = await read(crm, "public.t", first.cursor)
    assert (nothing.rows, nothing.keys) == ([], [])
    db.sql("UPDATE t SET v = 'new' WHERE id = 7; INSERT INTO t VALUES (101, 'more')")
    second = await read(crm, "public.t", nothing.cursor)
    assert {r["id"]: r["v"] for r in second.rows} == {7: "new", 101: "more"}
    assert min(r["_version"] for r in second.rows) > max(r["_version"] for r in first.rows)


async def test_what_was_open_when_it_was_read_is_read_later(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY)")
    with db.connect() as slow:
        slow.execute("INSERT INTO t VALUES (1)")
        with slow.transaction():
            slow.execute("INSERT INTO t VALUES (2)")  # of a subtransaction
        db.sql("INSERT INTO t VALUES (3)")  # began later, ended earlier
        first = await read(crm, "public.t")
        assert [r["id"] for r in first.rows] == [3]
    second = await read(crm, "public.t", first.cursor)
    assert {r["id"] for r in second.rows} >= {1, 2}
    third = await read(crm, "public.t", second.cursor)
    assert third.rows == []


async def test_what_is_gone_is_told_by_the_keys_that_are_there(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 50) i")
    first = await read(crm, "public.t")
    assert first.cursor["relisted"] is True
    db.sql("UPDATE t SET v = 1 WHERE id < 5")
    updated = await read(crm, "public.t", first.cursor)
    db.sql("INSERT INTO t VALUES (51), (52)")
    added = await read(crm, "public.t", updated.cursor)
    assert (updated.keys, added.keys) == ([], [])
    assert (updated.cursor["relisted"], added.cursor["relisted"]) == (False, False)
    db.sql("DELETE FROM t WHERE id IN (3, 50); INSERT INTO t VALUES (53)")
    fewer = await read(crm, "public.t", added.cursor)
    assert [r["id"] for r in fewer.rows] == [53]
    assert fewer.cursor["relisted"] is True
    assert {k["id"] for k in fewer.keys} == {*range(1, 54)} - {3, 50}
    db.sql("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (60)")  # as many as before
    last = await read(crm, "public.t", fewer.cursor)
    assert 1 not in {k["id"] for k in last.keys}
    again = await read(
        crm, "public.t", last.cursor, fetched=True
    )  # what came by key may be gone, and no read showed it
    assert len(again.keys) == 51
    assert again.cursor["relisted"] is True


async def test_what_came_of_a_large_table_is_merged_while_its_keys_are_counted(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MANY", 10)
    db.sql(
        "CREATE TABLE t (id text PRIMARY KEY, v int DEFAULT 0); INSERT INTO t SELECT i FROM generate_series(1, 50) i"
    )
    cursor = (await read(crm, "public.t")).cursor
    assert [b.pause async for b in crm.read("public.t", cursor, ReadOptions())] == [False]
    db.sql("UPDATE t SET v = 1 WHERE id < '3'")
    batches = [b async for b in crm.read("public.t", cursor, ReadOptions())]
    assert [(b.table.num_rows, b.pause, b.keys_only) for b in batches][-2:] == [(0, True, False), (0, False, False)]
    db.sql("DELETE FROM t WHERE id = '7'")
    assert len((await read(crm, "public.t", batches[-1].cursor)).keys) == 49


async def test_reads_share_a_connection_unless_it_is_old_or_broken(db: Database) -> None:
    now = 0.0
    db.runtime = dataclasses.replace(db.runtime, monotonic=lambda: now)
    app = db.app()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")

    async def behind(end: bool = False) -> list[int]:
        """Of which processes of the server the reads' connections are after one more; `end`: which it then ends."""
        assert len((await read(app, "public.t")).rows) == 1
        test = "FROM pg_stat_activity WHERE application_name = 'oploop' AND state = 'idle' AND datname = current_database()"
        found = [pid for (pid,) in db.sql(f"SELECT pid {test}")]
        if end:
            db.sql(f"SELECT pg_terminate_backend(pid, 5000) {test}")
        return found

    first = await behind()
    assert len(first) == 1
    assert await behind(end=True) == first
    second = await behind()
    assert second != first
    now += 60
    assert await behind() not in ([], second)
    [third] = await behind()

    tables = [f"t{i}" for i in range(6)]
    db.sql("; ".join(f"CREATE TABLE {t} (id int PRIMARY KEY); INSERT INTO {t} VALUES (1)" for t in tables))
    app = db.app()
    await asyncio.gather(*(read(app, f"public.{t}") for t in tables))
    kept = [pid for pid in await behind() if pid != third]
    assert 1 <= len(kept) <= 4, "a run that goes on for long holds no place of the server's for each table"


async def test_a_connection_that_breaks_once_all_has_been_read_fails_nothing(db: Database) -> None:
    """As where the server ends transactions that are idle, and what came last takes its time to be merged."""
    app = db.app()
    db.sql("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    ours = "FROM pg_stat_activity WHERE application_name = 'oploop' AND datname = current_database()"
    complete = False
    async for batch in app.read("public.t", None, ReadOptions()):
        complete = batch.complete
        if complete:
            assert db.sql(f"SELECT pg_terminate_backend(pid, 5000) {ours}") == [(True,)]
    assert complete
    assert len((await read(app, "public.t")).rows) == 1


async def test_by_a_cursor_column(db: Database) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, at timestamptz)")
    db.sql("INSERT INTO t SELECT i, '2024-01-01Z'::timestamptz + i * interval '1 hour' FROM generate_series(1, 48) i")
    db.sql("INSERT INTO t VALUES (99, NULL), (100, 'infinity')")
    app = db.app(cursor={"t": "at"}, overlap=1800)
    first = await read(app, "public.t")
    assert len(first.rows) == 50
    # a tie with the newest, one that was committed late, one too old to be found, and one without a time
    db.sql("INSERT INTO t VALUES (49, '2024-01-03Z'), (50, '2024-01-02 23:31Z'), (51, '2024-01-02Z'), (52, NULL)")
    second = await read(app, "public.t", first.cursor)
    assert {r["id"] for r in second.rows} == {48, 49, 50, 52, 99, 100}
    assert 51 in {k["id"] for k in second.keys}  # so that the loader sees that it missed something


@pytest.mark.parametrize(
    ("kind", "values"), [("int", (5, 6)), ("date", ("2024-01-01", "2024-01-02")), ("numeric", (1, 2))]
)
async def test_cursors_of_other_types(db: Database, kind: str, values: tuple[object, object]) -> None:
    db.sql(f"CREATE TABLE t (id int PRIMARY KEY, c {kind}); INSERT INTO t VALUES (1, '{values[0]}')")
    app = db.app(cursor={"public.t": "c"})
    first = await read(app, "public.t")
    db.sql(f"INSERT INTO t VALUES (2, '{values[1]}')")
    assert {r["id"] for r in (await read(app, "public.t", first.cursor)).rows} >= {2}


def test_a_cursor_that_cannot_be_one(db: Database) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, c text)")
    with pytest.raises(FixConfig, match="is a text, by which nothing can be read on"):
        db.app(cursor={"t": "c"}).streams["t"]
    with pytest.raises(FixConfig, match="no column 'idd' — did you mean 'id'"):
        db.app(cursor={"t": "idd"}).streams["t"]


async def test_since(db: Database, crm: PostgresApp) -> None:
    db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp); INSERT INTO t VALUES (1, '2024-01-01'), (2, '2024-06-01')"
    )
    since = datetime(2024, 3, 1, tzinfo=UTC)
    assert [r["id"] for r in (await read(db.app(cursor={"t": "at"}), "t", since=since)).rows] == [2]
    with pytest.raises(FixConfig, match="has no cursor that tells the time"):
        await read(crm, "t", since=since)


async def test_excluded_columns_are_nowhere(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text, secret text); INSERT INTO t VALUES (1, 'v', 'psst')")
    (row,) = (await read(crm, "t", exclude=frozenset({"secret"}))).rows
    assert "secret" not in row
    assert json.loads(row["_raw"]) == {"id": 1, "v": "v"}
    with pytest.raises(FixConfig, match="its key 'id' cannot be left out"):
        await read(crm, "t", exclude=frozenset({"id"}))


@pytest.mark.parametrize(
    "happens",
    [
        "ALTER TABLE t ADD COLUMN more text DEFAULT 'x'",  # rows get a value without being written
        "ALTER TABLE t ALTER COLUMN v TYPE varchar(9)",
        "CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u SELECT * FROM t; DROP TABLE t; ALTER TABLE u RENAME TO t",
    ],
)
async def test_a_changed_table_is_read_whole(db: Database, crm: PostgresApp, happens: str) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    first = await read(crm, "t")
    db.sql(happens)
    assert len((await read(db.app(), "t", first.cursor)).rows) == 2


async def test_partitions(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE p (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r)")
    db.sql("CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); INSERT INTO p VALUES (1, 'a')")
    db.sql("CREATE TABLE p_b (LIKE p INCLUDING ALL); INSERT INTO p_b VALUES (2, 'b')")
    assert "public.p_a" not in list(crm.streams)
    first = await read(crm, "p")
    assert [r["_key"] for r in first.rows] == ['[1, "a"]']
    db.sql("INSERT INTO p VALUES (3, 'a')")
    second = await read(crm, "p", first.cursor)
    assert [r["id"] for r in second.rows] == [3]
    db.sql("ALTER TABLE p ATTACH PARTITION p_b FOR VALUES IN ('b')")  # rows that were written before
    assert {r["id"] for r in (await read(crm, "p", second.cursor)).rows} == {1, 2, 3}


async def test_all_is_of_one_moment(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    db.sql("INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 60000) i")
    batches = crm.read("t", None, ReadOptions())
    first = await anext(batches)
    assert first.table.num_rows < 60000  # a batch at a time
    db.sql("UPDATE t SET v = 'later'; DELETE FROM t WHERE id > 50000")
    rows = first.table.to_pylist()
    async for batch in batches:
        rows += batch.table.to_pylist()
        cursor = batch.cursor
    assert len(rows) == 60000
    assert {r["v"] for r in rows} == {"x" * 200}
    later = await read(crm, "t", cursor)
    assert len(later.rows) == 50000
    assert len(later.keys) == 50000


async def test_a_read_that_is_left_early_leaves_no_connection(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t AS SELECT i AS id, repeat('x', 200) AS v FROM generate_series(1, 60000) i")
    db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    batches = crm.read("t", None, ReadOptions())
    await anext(batches)
    await batches.aclose()
    for _ in range(50):
        left = db.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        if left == [(0,)]:
            break
        await crm.runtime.sleep(0.05)
    assert left == [(0,)]


async def test_fetch_by_ids(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE one (id bigint PRIMARY KEY, v text); INSERT INTO one VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    db.sql("CREATE TABLE two (a text, b uuid, v text, PRIMARY KEY (a, b))")
    db.sql("INSERT INTO two VALUES ('x''y', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'v')")
    before = await read(crm, "one")
    rows = {r["id"]: r for r in (await crm.fetch("one", ["3", "1", "9"])).table.to_pylist()}
    assert {k: (r["v"], r["_deleted"]) for k, r in rows.items()} == {1: ("a", False), 3: ("c", False), 9: (None, True)}
    assert rows[1]["_version"] > before.rows[0]["_version"]
    there = '["x\'y", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]'
    gone = '["z", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]'
    found = {r["_key"]: r for r in (await crm.fetch("two", [there, gone])).table.to_pylist()}
    assert (found[there]["v"], found[gone]["a"], found[gone]["_deleted"]) == ("v", "z", True)


@pytest.mark.parametrize("name", ["x", "o", "value"])
async def test_fetch_by_ids_whatever_the_columns_are_called(db: Database, crm: PostgresApp, name: str) -> None:
    """No column is taken for the ids."""
    db.sql(f"CREATE TABLE one (id bigint PRIMARY KEY, {name} bigint); INSERT INTO one VALUES (1, 2), (2, 2), (3, 1)")
    rows = {r["id"]: r for r in (await crm.fetch("one", ["3", "1", "9"])).table.to_pylist()}
    assert {k: (r[name], r["_deleted"]) for k, r in rows.items()} == {1: (2, False), 3: (1, False), 9: (None, True)}
    db.sql(f"CREATE TABLE two (a text, b text, {name} jsonb, PRIMARY KEY (a, b)); INSERT INTO two VALUES ('a', 'b')")
    [row] = (await crm.fetch("two", ['["a", "b"]'])).table.to_pylist()
    assert (row["a"], row["_deleted"]) == ("a", False)


async def test_a_read_that_the_server_breaks_off_is_no_defect(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS v FROM generate_series(1, 60000) i")
    db.sql("ALTER TABLE t ADD PRIMARY KEY (id)")
    batches = crm.read("t", None, ReadOptions())
    await anext(batches)
    others = "datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user"  # no vacuum of the server's
    db.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with pytest.raises(RetryLater, match="broke the read off"):
        [_ async for _ in batches]


async def test_a_column_that_may_not_be_read(db: Database) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, v text, hidden text); INSERT INTO t VALUES (1, 'v', 'h')")
    with db.cluster.admin(db.name) as admin:
        admin.execute("ALTER TABLE t OWNER TO postgres; GRANT SELECT (id, v) ON t TO oploop_test")
    app = db.app()
    assert (await read(app, "t")).rows[0]["v"] == "v"
    assert app.objects["t"].fields["hidden"].source is None
    assert app.objects["t"].fields["v"].read_only
