"""Whole turns of the loop through an API that only its block describes."""

from __future__ import annotations

from pathlib import Path

import orjson

from oploop import loop
from oploop.apps.http import HttpSandbox
from oploop.apps.sandbox import Fault
from oploop.loop import Options
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.workspace import Workspace

SYNC = (
    "model: main.people\nto: billing.accounts\nmode: mirror\nkey: email\nfields: [name, plan]\nlimits: {removes: 5}\n"
)


async def turn(folder: Path, model: str | None = None) -> loop.RunReport:
    async with Workspace(load_project(folder, {"TOKEN": "http_test_oploop"}), "prod", Runtime(), "test") as ws:
        if model is not None:
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.people AS {model}")
        return await loop.run(ws, Options(yes=True))


def people(count: int, plan: str) -> str:
    return f"SELECT 'p' || i || '@x' AS email, 'P ' || i AS name, '{plan}' AS plan FROM range({count}) t(i)"


async def test_it_is_sent_seen_kept_and_taken_away(tmp_path: Path) -> None:
    sandbox = HttpSandbox()
    with sandbox.running() as url:
        block = {
            **HttpSandbox.default_config(url),
            "type": "http",
            "auth": {"bearer": "${TOKEN}"},
            "read": ["accounts"],
        }
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs/people.yml").write_text(SYNC)
        config = {"name": "shop", "models": {"engine": "none"}, "apps": {"billing": block}}
        (tmp_path / "oploop.yml").write_bytes(orjson.dumps(config))
        sandbox.faults.append(Fault("POST /accounts$", "lose", skip=3, times=2))
        first = (await turn(tmp_path, people(30, "free"))).syncs[0]
        assert first.delivery is not None
        assert first.read_back is not None
        assert (first.delivery.delivered, first.read_back.counts) == (30, {"confirmed": 30})
        assert len(sandbox.dump("accounts")) == 30, "what was lost on the way back was made once"

        sandbox.advance(10)
        sandbox.change(1, {"plan": "team"})  # a person's
        sandbox.change(2, {"deleted": True})
        second = await turn(tmp_path, people(28, "free"))
        assert second.verified[0].counts == {"confirmed": 28, "drifted": 1, "gone": 1}
        sync = second.syncs[0]
        assert sync.plan is not None
        assert sync.plan.diff.counts == {"kept": 1, "gone": 1, "remove": 2}
        assert sync.read_back is not None
        assert sync.read_back.count("confirmed") == 2
        assert len(sandbox.dump("accounts")) == 27
        third = await turn(tmp_path)
        assert (third.status, third.syncs[0].plan.changes if third.syncs[0].plan else None) == ("ok", 0)
