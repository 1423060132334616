"""What a person decides between runs: pause, resume, retry; and where the other commands say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from oploop.apps.sandbox import Fault
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from tests.unit.cli.support import run, write_model
from tests.unit.cli.test_turns import priorities

SYNC = "ticket_priority"
CREATES = """\
model: mart.ticket_priority
to: zendesk.tickets
mode: create
key: {external_id: ticket_id}
fields: {subject: reason, description: reason}
"""


def test_a_paused_sync_is_planned_and_shown_and_sends_nothing(read: Path, zendesk: ZendeskSandbox) -> None:
    paused = run("pause", SYNC, "--reason", "looks wrong", folder=read)
    assert (paused.code, paused.words) == (0, f"{SYNC} is paused go on: oploop resume {SYNC}")
    plan = run("plan", "--env", "prod", "--detailed-exitcode", folder=read)
    assert ": looks wrong go on: oploop resume ticket_priority" in plan.words
    assert "2 update" in plan.words
    turned = run("run", "--env", "prod", "--yes", folder=read)
    assert (turned.code, priorities(zendesk)[101]) == (0, "low")
    assert ": looks wrong; nothing sent go on: oploop resume ticket_priority" in turned.words
    assert run("run", "--env", "prod", "--yes", "-o", "json", folder=read).json["syncs"][0]["status"] == "paused"
    assert "paused just now: oploop resume ticket_priority" in run("status", folder=read).words
    assert run("pause", SYNC, folder=read).words.startswith(f"{SYNC} is paused already")

    assert run("resume", SYNC, folder=read).words == f"{SYNC} is on again; it was paused just now"
    assert run("resume", SYNC, folder=read).words == f"{SYNC} is not paused"
    assert run("run", "--env", "prod", "--yes", folder=read).code == 0
    assert priorities(zendesk)[101] == "urgent"


def test_an_unknown_sync_is_named(read: Path) -> None:
    for command in ("pause", "resume", "retry"):
        done = run(command, "ticket_prio", folder=read)
        assert (done.code, "did you mean 'ticket_priority'?" in done.err) == (2, True)


def test_a_rejected_change_waits_until_it_is_retried(read: Path, zendesk: ZendeskSandbox) -> None:
    zendesk.load(
        "tickets", [{"id": 104, "subject": "closed", "status": "closed", "priority": "low", "requester_id": 1}]
    )
    zendesk.advance(120)
    write_model(read, [(104, "urgent", "x", 1.0)])
    assert run("run", "--env", "prod", "--yes", folder=read).code == 1
    assert "send again: oploop retry ticket_priority --reason rejected" in run("held", folder=read).words
    assert "look: oploop held ticket_priority" in run("status", folder=read).words
    assert "✗ ticket_priority zendesk.tickets failed just now 1 rejected" in run("status", folder=read).words
    assert "1 parked" in run("run", "--env", "prod", folder=read).words
    assert "nothing of that is parked" in run("retry", SYNC, "--reason", "ignored", folder=read).words
    assert "nothing of that is parked" in run("retry", "--key", "105", folder=read).words
    zendesk.load(
        "tickets", [{"id": 104, "subject": "open again", "status": "open", "priority": "low", "requester_id": 1}]
    )
    done = run("retry", SYNC, "--key", "104", folder=read)
    assert (done.code, "ticket_priority released 1 rejected" in done.words) == (0, True)
    assert run("run", "--env", "prod", folder=read).code == 0
    assert priorities(zendesk)[104] == "urgent"


@pytest.fixture
def unknown(read: Path, zendesk: ZendeskSandbox) -> Path:
    """A create whose answer was lost although it was done."""
    (read / "syncs" / f"{SYNC}.yml").write_text(CREATES)
    write_model(read, [(7, "low", "made", 0.0)])
    zendesk.faults.append(Fault("POST /api/v2/tickets$", "lose"))
    done = run("run", "--env", "prod", "--first-run", folder=read)
    assert (done.code, "1 unknown" in done.words) == (1, True)
    return read


def statuses(folder: Path) -> list[tuple[str, str | None]]:
    with duckdb.connect(str(folder / "warehouse.duckdb")) as db:
        return db.execute("SELECT status, error FROM oploop.changes ORDER BY run_id, key").fetchall()


def made(zendesk: ZendeskSandbox) -> int:
    return sum(1 for t in zendesk.dump("tickets") if t["subject"] == "made")


def test_of_an_unknown_create_a_person_must_say_what_became_of_it(unknown: Path, zendesk: ZendeskSandbox) -> None:
    done = run("retry", SYNC, folder=unknown)
    assert (done.code, "say --not-sent (the next run sends them) or --sent" in done.err) == (2, True)
    assert run("retry", "--sent", "--not-sent", folder=unknown).code == 2
    said = run("retry", SYNC, "--sent", folder=unknown)
    assert (said.code, "1 change waits until a read shows the record" in said.words) == (0, True)
    assert [s for s, _ in statuses(unknown)] == ["sent"]
    assert "1 parked" in run("run", "--env", "prod", folder=unknown).words  # the export withholds its last minute
    zendesk.advance(300)
    assert "nothing to send" in run("run", "--env", "prod", folder=unknown).words
    assert made(zendesk) == 1


def test_one_that_was_not_sent_is_sent_by_the_next_run(read: Path, zendesk: ZendeskSandbox) -> None:
    (read / "syncs" / f"{SYNC}.yml").write_text(CREATES)
    write_model(read, [(7, "low", "made", 0.0)])
    zendesk.faults.append(Fault("POST /api/v2/tickets$", "cut"))
    assert run("run", "--env", "prod", "--first-run", folder=read).code == 1
    assert run("retry", SYNC, "--not-sent", folder=read).words.startswith("ticket_priority released 1 unknown")
    assert statuses(read) == [("failed", "not sent, as a person said")]
    assert run("run", "--env", "prod", "--first-run", folder=read).code == 0
    assert made(zendesk) == 1


def last_run(folder: Path) -> str:
    return str(run("status", "-o", "json", folder=folder).json["runs"][0]["run_id"])


def test_undo_shows_its_plan_and_does_it_when_told(read: Path, zendesk: ZendeskSandbox) -> None:
    turned = run("run", "--env", "prod", "--yes", folder=read)
    run_id = last_run(read)
    assert f"undo: oploop undo --env prod {run_id}" in turned.words
    zendesk.store.update("tickets", 102, {"priority": "normal"})
    plan = run("undo", run_id, "--env", "prod", "--plan", folder=read)
    assert plan.code == 0
    for said in (
        f"undo of 1 run: {run_id}",
        "ticket_priority → zendesk.tickets 2 put back",
        "101 priority urgent → low Priority reason spends 10,000 → empty",
        "left 1 changed since by somebody 102 priority",
        "Nothing sent. do it: the same command with --yes, and without --plan",
    ):
        assert said in plan.words
    asked = run("undo", run_id, "--env", "prod", folder=read)  # nobody can answer
    assert (asked.code, priorities(zendesk)[101]) == (1, "urgent")
    assert asked.out.endswith("the same command with --yes\n")
    done = run("undo", run_id[:20], "--env", "prod", "--yes", folder=read)
    assert (done.code, "✓ ticket_priority 2 sent" in done.words) == (0, True)
    assert "paused: ticket_priority go on: oploop resume ticket_priority" in done.words
    assert "send again: oploop retry ticket_priority --reason undone" in done.words
    assert priorities(zendesk) == {101: "low", 102: "normal", 103: "low"}
    assert "2 undone changes stay parked" in run("resume", SYNC, folder=read).words
    assert "undone priority" in run("held", folder=read).words
    assert run("retry", SYNC, "--reason", "undone", "--key", "101", folder=read).code == 0
    assert run("run", "--env", "prod", folder=read).code == 0
    assert priorities(zendesk)[101] == "urgent"


def test_an_undo_of_an_undo_parks_nothing_and_says_nothing_of_it(read: Path) -> None:
    assert run("run", "--env", "prod", "--yes", folder=read).code == 0
    assert run("undo", last_run(read), "--env", "prod", "--yes", folder=read).code == 0
    again = run("undo", last_run(read), "--env", "prod", "--yes", folder=read)
    assert (again.code, again.out.endswith("go on: oploop resume ticket_priority\n")) == (0, True)


def test_undo_since_a_time_and_as_json(read: Path, zendesk: ZendeskSandbox) -> None:
    assert run("run", "--env", "prod", "--yes", folder=read).code == 0
    done = run("undo", "--since", "5m", "--env", "prod", "--yes", "-o", "json", folder=read)
    assert done.json["syncs"][0]["planned"] == {"create": 0, "update": 2, "archive": 0, "remove": 0}
    assert len(done.json["undoes"]) == 1
    assert set(priorities(zendesk).values()) == {"low"}


def test_undo_since_a_time_takes_back_the_runs_of_its_own_environment(read: Path, zendesk: ZendeskSandbox) -> None:
    """Somebody's trial in another one is theirs."""
    assert run("run", "--env", "prod", "--yes", folder=read).code == 0
    zendesk.advance(120)
    write_model(read, [(101, "low", "of dev", 1.0)])
    assert run("run", "--allow", f"{SYNC}:rows", folder=read).code == 0
    done = run("undo", "--since", "5m", "--yes", "-o", "json", folder=read)
    assert (len(done.json["undoes"]), priorities(zendesk)) == (1, {101: "urgent", 102: "high", 103: "low"})
    shutil.rmtree(read / ".oploop")  # a run that came to its end stands in the warehouse too
    run("resume", SYNC, folder=read)
    shown = run("undo", "--since", "5m", "--env", "prod", "--plan", folder=read)
    assert shown.words.startswith("undo of 1 run: ")
    with duckdb.connect(str(read / "warehouse.duckdb")) as db:
        db.execute("UPDATE oploop.runs SET environment = 'pr_1'")
    done = run("undo", "--since", "5m", folder=read)
    assert done.code == 2
    assert "no run of dev has sent anything since" in done.err
    assert " — add --env pr_1: there some have" in done.err
    with duckdb.connect(str(read / "warehouse.duckdb")) as db:
        db.execute("DELETE FROM oploop.runs")
    done = run("undo", "--since", "5m", folder=read)
    assert (done.code, "left out, as nobody knows in which environment they were: 01" in done.err) == (2, True)


