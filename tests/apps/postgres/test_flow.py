"""The whole loop on a Postgres table: bad rows among ten thousand, people's edits, a kill between commit and receipt."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.apps.postgres.catalog import BATCH
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.project import load_project
from oploop.report import RunReport
from oploop.runtime import Runtime
from oploop.selection import Selection
from oploop.trace import trace
from oploop.workspace import Event, Workspace
from tests.apps.postgres.conftest import Database

ROOT = Path(__file__).parents[3]
PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps:
  crm: {type: postgres, dsn: "${CRM_DSN}"}
"""
SYNC = """\
model: mart.accounts
to: crm.public.accounts
mode: upsert
key: {email: email}
fields: [name, score, plan, since, amount, note]
"""
TABLE = """
CREATE TABLE accounts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL UNIQUE, name text,
  score int CHECK (score < 1000000), plan varchar(8), since timestamptz, amount numeric(20,4), note text)
"""
MODEL = """
SELECT 'u' || i || '@acme.example' AS email, 'Jürgen O''Neil 👋 ' || i AS name, i AS score,
  CASE WHEN i % 2 = 0 THEN 'free' ELSE 'pro' END AS plan, TIMESTAMPTZ '2024-01-01 00:00:00+02' + to_seconds(i) AS since,
  CASE WHEN i % 3 > 0 THEN i * 1.25::DECIMAL(20,4) END AS amount, CASE WHEN i % 5 = 0 THEN '' ELSE 'x' END AS note
FROM range(1, {n} + 1) t(i)
"""


@dataclass
class Office:
    """A project on one database."""

    folder: Path
    db: Database
    runtime: Runtime = field(default_factory=Runtime)

    def sync(self, text: str) -> None:
        (self.folder / "syncs").mkdir(exist_ok=True)
        (self.folder / "syncs" / "accounts.yml").write_text(text)

    def workspace(self) -> Workspace:
        project = load_project(self.folder, {"CRM_DSN": self.db.dsn})
        return Workspace(project, "prod", self.runtime, "test")

    async def model(self, select: str) -> None:
        async with self.workspace() as ws:
            ws.warehouse.execute("CREATE SCHEMA IF NOT EXISTS mart")
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE mart.accounts AS {select}")

    async def turn(self, **options: Any) -> RunReport:
        async with self.workspace() as ws:
            return await loop.run(ws, Options(yes=True, **options))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.workspace() as ws:
            return ws.warehouse.rows(sql)


@pytest.fixture
def office(tmp_path: Path, db: Database) -> Office:
    (tmp_path / "oploop.yml").write_text(PROJECT)
    made = Office(tmp_path, db)
    made.sync(SYNC)
    db.sql(TABLE)
    return made


async def test_a_table_is_one_by_whatever_name_it_is_called(office: Office) -> None:
    await office.model(MODEL.format(n=3))
    await office.turn()
    second = SYNC.replace("crm.public.accounts", "crm.accounts").replace(
        "name, score, plan, since, amount, note", "name"
    )
    (office.folder / "syncs" / "second.yml").write_text(second)
    for chosen in ((), ("second",)):
        with pytest.raises(FixConfig, match="accounts field 'name' is also written by sync 'accounts'"):
            await office.turn(selection=Selection(chosen))
    (office.folder / "syncs" / "second.yml").unlink()
    async with office.workspace() as ws:
        found = await trace(ws, "crm.accounts", "u1@acme.example")
    assert [s.sync for s in found.syncs] == ["accounts"]
    assert [change.op for change in found.history] == ["create"]


