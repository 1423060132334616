"""A model to a Postgres table by upsert, as a user runs it: the first load beside a floor, a plan of nothing, 1% changed.

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
from bench.table import Row, median_of

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
            rows = [_first(took, least)]
            oploop(folder, dsn, "extract")
            plan = median_of(3, lambda: oploop(folder, dsn, "plan", "--env", "prod"))
            rows.append(Row(f"oploop plan of {ROWS:,} rows x 10, nothing changed", f"{plan:.2f} s", "", ""))
            with duckdb.connect(str(folder / "w.duckdb")) as db:
                db.execute("UPDATE mart.m SET f9 = f9 + 1000000 WHERE id % 100 = 0")
            changed = oploop(folder, dsn, "run", "--env", "prod")
            with psycopg.connect(dsn) as pg:
                [(moved,)] = pg.execute("SELECT count(*) FROM things WHERE f9 >= 1000000").fetchall()
            assert moved == -(-ROWS // 100), f"{moved} updated"
            rows.append(Row(f"1% of {ROWS:,} rows changed, read, planned and delivered", f"{changed:.1f} s", "", ""))
    return rows


def _first(took: float, least: float) -> Row:
    return Row(
        f"first load of {ROWS:,} rows x 10 to Postgres, whole process",
        f"{took:.1f} s",
        f"ADBC staging and one insert {least:.1f} s",
        f"{took / least:.1f}x; bar 2.5x: {'met' if took <= 2.5 * least else 'NOT met'}",
    )


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
