"""`oploop new sync`: a draft that is a sync as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.project import load_project
from tests.unit.cli.support import run, write_model


def test_columns_find_their_fields_and_the_draft_plans(read: Path, zendesk: ZendeskSandbox) -> None:
    (read / "syncs" / "ticket_priority.yml").unlink()
    zendesk.load("ticket_fields", [{"id": 901, "title": "Spend: last year", "type": "decimal"}])
    done = run("new", "sync", "mart.ticket_priority", "zendesk.tickets", folder=read)
    assert done.code == 0, done.err
    assert "syncs/ticket_priority.yml: 1 of 3 columns matched" in done.out
    text = (read / "syncs" / "ticket_priority.yml").read_text()
    assert text.startswith(
        "# yaml-language-server: $schema=../.schema/sync.json\n"
        "# A first draft: look at each line, then `oploop plan`.\n"
        "model: mart.ticket_priority\nto: zendesk.tickets\nmode: update   # also: "
    )
    assert "key: {id: ticket_id}\n" in text
    assert "  priority: priority   # text; one of low, normal, high, urgent\n" in text
    assert "# columns that are named like no field:\n#   reason\n#   spend\n" in text
    assert '#   "Spend: last year": ...   # number\n' in text
    sync = load_project(read, {}).syncs["ticket_priority"]
    assert [(m.field, m.column) for m in sync.fields] == [("priority", "priority")]
    assert run("plan", folder=read).code == 0


def test_a_title_that_a_column_is_named_after_is_matched(read: Path, zendesk: ZendeskSandbox) -> None:
    zendesk.load(
        "ticket_fields",
        [{"id": 902, "title": "Reason", "type": "text"}, {"id": 903, "title": "Spend", "type": "decimal"}],
    )
    done = run("new", "sync", "mart.ticket_priority", "zendesk.tickets", "--dry-run", "-o", "json", folder=read)
    assert done.json["fields"] == {"priority": "priority", "Reason": "reason", "Spend": "spend"}
    assert done.json["file"] is None
    assert [p.name for p in (read / "syncs").iterdir()] == ["ticket_priority.yml"]


def test_the_key_and_the_mode_may_be_said(read: Path) -> None:
    wrong = run("new", "sync", "mart.ticket_priority", "zendesk.users", folder=read)
    assert wrong.code == 2
    assert "no column looks like a key of zendesk.users" in wrong.err
    args = ("new", "sync", "mart.ticket_priority", "zendesk.tickets", "--key", "external_id=ticket_id")
    done = run(*args, "--mode", "create", "--name", "made", folder=read)
    assert done.code == 0, done.err
    text = (read / "syncs" / "made.yml").read_text()
    assert "key: {external_id: ticket_id}" in text
    assert "mode: create   # also: update" in text
    again = run(*args, "--name", "made", folder=read)
    assert (again.code, (read / "syncs" / "made.yml").read_text()) == (2, text)


def test_what_is_appended_may_have_the_models_own_key(read: Path) -> None:
    args = ("new", "sync", "mart.ticket_priority", "zendesk.ticket_comments", "--name", "notes")
    done = run(*args, "--key", "ticket_id", "--key", "reason", folder=read)
    assert done.code == 0, done.err
    sync = load_project(read, {}).syncs["notes"]
    assert (sync.mode, list(sync.key)) == ("append", ["ticket_id", "reason"])
    assert "key: [ticket_id, reason]\n" in (read / "syncs" / "notes.yml").read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("mart.ticket_priorities", "zendesk.tickets"), "there is no model 'mart.ticket_priorities' — did you mean"),
        (("mart.ticket_priority", "zendesk.tikets"), "zendesk has no object 'tikets' — did you mean 'tickets'?"),
        (("mart.ticket_priority", "zendesks.tickets"), "there is no app 'zendesks'"),
        (("mart.ticket_priority", "tickets"), "'tickets' is not app.object"),
        (("mart.ticket_priority", "zendesk.tickets", "--key", "id="), "--key 'id=' is no FIELD=COLUMN"),
        (("mart.ticket_priority", "zendesk.ticket_comments"), "say which: --key COLUMN --mode append"),
        (
            ("mart.ticket_priority", "zendesk.tickets", "--key", "reason"),
            "there is no field 'reason' in zendesk.tickets",
        ),
        (("mart.ticket_priority", "zendesk.tickets", "--key", "nr", "--mode", "append"), "there is no column 'nr'"),
        (
            ("mart.ticket_priority", "zendesk.tickets", "--key", "id=nr"),
            "there is no column 'nr' in mart.ticket_priority",
        ),
        (("mart.ticket_priority", "zendesk.tickets", "--mode", "push"), "does not take mode 'push' — it takes: update"),
        (("mart.ticket_priority", "zendesk.tickets", "--name", "../x"), "'../x' is no sync's name"),
    ],
)
def test_a_mistake_is_one_line(read: Path, args: tuple[str, ...], says: str) -> None:
    done = run("new", "sync", *args, folder=read)
    assert done.code == 2
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_model_that_was_never_built_is_known_by_its_file(project: Path) -> None:
    text = (project / "oploop.yml").read_text()
    (project / "oploop.yml").write_text(text.replace("engine: none", "engine: sqlmesh"))
    (project / "models" / "a.sql").write_text(
        "MODEL (name mart.a, kind FULL);\nSELECT id AS ticket_id, 'low' AS priority FROM raw_zendesk.tickets"
    )
    done = run("new", "sync", "mart.a", "zendesk.tickets", "-o", "json", folder=project)
    assert done.code == 0, done.err
    assert (done.json["key"], done.json["fields"]) == ({"id": "ticket_id"}, {"priority": "priority"})
    write_model(project)
