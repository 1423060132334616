"""What is MySQL's own: addresses, collations, engines without transactions, a COMMIT whose answer is lost."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from oploop.apps.mysql import MySqlApp, MySqlConfig
from oploop.apps.mysql.engine import parse_dsn
from oploop.apps.sql.engine import RowsRefused
from oploop.apps.transport import LostAnswer
from oploop.errors import FixConfig, RetryLater
from oploop.records import Canonical, Change, ColumnType, Op, Outcome, Step
from oploop.runtime import Runtime
from tests.apps.sql.boxes import MySqlBox
from tests.apps.sql.proxy import Wire
from tests.apps.sql.test_databases import created, people, read, send
from tests.mysql import PASSWORD, MySql
from tests.postgres import free_port


@pytest.fixture
def box(mysql: MySql) -> MySqlBox:
    return MySqlBox(mysql)


def app_at(dsn: str) -> MySqlApp:
    return MySqlApp("crm", MySqlConfig.model_validate({"dsn": dsn}), Runtime())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"password": "wrong"}, "wrong user or password"),
        ({"user": "nobody"}, "user 'nobody' is refused"),
        ({"database": "nowhere"}, "there is no database 'nowhere'"),
    ],
)
async def test_which_part_of_the_address_is_wrong_is_said(box: MySqlBox, changed: dict[str, str], says: str) -> None:
    database = changed.pop("database", box.name)
    with pytest.raises(FixConfig, match=says) as e:
        await app_at(box.server.dsn(database, **changed)).check()
    assert PASSWORD not in str(e.value)
    assert "wrong@" not in str(e.value)


async def test_a_server_that_is_not_there_is_for_later() -> None:
    with pytest.raises(RetryLater, match="is it up"):
        await app_at(f"mysql://u:s3cret@127.0.0.1:{free_port()}/d").check()


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgres://u:s3cret@h/d", "no address of a MySQL database"),
        ("mysql://u:s3cret@h", "names no database"),
        ("mysql://u:s3cret@h/d?sslmode=x", "'sslmode' is not known"),
        ("mysql://u:s3cret@h:x/d", "a port that is no number"),
    ],
)
def test_what_is_no_address_is_refused_without_being_shown(dsn: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        parse_dsn(dsn)
    assert "s3cret" not in str(e.value)


async def test_types_are_as_the_page_says(box: MySqlBox) -> None:
    box.sql(
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, small DECIMAL(10,2), big DECIMAL(30,10), whole DECIMAL(18,0), "
        "kind ENUM('a','it''s'), flags SET('x','y'), bits BIT(4), at TIMESTAMP(3) NULL, took TIME, ci VARCHAR(9) UNIQUE, "
        "cs VARCHAR(9) COLLATE utf8mb4_bin UNIQUE, made INT AS (id + 1))"
    )
    box.sql("SET time_zone = '+00:00'")
    box.sql(
        "INSERT INTO t (id, small, big, whole, kind, flags, bits, took, ci, cs) VALUES "
        "(1, 1.10, 12345678901234567890.0123456789, 123456789012345678, 'it''s', 'x,y', 5, '-01:02:03', 'A', 'B')"
    )
    app = box.made()
    [row], _, _ = await read(app, "t")
    assert (row["small"], row["big"], row["whole"]) == (1.1, "12345678901234567890.0123456789", 123456789012345678)
    assert (row["kind"], row["flags"], row["bits"], row["took"], row["made"]) == ("it's", "x,y", 5, "-01:02:03", 2)
    fields = await app.describe("t")
    assert fields["kind"].enum == ("a", "it's")
    assert (fields["ci"].canonical, fields["cs"].canonical) == (Canonical.LOWER, Canonical.EXACT)
    assert fields["made"].read_only
    assert app.streams["t"].columns["at"] is ColumnType.TIMESTAMP


async def test_a_table_without_transactions_is_not_written(box: MySqlBox) -> None:
    box.sql("CREATE TABLE t (id INT PRIMARY KEY) ENGINE = MyISAM")
    with pytest.raises(FixConfig, match="its engine MyISAM has no transactions"):
        _ = box.made().objects["t"]


async def test_another_unique_index_is_no_way_to_the_wrong_row(box: MySqlBox) -> None:
    """MySQL's own ON DUPLICATE KEY UPDATE would change the row that any unique index finds."""
    box.sql("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(20) UNIQUE, phone VARCHAR(20) UNIQUE)")
    box.sql("INSERT INTO t (email, phone) VALUES ('a', '1')")
    rows = [{"email": "b", "phone": "1"}, {"email": "c", "phone": "2"}]
    receipts = await send(box.made(), "t", Op.UPSERT, created(rows, Op.UPSERT))
    assert [receipts[n].outcome for n in (1, 2)] == [Outcome.REJECTED, Outcome.OK]
    assert "Duplicate entry '1'" in str(receipts[1].error)
    assert box.sql("SELECT email, phone FROM t ORDER BY email") == [("a", "1"), ("c", "2")]


