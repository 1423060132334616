"""What several benchmarks begin with: a project whose rows were delivered to Postgres, by its first run. Made once."""

from __future__ import annotations

import atexit
import contextlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import orjson
import psycopg

from bench.postgres import clean, oploop, oploop_said, project, server

ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))


@dataclass(frozen=True)
class Loaded:
    """A project in `folder`, its target at `dsn`; `seconds`: what the run took that delivered all its rows."""

    dsn: str
    folder: Path
    seconds: float

    def oploop(self, *words: str) -> float:
        """Seconds that a command takes, process start to end."""
        return oploop(self.folder, self.dsn, *words)

    def run(self) -> tuple[float, dict[str, float]]:
        """Seconds of a run in prod, process start to end, and of its stages."""
        took, said = oploop_said(self.folder, self.dsn, "run", "--env", "prod", "-o", "json")
        return took, {s["stage"]: s["seconds"] for s in orjson.loads(said)["stages"]}


@cache
def running() -> str:
    """A server that lives as long as this process; its address."""
    return _kept.enter_context(server())


@cache
def loaded() -> Loaded:
    """The project with its first load delivered, and read back."""
    dsn = running()
    folder = _kept.enter_context(project(ROWS, dsn))
    oploop(folder, dsn, "extract")  # a read of the empty target, so that the run is the load alone
    clean(dsn)
    took = oploop(folder, dsn, "run", "--env", "prod", "--yes", "--allow", "things:first-run")
    with psycopg.connect(dsn) as pg:
        [(there,)] = pg.execute("SELECT count(*) FROM things").fetchall()
    with duckdb.connect(str(folder / "w.duckdb"), read_only=True) as db:
        [(sent,)] = db.execute("SELECT count(*) FROM oploop.changes WHERE status IN ('sent', 'confirmed')").fetchall()
    assert there == sent == ROWS, f"{there} delivered, {sent} in the ledger"
    oploop(folder, dsn, "extract")
    return Loaded(dsn, folder, took)


_kept = contextlib.ExitStack()
atexit.register(_kept.close)
