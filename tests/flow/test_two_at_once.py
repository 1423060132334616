"""No two processes deliver one sync: a lease per sync stands in the state, and ends with the process that holds it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

from tests.flow.conftest import Desk

HOLD = """\
import sys
from pathlib import Path
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.workspace import Workspace
ws = Workspace(load_project(Path(sys.argv[1])), "prod", Runtime())
ws.store.take_lease(sys.argv[2], "oploop run")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_sync_that_another_process_delivers_waits_and_goes_once_that_is_dead(
    make_desk: Callable[..., Desk],
) -> None:
    desk = make_desk(tickets=3)
    await desk.model("SELECT i AS ticket_id, 'high' AS priority FROM range(1, 4) t(i)")
    sync = "tickets"
    other = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLD,
        str(desk.folder),
        f"deliver:{sync}",
        env=os.environ | desk.variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    assert await other.stdout.readline() == b"held\n"
    report = await desk.turn()
    assert [s.status for s in report.syncs] == ["stopped"]
    assert f"pid {other.pid}" in report.syncs[0].stopped[0]
    assert desk.writes() == []
    other.kill()
    await other.wait()
    report = await desk.turn()
    assert [s.status for s in report.syncs] == ["ok"]
    assert set(desk.tickets("priority").values()) == {"high"}
    async with desk.workspace() as ws:
        assert ws.store.lease(f"deliver:{sync}") is None
