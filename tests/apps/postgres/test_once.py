"""A step that is never done twice, whatever becomes of its answer, and one that is done only to rows as they were read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

from oploop.apps.postgres import server, writer
from oploop.apps.transport import LostAnswer
from oploop.errors import RetryLater
from oploop.records import Change, FieldType, Op, Outcome, Step
from tests.apps.postgres.conftest import ACCOUNTS, Database, PostgresApp, changes, read, row, send
from tests.apps.postgres.test_reader import ALL_TYPES
from tests.postgres import USER


async def test_a_step_is_done_once(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    step = changes(Op.CREATE, "email", [row(1), row(2, score=-1), row(3)])
    first = await send(crm, "accounts", Op.CREATE, step, "01STEP")
    db.sql("UPDATE accounts SET name = 'by hand'")
    other = db.app()  # another process, after a crash
    again = await send(other, "accounts", Op.CREATE, step, "01STEP")
    await other.aclose()
    assert {n: (r.outcome, r.remote_id, r.error) for n, r in again.items()} == {
        n: (r.outcome, r.remote_id, r.error) for n, r in first.items()
    }
    assert db.sql("SELECT name, count(*) FROM accounts GROUP BY 1") == [("by hand", 2)]
    assert db.sql("SELECT step_id, first, last FROM oploop.oploop_steps") == [("01STEP", 1, 3)]
    await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(4)]), "01OTHER")
    assert db.sql("SELECT count(*) FROM accounts") == [(3,)]


async def test_a_second_try_waits_for_the_first(db: Database, crm: PostgresApp) -> None:
    """A first try whose connection broke may still be under way in the server, and commit."""
    db.sql(ACCOUNTS)
    await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(9)]))  # makes the table of steps
    step = changes(Op.CREATE, "email", [row(1)])
    with db.connect() as first:
        first.execute("INSERT INTO oploop.oploop_steps (step_id, first, last) VALUES ('01X', 1, 1)")
        first.execute("INSERT INTO accounts (id, email) VALUES (77, 'u1@acme.example')")
        second = asyncio.create_task(send(crm, "accounts", Op.CREATE, step, "01X"))
        await asyncio.sleep(0.3)
        assert not second.done()
    assert (await second)[1].remote_id == "77"
    assert db.sql("SELECT count(*) FROM accounts") == [(2,)]


async def test_a_connection_that_breaks_before_the_commit(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server did nothing, and a next try does it."""
    db.sql(ACCOUNTS)
    at_once, broken = writer._Work.at_once, []

    def cut(self: Any) -> Any:
        done = at_once(self)
        if len(broken) < 2:
            broken.append(True)
            kill(db, self._connection.info.backend_pid)
            self._connection.execute("SELECT 1")
        return done

    monkeypatch.setattr(writer._Work, "at_once", cut)
    done = await send(crm, "accounts", Op.CREATE, changes(Op.CREATE, "email", [row(1)]))
    assert done[1].outcome is Outcome.OK
    assert len(broken) == 2
    assert db.sql("SELECT count(*) FROM accounts") == [(1,)]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_that_breaks_while_it_commits(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """What was done is not known; the same step sent again is done once."""
    db.sql(ACCOUNTS)
    commit = psycopg.Connection.commit

    def cut(self: Any) -> None:
        ours = self.info.get_parameters().get("application_name") == "oploop" and not self.autocommit
        if committed or not ours:
            commit(self)
        if not ours:
            return
        kill(db, self.info.backend_pid)
        self.execute("SELECT 1")

    monkeypatch.setattr(psycopg.Connection, "commit", cut)
    step = changes(Op.CREATE, "email", [row(1), row(2)])
    with pytest.raises(LostAnswer, match="broke while it committed"):
        await send(crm, "accounts", Op.CREATE, step, "01LOST")
    assert db.sql("SELECT count(*) FROM accounts") == [(2 if committed else 0,)]
    monkeypatch.undo()
    done = await send(crm, "accounts", Op.CREATE, step, "01LOST")
    ids = dict(db.sql("SELECT email, id::text FROM accounts"))
    assert {r.remote_id for r in done.values()} == set(ids.values())
    assert len(ids) == 2


def kill(db: Database, pid: int) -> None:
    with db.cluster.admin(db.name) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


async def test_a_deadlock_is_tried_again(db: Database, crm: PostgresApp) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (id, email) VALUES (1, 'a'), (2, 'b')")
    db.sql("""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.score = 1 THEN PERFORM pg_sleep(0.5); END IF; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER slow BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION slow()")
    with db.cluster.admin(db.name) as admin:
        admin.execute(f"GRANT SET ON PARAMETER deadlock_timeout TO {USER}")
        admin.execute(f"ALTER ROLE {USER} IN DATABASE {db.name} SET deadlock_timeout = '50ms'")
    with db.connect() as other:
        other.execute("SET deadlock_timeout = '30s'")  # so that it is the app's transaction which is given up
        other.execute("UPDATE accounts SET name = 'x' WHERE id = 2")
        sending = asyncio.create_task(
            send(crm, "accounts", Op.UPDATE, [Change(n, Op.UPDATE, {"id": n}, {"score": n}, str(n)) for n in (1, 2)])
        )
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not db.sql(asleep):  # noqa: ASYNC110  it has the first row, and not yet the second
            await asyncio.sleep(0.01)
        await asyncio.to_thread(other.execute, "UPDATE accounts SET name = 'x' WHERE id = 1")
    assert {r.outcome for r in (await sending).values()} == {Outcome.OK}
    assert db.sql("SELECT name, score FROM accounts ORDER BY id") == [("x", 1), ("x", 2)]
    assert crm.transport is not None
    assert crm.transport.calls == 2


async def test_a_row_that_stays_locked(db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch) -> None:
    db.sql(ACCOUNTS)
    db.sql("INSERT INTO accounts (id, email) VALUES (1, 'a')")
    monkeypatch.setattr(server, "LOCK_SECONDS", 0.05)
    with db.connect() as other:
        other.execute("SELECT * FROM accounts FOR UPDATE")
        with pytest.raises(RetryLater, match="lock timeout"):
            await send(crm, "accounts", Op.UPDATE, [Change(1, Op.UPDATE, {"id": 1}, {"score": 1}, "1")])


# -- only while a row is as it was read -------------------------------------------------------------------------------


async def test_a_row_of_any_type_is_updated_only_while_it_is_as_it_was_read(db: Database, crm: PostgresApp) -> None:
    db.sql(ALL_TYPES)
    db.sql(
        """INSERT INTO types SELECT i, -5, 7, 12345678901234567890.123456789, 1234567890.12, 123.4567, 123456789012345678, 0.1,
        0.1, true, 'Grüße 👋 ''', 'abcde', 'ab', '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00+05:30', '2024-02-29',
        '23:59:59.5', '1 mon 2 days', '{"b": 1}', '{"b": 1}', '{1,NULL}', '{a}', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
        '\\xdeadbeef', 'it''s ok', 'a@b.c', '("Main, St",5)', '[1,5)', '10.0.0.1', '12.34' FROM generate_series(1, 2) i"""
    )
    db.sql("INSERT INTO types (id) VALUES (3)")
    rows = (await read(crm, "public.types")).rows
    fields = crm.objects["public.types"].fields.items()
    names = [n for n, f in fields if n != "id" and not f.read_only]
    assert {"jb", "ints", "texts"} <= set(names)
    for shown in rows:
        shown |= {n: json.loads(shown[n]) for n, f in fields if f.type is FieldType.JSON and shown[n] is not None}
    db.sql("UPDATE types SET t = 'theirs' WHERE id = 2")

    def update(n: int, row: dict[str, Any]) -> Change:
        held = {name: row[name] for name in names}
        sent = {**held, "t": "ours"}
        return Change(n, Op.UPDATE, {"id": row["id"]}, sent, str(row["id"]), as_read=held)

    step = Step("c1", "s", "public.types", Op.UPDATE, [update(n, r) for n, r in enumerate(rows, 1)], conditional=True)
    for _ in range(2):  # a second try of the step is told the same
        receipts = {r.number: (r.outcome, r.error) for r in await crm.send(step)}
        changed = (Outcome.CHANGED, "changed in the table since it was read")
        assert receipts == {1: (Outcome.OK, None), 2: changed, 3: (Outcome.OK, None)}
    assert db.sql("SELECT t FROM types ORDER BY id") == [("ours",), ("theirs",), ("ours",)]
    for theirs in ("jb = '{\"b\": 2}'", "ints = '{1}'", "ints = NULL", "texts = texts || '{b}'", "texts = '{}'"):
        db.sql(f"UPDATE types SET {theirs} WHERE id = 1")
        held = {name: rows[0][name] for name in names if name not in ("j", "p", "t")}
        one = Change(1, Op.UPDATE, {"id": 1}, held, "1", as_read=held)
        (told,) = await crm.send(Step(f"c {theirs}", "s", "public.types", Op.UPDATE, [one], conditional=True))
        assert (told.outcome, told.error) == changed, theirs
        await crm.send(Step(f"d {theirs}", "s", "public.types", Op.UPDATE, [one]))
    db.sql("UPDATE types SET jb = '{\"n\": 0.12345678901234567890123}' WHERE id = 1")
    held = {"jb": {"n": 0.12345678901234568}}  # as it comes back from there: nobody can tell whether it was touched
    one = Change(1, Op.UPDATE, {"id": 1}, {"jb": {"n": 1}}, "1", as_read=held)
    (told,) = await crm.send(Step("c3", "s", "public.types", Op.UPDATE, [one], conditional=True))
    assert told.outcome is Outcome.OK
    gone = Change(1, Op.UPDATE, {"id": 9}, {"t": "x"}, "9", as_read={"t": None})
    (told,) = await crm.send(Step("c2", "s", "public.types", Op.UPDATE, [gone], conditional=True))
    assert (told.outcome, told.error) == (Outcome.REJECTED, "no such row in public.types")
