"""What SQLite and MySQL have in common: types, bad rows, steps that come twice, reading on, whole turns of the loop."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from oploop import loop
from oploop.activate import volumes
from oploop.apps.columns import Chunk, Columns, Taken
from oploop.apps.sql.app import SqlApp
from oploop.errors import FixConfig, OploopError
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Change, Cursor, FieldType, Op, Outcome, ReadOptions, Receipt, Step
from oploop.runtime import Runtime
from oploop.workspace import Workspace
from tests.apps.sql.boxes import Box, MySqlBox, SqliteBox
from tests.mysql import MySql

_numbers = itertools.count(1)
NUMBERED = {"sqlite": "INTEGER PRIMARY KEY", "mysql": "BIGINT AUTO_INCREMENT PRIMARY KEY"}


@pytest.fixture(params=["sqlite", "mysql"])
def box(request: pytest.FixtureRequest) -> Box:
    if request.param == "sqlite":
        return SqliteBox()
    server: MySql = request.getfixturevalue("mysql")
    return MySqlBox(server)


def people(box: Box) -> SqlApp:
    """A table with a number of its own, a unique e-mail, a default and a check."""
    box.sql(
        f"CREATE TABLE people (id {NUMBERED[box.app.type]}, email VARCHAR(100) NOT NULL UNIQUE, "
        "name VARCHAR(20), plan VARCHAR(10) DEFAULT 'free', score INT CHECK (score < 1000))"
    )
    return box.made()


async def send(app: SqlApp, table: str, op: Op, changes: list[Change], step: str = "") -> dict[int, Receipt]:
    receipts = await app.send(Step(step or f"step{next(_numbers)}", "test", table, op, changes))
    assert sorted(r.number for r in receipts) == sorted(c.number for c in changes)
    return {r.number: r for r in receipts}


def created(rows: list[dict[str, Any]], op: Op = Op.CREATE) -> list[Change]:
    return [Change(n, op, {"email": row["email"]}, row) for n, row in enumerate(rows, 1)]


async def read(
    app: SqlApp, table: str, cursor: Cursor | None = None, **options: Any
) -> tuple[list[Any], list[Any], Cursor]:
    """The rows, the rows that came as keys alone, the cursor."""
    rows: list[Any] = []
    keys: list[Any] = []
    async for batch in app.read(table, cursor, ReadOptions(**options)):
        (keys if batch.keys_only else rows).extend(batch.table.to_pylist())
    assert batch.complete
    assert batch.cursor is not None
    return rows, keys, batch.cursor


async def test_bad_rows_are_refused_with_the_databases_words_and_the_others_arrive(box: Box) -> None:
    app = people(box)
    rows = [{"email": f"p{i}@x", "name": f"P {i}", "score": 5000 if i in (3, 250) else i} for i in range(300)]
    receipts = await send(app, "people", Op.CREATE, created(rows), "s1")
    bad = {n: r.error for n, r in receipts.items() if r.outcome is Outcome.REJECTED}
    assert set(bad) == {4, 251}
    assert all("score" in str(e) or "CHECK" in str(e) for e in bad.values()), bad
    assert box.sql("SELECT count(*), sum(score) FROM people") == [(298, sum(range(300)) - 253)]
    assert receipts[1].remote_id == str(box.sql("SELECT id FROM people WHERE email = 'p0@x'")[0][0])
    again = await send(app, "people", Op.CREATE, created(rows), "s1")
    assert {n: (r.outcome, r.remote_id) for n, r in again.items()} == {
        n: (r.outcome, r.remote_id) for n, r in receipts.items()
    }, "a step that comes twice is answered as it was, and not done twice"
    assert box.sql("SELECT count(*) FROM people") == [(298,)]


@pytest.mark.parametrize("op", [Op.CREATE, Op.UPSERT])
async def test_rows_that_come_as_columns_are_known_by_an_id_that_is_not_the_syncs_key(box: Box, op: Op) -> None:
    app = people(box)
    emails, ids = [f"p{i}@x" for i in range(3)], [7, 8, 9]
    rows = pa.RecordBatch.from_pydict(
        {
            "__number": pa.array([1, 2, 3], pa.int64()),
            "__remote": pa.nulls(3, pa.string()),
            "k0": pa.array(emails),
            "w0": pa.array(ids, pa.int64()),
            "c0": pa.array([True] * 3),
        }
    )
    listed = [
        Change(n, op, {"email": e}, {"email": e, "id": i}) for n, (e, i) in enumerate(zip(emails, ids, strict=True), 1)
    ]
    chunk = Chunk(
        rows,
        [("email", "k0")],
        [("id", "w0", "c0")],
        lambda _: listed,
        lambda _: [dict(c.fields) for c in listed],
        lambda _: {"email": emails},
    )
    receipts = await app.send(Step("s1", "test", "people", op, Columns(chunk, 0, 3)))
    assert [(r.number, r.remote_id) for r in receipts] == [(1, "7"), (2, "8"), (3, "9")]
    assert box.sql("SELECT id, email FROM people ORDER BY id") == list(zip(ids, emails, strict=True))
    if isinstance(receipts, Taken):
        assert receipts.ids_from in chunk.key_values, "a run finds the ids by the plan's keys"


async def test_a_number_that_the_database_gives_in_place_of_a_null_is_not_made_up(box: Box) -> None:
    app = people(box)
    rows = [{"email": "a", "id": None}]
    [receipt] = (await send(app, "people", Op.CREATE, created(rows))).values()
    assert receipt.remote_id in (None, str(box.sql("SELECT id FROM people")[0][0]))


async def test_a_batch_alone_that_is_bad_is_refused_as_a_whole(box: Box) -> None:
    with pytest.raises(OploopError, match=r"score|CHECK"):
        await send(people(box), "people", Op.CREATE, created([{"email": "a", "score": 5000}]))


async def test_only_what_is_sent_is_written(box: Box) -> None:
    app = people(box)
    box.sql("INSERT INTO people (email, name, plan, score) VALUES ('a', 'A', 'pro', 1), ('b', 'B', 'pro', 2)")
    rows = [{"email": "a", "name": None}, {"email": "b", "score": 7}, {"email": "c"}, {"email": "d", "plan": None}]
    receipts = await send(app, "people", Op.UPSERT, created(rows, Op.UPSERT))
    assert all(r.outcome is Outcome.OK for r in receipts.values())
    assert box.sql("SELECT email, name, plan, score FROM people ORDER BY email") == [
        ("a", None, "pro", 1),
        ("b", "B", "pro", 7),
        ("c", None, "free", None),  # its default
        ("d", None, None, None),
    ]
    ids = {email: str(i) for i, email in box.sql("SELECT id, email FROM people")}
    assert [receipts[n].remote_id for n in (1, 2, 3, 4)] == [ids[e] for e in "abcd"]
    updates = [
        Change(1, Op.UPDATE, {}, {"score": 9}, ids["a"]),
        Change(2, Op.UPDATE, {}, {"name": "it's"}, ids["b"]),
        Change(3, Op.UPDATE, {}, {"name": "no one"}, "999"),
    ]
    answered = await send(app, "people", Op.UPDATE, updates)
    assert [answered[n].outcome for n in (1, 2, 3)] == [Outcome.OK, Outcome.OK, Outcome.REJECTED]
    assert answered[3].error == "no such row in people"
    assert box.sql("SELECT name, score FROM people ORDER BY email")[:2] == [(None, 9), ("it's", 7)]


async def test_reading_on_finds_what_changed_and_what_is_gone(box: Box) -> None:
    box.sql("CREATE TABLE log (id INT PRIMARY KEY, changed DATETIME, note TEXT)")
    days = [(1, "2026-01-01 10:00:00", "one"), (2, "2026-01-02 10:00:00", "two"), (3, None, "three")]
    for row in days:
        box.sql("INSERT INTO log VALUES (%s, %s, %s)", *row)
    app = box.made(cursor={"log": "changed"}, overlap=60)
    rows, keys, cursor = await read(app, "log")
    assert (len(rows), keys, cursor["value"]) == (3, [], "2026-01-02 10:00:00")
    assert rows[0]["changed"] == datetime(2026, 1, 1, 10, tzinfo=UTC)
    box.sql("DELETE FROM log WHERE id = 1")
    box.sql(
        "INSERT INTO log VALUES (4, '2026-01-02 09:59:30', 'within the overlap'), (5, '2020-01-01 00:00:00', 'late')"
    )
    rows, keys, cursor = await read(app, "log", cursor)
    assert sorted(r["id"] for r in rows) == [2, 3, 4]
    assert sorted(r["id"] for r in keys) == [2, 3, 4, 5], (
        "1 is gone; 5 is a key that nobody knows: the next read is whole"
    )
    assert cursor["relisted"]
    rows, _, _ = await read(app, "log", since=datetime(2026, 1, 2, tzinfo=UTC))
    assert sorted(r["id"] for r in rows) == [2, 4]
    rows, _, _ = await read(app, "log", {**cursor, "fingerprint": "other"})
    assert len(rows) == 4, "all is read again when the table is another"
    rows, _, _ = await read(app, "log", exclude=frozenset({"note"}))
    assert "note" not in rows[0]
    assert "note" not in orjson.loads(rows[0]["_raw"])


async def test_a_key_of_several_columns_is_one_id(box: Box) -> None:
    box.sql("CREATE TABLE stock (shop VARCHAR(20), sku INT, n INT, PRIMARY KEY (shop, sku))")
    app = box.made()
    rows = [{"shop": "a'b", "sku": 1, "n": 1}, {"shop": "ü", "sku": 2, "n": 2}]
    changes = [Change(i, Op.CREATE, {"shop": r["shop"], "sku": r["sku"]}, r) for i, r in enumerate(rows, 1)]
    receipts = await send(app, "stock", Op.CREATE, changes)
    assert [receipts[n].remote_id for n in (1, 2)] == ['["a\'b",1]', '["ü",2]']
    found = await app.fetch("stock", ['["ü",2]', '["gone",3]'])
    assert [(r["_key"], r["n"], r["_deleted"]) for r in found.table.to_pylist()] == [
        ('["ü",2]', 2, False),
        ('["gone",3]', None, True),
    ]
    gone = [Change(1, Op.REMOVE, {}, {}, '["ü",2]'), Change(2, Op.REMOVE, {}, {}, '["gone",3]')]
    assert all(r.outcome is Outcome.OK for r in (await send(app, "stock", Op.REMOVE, gone)).values())
    assert box.sql("SELECT shop FROM stock") == [("a'b",)]


async def test_what_cannot_be_is_said(box: Box) -> None:
    app = people(box)
    box.sql("CREATE VIEW some AS SELECT email FROM people")
    box.sql("CREATE TABLE loose (a INT)")
    for work, says in [
        (lambda: app.streams["peple"], "has no table 'peple' — did you mean 'people'"),
        (lambda: app.streams["loose"], "no primary key, so its rows cannot be told apart"),
        (lambda: app.objects["some"], "some cannot be written: it is a view"),
        (lambda: box.made(key={"some": ["mail"]}).streams["some"], "has no column 'mail' — did you mean 'email'"),
        (lambda: box.made(cursor={"people": "name"}).streams["people"], "by which nothing can be read on"),
    ]:
        with pytest.raises(FixConfig, match=says):
            work()
    assert box.made(key={"some": ["email"]}).streams["some"].primary_key == ("email",)
    fields = await app.describe("people")
    assert (fields["email"].required, fields["email"].key, fields["email"].max_length) == (True, True, 100)
    assert (fields["id"].required, fields["plan"].required, fields["score"].type) == (False, False, FieldType.INTEGER)
    assert (await app.check()).line.startswith(("SQLite", "MariaDB"))


# -- whole turns -------------------------------------------------------------------------------------------------------

SYNC = """\
model: main.people
to: crm.people
mode: upsert
key: {email: email}
fields: [name, plan, score, born, seen, amount, vip, more]
"""
MODEL = """
SELECT 'u' || i || '@x' AS email, 'Jürgen O''Neil 👋 ' || i AS name, 'pro' AS plan, i AS score,
  DATE '1990-01-01' + i::INT AS born, TIMESTAMPTZ '2024-01-01 00:00:00.25+02' + to_seconds(i) AS seen, i * 1.25 AS amount,
  CASE WHEN i % 3 = 0 THEN NULL ELSE i % 2 = 0 END AS vip, ('{{"n": ' || i || ', "it''s": [1, "ü"]}}')::JSON AS more
