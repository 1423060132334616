"""Changes that come as columns land as the same changes would that come one by one, and say what they cannot stage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from oploop.apps.columns import Chunk, Columns, Taken
from oploop.apps.postgres import PostgresApp
from oploop.apps.postgres.columns import group_of
from oploop.records import Change, Op, Step
from tests.apps.postgres.conftest import Database

TABLE = (
    "CREATE TABLE t (id bigint PRIMARY KEY, name text, score float8, ok bool, day date, at timestamptz, "
    "data jsonb, tier text DEFAULT 'free')"
)
AT = datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=UTC)
VALUES: dict[str, list[Any]] = {
    "name": ['a "quoted", text\nof two lines', "", None, "Jürgen 👋 \\N", "NULL"],
    "score": [0.1, -1e300, None, float("inf"), 3.0],
    "ok": [True, False, None, True, False],
    "day": [date(2024, 2, 29), date(1, 1, 1), None, date(9999, 12, 31), date(2000, 1, 1)],
    "at": [AT, AT, None, AT, AT],
    "data": ['{"a":[1,null]}', '"x"', None, "[]", "1"],
}
TYPES = {"name": pa.string(), "score": pa.float64(), "ok": pa.bool_(), "day": pa.date32(), "data": pa.string()}


def columns(values: dict[str, list[Any]], remote: list[str | None], *, sends_null: bool = False) -> Columns:
    """Changes of the ids 1, 2, ...; a NULL is not sent, or clears."""
    n = len(remote)
    arrays = {"__number": pa.array(range(7, 7 + n), pa.int64()), "__remote": pa.array(remote, pa.string())}
    arrays["k0"] = pa.array(range(1, n + 1), pa.int64())
    for i, (name, column) in enumerate(values.items()):
        arrays[f"w{i}"] = pa.array(column, TYPES.get(name, pa.timestamp("us", "UTC") if name == "at" else pa.string()))
        arrays[f"c{i}"] = pa.array([sends_null or v is not None for v in column])

    def never(_: pa.RecordBatch) -> list[Change]:
        raise AssertionError("no Change is needed")

    fields = [(name, f"w{i}", f"c{i}") for i, name in enumerate(values)]
    return Columns(Chunk(pa.RecordBatch.from_pydict(arrays), [("id", "k0")], fields, never, never, never), 0, n)


async def test_new_rows_of_all_types_land_and_are_told_in_short(db: Database, crm: PostgresApp) -> None:
    db.sql(TABLE)
    await crm.describe("public.t")
    receipts = await crm.send(Step("s1", "s", "public.t", Op.UPSERT, columns(VALUES, [None] * 5)))
    assert isinstance(receipts, Taken)
    assert (len(receipts), receipts.ids_from) == (5, "id")
    rows = db.sql("SELECT id, name, score, ok, day, at, data::text, tier FROM t ORDER BY id")
    told = [r[:7] for r in rows]
    wanted = zip(range(1, 6), *(VALUES[c] for c in ("name", "score", "ok", "day", "at")), strict=True)
    assert [r[:6] for r in told] == list(wanted)
    assert [r[6] for r in told] == ['{"a": [1, null]}', '"x"', None, "[]", "1"]
    assert {r[7] for r in rows} == {"free"}


@pytest.mark.parametrize("again", [False, True])
async def test_updates_change_only_what_they_send_and_clear_what_they_clear(
    db: Database, crm: PostgresApp, again: bool
) -> None:
    db.sql(TABLE)
    db.sql("INSERT INTO t (id, name, score) SELECT i, 'old', 1 FROM generate_series(1, 3) i")
    await crm.describe("public.t")
    part = {"name": ["new", None, "new"], "score": [None, 2.0, 3.0]}
    step = Step("s1", "s", "public.t", Op.UPDATE, columns(part, ["1", "2", "3"]))
    for _ in range(2 if again else 1):
        assert isinstance(await crm.send(step), Taken)
    assert db.sql("SELECT name, score FROM t ORDER BY id") == [("new", 1.0), ("old", 2.0), ("new", 3.0)]
    clears = columns({"name": [None, None, "x"]}, ["1", "2", "3"], sends_null=True)
    assert isinstance(await crm.send(Step("s2", "s", "public.t", Op.UPDATE, clears)), Taken)
    assert db.sql("SELECT name FROM t ORDER BY id") == [(None,), (None,), ("x",)]


@pytest.mark.parametrize(
    "change",
    [
        lambda: columns({"name": ["a\0b"]}, [None]),
        lambda: columns({"name": ["one\n\\.\ntwo"]}, [None]),
        lambda: columns({"tier": ["gold", None]}, [None, None]),
    ],
    ids=["a character that Postgres cannot hold", "what ends the data", "a default of some rows"],
)
async def test_what_columns_cannot_say_is_left_to_the_long_way(
    db: Database, crm: PostgresApp, change: Callable[[], Columns]
) -> None:
    db.sql(TABLE)
    await crm.describe("public.t")
    assert group_of(crm.catalog.get("public.t"), Op.UPSERT, change()) is None