async def test_bad_rows_are_listed_and_the_others_arrive(office: Office) -> None:
    await office.model(MODEL.format(n=10_000))
    await office.rows(
        "UPDATE mart.accounts SET score = 1000000 + score WHERE score % 50 = 0"
    )  # 2% break the constraint
    report = await office.turn()
    (sync,) = report.syncs
    assert sync.delivery is not None, report.as_json()
    assert (sync.delivery.delivered, sync.delivery.rejected, sync.delivery.unknown) == (9_800, 200, 0)
    assert sync.delivery.calls == 2
    assert office.db.sql("SELECT count(*), sum(score), count(amount) FROM accounts") == [(9_800, 49_000_000, 6_533)]
    errors = await office.rows(
        "SELECT count(*), min(error) FROM oploop.changes WHERE status = 'rejected' AND error LIKE '%accounts_score_check%'"
    )
    assert errors[0][0] == 200
    read_back = sync.read_back
    assert read_back is not None
    assert read_back.count("confirmed") == 1_000
    second = await office.turn()
    assert second.status == "ok"
    assert second.syncs[0].plan is not None
    assert second.syncs[0].plan.changes == 0
    assert second.syncs[0].plan.diff.count("parked") == 200
    names = office.db.sql("SELECT name, since::text, note FROM accounts WHERE email = 'u5@acme.example'")
    assert names[0][0] == "Jürgen O'Neil 👋 5"
    statuses = dict(await office.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1"))
    assert statuses == {"confirmed": 9_800, "rejected": 200}


async def test_a_change_by_hand_is_kept_and_a_row_that_is_gone_stays_gone(office: Office) -> None:
    await office.model(MODEL.format(n=20))
    await office.turn()
    office.db.sql("UPDATE accounts SET plan = 'gold' WHERE email = 'u3@acme.example'")
    office.db.sql("DELETE FROM accounts WHERE email = 'u4@acme.example'")
    office.db.sql("INSERT INTO accounts (email) VALUES ('more@acme.example')")
    report = await office.turn()
    plan = report.syncs[0].plan
    assert plan is not None
    assert (plan.changes, plan.diff.count("kept"), plan.diff.count("gone")) == (0, 1, 1)
    await office.rows("UPDATE mart.accounts SET plan = 'team' WHERE score IN (3, 5)")
    await office.turn()
    found = office.db.sql("SELECT email, plan FROM accounts WHERE plan IN ('team', 'gold') ORDER BY 1")
    assert found == [("u3@acme.example", "team"), ("u5@acme.example", "team")]
    assert office.db.sql("SELECT count(*) FROM accounts WHERE email = 'u4@acme.example'") == [(0,)]
    assert await office.rows("SELECT count(*) FROM raw_crm.public__accounts") == [(20,)]
    assert await office.rows("SELECT email FROM raw_crm.public__accounts__all WHERE _deleted") == [("u4@acme.example",)]


async def test_what_the_table_itself_puts_into_an_empty_field_is_its_own_doing(office: Office) -> None:
    office.db.sql("ALTER TABLE accounts ALTER plan SET DEFAULT 'trial'")
    office.sync(SYNC + "on_null: clear\n")
    model = MODEL.format(n=4).replace("'free'", "NULL")
    await office.model(model)
    await office.turn()
    plans = office.db.sql("SELECT plan FROM accounts ORDER BY email")
    assert plans == [("pro",), ("trial",), ("pro",), ("trial",)]
    told = await office.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1 ORDER BY 1")
    assert told == [("altered", 2), ("confirmed", 2)]
    (again,) = (await office.turn()).syncs
    assert (again.status, office.db.sql("SELECT plan FROM accounts ORDER BY email")) == ("nothing", plans)
    await office.model(model.replace("NULL", "'big'"))
    await office.turn()
    await office.model(model)
    await office.turn()  # by now it is the sync's own value that is taken away
    assert office.db.sql("SELECT plan FROM accounts ORDER BY email") == [("pro",), (None,), ("pro",), (None,)]


@pytest.mark.parametrize("kind", ["numeric", "numeric(30, 4)", "numeric(10, 2)", "float8"])
async def test_a_number_of_any_size_is_one_key_however_it_is_written(office: Office, kind: str) -> None:
    office.db.sql(f"CREATE TABLE parts (code {kind} PRIMARY KEY, name text)")
    office.db.sql("INSERT INTO parts VALUES (1.0, 'Bolt'), (2.50, 'Nut')")
    office.sync("model: mart.accounts\nto: crm.public.parts\nmode: upsert\nkey: {code: code}\nfields: [name]\n")
    rows = "SELECT * FROM (VALUES {}) AS t(code, name)"
    await office.model(rows.format("('1.00', 'Bolt'), ('2.5', 'Nut'), ('3.0', 'Pin'), ('4', 'a'), ('4.00', 'b')"))
    (sync,) = (await office.turn()).syncs
    assert sync.plan is not None
    assert (sync.plan.diff.counts, sync.plan.diff.same) == ({"create": 1, "held": 2}, 2)
    assert {k for (k,) in await office.rows("SELECT key FROM oploop.held")} == {"4"}
    await office.model(rows.format("(1::DECIMAL(20, 3), 'Bolt'), (2.5, 'Wing nut'), (3, 'Pin')"))
    (sync,) = (await office.turn()).syncs
    assert sync.plan is not None
    assert (sync.plan.diff.counts, sync.plan.diff.same) == ({"update": 1}, 2)
    await office.turn()
    assert office.db.sql("SELECT code::float8, name FROM parts ORDER BY 1") == [
        (1, "Bolt"),
        (2.5, "Wing nut"),
        (3, "Pin"),
    ]
    told = await office.rows("SELECT key, status FROM oploop.changes ORDER BY key")
    assert told == [("2.5", "confirmed"), ("3", "confirmed")]


async def test_a_first_sync_to_a_filled_table_sends_true_differences_only(office: Office) -> None:
    await office.model(MODEL.format(n=30))
    office.db.sql(
        "INSERT INTO accounts (email, name, score, plan, since, amount, note) SELECT 'u' || i || '@acme.example', "
        "'Jürgen O''Neil 👋 ' || i, i, CASE WHEN i % 2 = 0 THEN 'free' ELSE 'pro' END, "
        "'2024-01-01 00:00:00+02'::timestamptz + i * interval '1 second', CASE WHEN i % 3 > 0 THEN i * 1.25 END, "
        "CASE WHEN i % 5 = 0 THEN '' ELSE 'x' END FROM generate_series(1, 30) i"
    )
    office.db.sql("UPDATE accounts SET score = 0 WHERE score = 7")
    report = await office.turn()
    assert report.syncs[0].plan is not None
    assert (report.syncs[0].plan.create, report.syncs[0].plan.update) == (0, 1)
    assert office.db.sql("SELECT count(*) FROM accounts WHERE score = 0") == [(0,)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_around_the_commit_doubles_nothing(office: Office, when: str) -> None:
    """Append-like creates into a table without a unique key to hide behind would show any second row."""
    office.db.sql("CREATE TABLE seen (email text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                  "$$ BEGIN INSERT INTO seen VALUES (NEW.email); RETURN NEW; END $$")  # fmt: skip
    office.db.sql("CREATE TRIGGER note AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION note()")
    await office.model(MODEL.format(n=BATCH + 10_000))
    words = [sys.executable, "-m", "tests.apps.postgres.killed", str(office.folder), office.db.dsn, when]
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
    assert await process.wait() == -signal.SIGKILL
    committed = office.db.sql("SELECT count(*) FROM accounts")[0][0]
    assert committed in ((BATCH, 10_000) if when == "after" else (0,))  # two steps are under way
    for _ in range(2):
        report = await office.turn()
        assert report.status == "ok", report.as_json()
    assert office.db.sql("SELECT count(*), count(DISTINCT email) FROM accounts") == [(BATCH + 10_000, BATCH + 10_000)]
    assert office.db.sql("SELECT count(*) FROM seen") == [(BATCH + 10_000,)]
    assert report.syncs[0].plan is not None
    assert report.syncs[0].plan.changes == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("key: {email: email}", "key: {name: name}", r"field 'name' cannot identify a record of crm\.public\.accounts"),
        ("crm.public.accounts", "crm.public.acounts", r"no object 'public\.acounts' — did you mean 'public\.accounts'"),
        ("fields: [name,", "fields: [nam,", "no field 'nam' — did you mean 'name'"),
        ("fields: [name,", "fields: [{id: score}, name,", "field 'id' is read-only"),
    ],
)
async def test_what_is_wrong_with_a_sync_is_said_with_its_place(office: Office, old: str, new: str, says: str) -> None:
    await office.model(MODEL.format(n=1))
    office.sync(SYNC.replace(old, new))
    with pytest.raises(FixConfig, match=says) as e:
        await office.turn()
    assert e.value.place is not None
    assert e.value.place.file == "syncs/accounts.yml"


async def test_a_part_of_a_key_is_no_key(office: Office) -> None:
    office.db.sql("CREATE TABLE stock (shop text, sku text, n int, PRIMARY KEY (shop, sku))")
    await office.model("SELECT 'a' AS shop, 'b' AS sku, 1 AS n")
    text = "model: mart.accounts\nto: crm.public.stock\nmode: upsert\nkey: {}\nfields: [n]\n"
    office.sync(text.replace("{}", "{shop: shop}"))
    with pytest.raises(FixConfig, match=r"shop alone does not identify a record of crm\.public\.stock — use shop, sku"):
        await office.turn()
    office.sync(text.replace("{}", "{shop: shop, sku: sku}"))
    for _ in range(2):
        report = await office.turn()
    assert report.syncs[0].plan is not None
    assert (report.syncs[0].plan.changes, report.syncs[0].plan.diff.same) == (0, 1)
    assert office.db.sql("SELECT * FROM stock") == [("a", "b", 1)]


async def test_a_row_that_a_cursor_cannot_find_is_read_the_next_time(office: Office, tmp_path: Path) -> None:
    (tmp_path / "oploop.yml").write_text(
        PROJECT.replace('"${CRM_DSN}"', '"${CRM_DSN}", cursor: {public.accounts: since}, read: [public.accounts]')
    )
    await office.model(MODEL.format(n=5))
    await office.turn()
    await office.turn()
    office.db.sql("INSERT INTO accounts (email, since) VALUES ('old@acme.example', '1999-01-01Z')")
    office.db.sql("DELETE FROM accounts WHERE email = 'u1@acme.example'")
    seen = []
    for _ in range(2):
        await office.turn()
        seen.append(await office.rows("SELECT count(*), count(since) FROM raw_crm.public__accounts"))
    assert seen == [[(4, 4)], [(5, 5)]]


async def test_a_row_that_somebody_changes_meanwhile_is_decided_anew(office: Office) -> None:
    office.sync(SYNC.replace("score, plan", "{score: {column: score, conflict: hold}}, plan"))
    await office.model(MODEL.format(n=20))
    await office.turn()
    await office.rows("UPDATE mart.accounts SET score = score + 100, name = 'New'")

    def people(event: Event) -> None:
        if (event.stage, event.kind) == ("deliver", "start"):
            office.db.sql("UPDATE accounts SET score = 7000 WHERE email = 'u3@acme.example'")
            office.db.sql("UPDATE accounts SET note = 'seen' WHERE email = 'u4@acme.example'")

    async with office.workspace() as ws:
        report = await loop.run(ws, Options(yes=True), people)
    sent = report.syncs[0].delivery
    assert sent is not None
    assert (report.status, sent.delivered, sent.calls, sent.left) == ("ok", 20, 2, 0)
    unlike = "name <> 'New' OR email <> 'u' || score - 100 || '@acme.example'"
    found = office.db.sql(f"SELECT email, score, name FROM accounts WHERE {unlike}")
    assert found == [("u3@acme.example", 7000, "New")]
    assert await office.rows("SELECT key, field, reason FROM oploop.parked") == [
        ("u3@acme.example", "score", "conflict")
    ]