FROM range({n}) t(i)
"""


class Office:
    def __init__(self, folder: Path, box: Box) -> None:
        self.folder, self.box = folder, box
        block = {"type": box.app.type, **box.block()}
        config = {"name": "acme", "models": {"engine": "none"}, "apps": {"crm": block}}
        (folder / "oploop.yml").write_bytes(orjson.dumps(config))
        (folder / "syncs").mkdir()
        (folder / "syncs/people.yml").write_text(SYNC)

    async def turn(self, *sql: str) -> loop.RunReport:
        async with Workspace(load_project(self.folder, {}), "prod", Runtime(), "test") as ws:
            for statement in sql:
                ws.warehouse.execute(statement)
            return await loop.run(ws, Options(yes=True))


async def test_the_loop_turns_and_what_was_sent_is_no_difference(box: Box, tmp_path: Path) -> None:
    box.sql(
        f"CREATE TABLE people (id {NUMBERED[box.app.type]}, email VARCHAR(100) NOT NULL UNIQUE, name VARCHAR(50), "
        "plan VARCHAR(10), score INT CHECK (score < 1000), born DATE, seen DATETIME(6), amount DECIMAL(12,2), vip BOOLEAN, "
        "more JSON)"
    )
    office = Office(tmp_path, box)
    first = await office.turn(f"CREATE TABLE main.people AS {MODEL.format(n=1100)}")
    (sync,) = first.syncs
    assert sync.delivery is not None, first.as_json()
    assert (sync.delivery.delivered, sync.delivery.rejected, sync.delivery.unknown) == (1000, 100, 0)
    assert sync.read_back is not None
    assert set(sync.read_back.counts) == {"confirmed"}, sync.read_back.counts
    seen = box.sql("SELECT born, seen, amount, vip, more FROM people WHERE email = 'u7@x'")[0]
    assert str(seen[0]) == "1990-01-08"
    assert str(seen[1]) == "2023-12-31 22:00:07.250000"
    assert (float(seen[2]), seen[3], orjson.loads(seen[4])) == (8.75, 0, {"n": 7, "it's": [1, "ü"]})

    second = await office.turn()
    assert second.syncs[0].plan is not None
    assert second.syncs[0].plan.changes == 0, second.syncs[0].plan.diff.counts

    box.sql("UPDATE people SET plan = 'gold' WHERE email = 'u3@x'")  # a person's
    box.sql("DELETE FROM people WHERE email = 'u4@x'")
    third = await office.turn("UPDATE main.people SET score = 999 WHERE email IN ('u3@x', 'u4@x', 'u5@x')")
    plan = third.syncs[0].plan
    assert plan is not None
    assert (plan.update, plan.diff.count("gone")) == (2, 1)
    found = box.sql("SELECT email, plan, score FROM people WHERE email IN ('u3@x', 'u4@x', 'u5@x') ORDER BY 1")
    assert found == [("u3@x", "gold", 999), ("u5@x", "pro", 999)]


async def test_dates_and_long_numbers_keep_each_digit(box: Box) -> None:
    box.sql("CREATE TABLE facts (k VARCHAR(9) PRIMARY KEY, day DATE, at DATETIME, n BIGINT, b BLOB, t TEXT)")
    app = box.made()
    at = datetime(2026, 3, 29, 1, 30, 0, tzinfo=UTC)
    sent = {"k": "a", "day": date(2024, 2, 29), "at": at, "n": 2**62 + 1, "t": "100% \\ 'x' %s 🌻\n"}
    await send(app, "facts", Op.CREATE, [Change(1, Op.CREATE, {"k": "a"}, sent)])
    box.sql("UPDATE facts SET b = %s", b"\x00\xff")
    [row] = (await app.fetch("facts", ["a"])).table.to_pylist()
    assert {n: row[n] for n in sent} == sent
    assert row["b"] in ("00FF", "AP8=")
    fields = {"b": row["b"]}
    await send(app, "facts", Op.UPDATE, [Change(1, Op.UPDATE, {"k": "a"}, fields, "a")])
    assert box.sql("SELECT b FROM facts") == [(b"\x00\xff",)]


async def test_a_row_is_updated_only_while_it_is_as_it_was_read(box: Box) -> None:
    box.sql(
        "CREATE TABLE facts (id INT PRIMARY KEY, day DATE, at DATETIME, n BIGINT, f FLOAT, d DOUBLE, m DECIMAL(10,2), "
        "ok BOOLEAN, b BLOB, t VARCHAR(40), j JSON)"
    )
    row = "'2024-02-29', '2024-02-29 12:00:00', 9007199254740993, 0.1, 0.1, 12.1, 1, X'DEAD', 'it''s 👋 ', '{\"a\":1}'"
    box.sql(f"INSERT INTO facts VALUES (1, {row}), (2, {row}), (3, {row}), (4, {', '.join(['NULL'] * 10)}), (5, {row})")
    app = box.made()
    await app.describe("facts")
    rows, _, _ = await read(app, "facts")
    fields = app.objects["facts"].fields
    names = [n for n in fields if n != "id"]
    assert set(names) >= {"day", "at", "n", "f", "d", "m", "ok", "b", "t", "j"}
    for r in rows:
        r |= {n: orjson.loads(r[n]) for n, f in fields.items() if f.type is FieldType.JSON and r[n] is not None}
    box.sql("UPDATE facts SET t = 'theirs' WHERE id = 2")
    box.sql("UPDATE facts SET m = 12.2 WHERE id = 3")
    box.sql("UPDATE facts SET j = '{\"a\": 2}' WHERE id = 5")
    changes = [
        Change(n, Op.UPDATE, {"id": r["id"]}, {"t": "ours"}, str(r["id"]), as_read={name: r[name] for name in names})
        for n, r in enumerate(rows, 1)
    ]
    step = Step("c1", "s", "facts", Op.UPDATE, changes, conditional=True)
    changed = (Outcome.CHANGED, "changed in the table since it was read")
    for _ in range(2):  # a second try of the step is told the same
        told = {r.number: (r.outcome, r.error) for r in await app.send(step)}
        assert told == {1: (Outcome.OK, None), 2: changed, 3: changed, 4: (Outcome.OK, None), 5: changed}
    said = [t for (t,) in box.sql("SELECT t FROM facts ORDER BY id")]
    assert said == ["ours", "theirs", "it's 👋 ", "ours", "it's 👋 "]
    unconditional = Step("c2", "s", "facts", Op.UPDATE, changes)
    assert {r.outcome for r in await app.send(unconditional)} == {Outcome.OK}


@pytest.mark.parametrize("op", [Op.CREATE, Op.UPSERT])
async def test_what_is_said_of_rows_that_a_trigger_reshapes_is_so(box: Box, op: Op) -> None:
    box.sql("CREATE TABLE things (email VARCHAR(20) PRIMARY KEY, score INT)")
    box.sql("INSERT INTO things VALUES ('old', 0)")
    if isinstance(box, SqliteBox):  # which changes a row only after it was written, and can keep one out
        box.sql("CREATE TRIGGER keep BEFORE INSERT ON things WHEN NEW.score = 13 BEGIN SELECT RAISE(IGNORE); END")
        box.sql(
            "CREATE TRIGGER shape AFTER INSERT ON things WHEN NEW.score = 7 BEGIN "
            "UPDATE things SET email = 'x' || email WHERE email = NEW.email; END"
        )
    else:
        box.sql(
            "CREATE TRIGGER shape BEFORE INSERT ON things FOR EACH ROW "
            "SET NEW.email = IF(NEW.score = 7, CONCAT('x', NEW.email), NEW.email)"
        )
    given = [{"email": "a", "score": 1}, {"email": "b", "score": 7}, {"email": "c", "score": 2}]
    given += [{"email": "d", "score": 13}] if isinstance(box, SqliteBox) else []
    given += [{"email": "old", "score": 7}] if op is Op.UPSERT else []
    app = box.made()
    for _ in range(2):  # a second try of the step is told the same
        told = await send(app, "things", op, created(given, op), "s")
        assert [told[n].outcome for n in (1, 2, 3)] == [Outcome.OK, Outcome.REJECTED, Outcome.OK]
        assert (told[1].remote_id, "changed the row's key" in str(told[2].error)) == ("a", True)
        assert all(
            r.outcome is (Outcome.REJECTED if n == 4 and given[3]["email"] == "d" else Outcome.OK)
            for n, r in told.items()
            if n > 3
        )
        assert box.sql("SELECT email, score FROM things ORDER BY email") == [
            ("a", 1), ("c", 2), ("old", 7 if op is Op.UPSERT else 0),
        ]  # fmt: skip


async def test_a_large_delivery_of_which_the_database_refuses_a_row(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row more than twice what a call takes: all arrive but the one in the middle."""
    monkeypatch.setattr(volumes, "FROM", 1_000)
    box.sql("CREATE TABLE people (email VARCHAR(100) PRIMARY KEY, name VARCHAR(50), score INT CHECK (score < 10))")
    office = Office(tmp_path, box)
    sync = (
        "model: main.people\nto: crm.people\nmode: upsert\nkey: email\nfields: [name, score]\nlimits: {changes: 100%}\n"
    )
    (tmp_path / "syncs" / "people.yml").write_text(sync)
    rows = 2 * box.made().objects["people"].operations[Op.UPSERT].batch + 1
    middle = f"u{rows // 2}@x"
    score = f"CASE WHEN i = {rows // 2} THEN 99 ELSE i % 10 END AS score"
    model = f"SELECT 'u' || i || '@x' AS email, 'P ' || i AS name, {score} FROM range({rows}) t(i)"
    first = (await office.turn(f"CREATE TABLE main.people AS {model}")).syncs[0]
    assert first.delivery is not None
    assert (first.delivery.delivered, first.delivery.rejected, first.delivery.unknown) == (rows - 1, 1, 0)
    assert box.sql("SELECT count(*), count(DISTINCT name) FROM people") == [(rows - 1, rows - 1)]
    assert box.sql("SELECT count(*) FROM people WHERE email = %s", middle) == [(0,)]

    async with Workspace(load_project(tmp_path, {}), "prod", Runtime(), "test") as ws:
        told = dict(ws.warehouse.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1"))
        assert sum(told.values()) == rows
        assert told["rejected"] == 1
        ids = ws.warehouse.rows("SELECT count(*), count(DISTINCT remote_id) FROM oploop.records")
        assert ids == [(rows - 1, rows - 1)]
        parked = ws.warehouse.rows("SELECT key, reason FROM oploop.parked")
        assert parked == [(middle, "rejected")]

    second = (await office.turn()).syncs[0]
    assert second.plan is not None
    assert second.plan.changes == 0, second.plan.diff.counts
    third = (await office.turn(f"UPDATE main.people SET score = 7 WHERE email = '{middle}'")).syncs[0]
    assert third.delivery is not None
    assert third.delivery.delivered == 1
    assert box.sql("SELECT count(*) FROM people") == [(rows,)]
    assert box.sql("SELECT score FROM people WHERE email = %s", middle) == [(7,)]
