"""New rows that come as columns go into the table itself; where that cannot be, nothing differs but the time."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from oploop.apps.columns import Chunk, Columns
from oploop.apps.postgres import PostgresApp, writer
from oploop.records import Change, Op, Outcome, Step
from tests.apps.postgres.conftest import Database

TABLE = "CREATE TABLE t (id int PRIMARY KEY, name varchar(5) UNIQUE, score float8 CHECK (score >= 0), ok bool, day date, at timestamptz)"
AT = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
VALUES: dict[str, list[Any]] = {
    "name": ['a "b', "", None, "J\n👋"],
    "score": [0.1, 1e300, None, float("inf")],
    "ok": [True, False, None, True],
    "day": [date(2024, 2, 29), date(1, 1, 1), None, date(9999, 12, 31)],
    "at": [AT, AT, None, AT],
}
TYPES = {"score": pa.float64(), "ok": pa.bool_(), "day": pa.date32(), "at": pa.timestamp("us", "UTC")}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each group went straight into its table."""
    monkeypatch.setattr(writer, "QUICK_FROM", 3)
    found: list[bool] = []
    real = writer._Work.straight

    def straight(self: Any) -> bool:
        found.append(real(self))
        return found[-1]

    monkeypatch.setattr(writer._Work, "straight", straight)
    return found


def columns(values: dict[str, list[Any]], first: int = 1) -> Columns:
    """Changes of the ids `first` and on; a NULL is not sent."""
    n = len(next(iter(values.values())))
    arrays = {"__number": pa.array(range(7, 7 + n), pa.int64()), "__remote": pa.array([None] * n, pa.string())}
    arrays["k0"] = pa.array(range(first, first + n), pa.int64())
    for i, (name, column) in enumerate(values.items()):
        arrays[f"w{i}"] = pa.array(column, TYPES.get(name, pa.string()))
        arrays[f"c{i}"] = pa.array([v is not None for v in column])

    def make(rows: pa.RecordBatch) -> list[Change]:
        listed = rows.to_pylist()
        named = [{name: r[f"w{i}"] for i, name in enumerate(values) if r[f"c{i}"]} for r in listed]
        return [
            Change(r["__number"], Op.UPSERT, {"id": r["k0"]}, {"id": r["k0"], **f})
            for r, f in zip(listed, named, strict=True)
        ]

    def never(_: pa.RecordBatch) -> Any:
        raise AssertionError("nobody needs the values")

    fields = [(name, f"w{i}", f"c{i}") for i, name in enumerate(values)]
    return Columns(Chunk(pa.RecordBatch.from_pydict(arrays), [("id", "k0")], fields, make, never, never), 0, n)


async def send(crm: PostgresApp, changes: Columns, step: str = "s1") -> list[Outcome]:
    await crm.describe("public.t")
    receipts = await crm.send(Step(step, "s", "public.t", Op.UPSERT, changes))
    return [r.outcome for r in sorted(receipts, key=lambda r: r.number)]


def names(*listed: str) -> dict[str, list[Any]]:
    return {"name": list(listed)}


@pytest.mark.parametrize("more", ["", "; CREATE RULE r AS ON DELETE TO t DO ALSO SELECT 1"])
async def test_all_types_land(db: Database, crm: PostgresApp, said: list[bool], more: str) -> None:
    """With a rule they are staged."""
    db.sql(TABLE + more)
    assert await send(crm, columns(VALUES)) == [Outcome.OK] * 4
    assert said == [not more]
    assert db.sql("SELECT * FROM t ORDER BY id") == list(zip(range(1, 5), *VALUES.values(), strict=True))


async def test_a_table_with_row_security_is_staged(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    """`COPY` does not go into such a table."""
    db.sql(f"{TABLE}; ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY")
    db.sql("CREATE POLICY p ON t USING (true) WITH CHECK (true)")
    assert await send(crm, columns(names("a", "b", "c"))) == [Outcome.OK] * 3
    assert await send(crm, columns(names("d", "e", "f"), 4), "s2") == [Outcome.OK] * 3
    assert said == [False, False]


async def test_a_step_that_was_done_is_not_done_again(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    db.sql(TABLE)
    for _ in range(2):
        assert await send(crm, columns(VALUES)) == [Outcome.OK] * 4
    assert said == [True]
    assert db.sql("SELECT count(*) FROM t") == [(4,)]


async def test_rows_that_somebody_made_meanwhile_are_updated(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    db.sql(TABLE)
    db.sql("INSERT INTO t (id, name) VALUES (2, 'old')")
    assert await send(crm, columns(names("a", "b", "c"))) == [Outcome.OK] * 3
    assert db.sql("SELECT id, name FROM t ORDER BY id") == [(1, "a"), (2, "b"), (3, "c")]
    assert await send(crm, columns(names("d", "e", "f"), 4), "s2") == [Outcome.OK] * 3
    assert said == [False, False]  # the table is known to have rows now
    assert db.sql("SELECT count(*) FROM t") == [(6,)]


@pytest.mark.parametrize("bad", [["a", "too long", "c"], ["a", "there", "c"]])
async def test_a_bad_row_is_refused_alone(db: Database, crm: PostgresApp, said: list[bool], bad: list[str]) -> None:
    db.sql(TABLE)
    db.sql("INSERT INTO t (id, name) VALUES (9, 'there')")
    assert await send(crm, columns(names(*bad))) == [Outcome.OK, Outcome.REJECTED, Outcome.OK]
    assert db.sql("SELECT id FROM t ORDER BY id") == [(1,), (3,), (9,)]
    assert True not in said


async def test_rows_that_a_trigger_keeps_out_are_told(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    db.sql(TABLE)
    db.sql("""CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.id = 2 THEN RETURN NULL; END IF; RETURN NEW; END $$""")
    db.sql("CREATE TRIGGER picky BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION picky()")
    assert await send(crm, columns(names("a", "b", "c"))) == [Outcome.OK, Outcome.REJECTED, Outcome.OK]
    assert db.sql("SELECT id FROM t ORDER BY id") == [(1,), (3,)]
    assert said == [False]


async def test_a_rule_is_heeded(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    db.sql(
        f"{TABLE}; CREATE TABLE log (id int); CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.id)"
    )
    assert await send(crm, columns(names("a", "b", "c"))) == [Outcome.OK] * 3
    assert db.sql("SELECT id FROM log ORDER BY id") == [(1,), (2,), (3,)]
    assert said == [False]


async def test_a_type_that_must_be_cast_is_staged(db: Database, crm: PostgresApp, said: list[bool]) -> None:
    db.sql("CREATE TABLE t (id int PRIMARY KEY, name numeric)")
    assert await send(crm, columns(names("1.50", "2", "-3"))) == [Outcome.OK] * 3
    assert said == [False]
    assert [str(n) for (n,) in db.sql("SELECT name FROM t ORDER BY id")] == ["1.50", "2", "-3"]
