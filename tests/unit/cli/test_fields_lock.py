"""`fields.lock`: a custom field that people rename, change or delete in the app."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from tests.unit.cli.support import run, write_project

LOCK = "fields.lock"


def retitle(zendesk: ZendeskSandbox, **field: Any) -> None:
    zendesk.load("ticket_fields", [{"id": 900, "title": "Priority reason", "type": "text", **field}])


@pytest.fixture
def planned(read: Path) -> Path:
    """A project whose plan has once been looked at."""
    done = run("plan", folder=read)
    assert "a custom field was added to fields.lock; commit it" in done.err
    return read


def test_a_plan_writes_down_what_a_title_stands_for(planned: Path) -> None:
    assert (planned / LOCK).read_text().splitlines()[1:] == [
        '"zendesk.tickets":',
        '  "Priority reason": {id: "custom_fields.900", type: "text"}',
    ]
    again = run("plan", folder=planned)
    assert LOCK not in again.err


def test_a_renamed_field_stays_the_same_field(planned: Path, zendesk: ZendeskSandbox) -> None:
    retitle(zendesk, title="Why so urgent")
    before = run("doctor", folder=planned)
    assert before.code == 0
    assert "'Priority reason' is called 'Why so urgent' in the app now, and stays the same field" in before.out
    [sync] = run("run", "--env", "prod", "--yes", "-o", "json", folder=planned).json["syncs"]
    assert sync["delivered"] == 2
    values = {t["id"]: t["custom_fields"] for t in zendesk.dump("tickets")}
    assert {"id": 900, "value": "spends 10,000"} in values[101]


def test_another_field_that_takes_the_name_is_not_taken_for_it(planned: Path, zendesk: ZendeskSandbox) -> None:
    retitle(zendesk, title="Old reason")
    zendesk.load("ticket_fields", [{"id": 901, "title": "Priority reason", "type": "text"}])
    run("run", "--env", "prod", "--yes", folder=planned)
    values = {t["id"]: t["custom_fields"] for t in zendesk.dump("tickets")}
    assert {"id": 900, "value": "spends 10,000"} in values[101]
    assert {"id": 901, "value": "spends 10,000"} not in values[101]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": 901, "title": "Another"}, "field 'Priority reason' (custom_fields.900) is no longer in the app"),
        ({"type": "checkbox"}, "field 'Priority reason' was text and is now boolean in the app"),
    ],
)
def test_a_changed_or_deleted_field_is_held_and_the_others_go_on(
    planned: Path, zendesk: ZendeskSandbox, change: dict[str, Any], says: str
) -> None:
    zendesk.store.definitions["ticket_fields"].pop(900)
    retitle(zendesk, **change)
    doctor = run("doctor", folder=planned)
    assert doctor.code == 2
    assert f"syncs/ticket_priority.yml:7: {says}: it is held, the other fields go on" in doctor.out
    plan = run("plan", folder=planned)
    assert f"held {says}" in plan.words
    [sync] = run("run", "--env", "prod", "--yes", "-o", "json", folder=planned).json["syncs"]
    assert sync["status"] == "ok"
    assert {t["id"]: t["priority"] for t in zendesk.dump("tickets")} == {101: "urgent", 102: "high", 103: "low"}


def test_a_sync_of_which_no_field_is_left_stops(planned: Path, zendesk: ZendeskSandbox) -> None:
    sync = planned / "syncs" / "ticket_priority.yml"
    sync.write_text(
        sync.read_text()
        .replace("  Priority reason: reason\n", "")
        .replace("  priority: priority", "  Priority reason: reason")
    )
    zendesk.store.definitions["ticket_fields"].pop(900)
    done = run("plan", folder=planned)
    assert done.code == 2
    assert (
        "syncs/ticket_priority.yml:6: field 'Priority reason' (custom_fields.900) is no longer in the app" in done.err
    )


MODEL = """\
MODEL (name mart.ticket_priority, kind FULL);
SELECT id AS ticket_id, 'urgent' AS priority, @field(zendesk.tickets, 'Priority reason') AS reason, 0.0 AS spend
FROM raw_zendesk.tickets
"""


def test_a_model_reads_a_custom_field_by_its_title(tmp_path: Path, zendesk: ZendeskSandbox) -> None:
    folder = write_project(tmp_path / "acme", zendesk.url, "sqlmesh")
    (folder / "models" / "ticket_priority.sql").write_text(MODEL)
    zendesk.load("tickets", [{"id": 104, "custom_fields": [{"id": 900, "value": "it's Ann"}]}])
    zendesk.advance(3600)
    done = run("run", "--env", "prod", "--yes", folder=folder)
    assert done.code == 0, done.out + done.err
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as db:
        rows = db.execute("SELECT ticket_id, reason FROM mart.ticket_priority WHERE reason IS NOT NULL").fetchall()
    assert rows == [(104, "it's Ann")]
    assert '"Priority reason": {id: "custom_fields.900", type: "text"}' in (folder / LOCK).read_text()
    assert "ZENDESK_API_TOKEN" not in os.environ  # SQLMesh would load .env into it
    retitle(zendesk, title="Why")
    assert run("build", "--env", "prod", folder=folder).code == 0
    (folder / "models" / "ticket_priority.sql").write_text(MODEL.replace("Priority reason", "Priority"))
    wrong = run("build", "--env", "prod", folder=folder)
    assert wrong.code == 2
    line = MODEL.splitlines().index(next(x for x in MODEL.splitlines() if "@field" in x)) + 1
    assert (
        f"models/ticket_priority.sql:{line}: @field(zendesk.tickets, 'Priority'): there is no such field" in wrong.err
    )
