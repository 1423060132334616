"""A small project over real sandboxes, and the command line as a function or as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from click.testing import CliRunner

from oploop.cli.group import cli

PROJECT = """\
name: acme
warehouse: {{type: duckdb, database: warehouse.duckdb}}
models: {{engine: {engine}}}
apps:
  zendesk:
    subdomain: sandbox
    email: ops@acme.example
    api_token: ${{ZENDESK_API_TOKEN}}
    base_url: {url}
    read: [tickets, users]
environments: {{prod: {{}}}}
"""
SYNC = """\
model: mart.ticket_priority
to: zendesk.tickets
mode: update
key: {id: ticket_id}
fields:
  priority: priority
  Priority reason: reason
explain: [spend]
"""
#: ticket, priority, reason, spend. The third breaks a rule, the fourth has no ticket.
MODEL = [
    (101, "urgent", "spends 10,000", 10000.5),
    (102, "high", "spends 1,000", 1000.0),
    (103, "highest", "no such priority", 3.0),
    (999, "low", "no such ticket", 0.0),
]


@dataclass
class Result:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """stdout with single blanks, so that tests need not know how wide columns are."""
        return " ".join(self.out.split())


def run(*args: str, folder: Path | None = None) -> Result:
    """A command line in this process."""
    where = ["--project", str(folder)] if folder is not None else []
    done = CliRunner().invoke(cli, [args[0], *where, *args[1:]] if args else [])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Result(done.exit_code, done.stdout, done.stderr)


def process(*args: str, folder: Path, env: dict[str, str] | None = None) -> Result:
    """A command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "oploop", *args],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def write_project(folder: Path, url: str, engine: str = "none") -> Path:
    """A project with one sync to the Zendesk at `url`."""
    (folder / "syncs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "oploop.yml").write_text(PROJECT.format(url=url, engine=engine))
    (folder / "syncs" / "ticket_priority.yml").write_text(SYNC)
    (folder / ".env").write_text("ZENDESK_API_TOKEN=zd_test_oploop\n")
    return folder


def fill(sandbox: Any) -> None:
    """Three tickets of one person, and the field for the reason."""
    sandbox.load("ticket_fields", [{"id": 900, "title": "Priority reason", "type": "text"}])
    sandbox.load("users", [{"id": 1, "name": "Ann", "email": "ann@acme.example", "role": "end-user"}])
    subjects = {101: "Cannot export", 102: "A \x1b[31mred\x1b[0m title", 103: "Third"}
    records = [
        {"id": i, "subject": s, "status": "open", "priority": "low", "requester_id": 1} for i, s in subjects.items()
    ]
    sandbox.load("tickets", records)
    sandbox.advance(3600)  # the export withholds its last minute


def write_model(folder: Path, rows: list[tuple[Any, ...]] | None = None) -> None:
    """The model's table, as another tool would leave it."""
    with duckdb.connect(str(folder / "warehouse.duckdb")) as db:
        db.execute("CREATE SCHEMA IF NOT EXISTS mart")
        db.execute(
            "CREATE OR REPLACE TABLE mart.ticket_priority (ticket_id BIGINT, priority VARCHAR, reason VARCHAR, spend DOUBLE)"
        )
        db.executemany("INSERT INTO mart.ticket_priority VALUES (?, ?, ?, ?)", rows or MODEL)
