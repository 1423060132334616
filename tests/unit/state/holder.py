"""A process that holds a lease until its input ends: holder.py KIND ADDRESS."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from oploop.runtime import Runtime
from oploop.state import StateStore
from oploop.state.postgres import PostgresStore


def main(kind: str, address: str) -> None:
    runtime = Runtime()
    if kind == "sqlite":
        store = StateStore(Path(address), runtime)
    else:
        store = PostgresStore(lambda: psycopg.connect(address, autocommit=True), runtime, "the warehouse")
    store.begin_run("other", "prod", "oploop run")
    store.take_lease("warehouse", "oploop run")
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