def test_held_rows_tell_what_explains_them(read: Path) -> None:
    run("run", "--env", "prod", "--yes", folder=read)
    said = run("held", folder=read).words
    assert '103 priority: "highest" is not one of low, normal, high, urgent spend 3' in said
    assert run("held", "-o", "json", folder=read).json["held"][0]["why"] == {"spend": 3.0}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "undo needs a run, or --since"),
        (["01ABC"], "there is no run '01ABC' in the ledger"),
        (["--since", "yesterday"], "--since 'yesterday' is no time"),
        (["--since", "0s"], "no run of prod has sent anything since"),
        (["01ABC", "--since", "2h"], "undo needs a run, or --since"),
    ],
)
def test_what_undo_cannot_mean(read: Path, words: list[str], says: str) -> None:
    done = run("undo", *words, "--env", "prod", folder=read)
    assert (done.code, says in done.err) == (2, True)


def test_another_key_is_refused_until_it_is_asked_for(read: Path, zendesk: ZendeskSandbox) -> None:
    assert run("run", "--env", "prod", "--yes", folder=read).code == 0
    file = read / "syncs" / f"{SYNC}.yml"
    file.write_text(file.read_text().replace("key: {id: ticket_id}", "key: {external_id: ticket_id}"))
    for command in (("run", "--env", "prod"), ("plan", "--env", "prod")):
        done = run(*command, folder=read)
        assert done.code == 2
        assert f"syncs/{SYNC}.yml:4: it has delivered by key id; by external_id" in (done.words + done.err)
        assert f"oploop run --rekey {SYNC}" in done.words + done.err
    done = run("plan", "--env", "prod", "--build", folder=read)
    assert (done.code, "models" in done.words) == (2, False), "it is refused before anything is built"
    done = run("trace", "zendesk.tickets", "101", "--env", "prod", folder=read)
    assert done.code == 0
    assert "known by id, its file says external_id; nothing is sent before oploop run --rekey" in done.words
    assert "has no row" not in done.words
    done = run("doctor", "--env", "prod", folder=read)
    assert done.code != 0
    assert f"syncs/{SYNC}.yml:4: it has delivered by key id; by external_id" in done.words
    done = run("plan", "--env", "prod", "--rekey", SYNC, folder=read)
    assert (done.code, f"oploop run --env prod --rekey {SYNC}" in done.words) == (0, "send:" in done.words), done.words
    assert run("plan", "--env", "prod", folder=read).code == 2, "nothing was taken over"
    assert run("plan", "--rekey", SYNC, "--save", "x.plan", folder=read).code == 2
    calls = len(zendesk.log)
    done = run("run", "--env", "prod", "--rekey", SYNC, folder=read)
    assert (done.code, len(zendesk.log) > calls) == (0, True), done.words
    assert run("plan", "--env", "prod", folder=read).code == 0
    assert run("run", "--rekey", "ticket_prio", folder=read).code == 2
