"""Writing tables: each operation in one statement, bad rows among good ones, a user that may do less."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from oploop.apps.sql.engine import RowsRefused
from oploop.errors import FixConfig
from oploop.records import Canonical, Change, FieldType, Op, Outcome, Replay, Step
from tests.apps.postgres.conftest import ACCOUNTS, Database, PostgresApp, changes, read, row, send
from tests.apps.postgres.test_reader import ALL_TYPES
from tests.postgres import USER

# -- what can be written --------------------------------------------------------------------------------------------


def test_fields_are_as_the_catalog_has_them(db: Database, crm: PostgresApp) -> None:
    db.sql(ALL_TYPES)
    db.sql(
        "ALTER TABLE types ALTER COLUMN i4 SET NOT NULL, ALTER COLUMN i2 SET NOT NULL, ALTER COLUMN i2 SET DEFAULT 3"
    )
    db.sql(
        "ALTER TABLE types ADD made int GENERATED ALWAYS AS (i4 + 1) STORED, ADD no int GENERATED ALWAYS AS IDENTITY"
    )
    obj = crm.objects["public.types"]
    assert (obj.stream, obj.id_column) == ("public.types", "id")
    f = obj.fields
    assert (f["id"].key, f["id"].required, f["t"].key) == (True, True, False)
    assert (f["i4"].required, f["i4"].nullable, f["i2"].required, f["i2"].nullable) == (True, False, False, False)
    assert (f["made"].read_only, f["no"].read_only, f["t"].read_only) == (True, True, False)
    assert (f["v"].max_length, f["e"].max_length, f["t"].max_length) == (5, 60, None)
    assert f["m"].enum == ("sad", "it's ok", "happy")
    assert {n: f[n].type for n in ("n", "n122", "n18", "f4", "b", "ts", "d", "jb", "texts", "u")} == {
        "n": FieldType.TEXT,
        "n122": FieldType.NUMBER,
        "n18": FieldType.INTEGER,
        "f4": FieldType.NUMBER,
        "b": FieldType.BOOLEAN,
        "ts": FieldType.TIMESTAMP,
        "d": FieldType.DATE,
        "jb": FieldType.JSON,
        "texts": FieldType.JSON,
        "u": FieldType.TEXT,
    }
    assert f["u"].canonical is Canonical.LOWER


def test_operations_are_those_that_the_table_takes(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("CREATE TABLE log (at timestamptz)")
    accounts, log = crm.objects["public.accounts"], crm.objects["public.log"]
    assert set(accounts.operations) == {Op.CREATE, Op.UPDATE, Op.UPSERT, Op.REMOVE}
    assert accounts.operations[Op.CREATE].replay is Replay.KEY
    assert accounts.operations[Op.UPSERT].keys == ("email", "id")
    assert set(accounts.unique) == {frozenset({"id"}), frozenset({"email"})}
    assert (log.stream, Op.UPSERT in log.operations) == (None, False)


# -- each operation -------------------------------------------------------------------------------------------------


async def test_create_tells_the_ids_that_the_database_made(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    made = await send(crm, "public.accounts", Op.CREATE, changes(Op.CREATE, "email", [row(n) for n in range(1, 1501)]))
    assert {r.outcome for r in made.values()} == {Outcome.OK}
    ids = dict(db.sql("SELECT email, id::text FROM accounts"))
    assert {n: r.remote_id for n, r in made.items()} == {n: ids[f"u{n}@acme.example"] for n in range(1, 1501)}
    assert db.sql("SELECT DISTINCT plan FROM accounts") == [("free",)]


async def test_upsert_by_any_unique_index(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (id, email, name, touched) VALUES (7, 'u1@acme.example', 'Old', 5)")
    done = await send(crm, "accounts", Op.UPSERT, changes(Op.UPSERT, "email", [row(1), row(2)]))
    assert done[1].remote_id == "7"
    found = db.sql("SELECT email, name, score, touched FROM accounts ORDER BY email")
    assert found == [("u1@acme.example", "User 1", 1, 5), ("u2@acme.example", "User 2", 2, 0)]
    by_id = [Change(1, Op.UPSERT, {"id": 7}, {"id": 7, "email": "new@acme.example"})]
    assert (await send(crm, "accounts", Op.UPSERT, by_id))[1].remote_id == "7"
    assert db.sql("SELECT email, name FROM accounts WHERE id = 7") == [("new@acme.example", "User 1")]
    with pytest.raises(FixConfig, match="no unique index on name to upsert by"):
        await send(crm, "accounts", Op.UPSERT, [Change(1, Op.UPSERT, {"name": "x"}, {"name": "x"})])


async def test_rows_that_send_different_fields(db: Database, crm: PostgresApp) -> None:
    """What is not sent keeps its value, or gets its default; what is sent as NULL is cleared."""
    db.sql(ACCOUNTS)
    db.sql(
        "INSERT INTO accounts (email, name, score, plan) SELECT 'u' || i || '@acme.example', 'Old', 9, 'gold' FROM generate_series(1, 4) i"
    )
    key = [{"email": f"u{n}@acme.example"} for n in range(8)]
    some = [
        Change(1, Op.UPSERT, key[1], {**key[1], "name": "New"}),
        Change(2, Op.UPSERT, key[2], {**key[2], "name": None, "score": 1}),
        Change(3, Op.UPSERT, key[3], {**key[3], "plan": "pro"}),
        Change(4, Op.UPSERT, key[4], dict(key[4])),
        Change(5, Op.UPSERT, key[5], {**key[5], "score": 5}),
        Change(6, Op.UPSERT, key[6], {**key[6], "plan": "pro"}),
    ]
    assert {r.outcome for r in (await send(crm, "accounts", Op.UPSERT, some)).values()} == {Outcome.OK}
    assert db.sql("SELECT name, score, plan FROM accounts ORDER BY email") == [
        ("New", 9, "gold"),
        (None, 1, "gold"),
        ("Old", 9, "pro"),
        ("Old", 9, "gold"),
        (None, 5, "free"),
        (None, None, "pro"),
    ]
    updates = [
        Change(1, Op.UPDATE, key[1], {"name": "Ann"}),
        Change(2, Op.UPDATE, key[2], {"score": None}),
        Change(3, Op.UPDATE, key[3], {"name": None, "plan": "free"}),
    ]
    await send(crm, "accounts", Op.UPDATE, updates)
    assert db.sql("SELECT name, score, plan FROM accounts ORDER BY email LIMIT 3") == [
        ("Ann", 9, "gold"),
        (None, None, "gold"),
        (None, 9, "free"),
    ]


async def test_update_says_which_rows_are_not_there(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (id, email) VALUES (1, 'a@b.c'), (2, 'd@e.f')")
    by_id = [Change(n, Op.UPDATE, {"email": "x"}, {"score": n}, str(n)) for n in (1, 2, 3)]
    done = await send(crm, "accounts", Op.UPDATE, by_id)
    assert {n: r.outcome for n, r in done.items()} == {1: Outcome.OK, 2: Outcome.OK, 3: Outcome.REJECTED}
    assert done[3].error == "no such row in public.accounts"
    by_key = [
        Change(1, Op.UPDATE, {"email": "a@b.c"}, {"score": 5}),
        Change(2, Op.UPDATE, {"email": "no"}, {"score": 5}),
    ]
    done = await send(crm, "accounts", Op.UPDATE, by_key)
    assert [done[n].outcome for n in (1, 2)] == [Outcome.OK, Outcome.REJECTED]
    assert db.sql("SELECT id, score FROM accounts ORDER BY 1") == [(1, 5), (2, 2)]


async def test_remove(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (id, email) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    gone = [Change(n, Op.REMOVE, {"email": "?"}, {}, str(n)) for n in (1, 3, 4)]
    assert {r.outcome for r in (await send(crm, "accounts", Op.REMOVE, gone)).values()} == {Outcome.OK}
    assert db.sql("SELECT id FROM accounts") == [(2,)]


async def test_keys_of_several_columns(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE stock (shop text, sku uuid, n int, PRIMARY KEY (shop, sku))")
    sku = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
    key = {"sku": sku.upper(), "shop": 'Ber"lin, 1'}
    made = await send(crm, "stock", Op.UPSERT, [Change(1, Op.UPSERT, key, {**key, "n": 1})])
    (held,) = (await read(crm, "stock")).rows
    assert made[1].remote_id == held["_key"]
    await send(crm, "stock", Op.UPDATE, [Change(1, Op.UPDATE, key, {"n": 2}, made[1].remote_id)])
    assert db.sql("SELECT shop, sku::text, n FROM stock") == [(key["shop"], sku, 2)]


# -- values ---------------------------------------------------------------------------------------------------------


async def test_values_of_all_types_come_back_as_they_were_sent(db: Database, crm: PostgresApp) -> None:
    db.sql(ALL_TYPES)
    values = {
        "id": 9007199254740993, "i2": -5, "i4": 7, "n": "12345678901234567890.123456789", "n122": 0.1,
        "n380": "-1234567890123456789012345678901234.5678", "n18": 123456789012345678, "f4": 0.1, "f8": 1e308, "b": False,
        "t": "Grüße 👋 \"'\\,;\r\n\\.\n\t\\N", "v": "äöüß€", "c": "ab", "ts": datetime(2024, 2, 29, 12, 0, 0, 123456, UTC),
        "tz": datetime(1999, 12, 31, 23, 59, 59, 999999, UTC), "d": date(1, 1, 1), "tm": "23:59:59.5", "iv": "1 mon 2 days",
        "j": {"b": 1, "a": [None, "\"\\"]}, "jb": [1, "é"], "ints": [1, None, 3], "texts": ["a,b", 'c"d\\', None, "NULL", ""],
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "by": "3q2+7w==", "m": "it's ok", "e": "a@b.c",
        "p": {"street": "Main, \"St\"", "no": 5}, "r": "[1,5)", "ip": "10.0.0.1", "mo": "12.34",
    }  # fmt: skip
    empty = {"id": 2, **{k: None for k in values if k != "id"}}
    blank = {"id": 3, "t": "", "texts": [], "jb": {}}
    rows = [values, empty, blank]
    done = await send(crm, "types", Op.UPSERT, changes(Op.UPSERT, "id", rows))
    assert {n: (r.outcome, r.remote_id) for n, r in done.items()} == {
        1: (Outcome.OK, "9007199254740993"), 2: (Outcome.OK, "2"), 3: (Outcome.OK, "3"),
    }  # fmt: skip
    held = {r["id"]: r for r in (await read(crm, "types")).rows}
    shown = held[values["id"]] | {k: json.loads(held[values["id"]][k]) for k in ("j", "jb", "ints", "texts", "p")}
    assert {k: shown[k] for k in values} == values
    assert all(held[2][k] is None for k in values if k != "id")
    assert (held[3]["t"], held[3]["texts"], held[3]["jb"], held[3]["v"]) == ("", "[]", "{}", None)
    assert db.sql("SELECT ts::text, n122::text FROM types WHERE id > 3") == [("2024-02-29 12:00:00.123456", "0.10")]


async def test_nothing_is_cut_off_to_fit(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE t (id varchar(3) PRIMARY KEY, v varchar(3), c char(2), b bit(2))")
    db.sql("INSERT INTO t VALUES ('abc', 'x', 'y', '10')")
    too_long = [
        Change(1, Op.UPDATE, {"id": "abcd"}, {"v": "z"}),
        Change(2, Op.UPDATE, {"id": "abc"}, {"v": "long"}),
        Change(3, Op.UPDATE, {"id": "abc"}, {"c": "xyz"}),
        Change(4, Op.UPDATE, {"id": "abc"}, {"b": "101"}),
    ]
    done = await send(crm, "t", Op.UPDATE, too_long)
    assert done[1].error == "no such row in public.t"
    assert done[2].error == "value too long for type character varying(3)"
    assert {r.outcome for r in done.values()} == {Outcome.REJECTED}
    assert db.sql("SELECT * FROM t") == [("abc", "x", "y ", "10")]


async def test_odd_names(db: Database, crm: PostgresApp) -> None:
    db.sql('CREATE SCHEMA "S p"; CREATE TYPE "S p"."Kind of" AS ENUM (\'a"b\')')
    db.sql(
        'CREATE TABLE "S p"."T""x" ("select" int PRIMARY KEY, "n" text, "c0" text, "Id" "S p"."Kind of", "t" text, "s" text)'
    )
    name = 'S p.T"x'
    rows = [{"select": i, "n": "n", "c0": "c", "Id": 'a"b', "t": "t", "s": "s"} for i in (1, 2)]
    done = await send(crm, name, Op.UPSERT, changes(Op.UPSERT, "select", rows))
    assert [done[n].remote_id for n in (1, 2)] == ["1", "2"]
    bad = await send(
        crm, name, Op.UPSERT, changes(Op.UPSERT, "select", [{**rows[0], "Id": "no"}, {**rows[1], "n": "new"}])
    )
    assert 'invalid input value for enum "S p"."Kind of": "no"' in (bad[1].error or "")
    assert db.sql('SELECT "n" FROM "S p"."T""x" ORDER BY "select"') == [("n",), ("new",)]


# -- bad rows -------------------------------------------------------------------------------------------------------


async def test_bad_rows_do_not_keep_the_others_back(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (email) VALUES ('taken@acme.example')")
    rows = [row(n) for n in range(1, 1001)]
    rows[9]["score"] = -1
    rows[99]["email"] = None
    rows[100]["email"] = "taken@acme.example"
    rows[500]["score"] = 2**40
    rows[998]["plan"] = "far too long a plan"
    rows[999]["name"] = "zero \x00 byte"
    before = crm.transport.calls if crm.transport else 0
    done = await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", rows))
    bad = {n: r.error for n, r in done.items() if r.outcome is Outcome.REJECTED}
    assert bad.keys() == {10, 100, 101, 501, 999, 1000}
    assert 'violates check constraint "accounts_score_check"' in (bad[10] or "")
    assert 'null value in column "email"' in (bad[100] or "")
    assert bad[101] == (
        'duplicate key value violates unique constraint "accounts_email_key": Key (email)=(taken@acme.example) already exists.'
    )
    assert bad[501] == "integer out of range"
    assert bad[999] == "value too long for type character varying(10)"
    assert "U+0000" in (bad[1000] or "")
    assert db.sql("SELECT count(*) FROM accounts") == [(995,)]
    assert crm.transport is not None
    assert crm.transport.calls - before == 2  # once in one statement, once with care


async def test_a_bad_row_alone_is_refused(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    with pytest.raises(RowsRefused, match="accounts_score_check"):
        await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(1, score=-1)]))


async def test_constraints_that_wait_for_the_commit_and_triggers_that_refuse(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1)")
    db.sql("CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    db.sql("""CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.id = 3 THEN RAISE EXCEPTION 'no threes' USING DETAIL = 'ever'; END IF;
        IF NEW.id = 4 THEN RETURN NULL; END IF; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER picky BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION picky()")
    rows = [{"id": n, "parent": 9 if n == 2 else 1} for n in range(1, 6)]
    done = await send(crm, "child", Op.CREATE, changes(Op.CREATE, "id", rows))
    assert {n: r.error for n, r in done.items() if r.outcome is Outcome.REJECTED} == {
        2: 'insert or update on table "child" violates foreign key constraint "child_parent_fkey": '
        'Key (parent)=(9) is not present in table "parent".',
        3: "no threes: ever",
        4: "public.child did not take the row: a trigger or a rule kept it out",
    }
    assert db.sql("SELECT id FROM child ORDER BY 1") == [(1,), (5,)]


