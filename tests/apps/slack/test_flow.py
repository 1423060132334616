"""Whole turns of the loop on Slack: a message a row, at most once; whom it goes to; what people are told of a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from oploop import loop
from oploop.apps.sandbox import Fault
from oploop.apps.slack.sandbox import SlackSandbox
from oploop.errors import FixConfig
from oploop.loop import Options
from oploop.project import load_project
from oploop.report import SyncReport
from oploop.runtime import Runtime
from oploop.stages.undoing import Wish, plan_undo
from oploop.workspace import Event, Tell, Workspace

PROJECT = """\
name: acme
models: {engine: none}
apps:
  slack: {base_url: URL, token: "${SLACK_TOKEN}", messages_per_second: 100}
"""
SYNC = """\
model: main.risks
to: slack.messages
mode: append
key: [account_id]
fields:
  channel: {value: "#ops"}
  text: {template: "*{name}* fell to {score}: <https://crm.acme.example/{account_id}|look> {{it}}"}
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[SlackSandbox]:
    sandbox = SlackSandbox(messages_per_second=None)
    with sandbox.running() as url:
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs/risks.yml").write_text(SYNC)
        (tmp_path / "oploop.yml").write_text(PROJECT.replace("URL", url))
        yield sandbox


def workspace(folder: Path, env: str = "prod") -> Workspace:
    project = load_project(folder, {"SLACK_TOKEN": "xoxb-oploop-sandbox"})
    return Workspace(project, env, Runtime(), "test")


async def turn(folder: Path, risks: str = "", tell: Callable[[Event], None] = lambda _: None) -> loop.RunReport:
    async with workspace(folder) as ws:
        if risks:
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.risks AS {risks}")
        return await loop.run(ws, Options(yes=True, first_run=True, backfill=True), tell)


def risks(count: int, name: str = "'Müller & <!channel>'") -> str:
    return f"SELECT i AS account_id, {name} AS name, 40.5 - i AS score FROM range({count}) t(i)"


async def test_each_row_is_a_message_once_with_its_values_as_mere_text(box: SlackSandbox, tmp_path: Path) -> None:
    await turn(tmp_path, risks(2))
    texts = sorted(m["text"] for m in box.dump("messages"))
    assert texts[0] == "*Müller &amp; &lt;!channel&gt;* fell to 39.5: <https://crm.acme.example/1|look> {it}"
    await turn(tmp_path, risks(3, "NULL::VARCHAR"))
    assert len(box.dump("messages")) == 3
    assert any(m["text"].startswith("** fell to 38.5") for m in box.dump("messages"))
    assert (await turn(tmp_path)).syncs[0].status == "nothing"


async def test_a_lost_answer_is_unknown_and_never_sent_again(box: SlackSandbox, tmp_path: Path) -> None:
    box.faults += [Fault("POST /chat.postMessage", "lose"), Fault("POST /chat.postMessage", "cut")]
    first = (await turn(tmp_path, risks(4))).syncs[0]
    assert first.delivery is not None
    assert (first.delivery.delivered, first.delivery.unknown) == (2, 2)
    await turn(tmp_path)
    assert len(box.dump("messages")) == 3, "one was lost on its way back, one on its way there"
    async with workspace(tmp_path) as ws:
        assert ws.warehouse.rows("SELECT reason, count(*) FROM oploop.parked GROUP BY 1") == [("unknown", 2)]


async def test_a_text_that_is_too_long_is_held(box: SlackSandbox, tmp_path: Path) -> None:
    sync = (await turn(tmp_path, risks(2, "repeat('x', 40000 * (i + 1) - 100)"))).syncs[0]
    assert sync.plan is not None
    assert sync.plan.held == 1
    assert len(box.dump("messages")) == 1


async def test_it_goes_to_the_person_that_the_row_names(box: SlackSandbox, tmp_path: Path) -> None:
    box.load("users", [{"id": "U00000007", "email": "Zoe@acme.example"}])
    box.load("users", [{"id": "U00000008", "email": "gone@acme.example", "deleted": True}])
    sync = SYNC.replace('{value: "#ops"}', "{ref: slack.users, by: email, column: owner}")
    (tmp_path / "syncs/risks.yml").write_text(sync)
    who = "SELECT *, CASE account_id WHEN 0 THEN 'zoe@acme.example' ELSE 'gone@acme.example' END AS owner"
    report = (await turn(tmp_path, f"{who} FROM ({risks(2)})")).syncs[0]
    assert report.plan is not None
    assert report.plan.held == 1
    assert [m["channel"] for m in box.dump("messages")] == ["D00000007"]


async def test_what_was_posted_cannot_be_undone_and_that_is_said(box: SlackSandbox, tmp_path: Path) -> None:
    run = await turn(tmp_path, risks(3))
    async with workspace(tmp_path) as ws:
        [report] = await plan_undo(ws, Wish((run.run_id,)))
    assert report.stopped == ["slack.messages cannot be read, so nobody knows what is to be put back"]


def alerts(folder: Path, *entries: str) -> None:
    text = (folder / "oploop.yml").read_text()
    (folder / "oploop.yml").write_text(text + "alerts:\n" + "".join(f"  - {e}\n" for e in entries))