@pytest.mark.parametrize("seen", [False, True])
async def test_a_commit_whose_answer_is_lost_is_done_once(box: MySqlBox, seen: bool) -> None:
    people(box)
    rows = [{"email": f"p{i}@x", "score": i} for i in range(50)]
    with Wire(box.server.port, seen=seen).running() as wire:
        app = box.made()
        wire.times = 0
        await send(app, "people", Op.CREATE, created([{"email": "first"}]))  # the table of steps is made
        wired = app_at(box.server.dsn(box.name, port=wire.port))
        await send(wired, "people", Op.CREATE, created([{"email": "second"}]))
        wire.times = 1
        with pytest.raises(LostAnswer):
            await send(wired, "people", Op.CREATE, created(rows), "lost")
        assert box.sql("SELECT count(*) FROM people") == [(52 if seen else 2,)]
        receipts = await send(wired, "people", Op.CREATE, created(rows), "lost")
    assert all(r.outcome is Outcome.OK for r in receipts.values())
    assert box.sql("SELECT count(*), count(DISTINCT email) FROM people") == [(52, 52)]
    assert receipts[1].remote_id == str(box.sql("SELECT id FROM people WHERE email = 'p0@x'")[0][0])


async def test_a_lock_that_is_held_is_waited_for_and_a_change_by_id_is_found(box: MySqlBox) -> None:
    app = people(box)
    box.sql("INSERT INTO people (email) VALUES ('a')")
    with box.server.admin(box.name) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE people SET score = 1")
        sending = asyncio.create_task(send(app, "people", Op.UPDATE, [Change(1, Op.UPDATE, {}, {"name": "A"}, "1")]))
        await asyncio.sleep(0.2)
        assert not sending.done()
        cursor.execute("COMMIT")
        assert (await sending)[1].outcome is Outcome.OK
    assert box.sql("SELECT name, score FROM people") == [("A", 1)]


async def test_a_deadlock_is_tried_again(box: MySqlBox) -> None:
    """The server gives up one of two transactions that wait for each other; when it is ours, the step is sent anew, whole."""
    app = people(box)
    box.sql("INSERT INTO people (email) VALUES ('a'), ('b')")
    box.sql("CREATE TABLE weight (n INT)")
    updates = [Change(n, Op.UPDATE, {}, {"name": "ours"}, str(n)) for n in (1, 2)]
    await send(
        app, "people", Op.UPDATE, [Change(1, Op.UPDATE, {}, {"name": "made"}, "1")]
    )  # the table of steps is made
    with box.server.admin(box.name) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO weight VALUES " + ", ".join(["(1)"] * 500))  # the lighter one is given up
        cursor.execute("UPDATE people SET score = 1 WHERE id = 2")
        sending = asyncio.create_task(send(app, "people", Op.UPDATE, updates))
        await _waits(cursor)
        assert app.transport is not None
        calls = app.transport.calls
        await asyncio.to_thread(cursor.execute, "UPDATE people SET score = 1 WHERE id = 1")
        cursor.execute("COMMIT")
        receipts = await sending
    assert {r.outcome for r in receipts.values()} == {Outcome.OK}
    assert app.transport.calls > calls, "its first try was given up"
    assert box.sql("SELECT name, score FROM people ORDER BY id") == [("ours", 1), ("ours", 1)]


async def test_a_connection_that_is_gone_before_the_commit_is_made_anew(box: MySqlBox) -> None:
    """Server has gone away: nothing of the transaction was done, and it is done once."""
    app = people(box)
    box.sql("INSERT INTO people (email) VALUES ('a')")
    with box.server.admin(box.name) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE people SET score = 1")
        sending = asyncio.create_task(send(app, "people", Op.UPDATE, [Change(1, Op.UPDATE, {}, {"name": "A"}, "1")]))
        waiting = await _waits(cursor)
        cursor.execute(f"KILL {waiting}")
        cursor.execute("COMMIT")
        assert (await sending)[1].outcome is Outcome.OK
    assert box.sql("SELECT name, score FROM people") == [("A", 1)]
    assert box.sql("SELECT count(*) FROM oploop_steps") == [(1,)]


async def _waits(cursor: Any) -> int:
    """The connection of a transaction that waits for a lock, once there is one."""
    for _ in range(100):
        cursor.execute("SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
        if found := cursor.fetchall():
            return int(found[0][0])
        await asyncio.sleep(0.15)  # what was read less than 0.1 s ago is shown again, as it was
    raise TimeoutError("nobody waits for a lock")


@pytest.mark.parametrize("many", [False, True])
async def test_what_cannot_even_be_staged_is_told_by_the_tables_own_names(box: MySqlBox, many: bool) -> None:
    box.sql("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(9))")
    changes = [Change(1, Op.UPSERT, {"id": 2**40}, {"id": 2**40, "name": "large"})]
    changes += [Change(2, Op.UPSERT, {"id": 2}, {"id": 2, "name": "small"})] if many else []
    step = Step("s1", "test", "t", Op.UPSERT, changes)
    if many:
        said = {r.number: r.error for r in await box.made().send(step)}
        assert said == {1: "Out of range value for column 'id' at row 1", 2: None}
    else:
        with pytest.raises(RowsRefused, match="Out of range value for column 'id'"):
            await box.made().send(step)
