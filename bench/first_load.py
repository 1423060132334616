"""A model to an empty Postgres table by upsert, the whole of `oploop run`, ledger included; beside a floor and the peer.

The floor: the model's rows as Arrow through ADBC into a staging table, then one insert into a table with the same
primary key. The peer goes row by row, so its rate is that of fewer rows (BENCH_PEER_ROWS).
"""

from __future__ import annotations

import time

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import psycopg

from bench.loaded import ROWS, loaded, running
from bench.peer import FIRST_ROWS, VERSION, peer
from bench.postgres import COLUMNS, clean, model
from bench.table import Row, bar


def run() -> list[Row]:
    dsn = running()
    least = floor(dsn, ROWS)
    took = loaded().seconds
    what, measured = f"first load of {ROWS:,} rows x 10 to Postgres", f"{took:.1f} s"
    rows = [Row(what, measured, f"ADBC staging and one insert {least:.1f} s", bar(took / least, at_most=2.5))]
    with peer(dsn, FIRST_ROWS, delivered=False) as other:
        if isinstance(other, str):
            return [*rows, Row(what, measured, other, "")]
        theirs = other.run()
        assert other.count() == FIRST_ROWS
    ours, rate = ROWS / took, FIRST_ROWS / theirs
    return [*rows, Row(what, f"{ours:,.0f} rows/s", _theirs(rate), bar(ours / rate, at_least=20))]


def _theirs(rate: float) -> str:
    return f"drt-core {VERSION}, {FIRST_ROWS:,} rows: {rate:,.0f} rows/s"


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
