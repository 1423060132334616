"""Models by dbt in the loop: a real dbt, on each kind of warehouse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from oploop.errors import FixConfig
from oploop.model.base import ModelStatus
from oploop.report import RunReport, SyncReport
from tests.dbt import write_dbt
from tests.flow.conftest import PROJECT, Desk, ticket

STAGED = "{{ config(materialized='view') }}\nselect id as ticket_id, subject from {{ source('desk', 'tickets') }}\n"
RANKED = """\
{{ config(materialized='table') }}
select ticket_id,
  case when subject = 'odd' then 'strange' when subject like '%!' then 'urgent' else 'low' end as priority
from {{ ref('staged') }}
"""
SCHEMA = """\
sources:
  - name: desk
    schema: raw_zendesk
    tables: [{name: tickets}]
models:
  - name: ranked
    columns:
      - name: priority
        data_tests:
          - accepted_values: {arguments: {values: [low, urgent]}}
unit_tests:
  - name: shouting_is_urgent
    model: ranked
    given:
      - {input: ref('staged'), rows: [{ticket_id: 1, subject: now!}]}
    expect: {rows: [{ticket_id: 1, priority: urgent}]}
"""
ALONE = "select 1 as nobody_asks_for_this\n"
FILES = {
    "models/staged.sql": STAGED,
    "models/ranked.sql": RANKED,
    "models/alone.sql": ALONE,
    "models/schema.yml": SCHEMA,
}
TICKETS = "model: ranked\nto: zendesk.tickets\nmode: update\nkey: {id: ticket_id}\nfields: [priority]\n"


def dbt_desk(make_desk: Callable[..., Desk], dbt: Path) -> Desk:
    desk = make_desk(tickets=0)
    desk.load("tickets", [ticket(i, subject="now!" if i % 2 else "later") for i in range(1, 11)])
    engine = f"models: {{engine: dbt, project: ./dbt, command: {dbt}}}"
    desk.project(PROJECT.replace("models: {engine: none}", engine) + "    read: [tickets]\n")
    write_dbt(desk.folder / "dbt", FILES, dsn=desk.dsn)
    desk.sync(TICKETS)
    return desk


def by_name(report: RunReport) -> dict[str, SyncReport]:
    return {s.sync: s for s in report.syncs}


async def test_what_dbt_builds_is_delivered_and_what_its_tests_refuse_is_not(
    make_desk: Callable[..., Desk], dbt: Path
) -> None:
    desk = dbt_desk(make_desk, dbt)
    first = await desk.turn()
    assert first.status == "ok", first.as_json()
    assert [(m.model, m.status) for m in first.models] == [("staged", ModelStatus.OK), ("ranked", ModelStatus.OK)]
    checks = {c.name: c.ok for m in first.models for c in m.checks}
    assert checks == {"accepted_values(priority)": True, "unit test shouting_is_urgent": True}
    assert set(desk.tickets("priority").values()) == {"urgent", "low"}

    (same,) = await desk.plan()  # without dbt, whose lock on a file would be in the way of others
    assert same.plan is not None
    assert (same.plan.diff.rows, same.plan.diff.counts) == (10, {})

    async with desk.workspace() as ws:
        edges = {(e.model, e.source, e.source_column) for e in ws.modeler.lineage("ranked", "priority")}
        assert edges == {("ranked", "staged", "subject"), ("staged", "raw_zendesk.tickets", "subject")}

    if desk.dsn:  # what follows is the same on either
        return
    desk.edit(1, subject="odd")
    desk.edit(2, subject="now!")
    desk.sandbox.advance(120)
    second = await desk.turn()
    assert second.exit_code == 1
    failed = {m.model: m for m in second.models}["ranked"]
    assert failed.status is ModelStatus.FAILED
    assert [(c.name, c.rows, c.message) for c in failed.checks if not c.ok] == [
        ("accepted_values(priority)", 1, "1 row fails accepted_values(priority)")
    ]
    assert by_name(second)["tickets"].status == "stopped"
    assert desk.tickets("priority")[2] == "low"

    write_dbt(desk.folder / "dbt", FILES, path="../other.duckdb")
    with pytest.raises(FixConfig) as refused:
        await desk.turn()
    assert (
        f"oploop.yml:3: dbt's target 'prod' writes into {desk.folder / 'other.duckdb'}, which is not the warehouse — "
        f"let the target in profiles.yml be {desk.folder / 'warehouse.duckdb'}" in str(refused.value)
    )
    with duckdb.connect(str(desk.folder / "other.duckdb")) as db:
        assert db.execute("FROM duckdb_tables()").fetchall() == []  # found before anything was built
