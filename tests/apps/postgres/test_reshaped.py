"""Tables in which a trigger makes other rows of new ones: each is known by what the table holds, and is not made a second time."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.apps.postgres import writer
from oploop.records import Op, Outcome
from tests.apps.postgres.conftest import Database, PostgresApp, changes, send
from tests.apps.postgres.test_flow import Office, office

KEYED = "CREATE TABLE things (code text PRIMARY KEY, score int CHECK (score >= 0), touched int)"
NUMBERED = "CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, score int CHECK (score >= 0), touched int)"
BOTH = "CREATE TABLE things (id text PRIMARY KEY, code text UNIQUE, score int CHECK (score >= 0), touched int)"
UPPER = "NEW.code := upper(NEW.code)"


def trigger(db: Database, does: str, table: str = "things") -> None:
    db.sql(f"""CREATE FUNCTION shape() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.score = 13 THEN RETURN NULL; END IF; {does}; RETURN NEW; END $$""")
    db.sql(f"CREATE TRIGGER shape BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION shape()")


def rows(*codes: str, **more: Any) -> list[dict[str, Any]]:
    return [{"code": c, "score": n, **more} for n, c in enumerate(codes)]


def ids(db: Database, column: str) -> dict[str, str]:
    """The row's id by its code, as it was before the trigger."""
    return {code.lower(): str(i) for i, code in db.sql(f"SELECT {column}, code FROM things")}


@pytest.mark.parametrize("op", [Op.CREATE, Op.UPSERT])
@pytest.mark.parametrize(("table", "column"), [(KEYED, "code"), (NUMBERED, "id")], ids=["key", "number"])
@pytest.mark.parametrize("quick", [True, False])
async def test_a_new_row_is_known_by_the_key_that_the_table_keeps(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch, op: Op, table: str, column: str, quick: bool
) -> None:
    monkeypatch.setattr(writer, "QUICK_FROM", 1 if quick else 10_000)
    db.sql(table)
    trigger(db, UPPER)
    given = changes(op, "code", rows("a", "B", "c"))
    done = await send(crm, "things", op, given, "once")
    assert db.sql("SELECT code FROM things ORDER BY 1") == [("A",), ("B",), ("C",)]
    told = {n: r.remote_id for n, r in done.items()}
    assert told == dict(enumerate((ids(db, column)[c] for c in "abc"), 1))
    again = await send(crm, "things", op, given, "once")  # as after a lost answer
    assert {n: (r.outcome, r.remote_id) for n, r in again.items()} == {n: (Outcome.OK, i) for n, i in told.items()}
    assert db.sql("SELECT count(*) FROM things") == [(3,)]


async def test_bad_rows_and_rows_that_are_kept_out_among_them(db: Database, crm: PostgresApp) -> None:
    db.sql(KEYED)
    trigger(db, UPPER)
    given = rows("a", "b", "c", "D")
    given[1]["score"], given[2]["score"] = -1, 13
    done = await send(crm, "things", Op.CREATE, changes(Op.CREATE, "code", given))
    assert {n: (r.outcome, r.remote_id) for n, r in done.items() if n in (1, 4)} == {
        1: (Outcome.OK, "A"),
        4: (Outcome.OK, "D"),
    }
    assert "things_score_check" in (done[2].error or "")
    assert "kept it out" in (done[3].error or "")
    given = rows("e", "f")
    given[1]["score"] = 13  # with no bad row among them
    done = await send(crm, "things", Op.CREATE, changes(Op.CREATE, "code", given))
    assert (done[1].remote_id, done[2].outcome) == ("E", Outcome.REJECTED)


