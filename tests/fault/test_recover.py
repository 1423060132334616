"""What the next run makes of a run that died between two of its last writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop import loop
from oploop.activate import ledger
from oploop.apps.segment import SegmentSandbox
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Op
from oploop.runtime import Runtime
from oploop.state import JournalStep
from oploop.workspace import Workspace
from tests.flow.conftest import Desk

PROJECT = """\
name: acme
warehouse: {{type: duckdb, database: warehouse.duckdb}}
models: {{engine: none}}
apps: {{segment: {{write_key: wk_test_oploop, base_url: "{url}"}}}}
"""
EVENTS = """\
model: mart.made
to: segment.track
mode: append
key: {properties.code: code}
fields: {event: {value: Made}, userId: code}
"""


async def test_a_delivery_that_was_folded_is_under_way_no_more_once_the_next_run_recovers(desk: Desk) -> None:
    async with desk.workspace() as ws:
        ws.store.begin_run("r0", "prod", "run")
        ws.store.begin_delivery("r0", "ranked", "oploop_state.plan_r0")  # and died after its fold, before it said so
        assert await loop.recover(ws) == []
        assert ws.store.open_deliveries() == []


@pytest.fixture
def segment() -> Iterator[SegmentSandbox]:
    sandbox = SegmentSandbox()
    yield sandbox
    sandbox.stop()


@pytest.mark.parametrize(("died_in", "status"), [("prod", "sent"), ("dev", "unknown")])
async def test_calls_of_a_run_are_made_once_more_in_its_own_environment_alone(
    tmp_path: Path, segment: SegmentSandbox, died_in: str, status: str
) -> None:
    """Another's models, on a sandbox that stood there then, are not meant for this one's app."""
    (tmp_path / "oploop.yml").write_text(PROJECT.format(url=segment.start()))
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "made.yml").write_text(EVENTS)
    project, runtime = load_project(tmp_path, {}), Runtime()
    async with Workspace(project, died_in, runtime, "test") as ws:
        ws.warehouse.execute("CREATE SCHEMA mart")
        ws.warehouse.execute("CREATE TABLE mart.made AS SELECT 'c' || i AS code FROM range(3) t(i)")
        planned = await loop.plan_sync(ws, await ws.bound(project.syncs["made"]), Options(yes=True, backfill=True))
        assert planned.plan is not None
        ws.store.begin_run("r0", died_in, "run")
        table = ledger.keep_plan(planned.plan, ws.warehouse, "r0", runtime.now())
        ws.store.begin_delivery("r0", "made", table)
        ws.store.write_steps([JournalStep("r0", "made", "s1", 1, 3, 1, Op.CREATE, runtime.now())])
    async with Workspace(project, "prod", runtime, "test") as ws:
        assert await loop.recover(ws, finish=True) == ["made of run r0"]
        assert ws.warehouse.rows("SELECT status, count(*) FROM oploop.changes GROUP BY 1") == [(status, 3)]
    assert len(segment.dump("track")) == (3 if status == "sent" else 0)
