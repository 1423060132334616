"""What a command must not load: most of a short one's time is what it imports, so what comes back here comes back unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb

from tests.apps.postgres.conftest import Database

PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps:
  crm: {type: postgres, dsn: "${CRM_DSN}"}
"""
SYNC = "model: mart.m\nto: crm.public.things\nmode: upsert\nkey: {id: id}\nfields: [name]\n"
#: Runs a command, then says which of the modules that its first words name are loaded.
COMMAND = """
import sys
from oploop.cli.main import main
asked, sys.argv = sys.argv[1].split(","), ["oploop", *sys.argv[2:]]
try:
    main()
except SystemExit as e:
    print([m for m in asked if m in sys.modules], e.code, file=sys.stderr)
"""


def loaded(folder: Path, db: Database, asked: tuple[str, ...], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, ",".join(asked), *words, "--env", "prod", "--project", str(folder)],
        env=os.environ | {"CRM_DSN": db.dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.strip().split("\n")[-1]


def test_what_plan_and_run_load(tmp_path: Path, db: Database) -> None:
    """A plan moves no rows, so nothing that does is needed; a run with an app that speaks no HTTP needs no HTTP, and no numpy."""
    (tmp_path / "oploop.yml").write_text(PROJECT)
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "things.yml").write_text(SYNC)
    db.sql("CREATE TABLE things (id int PRIMARY KEY, name text)")
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        warehouse.execute("CREATE SCHEMA mart; CREATE TABLE mart.m AS SELECT 1 AS id, 'one' AS name")
    never = ("pandas", "numpy", "ruamel.yaml", "aiohttp", "sqlglot", "sqlmesh", "dlt", "rich", "cryptography")
    assert loaded(tmp_path, db, (*never, "psycopg"), "run", "--yes") == "['psycopg'] 0"
    assert db.sql("SELECT * FROM things") == [(1, "one")]
    db.sql("UPDATE things SET name = 'two'; INSERT INTO things VALUES (2, 'more')")  # read, merged, and left alone
    assert loaded(tmp_path, db, (*never, "pyarrow"), "run") == "['pyarrow'] 0"
    moves = ("pyarrow", "msgspec", "oploop.apps.arrow", "oploop.extract.load", "oploop.activate.deliver")
    assert loaded(tmp_path, db, (*never, *moves, "psycopg"), "plan") == "['psycopg'] 0"


def test_without_numpy_a_server_is_a_warehouse_too(tmp_path: Path, db: Database) -> None:
    """What is brought to and from it is Arrow as well."""
    (tmp_path / "oploop.yml").write_text(
        PROJECT.replace("{type: duckdb, database: warehouse.duckdb}", '{type: postgres, dsn: "${CRM_DSN}"}')
    )
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "things.yml").write_text(SYNC.replace("crm.public.things", "crm.sales.things"))
    db.sql("CREATE SCHEMA sales; CREATE TABLE sales.things (id int PRIMARY KEY, name text)")
    db.sql("CREATE SCHEMA mart; CREATE TABLE mart.m AS SELECT i AS id, 'n' || i AS name FROM generate_series(1, 50) i")
    assert loaded(tmp_path, db, ("numpy", "pyarrow"), "run", "--yes", "--allow", "things:first-run").endswith("] 0")
    db.sql("UPDATE mart.m SET name = 'other' WHERE id < 4; UPDATE sales.things SET name = 'theirs' WHERE id = 7")
    assert loaded(tmp_path, db, ("numpy", "pyarrow"), "run") == "['pyarrow'] 0"
    assert db.sql("SELECT name, count(*) FROM sales.things WHERE id < 8 GROUP BY 1 HAVING count(*) > 2") == [
        ("other", 3)
    ]
    assert db.sql("SELECT name FROM sales.things WHERE id = 7") == [("theirs",)]
