"""The commands of the loop, on a real Zendesk sandbox and a model that another tool keeps."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from tests.unit.cli.support import process, run, write_model


def priorities(zendesk: ZendeskSandbox) -> dict[int, str]:
    return {t["id"]: t["priority"] for t in zendesk.dump("tickets")}


def writes(zendesk: ZendeskSandbox) -> int:
    return sum(1 for e in zendesk.log if e.method in ("PUT", "POST"))


def test_extract_tells_what_came(project: Path) -> None:
    done = run("extract", folder=project)
    assert done.code == 0
    assert "✓ zendesk.tickets 3" in done.words
    assert "✓ zendesk.users 1" in done.words
    again = run("extract", "-o", "json", "--select", "zendesk.tickets", folder=project)
    assert again.json["extracted"].keys() == {"zendesk.tickets"}
    assert again.json["extracted"]["zendesk.tickets"]["rows"] == 0


def test_extract_of_an_unknown_stream(project: Path) -> None:
    done = run("extract", "--select", "zendesk.tikets", folder=project)
    assert (done.code, "did you mean 'zendesk.tickets'?" in done.err) == (2, True)


def test_plan_shows_and_sends_nothing(read: Path, zendesk: ZendeskSandbox) -> None:
    before = (read / "warehouse.duckdb").read_bytes()
    done = run("plan", "--env", "prod", folder=read)
    assert done.code == 0  # a first delivery that waits for permission is no failure
    for said in (
        "zendesk.tickets read just now",
        "ticket_priority → zendesk.tickets update · key id",
        "4 rows 0 same 2 update 1 held 1 missing (not in the app)",
        "priority 2 low → high 1, low → urgent 1 2 overwrite what others set",
        'held 1 priority: "highest" is not one of low, normal, high, urgent',
        "e.g. 101 priority low → urgent Priority reason empty → spends 10,000",
        "first delivery of this sync: 2 changes allow once: --allow ticket_priority:first",
        "Nothing sent. send: oploop run --env prod",
    ):
        assert said in done.words
    assert writes(zendesk) == 0
    assert (read / "warehouse.duckdb").read_bytes() == before


def test_plans_exit_codes(read: Path) -> None:
    assert run("plan", "--detailed-exitcode", folder=read).code == 3
    assert run("plan", "--detailed-exitcode", "--key", "999", folder=read).code == 0
    write_model(read, [(101, "urgent", "x", 1.0)] + [(i, "highest", "x", 1.0) for i in range(200, 300)])
    stopped = run("plan", "--detailed-exitcode", folder=read)
    assert stopped.code == 1  # held 99% > 10%
    assert "over" in stopped.words
    assert "--allow ticket_priority:held" in stopped.words


def test_plan_as_json(read: Path) -> None:
    done = run("plan", "-o", "json", folder=read)
    assert (done.json["run_id"], done.json["status"]) == (None, "ok")
    (sync,) = done.json["syncs"]
    assert sync["planned"] == {"create": 0, "update": 2, "archive": 0, "remove": 0}
    assert sync["changes"][0] == {
        "key": "101",
        "op": "update",
        "fields": {
            "priority": {"before": "low", "after": "urgent"},
            "Priority reason": {"before": None, "after": "spends 10,000"},
        },
    }
    assert sync["estimate"]["calls"] >= 1
    assert len(run("plan", "-o", "json", "--limit", "1", folder=read).json["syncs"][0]["changes"]) == 1


def test_what_each_command_prints_as_json_is_told_on_the_page(read: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands" / "README.md").read_text(encoding="utf-8")
    section = page.partition("## What `-o json` prints")[2].partition("\n## ")[0]
    told: dict[str, set[str]] = {}
    for names, members in re.findall(r"(?m)^\| (`.*?) \| (.*) \|$", section):
        for name in re.findall(r"`([^`]+)`", names):
            told[name] = set(re.findall(r"`(\w+)`", members.partition(": ")[0]))
    told["apps zendesk"] = told["apps NAME"]
    lines = {
        "plan": "plan", "run": "run --env prod --yes", "extract": "extract", "build": "build", "status": "status", "held": "held",
        "trace": "trace zendesk.tickets 101", "doctor": "doctor", "pause": "pause ticket_priority", "apps": "apps",
        "resume": "resume ticket_priority", "retry": "retry", "apps zendesk": "apps zendesk", "schema": "schema",
        "new": "new sync mart.ticket_priority zendesk.tickets --dry-run",
    }  # fmt: skip
    printed = {name: run(*line.split(), "-o", "json", folder=read).json for name, line in lines.items()}
    assert {name: set(data) for name, data in printed.items()} == {name: told[name] for name in lines}
    [sync] = printed["run"]["syncs"]
    words = set(re.findall(r"`(\w+)`", section.partition("Of a run, each of")[2]))
    assert sync.keys() | {"read_back"} <= words
    assert {w for w in words if w in ("missing", "gone", "waiting", "parked", "seen", "left_meanwhile")} <= sync.keys()
    assert printed["plan"]["syncs"][0].keys() >= {
        "rows",
        "same",
        "changes",
        "estimate",
        "held_reasons",
        "findings",
        "allow",
    }
    write_model(read, [(103, "highest", "x", 1.0), (999, "low", "no such ticket", 0.0)])
    [sync] = run("run", "--env", "prod", "-o", "json", folder=read).json["syncs"]
    assert (sync["held"], sync["missing"]) == (1, 1)


def test_a_key_that_no_row_has_is_told(read: Path) -> None:
    assert "ticket_priority → zendesk.tickets update · key id no row of the model has this key nothing to send" in (
        run("plan", "--key", "555", folder=read).words
    )
    assert "1 row 0 same 1 update" in run("plan", "--key", "101", folder=read).words
    done = run("run", "--key", "555", "--yes", folder=read)
    assert (done.code, "nothing to send · no row of the model has this key" in done.words) == (0, True)


def test_a_plan_refuses_two_syncs_that_write_one_field_as_a_run_does(read: Path) -> None:
    first = read / "syncs" / "ticket_priority.yml"
    (read / "syncs" / "second.yml").write_text(first.read_text())
    own = "is also written by sync 'second' — let one sync own it"
    for words in (["plan"], ["run"], ["plan", "--select", "ticket_priority"], ["run", "--select", "ticket_priority"]):
        done = run(*words, folder=read)
        assert done.code == 2, done.out
        assert f"field 'priority' {own}" in done.err
    done = run("doctor", "--select", "ticket_priority", folder=read)
    assert (done.code, f"field 'priority' {own}" in done.out) == (2, True), done.out
    done = run("doctor", folder=read)
    assert "is also written by sync 'ticket_priority'" in done.out, "each of the two is told"
    (read / "warehouse.duckdb").unlink()
    assert f"field 'priority' {own}" in run("doctor", folder=read).out
    (read / "syncs" / "second.yml").write_text(first.read_text() + "enabled: false\n")
    assert "also written" not in run("doctor", folder=read).out


def test_a_plan_refuses_a_stream_that_is_not_there_as_a_run_does(read: Path) -> None:
    file = read / "oploop.yml"
    right = file.read_text()
    assert "read: [tickets, users]" in right
    file.write_text(right.replace("read: [tickets, users]", "read: [tikets, users]"))
    [line] = [n for n, text in enumerate(right.splitlines(), 1) if "read: [tickets, users]" in text]
    for command in ("plan", "run"):
        done = run(command, folder=read)
        assert done.code == 2, done.out
        assert "zendesk has no stream 'tikets' — did you mean 'tickets'?" in done.err
        assert f"oploop.yml:{line}" in done.err


def test_a_target_that_was_never_read_stops_its_own_sync_alone(read: Path) -> None:
    first = (read / "syncs" / "ticket_priority.yml").read_text()
    (read / "syncs" / "people.yml").write_text(
        first.replace("zendesk.tickets", "zendesk.organizations").partition("fields:")[0] + "fields: {name: reason}\n"
    )
    never = "zendesk.organizations was never read — oploop extract"
    done = run("plan", folder=read)
    assert (done.code, "oploop:" in done.err) == (1, False)
    assert f"people → zendesk.organizations ✗ {never}" in done.words
    assert "ticket_priority → zendesk.tickets" in done.words
    assert "2 update" in done.words
    told = run("plan", "--yes", "-o", "json", folder=read).json
    assert {s["sync"]: (s["status"], s["stopped"]) for s in told["syncs"]} == {
        "people": ("stopped", [never]),
        "ticket_priority": ("planned", []),
    }
    assert run("plan", "--select", "ticket_priority", folder=read).code == 0
    assert run("extract", folder=read).code == 0
    assert run("plan", "--yes", folder=read).code == 0, "what a sync writes is read without being asked for"


def test_changes_that_a_limit_leaves_for_later_are_not_said_to_be_the_same(read: Path) -> None:
    assert "0 same or left by --limit" not in run("plan", folder=read).words
    assert "1 same or left by --limit 1 update" in run("plan", "--limit", "1", folder=read).words
    assert run("plan", "-o", "json", "--limit", "1", folder=read).json["syncs"][0]["same"] is None
    assert run("plan", "-o", "json", "--limit", "3", folder=read).json["syncs"][0]["same"] == 0


def test_a_first_delivery_waits_for_a_yes(read: Path, zendesk: ZendeskSandbox) -> None:
    done = run("run", folder=read)
    assert done.code == 1
    assert "✗ ticket_priority STOPPED first delivery of this sync: 2 changes" in done.words
    assert "allow once: oploop run --env dev --allow ticket_priority:first" in done.words
    assert "1 stopped" in done.words
    assert writes(zendesk) == 0


def test_a_whole_run_then_nothing_new(read: Path, zendesk: ZendeskSandbox) -> None:
    first = run("run", "--allow", "ticket_priority:first", folder=read)
    assert first.code == 0, first.out
    assert "✓ ticket_priority 2 sent · all confirmed · 1 held · 1 missing" in first.words
    assert "1 sync ok" in first.words
    assert priorities(zendesk) == {101: "urgent", 102: "high", 103: "low"}
    second = run("run", "-o", "json", folder=read)
    assert second.code == 0
    assert second.json["syncs"][0]["status"] == "nothing"
    assert second.json["verified"][0]["confirmed"] == 2
    assert priorities(zendesk) == {101: "urgent", 102: "high", 103: "low"}


def test_dev_does_not_deliver_to_an_app_elsewhere(read: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oploop.workspace import Workspace

    monkeypatch.setattr(Workspace, "delivers", lambda self, app: self.environment == "prod")
    done = run("run", "--yes", folder=read)
    assert done.code == 0
    assert "· ticket_priority 2 changes planned, not sent: dev does not deliver" in done.words
    assert "send: oploop run --env prod" in done.words


def test_a_saved_plan_is_applied_as_far_as_it_still_holds(read: Path, zendesk: ZendeskSandbox) -> None:
    saved = read / "friday.plan"
    done = run("plan", "--save", str(saved), folder=read)
    assert f"send: oploop apply --env dev {saved}" in done.words
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert run("apply", "--env", "prod", str(saved), folder=read).code == 2  # it is a plan of dev
    write_model(read, [(101, "urgent", "spends 10,000", 10000.5), (102, "normal", "less now", 1.0)])
    strict = run("apply", "--strict", str(saved), folder=read)
    assert (strict.code, priorities(zendesk)[101]) == (1, "low")
    applied = run("apply", str(saved), folder=read)
    assert applied.code == 1
    assert "1 sent" in applied.words
    assert "no longer as saved: 102" in applied.words
    assert priorities(zendesk) == {101: "urgent", 102: "low", 103: "low"}


def test_status_before_and_after(project: Path) -> None:
    assert "none yet; oploop run makes one" in run("status", folder=project).out
    run("extract", folder=project)
    write_model(project)
    run("run", "--yes", folder=project)
    done = run("status", folder=project)
    assert done.code == 0
    assert "dev ok just now" in done.words
    assert "2 sent" in done.words
    assert "zendesk.tickets 3 rows read just now" in done.words
    assert "✓ ticket_priority zendesk.tickets ok just now 2 sent · 1 held" in done.words
    assert run("status", "--env", "prod", "-o", "json", folder=project).json["runs"] == []


def test_held_lists_rows_with_reasons(read: Path) -> None:
    assert "nothing is held and nothing is parked" in run("held", folder=read).out
    run("run", "--yes", folder=read)
    done = run("held", "ticket_priority", folder=read)
    assert '103 priority: "highest" is not one of low, normal, high, urgent' in done.words
    as_json = run("held", "-o", "json", folder=read).json
    assert [(r["key"], r["field"]) for r in as_json["held"]] == [("103", "priority")]
    assert as_json["counts"] == {"ticket_priority": {"held": 1, "parked": 0}}
    assert run("held", "--env", "dev", "-o", "json", folder=read).json == as_json
    assert "nothing is held" in run("held", "--env", "prod", folder=read).out
    for command in ("held", "status"):
        unknown = run(command, "--env", "prd", folder=read)
        assert (unknown.code, "did you mean 'prod'?" in unknown.err) == (2, True)


def test_an_extract_that_fails_says_why_once(project: Path, zendesk: ZendeskSandbox) -> None:
    from oploop.apps.sandbox import Fault

    zendesk.faults.append(
        Fault("GET /api/v2/incremental/users", "status", status=403, body='{"error": "Forbidden"}', times=9)
    )
    done = run("extract", folder=project)
    assert done.code == 1
    assert (done.out + done.err).count("HTTP 403") == 1, done.out + done.err


def test_the_second_process_is_told_who_holds_the_warehouse(read: Path) -> None:
    run("run", "--yes", folder=read)
    holder = duckdb.connect(str(read / "warehouse.duckdb"))
    try:
        refused = process("plan", folder=read)
        looked = process("status", folder=read)
        waited = process("plan", "--wait", "0.5", folder=read)
    finally:
        holder.close()
    assert (refused.code, refused.out) == (2, "")
    assert "is held by" in refused.err
    assert "--wait" in refused.err
    assert looked.code == 0
    assert "the warehouse is held by" in looked.out
    assert "ticket_priority zendesk.tickets ok" in looked.words
    assert (waited.code, "waiting up to 0.5 s" in waited.err) == (2, True)


def test_notes_and_progress_are_not_among_results(read: Path) -> None:
    assert run("plan", "-o", "json", folder=read).err == ""
    done = process("plan", folder=read)
    assert (done.err, "\x1b[" in done.out) == ("", False)


def test_what_the_app_rejects_makes_the_run_fail_and_is_parked(read: Path, zendesk: ZendeskSandbox) -> None:
    write_model(read, [(101, "urgent", "x", 1.0)])
    from oploop.apps.sandbox import Fault

    body = '{"error": "RecordInvalid", "description": "Record validation errors"}'
    zendesk.faults.append(Fault("PUT /api/v2/tickets", "status", status=422, body=body, times=10))
    done = run("run", "--yes", folder=read)
    assert done.code == 1
    assert "1 rejected" in done.words
    assert "1 failed, " in done.words
    parked = run("held", folder=read)
    assert "ticket_priority 1 parked until something changes" in parked.words
    assert "the app refused it; waits until the model wants another value" in parked.words


def test_a_second_ctrl_c_ends_it_at_once_and_the_next_run_goes_on(read: Path, zendesk: ZendeskSandbox) -> None:
    from oploop.apps.sandbox import Fault

    write_model(read, [(101, "urgent", "x", 1.0), (102, "high", "y", 1.0)])
    zendesk.faults.append(Fault("PUT /api/v2/tickets", "delay", seconds=30, skip=1, times=1))
    with subprocess.Popen(
        [sys.executable, "-m", "oploop", "run", "--yes"],
        cwd=read,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        deadline = time.monotonic() + 20
        while writes(zendesk) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert err.strip().startswith("oploop: interrupted; ")
    assert "Traceback" not in err
    status = run("status", folder=read)
    assert "ticket_priority of run" in status.words
    assert "was cut off; the next run takes it into the ledger and goes on" in status.words
    zendesk.faults.clear()
    after = run("run", "--yes", folder=read)
    assert after.code == 0, after.out
    assert "took up the delivery of ticket_priority" in after.words
    assert priorities(zendesk) == {101: "urgent", 102: "high", 103: "low"}


def test_a_limit_is_passed_once_and_no_further_than_was_seen(read: Path, zendesk: ZendeskSandbox) -> None:
    more = [{"id": i, "subject": "S", "status": "open", "priority": "low", "requester_id": 1} for i in range(200, 400)]
    zendesk.load("tickets", more)
    rows = [(i, "low", "as it was", 1.0) for i in range(200, 400)]
    write_model(read, rows)
    assert run("run", "--yes", folder=read).code == 0
    write_model(read, [(i, "high" if i < 300 else "low", "as it was", 1.0) for i in range(200, 400)])
    stopped = run("run", folder=read)
    assert stopped.code == 1
    assert "STOPPED changes 50% > 20% (priority: low → high 100)" in stopped.words
    assert "allow once: oploop run --env dev --allow ticket_priority:changes=50%" in stopped.words
    chosen = run("run", "--select", "ticket_*", "--exclude", "nothing*", folder=read)
    again = "oploop run --env dev --select 'ticket_*' --exclude 'nothing*' --allow ticket_priority:changes=50%"
    assert f"allow once: {again}" in chosen.words
    plan = run("plan", folder=read)
    assert (plan.code, "send:" in plan.words) == (1, False)
    assert run("run", "--allow", "ticket_priority:changes=49%", folder=read).code == 1
    assert run("run", "--allow", "ticket_priority:changes=many", folder=read).code == 2
    passed = run("run", "--allow", "ticket_priority:changes=50%", folder=read)
    assert passed.code == 0, passed.out
    assert "100 sent · all confirmed" in passed.words
