"""build, lineage and trace over models of the project, built by SQLMesh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from tests.unit.cli.support import SYNC, fill, run, write_project

STAGING = """\
MODEL (name staging.tickets, kind VIEW);
SELECT id AS ticket_id, requester_id, subject FROM raw_zendesk.tickets
"""
MART = """\
MODEL (name mart.ticket_priority, kind FULL, audits (not_null(columns := (priority))));
SELECT t.ticket_id, u.id AS user_id, 'urgent' AS priority, u.name || ' waits' AS reason
FROM staging.tickets AS t JOIN raw_zendesk.users AS u ON u.id = t.requester_id
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose models are built in dev and in prod, with a first run behind it."""
    sandbox = ZendeskSandbox()
    fill(sandbox)
    with sandbox.running() as url:
        folder = write_project(tmp_path_factory.mktemp("models") / "acme", url, engine="sqlmesh")
        (folder / "syncs" / "ticket_priority.yml").write_text(SYNC.replace("explain: [spend]", "explain: [user_id]"))
        (folder / "models" / "tickets.sql").write_text(STAGING)
        (folder / "models" / "ticket_priority.sql").write_text(MART)
        done = run("run", "--env", "prod", "--yes", folder=folder)
        assert done.code == 0, done.out + done.err
        assert "✓ build 2 models, 1 check" in done.words
        yield folder


def test_build_shows_each_model_and_its_checks(built: Path) -> None:
    done = run("build", folder=built)
    assert done.code == 0, done.err
    assert "✓ mart.ticket_priority ok 1 of 1 check ok" in done.words
    assert "2 models and 1 check in dev" in done.words
    unknown = run("build", "--select", "mart.ticket_prio", folder=built)
    assert (unknown.code, "did you mean 'mart.ticket_priority'?" in unknown.err) == (2, True)


def test_plan_of_an_environment_that_is_not_built(built: Path) -> None:
    (built / "oploop.yml").write_text((built / "oploop.yml").read_text().replace("{prod: {}}", "{prod: {}, pr_1: {}}"))
    done = run("plan", "--env", "pr_1", folder=built)
    assert done.code == 2
    assert (
        "syncs/ticket_priority.yml:1: model mart.ticket_priority is not built in pr_1 — oploop build --env pr_1"
        in done.err
    )


def test_lineage_of_a_model_a_column_and_a_sync(built: Path) -> None:
    model = run("lineage", "mart.ticket_priority", folder=built)
    assert "├─ raw_zendesk.users" in model.out
    assert "└─ staging.tickets\n   └─ raw_zendesk.tickets" in model.out
    assert "zendesk.tickets priority ← mart.ticket_priority.priority sync ticket_priority" in model.words
    column = run("lineage", "mart.ticket_priority.reason", "-o", "json", folder=built).json
    assert [t["name"] for t in column["upstream"][0]["from"]] == ["raw_zendesk.users.name"]
    assert [u["field"] for u in column["used_by"]] == ["Priority reason"]
    upstream = run("lineage", "staging.tickets.subject", folder=built)
    assert "no sync writes anything of it to an app" in upstream.out
    assert "→ zendesk.tickets Priority reason" in run("lineage", "ticket_priority", folder=built).words
    wrong = run("lineage", "mart.ticket_priority.raeson", folder=built)
    assert (wrong.code, "did you mean 'reason'?" in wrong.err) == (2, True)


def test_what_is_made_of_a_table_is_selected_with_its_syncs(built: Path) -> None:
    for word in ("raw_zendesk.tickets+", "staging.tickets+", "+ticket_priority"):
        done = run("plan", "--env", "prod", "--select", word, folder=built)
        assert (done.code, "ticket_priority → zendesk.tickets" in done.words) == (0, True), done.err
    for word, near in (("+staging.tickets", ""), ("mart.ticket_prio+", "did you mean 'mart.ticket_priority'?")):
        done = run("plan", "--env", "prod", "--select", word, folder=built)
        assert (done.code, "selects no sync" in done.err, near in done.err) == (2, True, True), done.err


def test_trace_goes_back_to_the_source_rows(built: Path) -> None:
    done = run("trace", "--env", "prod", "zendesk.tickets", "101", "-o", "json", folder=built).json
    (sync,) = done["syncs"]
    reason = next(f for f in sync["fields"] if f["field"] == "Priority reason")
    assert reason["sources"] == {"raw_zendesk.users": ["name"]}
    assert sync["explain"] == {"user_id": 1}
    by_table = {s["table"]: s for s in done["sources"]}
    assert by_table["staging.tickets"]["same_as"] == "raw_zendesk.tickets"
    assert (by_table["raw_zendesk.users"]["by"], by_table["raw_zendesk.users"]["total"]) == ("id = 1", 1)
    for source in done["sources"]:  # what people know a record by comes first, and no column that is empty
        told = list(zip(*source["rows"], strict=True))
        assert all(any(v not in (None, "") for v in column) for column in told), source
    assert {"name", "email"} <= {*by_table["raw_zendesk.users"]["columns"][:4]}
    assert [h["status"] for h in done["history"]] == ["confirmed"]
    page = run("trace", "--env", "prod", "zendesk.tickets", "101", folder=built).words
    assert "computed from raw_zendesk.users name" in page
    assert "raw_zendesk.users id = 1 1 row" in page


def test_a_failed_check_stops_its_sync_and_says_which(built: Path) -> None:
    mart = built / "models" / "ticket_priority.sql"
    good = mart.read_text()
    try:
        mart.write_text(good.replace("'urgent' AS priority", "NULL::TEXT AS priority"))
        built_bad = run("build", "--env", "prod", folder=built)
        planned = run("plan", "--env", "prod", folder=built)
    finally:
        mart.write_text(good)
    assert built_bad.code == 1
    assert "✗ mart.ticket_priority" in built_bad.words
    assert "not_null" in built_bad.out
    assert planned.code == 1
    assert "model mart.ticket_priority failed" in planned.words