POLICY = "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY; ALTER TABLE accounts FORCE ROW LEVEL SECURITY"


@pytest.mark.parametrize("op", [Op.CREATE, Op.UPSERT])
@pytest.mark.parametrize("many", [3, 700])
async def test_what_a_policy_refuses_is_a_row_and_no_missing_right(
    db: Database, crm: PostgresApp, op: Op, many: int
) -> None:
    db.sql(ACCOUNTS)
    db.sql(POLICY)
    db.sql("CREATE POLICY small ON accounts USING (true) WITH CHECK (score <> 2)")
    done = await send(crm, "accounts", op, changes(op, "email", [row(n) for n in range(1, many + 1)]))
    assert {n: r.error for n, r in done.items() if r.outcome is not Outcome.OK} == {
        2: 'new row violates row-level security policy for table "accounts"'
    }
    assert db.sql("SELECT count(*), max(score) FROM accounts") == [(many - 1, many)]
    with pytest.raises(RowsRefused, match="row-level security policy"):
        await send(crm, "accounts", op, changes(op, "email", [row(9000, score=2)]))


async def test_a_change_that_a_policy_refuses(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(n) for n in (1, 3, 4)]))
    db.sql(POLICY)
    db.sql("CREATE POLICY small ON accounts USING (true) WITH CHECK (score <> 2)")
    given = [row(1, score=5), row(3, score=2), row(4, score=6)]
    done = await send(crm, "accounts", Op.UPDATE, changes(Op.UPDATE, "email", given, ["1", "2", "3"]))
    assert [n for n, r in done.items() if r.outcome is Outcome.REJECTED] == [2]
    assert "row-level security policy" in (done[2].error or "")
    assert db.sql("SELECT score FROM accounts ORDER BY id") == [(5,), (3,), (6,)]