def told(box: SlackSandbox, channel: str = "C0GENERAL1") -> list[str]:
    return [m["text"] for m in box.dump("messages") if m["channel"] == channel]


async def test_a_digest_tells_of_each_sync(box: SlackSandbox, tmp_path: Path) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general", on: [failed, held, digest]}')
    (tmp_path / "syncs/more.yml").write_text(f"{SYNC}checks:\n  - {{sql: score > 100, stop: true}}\n")
    report = await turn(tmp_path, risks(3, "CASE WHEN i > 0 THEN 'ok' ELSE repeat('x', 50000) END"))
    [text] = told(box)
    head, stopped, sent = text.split("\n")
    assert head == f"*acme (prod): run {report.run_id} stopped*"
    assert stopped.startswith("• more → slack.messages: STOPPED check failed: score &gt; 100")
    assert sent == "• risks → slack.messages: 2 sent · 1 held"


async def test_what_failed_is_told_and_a_quiet_run_is_not(box: SlackSandbox, tmp_path: Path) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general"}', '{to: slack, channel: "#ops", on: held}')
    await turn(tmp_path, risks(1))
    assert told(box) == []
    (tmp_path / "syncs/risks.yml").write_text(SYNC.replace("#ops", "#nowhere"))
    report = await turn(tmp_path, risks(3))
    assert told(box) == [f"*acme (prod): run {report.run_id} failed*\n• risks → slack.messages: 2 rejected"]
    (tmp_path / "syncs/risks.yml").write_text(SYNC.replace("main.risks", "main.nothing"))
    with pytest.raises(FixConfig):
        await turn(tmp_path)
    assert "no table 'main.nothing'" in told(box)[-1]


async def test_an_alert_that_cannot_be_told_fails_no_run(box: SlackSandbox, tmp_path: Path) -> None:
    alerts(tmp_path, '{to: slack, channel: "#nowhere", on: digest}')
    notes: list[Event] = []
    assert (await turn(tmp_path, risks(1), notes.append)).status == "ok"
    [note] = [e.text for e in notes if e.stage == "alert"]
    assert note.startswith("slack #nowhere could not be told: channel_not_found")


async def test_an_apply_is_told_as_a_run_is(box: SlackSandbox, tmp_path: Path) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general", on: digest}')
    async with workspace(tmp_path) as ws:
        ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.risks AS {risks(2)}")
        loop.save_plan(ws, [], tmp_path / "friday.plan")
        report = await loop.apply(ws, tmp_path / "friday.plan", Options())
    assert told(box)[0].startswith(f"*acme (prod): run {report.run_id} ok")


async def test_what_was_sent_is_told_of_a_run_that_broke_off(
    box: SlackSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general"}')
    (tmp_path / "syncs/zz.yml").write_text(SYNC.replace("#ops", "#general"))
    real = loop.deliver

    async def deliver(ws: Workspace, plan: SyncReport, run_id: str, tell: Tell) -> None:
        if plan.sync == "zz":
            raise MemoryError("with values of a row")
        await real(ws, plan, run_id, tell)

    monkeypatch.setattr(loop, "deliver", deliver)
    with pytest.raises(MemoryError):
        await turn(tmp_path, risks(2))
    [text] = told(box)
    head, why, sent = text.split("\n")
    assert head.endswith("broke off in the middle*")
    assert why == "• MemoryError: a defect of oploop; its output tells more"
    assert sent == "• risks → slack.messages: 2 sent"


async def test_each_sync_is_told_once_also_where_some_of_it_was_refused(box: SlackSandbox, tmp_path: Path) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general", on: digest}')
    (tmp_path / "syncs/risks.yml").write_text(SYNC.replace("#ops", "#nowhere"))
    report = await turn(tmp_path, risks(2))
    assert told(box)[0].split("\n")[1:] == ["• risks → slack.messages: 2 rejected"]
    sent = report.syncs[0].delivery
    assert sent is not None
    assert len(sent.errors) == 1, "the same words are said once"


async def test_an_undo_is_told_as_a_run_is_and_a_digest_tells_what_the_apps_hold(
    box: SlackSandbox, tmp_path: Path
) -> None:
    alerts(tmp_path, '{to: slack, channel: "#general", on: digest}')
    (tmp_path / "syncs/risks.yml").write_text(
        "model: main.risks\nto: shop.customers\nmode: update\nkey: {id: account_id}\nfields: [name]\n"
    )
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("INSERT INTO customers VALUES (0, 'a'), (1, 'b')")
        db.commit()
    text = (tmp_path / "oploop.yml").read_text()
    (tmp_path / "oploop.yml").write_text(text.replace("apps:\n", "apps:\n  shop: {type: sqlite, database: shop.db}\n"))
    first = await turn(tmp_path, risks(2))
    await turn(tmp_path)
    assert told(box)[-1].split("\n")[1] == "• last run: 2 confirmed, 0 drifted, 0 gone"
    async with workspace(tmp_path) as ws:
        wish = Wish((first.run_id,))
        report = await loop.undo(ws, wish.runs, await plan_undo(ws, wish))
    head, line = told(box)[-1].split("\n")
    assert head == f"*acme (prod): run {report.run_id}, an undo of {first.run_id} ok*"
    assert line == "• risks → shop.customers: 2 sent"
