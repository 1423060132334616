"""The peer: drt-core 1.2.1 from PyPI, in an environment of its own, on the same rows and the same server.

Its snapshot diff works where the model stands in Postgres, so that is where its rows are; it tells changes only by a
run. What a first run of it would leave (the target's rows and its snapshot, a copy of the model) is put there by SQL,
since delivering a million rows takes it minutes. Where it cannot be installed, its column says why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.postgres import COLUMNS, NAMES, clean, model

VERSION = "1.2.1"
#: Rows of its first load, which is row by row: so few, as it takes minutes for a million.
FIRST_ROWS = int(os.environ.get("BENCH_PEER_ROWS", 50_000))
SYNC = """\
name: things
model: "SELECT * FROM source_m"
destination:
  type: postgres
  connection_string_env: TARGET
  table: public.peer_things
  upsert_key: [id]
sync:
  mode: upsert
  incremental_strategy: diff
  diff: {hash_columns: all}
  batch_size: 1000
"""


@cache
def installed() -> Path | str:
    """Its command, installed beside the system's temporary files at the first use; else why there is none."""
    folder = Path(os.environ.get("BENCH_PEER_VENV", f"{tempfile.gettempdir()}/oploop-bench-drt-{os.getuid()}"))
    command = folder / "bin" / "drt"
    if command.exists():
        return command
    uv = Path(sys.executable).with_name("uv")
    wanted = [f"drt-core[postgres]=={VERSION}", f"duckdb=={duckdb.__version__}"]
    steps = (
        [str(uv), "venv", "--quiet", "--python", sys.executable, str(folder)],
        [str(uv), "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *wanted],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return f"drt-core {VERSION} cannot be installed: {done.stderr.strip().splitlines()[-1][:80]}"
    return command


class Peer:
    """A project of its, in a folder, on a server."""

    def __init__(self, command: Path, folder: Path, dsn: str, rows: int) -> None:
        self._command, self._folder, self.dsn, self.rows = command, folder, dsn, rows
        at = conninfo_to_dict(dsn)
        (folder / "home" / ".drt").mkdir(parents=True)
        (folder / "syncs").mkdir()
        (folder / "syncs" / "things.yml").write_text(SYNC)
        (folder / "drt_project.yml").write_text("name: bench\nversion: '0.1'\nprofile: bench\n")
        (folder / "home" / ".drt" / "profiles.yml").write_text(
            f"bench: {{type: postgres, host: {at['host']}, port: {at.get('port', 5432)}, dbname: {at['dbname']}, "
            f"user: {at['user']}, password: '{at.get('password') or 'none'}'}}\n"
        )

    def run(self) -> float:
        """Seconds of `drt run`, process start to end."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DRT_")}
        environment |= {"HOME": str(self._folder / "home"), "TARGET": self.dsn}
        began = time.perf_counter()
        done = subprocess.run(
            [str(self._command), "run", "--quiet"],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        took = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"drt run: {done.stdout[-500:]} {done.stderr[-500:]}")
        return took

    def change_a_hundredth(self) -> None:
        self.sql("UPDATE source_m SET f9 = f9 + 1000000 WHERE id % 100 = 0")
        clean(self.dsn)

    def count(self, where: str = "TRUE") -> int:
        with psycopg.connect(self.dsn) as pg:
            [(found,)] = pg.execute(f"SELECT count(*) FROM peer_things WHERE {where}").fetchall()
        return int(found)

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as pg:
            for statement in statements:
                pg.execute(statement)


@contextmanager
def peer(dsn: str, rows: int, *, delivered: bool) -> Iterator[Peer | str]:
    """The peer before a model of so many rows, `delivered` already or not; or why there is none."""
    command = installed()
    if isinstance(command, str):
        yield command
        return
    with tempfile.TemporaryDirectory(prefix="oploop-bench-peer-") as name, duckdb.connect() as db:
        found = Peer(command, Path(name), dsn, rows)
        found.sql("DROP TABLE IF EXISTS source_m, peer_things", "DROP SCHEMA IF EXISTS _drt CASCADE")
        with adbc.connect(dsn) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("source_m", db.execute(model(rows)).to_arrow_reader(100_000), mode="create")
            connection.commit()
        found.sql(f"CREATE TABLE peer_things (id bigint PRIMARY KEY, {COLUMNS})")
        if delivered:
            found.sql(
                "CREATE SCHEMA _drt",
                "CREATE TABLE _drt._drt_snapshot_things AS SELECT * FROM source_m",
                f"INSERT INTO peer_things (id, {', '.join(NAMES)}) SELECT id, {', '.join(NAMES)} FROM source_m",
                "ANALYZE _drt._drt_snapshot_things",
            )
        found.sql("ANALYZE source_m")
        clean(dsn)
        try:
            yield found
        finally:
            found.sql("DROP TABLE IF EXISTS source_m, peer_things", "DROP SCHEMA IF EXISTS _drt CASCADE")
