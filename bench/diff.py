"""The diff of 1M rows x 10 fields (BENCH_DIFF_ROWS for more), nothing changed, beside a scan-and-hash of both tables that it
reads; and the most memory that the process has had at once."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.table import Row, bar, median_of
from oploop.activate import ledger
from oploop.activate.bind import bind
from oploop.activate.diff import diff
from oploop.project import load_project
from oploop.records import Column, Field, FieldType, Object, Op, Operation, Replay, Stream
from oploop.runtime import Runtime
from oploop.warehouse import open_warehouse

ROWS = int(os.environ.get("BENCH_DIFF_ROWS", 1_000_000))
RUNS = 3 if ROWS <= 1_000_000 else 1
KINDS = [FieldType.TEXT] * 5 + [FieldType.INTEGER] * 5
NAMES = [f"f{i}" for i in range(len(KINDS))]
SYNC = f"model: mart.m\nto: app.things\nmode: update\nkey: {{id: id}}\nfields: [{', '.join(NAMES)}]\n"
PROJECT = (
    "name: bench\nwarehouse: {type: duckdb, database: w.duckdb}\nmodels: {engine: none}\napps: {app: {type: stripe}}\n"
)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "oploop.yml").write_text(PROJECT)
        (folder / "syncs").mkdir()
        (folder / "syncs" / "things.yml").write_text(SYNC)
        warehouse = open_warehouse(folder / "w.duckdb", read_only=False, runtime=Runtime())
        ledger.ensure(warehouse)
        columns = ", ".join(
            f"CAST(hash(i * {n + 1}) % 100000 AS {'VARCHAR' if k is FieldType.TEXT else 'BIGINT'}) AS {f}"
            for n, (f, k) in enumerate(zip(NAMES, KINDS, strict=True))
        )
        for schema in ("mart", "raw_app"):
            warehouse.execute(f"CREATE SCHEMA {schema}")
        warehouse.execute(f"CREATE TABLE mart.m AS SELECT i AS id, {columns} FROM range({ROWS}) t(i)")
        stamp = datetime.now(UTC).isoformat()
        warehouse.execute(
            "CREATE TABLE raw_app.things__all AS SELECT *, CAST('{}' AS JSON) AS _raw, "
            f"TIMESTAMPTZ '{stamp}' AS _extracted_at, CAST(1 AS BIGINT) AS _version, FALSE AS _deleted FROM mart.m"
        )
        fields = {n: Field(n, k, source=Column(n)) for n, k in zip(NAMES, KINDS, strict=True)}
        fields["id"] = Field("id", FieldType.INTEGER, source=Column("id"), key=True, read_only=True)
        obj = Object("things", {Op.UPDATE: Operation(batch=100, replay=Replay.SAFE)}, stream="things")
        sync = load_project(folder, {}).syncs["things"]
        bound = bind(sync, obj, Stream("things", ("id",), {}), fields, warehouse, "mart.m", warehouse.columns("mart.m"))

        def ours() -> float:
            began = time.perf_counter()
            found = diff(bound, warehouse, table="plan_bench")
            assert (found.rows, found.counts) == (ROWS, {})
            return time.perf_counter() - began

        def floor() -> float:
            began = time.perf_counter()
            for table in ("mart.m", "raw_app.things__all"):
                warehouse.rows(f"SELECT sum(hash(id, {', '.join(NAMES)})) FROM {table}")
            return time.perf_counter() - began

        least, took = median_of(RUNS, floor), median_of(RUNS, ours)
        warehouse.close()
    return [
        Row(
            f"diff of {ROWS:,} rows x 10, nothing changed",
            f"{took:.2f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB",
            f"scan and hash {least:.2f} s",
            bar(took / least, at_most=2.5),
        )
    ]