async def test_a_trigger_that_says_that_it_is_not_allowed(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("""CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.score = 2 THEN RAISE insufficient_privilege USING MESSAGE = 'no twos'; END IF; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER picky BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION picky()")
    done = await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(n) for n in (1, 2, 3)]))
    assert {n: r.error for n, r in done.items() if r.outcome is not Outcome.OK} == {2: "no twos"}


async def test_without_the_language_the_batch_is_halved_by_the_caller(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    with db.cluster.admin(db.name) as admin:
        admin.execute("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
    with pytest.raises(RowsRefused, match="accounts_score_check"):
        await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(1, score=-1), row(2)]))
    assert db.sql("SELECT count(*) FROM accounts") == [(0,)]


# -- a user that may do less ----------------------------------------------------------------------------------------


async def test_where_steps_cannot_be_kept(db: Database) -> None:
    db.sql(ACCOUNTS)
    with db.cluster.admin(db.name) as admin:
        admin.execute(f"ALTER DATABASE {db.name} OWNER TO postgres")
    app = db.app()
    operations = app.objects["accounts"].operations
    assert {op: o.replay for op, o in operations.items()} == {
        Op.CREATE: Replay.LOOKUP, Op.UPDATE: Replay.SAFE, Op.UPSERT: Replay.SAFE, Op.REMOVE: Replay.SAFE,
    }  # fmt: skip
    assert (await send(app, "accounts", Op.UPSERT, changes(Op.UPSERT, "email", [row(1)])))[1].outcome is Outcome.OK
    assert db.sql("SELECT to_regnamespace('oploop')") == [(None,)]
    assert "without oploop.oploop_steps" in (await app.check()).line
    await app.aclose()


async def test_a_user_that_may_not_write(db: Database) -> None:
    db.sql(ACCOUNTS)
    with db.cluster.admin(db.name) as admin:
        admin.execute(f"ALTER TABLE accounts OWNER TO postgres; GRANT SELECT, INSERT ON accounts TO {USER}")
    app = db.app()
    assert Op.REMOVE not in app.objects["accounts"].operations
    step = Step("s", "x", "accounts", Op.UPDATE, [Change(1, Op.UPDATE, {"email": "a"}, {"name": "b"})])
    with pytest.raises(FixConfig, match=f"permission denied for table accounts — GRANT it to the user {USER}"):
        await app.send(step)
    await app.aclose()


async def test_a_server_that_takes_no_writes(db: Database) -> None:
    db.sql(ACCOUNTS)
    db.sql(f"ALTER DATABASE {db.name} SET default_transaction_read_only = on")
    app = db.app()
    with pytest.raises(FixConfig, match=r"takes no writes.*let dsn name the primary"):
        await send(app, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(1)]))
    await app.aclose()
