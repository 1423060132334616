"""Delivery over HTTP to a bare local sink, in batches of 100 and record by record, the journal durable.

Measured: what `oploop run` says of the delivery itself, from its first call to its last receipt. The bare client makes
the same bodies of the same rows, and sends as many at once over one aiohttp session, without a plan or a journal.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import duckdb
import orjson

from bench.postgres import NAMES, TEXTS, model, oploop_said
from bench.sink import sink
from bench.table import Row, bar

BATCH, AT_ONCE = 100, 16
ROWS, SINGLES = 200_000, 20_000
RUNS = 3
PROJECT = """\
name: bench
warehouse: {{type: duckdb, database: w.duckdb}}
models: {{engine: none}}
apps:
  crm:
    type: http
    base_url: {url}
    objects:
      things:
        fields:
          id: {{type: integer, key: true}}
{fields}
        upsert:
          path: /{path}
          keys: [id]
          replay: safe
          in_flight: {at_once}
{call}
environments: {{prod: {{}}}}
"""
BATCHED = f"""\
          batch: {BATCH}
          body: {{records: $records}}
          record: {{id: $key.id, "...": $record}}
"""
SINGLE = """\
          body: {id: $key.id, "...": $record}
"""
RESULTS = """\
          results: results
          ok: {status: ok}
"""
FIELDS = "\n".join(f"          {n}: {{type: {'text' if i < TEXTS else 'integer'}}}" for i, n in enumerate(NAMES))
SYNC = f"model: mart.m\nto: crm.things\nmode: upsert\nkey: {{id: id}}\nfields: [{', '.join(NAMES)}]\nlimits: {{held: 100%}}\n"


@contextmanager
def project(url: str, rows: int, path: str, call: str, bad_each: int | None = None) -> Iterator[Path]:
    """A project that delivers so many new rows to the sink; one of `bad_each` is bad there."""
    with tempfile.TemporaryDirectory(prefix="oploop-bench-") as name:
        folder = Path(name)
        (folder / "oploop.yml").write_text(
            PROJECT.format(url=url, path=path, fields=FIELDS, call=call, at_once=AT_ONCE)
        )
        (folder / "syncs").mkdir()
        (folder / "syncs" / "things.yml").write_text(SYNC)
        with duckdb.connect(str(folder / "w.duckdb")) as db:
            db.execute("CREATE SCHEMA mart")
            db.execute(f"CREATE TABLE mart.m AS {model(rows)}")
            if bad_each is not None:  # where chance puts them, as bad records seldom stand in a row
                db.execute(f"UPDATE mart.m SET f5 = -1 WHERE hash(id * 7919) % {bad_each} = 0")
        yield folder


def deliver(folder: Path) -> dict[str, float]:
    """What a run says of its one sync: `seconds`, `calls`, `delivered`, `rejected` ..."""
    _, said = oploop_said(folder, "", "run", "--env", "prod", "--yes", "-o", "json", codes=(0, 1))
    [sync] = orjson.loads(said)["syncs"]
    return dict(sync)


def run() -> list[Row]:
    rows = []
    with sink() as url:
        for rows_, call, size, least in ((ROWS, BATCHED, BATCH, 100_000), (SINGLES, SINGLE, 1, 3_000)):
            ours = statistics.median(_ours(url, rows_, call) for _ in range(RUNS))
            bare = statistics.median(asyncio.run(_bare(url, rows_, size)) for _ in range(RUNS))
            what = f"HTTP delivery, batches of {size}" if size > 1 else "HTTP delivery, record by record"
            beside, said = (
                f"bare client {bare:,.0f} rows/s",
                bar(bare / ours, at_most=2) if size > 1 else f"{bare / ours:.1f}x",
            )
            met = "met" if ours >= least else "NOT met"
            rows.append(Row(what, f"{ours:,.0f} rows/s", beside, f"{said}; bar {least:,} rows/s: {met}"))
    return rows


def _ours(url: str, rows: int, call: str) -> float:
    """Rows a second."""
    with project(url, rows, "take", call) as folder:
        sent = deliver(folder)
    assert sent["delivered"] == rows, sent
    return rows / sent["seconds"]


async def _bare(url: str, rows: int, size: int) -> float:
    """Rows a second."""
    with duckdb.connect() as db:
        table = db.execute(f"SELECT * FROM ({model(rows)})").to_arrow_table()
    began = time.perf_counter()
    batches = iter(table.to_batches(5_000))
    bodies = (
        orjson.dumps({"records": part} if size > 1 else part[0])
        for batch in batches
        for records in [batch.to_pylist()]
        for start in range(0, len(records), size)
        for part in [records[start : start + size]]
    )
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as session:

        async def caller() -> None:
            for body in bodies:
                async with session.post(f"{url}/take", data=body) as answer:
                    await answer.read()

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return rows / (time.perf_counter() - began)


def calls() -> list[Row]:
    """Write calls beside the fewest possible, with none bad and with 2%, in both ways in which APIs tell of a bad record."""
    rows = 20_000
    fewest = rows // BATCH
    found = []
    with sink() as url:
        for what, path, call, bad in (
            ("none bad", "whole", BATCHED, None),
            ("2% bad, told record by record", "each", BATCHED + RESULTS, 50),
            ("2% bad, each call with one refused whole", "whole", BATCHED, 50),
        ):
            with project(url, rows, path, call, bad) as folder:
                sent = deliver(folder)
            assert sent["delivered"] + sent["rejected"] == rows, sent
            beside = f"{rows:,} rows / {BATCH} = {fewest} calls"
            over = sent["calls"] / fewest - 1
            said = f"{over:+.1%}; bar 1%: {'met' if over <= 0.01 else 'NOT met'}" if bad is None else f"{over:+.0%}"
            found.append(Row(f"write calls, {what}", f"{sent['calls']:,} calls", beside, said))
    return found
