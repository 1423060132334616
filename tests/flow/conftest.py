"""A project on a real Zendesk sandbox, with a table that a test writes as its model: the loop without a modelling engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oploop import loop
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.loop import Options
from oploop.project import load_project
from oploop.report import RunReport, SyncReport
from oploop.runtime import Runtime
from oploop.selection import Selection
from oploop.workspace import Workspace
from tests.warehouses import contents

TOKEN = "zd_test_oploop"

PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps:
  zendesk:
    subdomain: sandbox
    email: ops@acme.example
    api_token: ${ZENDESK_API_TOKEN}
    base_url: ${ZENDESK_URL}
"""

DUCKDB = "{type: duckdb, database: warehouse.duckdb}"
SERVER = "{type: postgres, dsn: '${WAREHOUSE_DSN}'}"

SYNC = """\
model: mart.tickets
to: zendesk.tickets
mode: update
key: {id: ticket_id}
fields: [priority]
"""


@dataclass
class Desk:
    """A folder, a sandbox with tickets 1..`tickets`, and turns of the loop over them."""

    folder: Path
    sandbox: ZendeskSandbox
    url: str
    runtime: Runtime = field(default_factory=Runtime)
    dsn: str = ""  #: of the warehouse, where it is a server

    def project(self, text: str = PROJECT) -> None:
        """Write the project's file, on the warehouse that this test runs on."""
        (self.folder / "oploop.yml").write_text(text.replace(DUCKDB, SERVER) if self.dsn else text)

    def sync(self, text: str, name: str = "tickets") -> None:
        """Write a sync's file."""
        (self.folder / "syncs").mkdir(exist_ok=True)
        (self.folder / "syncs" / f"{name}.yml").write_text(text)

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """Fill the sandbox with records that are older than the minute that exports withhold."""
        self.sandbox.load(kind, records)
        self.sandbox.advance(120)

    @property
    def variables(self) -> dict[str, str]:
        """What the project's file takes from the environment."""
        return {"ZENDESK_API_TOKEN": TOKEN, "ZENDESK_URL": self.url, "WAREHOUSE_DSN": self.dsn}

    def workspace(self, *, env: str = "prod", read_only: bool = False) -> Workspace:
        project = load_project(self.folder, self.variables)
        return Workspace(project, env, self.runtime, "test", read_only=read_only)

    async def model(self, select: str, table: str = "mart.tickets") -> None:
        """Write the model's table."""
        async with self.workspace() as ws:
            ws.warehouse.execute("CREATE SCHEMA IF NOT EXISTS mart")
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE {table} AS {select}")

    async def turn(self, options: Options | None = None, *, env: str = "prod") -> RunReport:
        """One run; a first delivery is allowed unless the options say otherwise."""
        async with self.workspace(env=env) as ws:
            return await loop.run(ws, options or Options(yes=True))

    async def plan(self, **options: Any) -> list[SyncReport]:
        """`oploop plan`: the warehouse is opened read-only."""
        async with self.workspace(read_only=True) as ws:
            wanted = replace(Options(yes=True), **options)
            return [await loop.plan_sync(ws, await ws.bound(s), wanted) for s in Selection().pick(ws.project)]

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        async with self.workspace() as ws:
            return ws.warehouse.rows(sql)

    def stored(self) -> object:
        """All that stands in the warehouse, to be compared with what stands there later."""
        return contents(self.dsn) if self.dsn else (self.folder / "warehouse.duckdb").read_bytes()

    def tickets(self, *fields: str) -> dict[int, Any]:
        """The sandbox's tickets: one field by id, or several as tuples."""
        found = {t["id"]: tuple(t[f] for f in fields) for t in self.sandbox.dump("tickets")}
        return {k: v[0] for k, v in found.items()} if len(fields) == 1 else found

    def edit(self, ticket: int, **fields: Any) -> None:
        """What an agent does by hand, some time later."""
        self.sandbox.advance(30)
        self.sandbox.store.update("tickets", ticket, fields)

    def writes(self) -> list[Any]:
        """Requests that changed something."""
        return [e for e in self.sandbox.log if e.method in ("POST", "PUT", "DELETE")]


def ticket(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "subject": f"Ticket {number}", "status": "open", "priority": None, **more}


@pytest.fixture
def desks(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Makes a desk on a file, or on the server at `dsn`."""
    sandboxes: list[ZendeskSandbox] = []

    def make(tickets: int = 250, *, dsn: str = "", **settings: Any) -> Desk:
        sandbox = ZendeskSandbox(**settings)
        sandboxes.append(sandbox)
        desk = Desk(tmp_path, sandbox, sandbox.start(), dsn=dsn)
        desk.project()
        desk.sync(SYNC)
        desk.load("tickets", [ticket(n) for n in range(1, tickets + 1)])
        return desk

    yield make
    for sandbox in sandboxes:
        sandbox.stop()


@pytest.fixture
def make_desk(desks: Callable[..., Desk], dsn: str) -> Callable[..., Desk]:
    """Makes desks on each kind of warehouse, one kind after the other."""
    return partial(desks, dsn=dsn)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()
