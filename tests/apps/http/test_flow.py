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
from oploop.workspace import Event, Workspace

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


async def test_a_batch_refused_whole_is_halved_and_one_whose_answer_is_lost_is_sent_again(tmp_path: Path) -> None:
    sandbox = HttpSandbox()
    with sandbox.running() as url:
        block = {**HttpSandbox.default_config(url), "type": "http", "auth": {"bearer": "${TOKEN}"}}
        (tmp_path / "syncs").mkdir()
        sync = "model: main.people\nto: billing.imports\nmode: upsert\nkey: email\nfields: [name, plan]\n"
        (tmp_path / "syncs/people.yml").write_text(sync)
        config = {"name": "shop", "models": {"engine": "none"}, "apps": {"billing": block}}
        (tmp_path / "oploop.yml").write_bytes(orjson.dumps(config))
        sandbox.faults.append(Fault("POST /accounts/batch", "status", status=400, body='{"error": "bad batch"}'))
        sandbox.faults.append(Fault("POST /accounts/batch", "lose", skip=1))
        (done,) = (await turn(tmp_path, people(150, "free"))).syncs
        assert done.delivery is not None
        assert (done.delivery.delivered, done.delivery.rejected, done.delivery.unknown) == (150, 0, 0)
        assert len(sandbox.dump("accounts")) == 150
        assert len([e for e in sandbox.log if e.path == "/accounts/batch"]) == 5  # 100 refused, 2 x 50, 50, one again


async def test_a_batch_of_which_each_call_with_a_bad_record_is_refused_is_halved_down_to_it(tmp_path: Path) -> None:
    sandbox = HttpSandbox()
    with sandbox.running() as url:
        default = HttpSandbox.default_config(url)
        whole = {k: v for k, v in default["objects"]["imports"]["upsert"].items() if k not in ("results", "ok")}
        objects = {"imports": {**default["objects"]["imports"], "upsert": {**whole, "path": "/accounts/all"}}}
        block = {**default, "objects": objects, "type": "http", "auth": {"bearer": "${TOKEN}"}}
        (tmp_path / "syncs").mkdir()
        sync = "model: main.people\nto: billing.imports\nmode: upsert\nkey: email\nfields: [name, plan]\n"
        (tmp_path / "syncs/people.yml").write_text(sync)
        config = {"name": "shop", "models": {"engine": "none"}, "apps": {"billing": block}}
        (tmp_path / "oploop.yml").write_bytes(orjson.dumps(config))
        bad = people(64, "free").replace("'free'", "CASE i WHEN 40 THEN 'gold' ELSE 'free' END")
        report = await turn(tmp_path, bad)
        (done,) = report.syncs
        assert done.delivery is not None
        assert (done.delivery.delivered, done.delivery.rejected) == (63, 1)
        assert done.delivery.errors == ["HTTP 422: plan cannot be gold"]
        assert len(sandbox.dump("accounts")) == 63


async def test_with_if_match_somebodys_change_in_between_is_seen(tmp_path: Path) -> None:
    sandbox = HttpSandbox()
    with sandbox.running() as url:
        block = {**HttpSandbox.default_config(url), "type": "http", "auth": {"bearer": "${TOKEN}"}}
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs/people.yml").write_text(
            SYNC.replace("mirror", "upsert").replace("limits", "conflict: hold\nlimits")
        )
        config = {"name": "shop", "models": {"engine": "none"}, "apps": {"billing": block}}
        (tmp_path / "oploop.yml").write_bytes(orjson.dumps(config))
        await turn(tmp_path, people(3, "free"))
        sandbox.advance(10)

        def meanwhile(event: Event) -> None:
            if (event.stage, event.kind) == ("deliver", "start"):
                sandbox.advance(10)
                sandbox.change(2, {"plan": "team"})

        async with Workspace(load_project(tmp_path, {"TOKEN": "http_test_oploop"}), "prod", Runtime(), "test") as ws:
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.people AS {people(3, 'pro')}")
            report = await loop.run(ws, Options(yes=True), meanwhile)
            parked = ws.warehouse.rows("SELECT key, field, reason FROM oploop.parked")
        assert report.status == "ok"
        assert [a["plan"] for a in sandbox.dump("accounts")] == ["pro", "team", "pro"]
        assert parked == [("p1@x", "plan", "conflict")]