@pytest.mark.parametrize("quick", [True, False])
async def test_an_id_that_a_trigger_makes_anew(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.setattr(writer, "QUICK_FROM", 1 if quick else 10_000)
    db.sql(BOTH)
    trigger(db, "NEW.id := 'x' || NEW.id")
    given = changes(Op.UPSERT, "code", [{"code": c, "score": 1, "id": c} for c in "ab"])
    for _ in range(2):
        done = await send(crm, "things", Op.UPSERT, given, "once")
        assert {n: r.remote_id for n, r in done.items()} == {1: "xa", 2: "xb"}


async def test_a_trigger_that_leaves_keys_alone_costs_one_statement(
    db: Database, crm: PostgresApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.sql(KEYED)
    trigger(db, "NEW.touched := 1")
    singly: list[Any] = []
    real = writer._Work.carefully

    def carefully(self: Any) -> Any:
        singly.append(self)
        return real(self)

    monkeypatch.setattr(writer._Work, "carefully", carefully)
    for at in (1, 10_000):
        monkeypatch.setattr(writer, "QUICK_FROM", at)
        done = await send(crm, "things", Op.UPSERT, changes(Op.UPSERT, "code", rows(f"a{at}", f"b{at}")))
        assert [r.remote_id for r in done.values()] == [f"a{at}", f"b{at}"]
    assert not singly


async def test_a_trigger_of_a_partition_counts(db: Database, crm: PostgresApp) -> None:
    db.sql("CREATE TABLE things (code text PRIMARY KEY, score int) PARTITION BY LIST (code)")
    db.sql("CREATE TABLE rest PARTITION OF things DEFAULT")
    trigger(db, "NEW.code := upper(NEW.code)", "rest")
    done = await send(crm, "things", Op.CREATE, changes(Op.CREATE, "code", rows("a", "b")))
    assert [r.remote_id for r in done.values()] == ["A", "B"]


@pytest.mark.parametrize(("table", "key"), [(KEYED, "code"), (NUMBERED, "code")], ids=["key", "number"])
async def test_the_next_runs_make_no_row_a_second_time(office: Office, table: str, key: str) -> None:
    office.db.sql(table)
    trigger(office.db, UPPER)
    office.sync("model: mart.accounts\nto: crm.public.things\nmode: upsert\nkey: {code: code}\nfields: [score]\n")
    for score, changed in ((1, 3), (1, 0), (2, 3), (2, 0)):
        await office.model(f"SELECT code, {score} AS score FROM (VALUES ('a'), ('B'), ('c')) t(code)")
        report = await office.turn()
        assert report.status == "ok", report.as_json()
        plan = report.syncs[0].plan
        assert plan is not None
        assert (plan.changes, plan.diff.count("gone")) == (changed, 0)
        assert office.db.sql("SELECT code, score FROM things ORDER BY 1") == [(c, score) for c in "ABC"]


async def test_what_a_trigger_changes_afterwards_is_seen_and_a_key_that_it_changes_leaves_the_row_to_itself(
    office: Office,
) -> None:
    office.db.sql(KEYED)
    office.db.sql("""CREATE FUNCTION after() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE things SET score = 50 WHERE code = NEW.code AND NEW.score = 5;
        UPDATE things SET code = 'x' || code WHERE code = NEW.code AND NEW.score = 7; RETURN NULL; END $$""")
    office.db.sql("CREATE TRIGGER after AFTER INSERT ON things FOR EACH ROW EXECUTE FUNCTION after()")
    office.sync("model: mart.accounts\nto: crm.public.things\nmode: upsert\nkey: {code: code}\nfields: [score]\n")
    await office.model("SELECT * FROM (VALUES ('a', 1), ('b', 5), ('c', 7)) t(code, score)")
    seen = []
    for _ in range(3):
        (sync,) = (await office.turn()).syncs
        assert sync.plan is not None
        seen.append((sync.status, sync.plan.diff.counts))
        assert office.db.sql("SELECT code, score FROM things ORDER BY 1") == [("a", 1), ("b", 50), ("xc", 7)]
    assert seen == [("ok", {"create": 3}), ("nothing", {"gone": 1}), ("nothing", {"gone": 1})]
    told = await office.rows("SELECT key, status FROM oploop.changes ORDER BY key")
    assert told == [("a", "confirmed"), ("b", "altered"), ("c", "gone")]


async def test_a_trigger_that_swaps_two_keys(office: Office) -> None:
    office.db.sql(KEYED)
    trigger(office.db, "NEW.code := translate(NEW.code, 'ab', 'ba')")
    office.sync("model: mart.accounts\nto: crm.public.things\nmode: upsert\nkey: {code: code}\nfields: [score]\n")
    await office.model("SELECT * FROM (VALUES ('a', 1), ('b', 5)) t(code, score)")
    for status in ("ok", "nothing"):
        (sync,) = (await office.turn()).syncs
        assert sync.status == status
        assert office.db.sql("SELECT code, score FROM things ORDER BY 1") == [("a", 5), ("b", 1)]
    told = await office.rows("SELECT key, remote_id, status FROM oploop.changes ORDER BY key")
    assert told == [("a", "a", "altered"), ("b", "b", "altered")]  # each by the key that it was sent with


__all__ = ["office"]
