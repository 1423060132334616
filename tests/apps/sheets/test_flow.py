"""A whole turn of the loop: a sheet kept equal to a model, with people in it."""

from __future__ import annotations

from pathlib import Path

import orjson

from oploop import loop
from oploop.apps.sheets.sandbox import SheetsSandbox
from oploop.loop import Options
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.workspace import Workspace

SYNC = """\
model: main.targets
to: sheets.targets
mode: mirror
key: {Account: account}
fields: {Target: target, Owner: owner, Since: since, Active: active}
on_null: clear
limits: {removes: 5}
"""


async def turn(folder: Path, model: str = "") -> loop.RunReport:
    async with Workspace(load_project(folder, {}), "prod", Runtime(), "test") as ws:
        if model:
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.targets AS {model}")
        return await loop.run(ws, Options(yes=True))


def model(target: str, where: str = "TRUE") -> str:
    return (
        f"SELECT 'A' || i AS account, {target} AS target, '=' || i AS owner, DATE '2026-01-02' + i::INT AS since, i > 1 AS active "
        f"FROM range(5) t(i) WHERE {where}"
    )


async def test_a_sheet_is_kept_equal_to_a_model(tmp_path: Path) -> None:
    box = SheetsSandbox(per_minute=None)
    with box.running() as url:
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs/targets.yml").write_text(SYNC)
        block = {**SheetsSandbox.default_config(url), "rate_limit": 10_000}
        config = {"name": "acme", "models": {"engine": "none"}, "apps": {"sheets": block}}
        (tmp_path / "oploop.yml").write_bytes(orjson.dumps(config))
        box.load("targets", [{"Account": "A0", "Target": 0, "Owner": "=0"}, {"Account": "theirs", "Target": 9}])
        first = (await turn(tmp_path, model("i * 1.5"))).syncs[0]
        assert first.read_back is not None
        assert first.read_back.counts == {"confirmed": 5}
        assert [r["Account"] for r in box.dump("targets")] == ["A0", "theirs", "A1", "A2", "A3", "A4"]
        assert box.dump("targets")[0] == {
            "Account": "A0",
            "Target": 0,
            "Owner": "=0",
            "Since": "2026-01-02",
            "Active": False,
        }
        assert (await turn(tmp_path)).syncs[0].status == "nothing"
        box.tab.put(5, 3, "a person")  # A2's owner
        second = await turn(tmp_path, model("CASE i WHEN 1 THEN NULL ELSE 7.5 END", "i <> 3"))
        assert second.syncs[0].plan is not None
        assert second.syncs[0].plan.diff.count("remove") == 1
        held = {r["Account"]: r for r in box.dump("targets")}
        assert set(held) == {"A0", "theirs", "A1", "A2", "A4"}
        assert (held["A1"]["Target"], held["A2"]["Owner"], held["A2"]["Target"]) == ("", "a person", 7.5)
