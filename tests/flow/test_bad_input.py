"""What is wrong with a sync's SQL, an app's address or a file that is no file: one line with its place, nothing sent."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oploop import loop
from oploop.activate import saved
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig, OploopError
from oploop.project import load_project
from tests.flow.conftest import PROJECT, SYNC, Desk

MODEL = "SELECT i AS ticket_id, 'urgent' AS priority, 'number ' || i AS reason FROM range(1, 11) t(i)"


@pytest.fixture
def on_a_file(desks: Callable[..., Desk]) -> Desk:
    """For what never gets as far as the warehouse."""
    return desks()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("checks: [reason]", "'reason' is varchar, neither true nor false"),
        ("where: reason", "'reason' is varchar, neither true nor false"),
        ("checks: [\"ticket_id >= 'abc'\"]", "cannot be asked of mart.tickets"),
    ],
)
async def test_a_rule_that_is_no_question_is_found_before_anything_is_read(desk: Desk, line: str, says: str) -> None:
    desk.sync(SYNC + line + "\n")
    await desk.model(MODEL)
    with pytest.raises(FixConfig, match=says) as e:
        await desk.turn()
    assert str(e.value.place) == "syncs/tickets.yml:6"
    assert [r for r in desk.sandbox.log if "incremental" in r.path] == []


@pytest.mark.parametrize("line", ["checks: ['reason::INT > 0']", "where: reason::INT > 0"])
async def test_sql_that_fails_on_a_row_stops_its_own_sync_by_file_and_line(desk: Desk, line: str) -> None:
    desk.sync(SYNC + line + "\n", "broken")
    desk.sync(SYNC.replace("[priority]", "{subject: reason}"), "tickets")
    await desk.model(MODEL)
    report = await desk.turn()
    broken, right = report.syncs
    assert (broken.status, right.status, report.exit_code) == ("stopped", "ok", 1)
    assert str(broken.error).startswith("syncs/broken.yml:6: ")
    assert "fails on a row of mart.tickets" in str(broken.error)
    assert right.delivery is not None
    assert right.delivery.delivered == 10
    assert set(desk.tickets("priority").values()) == {None}
    assert {s.sync: s.status for s in await desk.plan()} == {"broken": "stopped", "tickets": "planned"}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("localhost:1", "is no http"),
        ("http://127.0.0.1:99999", "is no http"),
        ("http://shop.example", "plain http"),
        ('""', "base_url is empty"),
    ],
)
async def test_an_address_that_is_none_names_its_line(on_a_file: Desk, address: str, says: str) -> None:
    on_a_file.project(PROJECT.replace("${ZENDESK_URL}", address))
    await on_a_file.model(MODEL)
    with pytest.raises(FixConfig, match=says) as e:
        await on_a_file.turn()
    assert str(e.value.place) == "oploop.yml:9"


@pytest.mark.parametrize("action", ["html", "empty", "truncate", "cut"])
async def test_an_app_that_does_not_answer_as_one_stops_all_with_its_line(on_a_file: Desk, action: str) -> None:
    on_a_file.runtime = replace(on_a_file.runtime, sleep=at_once)
    await on_a_file.model(MODEL)
    on_a_file.sandbox.faults.append(Fault("users/me", action, times=99))
    with pytest.raises(OploopError) as e:
        await on_a_file.turn()
    assert e.value.exit_code == 2
    assert str(e.value.place) == "oploop.yml:9"
    assert "base_url" in (e.value.mend or "")
    assert {r.path for r in on_a_file.sandbox.log} == {"/api/v2/users/me"}
    async with on_a_file.workspace() as ws:
        assert ws.state.runs() == []  # what never began is no run


async def at_once(seconds: float) -> None:
    """Sleeps not at all."""


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere.yml")


@pytest.mark.parametrize("make", [a_folder, a_link_to_nothing])
def test_a_sync_that_cannot_be_read_is_not_passed_over(on_a_file: Desk, make: Callable[[Path], None]) -> None:
    make(on_a_file.folder / "syncs" / "gone.yml")
    with pytest.raises(FixConfig, match=r"syncs/gone\.yml: cannot be read"):
        load_project(on_a_file.folder, {})


@pytest.mark.parametrize("name", ["fields.lock", "syncs/gone.yml"])
def test_a_pipe_is_no_file_and_not_waited_for(desk: Desk, name: str) -> None:
    os.mkfifo(desk.folder / name)
    with pytest.raises(FixConfig, match=f"{name}: is no regular file"):
        load_project(desk.folder, {})


def test_syncs_must_be_a_folder(on_a_file: Desk) -> None:
    (on_a_file.folder / "syncs" / "tickets.yml").unlink()
    (on_a_file.folder / "syncs").rmdir()
    (on_a_file.folder / "syncs").write_text("model: mart.tickets")
    with pytest.raises(FixConfig, match="syncs: is no folder"):
        load_project(on_a_file.folder, {})


@pytest.mark.parametrize("name", ["", "a-pipe"])
async def test_a_plan_is_saved_to_a_file_or_not_at_all(on_a_file: Desk, tmp_path: Path, name: str) -> None:
    """A device or a pipe stays what it is: a file in its place would harm the machine."""
    path = Path(name)
    if name:
        path = tmp_path / name
        os.mkfifo(path)
    async with on_a_file.workspace() as ws:
        with pytest.raises(FixConfig, match="it is no file"):
            loop.save_plan(ws, [], path)
    assert not name or path.is_fifo()


@pytest.mark.parametrize("changes", ['"abc"', "[[1]]", '[["1", "update", "{}", {}]]', "3"])
def test_a_plan_that_was_tampered_with_is_no_plan(tmp_path: Path, changes: str) -> None:
    file = tmp_path / "friday.plan"
    file.write_text(
        '{"format": 2, "project": "acme", "environment": "prod", "saved_at": "2025-01-01T00:00:00Z", '
        f'"syncs": {{"tickets": {{"changes": {changes}}}}}}}'
    )
    with pytest.raises(FixConfig, match="is no saved plan"):
        saved.load(file)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ("{since: 2990-01-01}", "since 2990-01-01 is still to come"),
        ("{exclude: [descripton]}", "no field 'descripton' to exclude — did you mean 'description'"),
        ("{exclude: [something_of_raw_only]}", None),
    ],
)
async def test_what_would_quietly_read_nothing_or_everything_is_refused(
    on_a_file: Desk, read: str, says: str | None
) -> None:
    on_a_file.project(f"{PROJECT}    read: {{tickets: {read}}}\n")
    await on_a_file.model(MODEL)
    if says is None:
        assert (await on_a_file.turn()).status == "ok"
        return
    with pytest.raises(FixConfig, match=says) as e:
        await on_a_file.turn()
    assert str(e.value.place).startswith("oploop.yml:10")


async def test_two_fields_of_one_title_are_named_by_their_ids(on_a_file: Desk) -> None:
    for number in (901, 902):
        on_a_file.load(
            "ticket_fields", [{"id": number, "type": "text", "title": "Plan", "active": True, "removable": True}]
        )
    on_a_file.sync(SYNC.replace("[priority]", "{Plan: priority}"))
    await on_a_file.model(MODEL)
    with pytest.raises(FixConfig, match="has 2 fields with the title 'Plan' — name it by its id: '901', '902'"):
        await on_a_file.turn()
