"""The first load of a model into an empty Postgres table by upsert: the whole of `oploop run`, and the floor.

The floor: the model's rows as Arrow through ADBC into a staging table, then one insert into a table with the same
primary key.
"""

from __future__ import annotations

import os
import time

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import psycopg

from bench.postgres import COLUMNS, clean, model, oploop, project, server
from bench.table import Row

ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))


def run() -> list[Row]:
    with server() as dsn:
        least = floor(dsn, ROWS)
        with project(ROWS, dsn) as folder:
            oploop(folder, dsn, "extract")  # a read of the empty target, so that the run is the load alone
            clean(dsn)
            took = oploop(folder, dsn, "run", "--env", "prod", "--yes", "--allow", "things:first-run")
            with psycopg.connect(dsn) as pg:
                [(there,)] = pg.execute("SELECT count(*) FROM things").fetchall()
            with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as db:
                [(sent,)] = db.execute(
                    "SELECT count(*) FROM oploop.changes WHERE status IN ('sent', 'confirmed')"
                ).fetchall()
            assert there == sent == ROWS, f"{there} delivered, {sent} in the ledger"
    return [
        Row(
            f"first load of {ROWS:,} rows x 10 to Postgres, whole process",
            f"{took:.1f} s",
            f"ADBC staging and one insert {least:.1f} s",
            f"{took / least:.1f}x; bar 2.5x: {'met' if took <= 2.5 * least else 'NOT met'}",
        )
    ]


def floor(dsn: str, rows: int) -> float:
    """Seconds for staging and one insert."""
    with duckdb.connect() as db:
        db.execute(f"CREATE TABLE m AS {model(rows)}")
        with psycopg.connect(dsn, autocommit=True) as pg:
            pg.execute("DROP TABLE IF EXISTS floor_target; DROP TABLE IF EXISTS floor_stage")
            pg.execute(f"CREATE TABLE floor_target (id bigint PRIMARY KEY, {COLUMNS})")
        clean(dsn)
        began = time.perf_counter()
        with adbc.connect(dsn) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("floor_stage", db.execute("SELECT * FROM m").to_arrow_reader(100_000), mode="create")
            cursor.execute("INSERT INTO floor_target SELECT * FROM floor_stage")
            connection.commit()
        took = time.perf_counter() - began
    with psycopg.connect(dsn, autocommit=True) as pg:
        pg.execute("DROP TABLE floor_target; DROP TABLE floor_stage")
    return took
