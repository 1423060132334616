"""A real dbt, in an environment of its own that the first test to ask for it makes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

#: 1.12 fetches a binary from elsewhere while it is installed. The file that it writes is read by our DuckDB, whatever its own.
WANTED = ["dbt-core>=1.11,<1.12", "dbt-duckdb>=1.9", "dbt-postgres>=1.9", f"duckdb=={duckdb.__version__}"]


@pytest.fixture(scope="session")
def dbt() -> Path:
    """dbt's command. Skips where it cannot be installed."""
    folder = Path(os.environ.get("OPLOOP_TEST_DBT", f"{tempfile.gettempdir()}/oploop-test-dbt-{os.getuid()}"))
    command = folder / "bin" / "dbt"
    with Path(f"{folder}.lock").open("w") as lock:  # several processes of pytest may ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        uv = str(Path(sys.executable).with_name("uv"))
        steps = (
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [
                uv,
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--python",
                str(folder / "bin" / "python"),
                *WANTED,
            ],
        )
        for step in () if command.exists() else steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True)
            except OSError as e:
                pytest.skip(f"dbt cannot be installed: {e}")
            if done.returncode:
                pytest.skip(f"dbt cannot be installed: {done.stderr.strip()[-200:]}")
    return command


#: A profile of the two kinds of warehouses; dbt's folder stands beside the warehouse's file.
DUCKDB = "{{type: duckdb, path: '{path}', schema: {schema}, threads: 2}}"
POSTGRES = "{{type: postgres, host: {host}, port: {port}, user: {user}, password: '{password}', dbname: {dbname}, schema: {schema}, threads: 2}}"


def write_dbt(folder: Path, files: dict[str, str], *, dsn: str = "", path: str = "../warehouse.duckdb") -> None:
    """A dbt project `shop` in `folder`, with targets dev and prod on the warehouse's file, or on the server at `dsn`."""
    from psycopg.conninfo import conninfo_to_dict

    at = conninfo_to_dict(dsn) if dsn else {}
    outputs = {
        name: (POSTGRES if dsn else DUCKDB).format(path=path, schema=schema, **at)
        for name, schema in (("dev", "mart_dev"), ("prod", "mart"))
    }
    lines = [f"    {name}: {output}\n" for name, output in outputs.items()]
    project = "name: shop\nversion: '1.0'\nprofile: shop\nmodel-paths: [models]\n"
    profile = f"shop:\n  target: dev\n  outputs:\n{''.join(lines)}"
    for name, text in {"dbt_project.yml": project, "profiles.yml": profile, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
