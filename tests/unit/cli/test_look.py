"""init, doctor, apps, sandbox and trace."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from oploop.apps.registry import sandbox_class
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.cli.commands import apps
from oploop.cli.commands.sandbox import _block, _config, _make, _without_secrets
from oploop.errors import FixConfig
from oploop.project.yaml import parse_yaml
from oploop.trace import key_of
from tests.unit.cli.support import run, write_model


def test_init_makes_a_project_that_the_doctor_likes(tmp_path: Path) -> None:
    done = run("init", str(tmp_path / "acme"))
    assert done.code == 0
    assert "oploop.yml" in done.out
    assert run("doctor", folder=tmp_path / "acme").code == 0
    again = run("init", str(tmp_path / "acme"))
    assert again.code == 2
    assert "is there already" in again.err


def test_doctor_before_anything_was_read(project: Path) -> None:
    before = sorted(p for p in project.rglob("*"))
    done = run("doctor", folder=project)
    assert done.code == 0
    assert "✓ zendesk ops <ops@acme.example>, admin" in done.words
    assert "· warehouse warehouse.duckdb is not there yet" in done.words
    assert (
        "· ticket_priority mart.ticket_priority → zendesk.tickets, 2 fields · the model is not there yet" in done.words
    )
    assert sorted(p for p in project.rglob("*")) == before


def test_doctor_names_the_wrong_credential_and_its_line(project: Path) -> None:
    (project / ".env").write_text("ZENDESK_API_TOKEN=wrong\n")
    done = run("doctor", folder=project)
    assert done.code == 2
    assert "✗ zendesk oploop.yml:8: " in done.words  # the line of api_token
    assert "api_token" in done.out
    assert "1 thing to mend" in done.out


def test_doctor_holds_syncs_against_fields_and_columns(read: Path) -> None:
    assert run("doctor", folder=read).code == 0
    sync = read / "syncs" / "ticket_priority.yml"
    text = sync.read_text()
    sync.write_text(text.replace("Priority reason:", "Priority raeson:"))
    done = run("doctor", folder=read)
    assert done.code == 2
    assert "syncs/ticket_priority.yml:7: zendesk.tickets has no field 'Priority raeson'" in done.words
    assert "did you mean 'Priority reason'?" in done.words
    sync.write_text(text.replace("reason: reason", "reason: raeson"))
    assert "has no column 'raeson'" in run("doctor", folder=read).out


def test_doctor_sees_two_syncs_that_write_one_field(read: Path) -> None:
    first = read / "syncs" / "ticket_priority.yml"
    second = read / "syncs" / "second.yml"
    second.write_text(first.read_text())
    done = run("doctor", folder=read)
    assert done.code == 2
    says = "zendesk.tickets field 'priority' is also written by sync"
    assert f"✗ second syncs/second.yml:6: {says} 'ticket_priority' — let one sync own it" in done.words
    assert f"✗ ticket_priority syncs/ticket_priority.yml:6: {says} 'second' — let one sync own it" in done.words
    second.write_text(first.read_text() + "enabled: false\n")
    assert run("doctor", folder=read).code == 0


def test_doctor_refuses_what_a_plan_or_a_run_would(read: Path) -> None:
    config = read / "oploop.yml"
    text = config.read_text()
    config.write_text(text.replace("[tickets, users]", "{tickets: {exclude: [priority]}, users: {}}"))
    done = run("doctor", folder=read)
    says = "field 'priority' is compared with what the app holds, but 'priority' is excluded from reading"
    assert (done.code, f"✗ ticket_priority syncs/ticket_priority.yml:6: {says}" in done.words) == (2, True)
    config.write_text(text + "alerts: [{to: zendesk, channel: ops}]\n")
    done = run("doctor", folder=read)
    assert (done.code, "✗ alerts oploop.yml:12: zendesk sends no alerts" in done.words) == (2, True)


def test_doctor_refuses_creates_that_could_not_be_looked_up(read: Path) -> None:
    sync = read / "syncs" / "ticket_priority.yml"
    text = sync.read_text().replace("mode: update", "mode: upsert")
    text = text.replace("fields:\n", "fields:\n  description: reason\n")
    sync.write_text(text)
    done = run("doctor", folder=read)
    assert done.code == 2
    assert "syncs/ticket_priority.yml:4: zendesk.tickets does not tell a repeated create from a new one" in done.words
    assert run("plan", folder=read).code == 2
    sync.write_text(text + "at_most_once: true\n")
    assert run("doctor", folder=read).code == 0


def test_doctor_sees_a_state_that_others_can_read(read: Path) -> None:
    (read / ".oploop").chmod(0o755)
    done = run("doctor", "-o", "json", folder=read)
    state = next(c for c in done.json["checks"] if c["check"] == "state")
    assert (done.code, state["ok"], done.json["status"]) == (2, False, "failed")
    assert state["mend"].startswith("chmod 700")


def test_apps_lists_what_is_installed() -> None:
    done = run("apps", "-o", "json")
    assert {a["type"] for a in done.json["apps"]} >= {"stripe", "zendesk", "segment"}
    assert "tickets: create, update" in run("apps").words


def test_apps_asks_the_account_for_its_own_fields(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("apps", "zendesk", folder=project)
    assert done.code == 0
    assert "Priority reason text" in done.words
    (project / ".env").unlink()
    without = run("apps", "zendesk", folder=project)
    assert without.code == 0
    assert "only the standard fields are shown" in without.err
    assert "custom objects as the account has them: once the account can be asked" in without.out
    assert "Priority reason" not in without.out
    monkeypatch.chdir("/")
    assert "read charges key id" in run("apps", "stripe").words


def test_sandbox_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "oploop", "sandbox", "zendesk"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[-1]
        with urllib.request.urlopen(f"{url}/_sandbox/dump?kind=tickets", timeout=10) as answer:
            assert answer.read() == b"[]"
        out = ""
        while "ZENDESK_API_TOKEN=" not in out:  # all that it has to say, before it is told to end
            line = process.stdout.readline()
            assert line, out
            out += line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"base_url: {url}" in out
    assert "api_token: ${ZENDESK_API_TOKEN}" in out
    assert "ZENDESK_API_TOKEN=zd_test_oploop" in out
    assert "interrupted; the sandboxes are gone" in err


@pytest.mark.parametrize("kind", ["http", "sheets", "mixpanel", "segment", "zendesk"])
def test_the_block_that_a_sandbox_prints_is_one(kind: str, tmp_path: Path) -> None:
    sandbox, more = _make(sandbox_class(kind), kind, tmp_path / "logs")
    block, secrets = _without_secrets(kind, _config(sandbox, "http://127.0.0.1:1", more))
    lines = list(_block(block))
    text = f"apps:\n  {kind}:\n" + "\n".join(line[4:] for line in lines)
    read = parse_yaml(text, "oploop.yml")
    assert read == {"apps": {kind: block}}
    assert max(map(len, lines)) < 120
    assert secrets
    assert (tmp_path / "logs").is_dir() == (kind == "segment")  # oploop.yml names it, so it is there


def test_an_app_without_a_sandbox_is_not_taken_for_another() -> None:
    done = run("sandbox", "postgres")
    assert done.code == 2
    assert "postgres has no sandbox — try it on one of your own; there are: http, hubspot" in done.err


def test_a_port_that_is_taken(zendesk: ZendeskSandbox) -> None:
    port = zendesk.url.rpartition(":")[2]
    done = run("sandbox", "zendesk", "--port", port)
    assert (done.code, "choose another with --port" in done.err) == (2, True)


# -- trace ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("35436", "35436"),
        (" ann@acme.example ", "ann@acme.example"),
        ("https://acme.zendesk.com/agent/tickets/35436", "35436"),
        ("https://acme.zendesk.com/api/v2/tickets/35436.json?include=users", "35436"),
        ("https://dashboard.stripe.com/test/customers/cus_9s6XKzkNRiz8i3", "cus_9s6XKzkNRiz8i3"),
        ("https://acme.zendesk.com/agent/#/tickets/7", "7"),
    ],
)
def test_the_key_in_an_address(text: str, key: str) -> None:
    assert key_of(text) == key


def test_an_address_without_an_id() -> None:
    with pytest.raises(FixConfig, match="no id can be seen"):
        key_of("https://acme.zendesk.com/agent/dashboard")


def test_trace_of_a_record_before_it_is_sent(read: Path) -> None:
    done = run("trace", "zendesk.tickets", "https://acme.zendesk.com/agent/tickets/101", folder=read)
    assert done.code == 0
    assert "zendesk.tickets 101 read just now" in done.words
    assert "Cannot export · open" in done.words
    assert "because spend 10000.5" in done.words
    assert "priority low urgent the next run sends it, over what others set" in done.words
    assert "oploop never changed this record" in done.words


def test_trace_after_it_was_sent_and_after_somebody_changed_it(read: Path, zendesk: ZendeskSandbox) -> None:
    run("run", "--yes", folder=read)
    sent = run("trace", "zendesk.tickets", "101", folder=read)
    assert (
        "priority urgent same sent just now, and it was there; the last 60 s of edits are not shown yet" in sent.words
    )
    assert "update, confirmed" in sent.words
    assert "priority low → urgent" in sent.words
    ticket = next(t for t in zendesk.dump("tickets") if t["id"] == 101)
    change_by_hand(zendesk, ticket["id"])
    zendesk.advance(120)
    run("extract", folder=read)
    drifted = run("trace", "zendesk.tickets", "101", folder=read)
    assert "priority normal urgent changed in the app since: left alone (conflict: theirs)" in drifted.words


def test_a_list_that_is_added_to_is_shown_as_a_list_and_traced_as_sent(read: Path) -> None:
    with (read / "syncs" / "ticket_priority.yml").open("a", encoding="utf-8") as sync:
        sync.write("where: ticket_id < 103\n")
    path = read / "syncs" / "ticket_priority.yml"
    path.write_text(path.read_text().replace("explain:", "  tags: {add: [vip]}\nexplain:"), encoding="utf-8")
    assert "tags 2 none → vip 2 e.g." in run("plan", folder=read).words
    run("run", "--yes", folder=read)
    assert (
        "tags vip same sent just now, and it was there; the last 60 s of edits are not shown yet"
        in run("trace", "zendesk.tickets", "101", folder=read).words
    )


def change_by_hand(zendesk: ZendeskSandbox, ticket: int) -> None:
    """What an agent does on the ticket's page."""
    import base64

    token = base64.b64encode(b"agent@acme.example/token:zd_test_oploop").decode()
    request = urllib.request.Request(
        f"{zendesk.url}/api/v2/tickets/{ticket}.json",
        data=b'{"ticket": {"priority": "normal"}}',
        method="PUT",
        headers={"Content-Type": "application/json", "Authorization": f"Basic {token}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def test_trace_says_why_a_row_is_held_or_missing(read: Path) -> None:
    held = run("trace", "zendesk.tickets", "103", "-o", "json", folder=read).json["syncs"][0]
    assert (held["status"], held["fields"][0]["why"]) == ("held", "held")
    assert held["says"] == 'held: priority: "highest" is not one of low, normal, high, urgent'
    missing = run("trace", "zendesk.tickets", "999", folder=read)
    assert "the app has no such record, and this sync makes none" in missing.out


def test_trace_of_what_no_sync_wants(read: Path) -> None:
    write_model(read, [(101, "urgent", "x", 1.0)])
    assert "mart.ticket_priority has no row with this key" in run("trace", "zendesk.tickets", "102", folder=read).out
    assert "no sync writes zendesk.users" in run("trace", "zendesk.users", "ann@acme.example", folder=read).out


def test_trace_shows_no_commands_to_the_terminal(read: Path) -> None:
    assert "\x1b" not in run("trace", "zendesk.tickets", "102", folder=read).out


def test_trace_before_anything_was_read(project: Path) -> None:
    """The model is there: another tool builds it."""
    write_model(project)
    done = run("trace", "zendesk.tickets", "101", folder=project)
    assert (done.code, done.err) == (2, "oploop: zendesk.tickets has not been read yet — run oploop extract\n")


def test_trace_of_nothing(read: Path) -> None:
    done = run("trace", "zendesk.tickets", "424242", folder=read)
    assert done.code == 2
    assert "no record of zendesk.tickets has the id or key '424242'" in done.err


def test_apps_tells_of_one_stream_or_object(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("apps", "zendesk", "users", folder=project)
    assert done.code == 0
    assert "read users" in done.words
    assert "read tickets" not in done.words
    assert set(run("apps", "zendesk", "users", "-o", "json", folder=project).json["objects"]) == {"users"}
    assert run("apps", "zendesk.users", folder=project).out == done.out
    wrong = run("apps", "zendesk", "tikets", folder=project)
    assert (wrong.code, "did you mean 'tickets'" in wrong.err) == (2, True)
    monkeypatch.chdir("/")
    assert "did you mean 'tickets'" in run("apps", "zendesk", "tikets").err


def test_apps_asks_an_org_for_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "any object of the org: oploop connect salesforce" in run("apps", "salesforce").words
    assert "oploop connect salesforce" in run("apps", "salesforce", "Account").err
    with SalesforceSandbox().running() as url:
        assert run("init", str(tmp_path / "acme")).code == 0
        monkeypatch.setenv("SALESFORCE_CLIENT_SECRET", "sandbox-consumer-secret")
        told = [f"base_url={url}", "client_id=3MVG9sandbox.oploop"]
        given = [word for pair in told for word in ("--set", pair)]
        added = run("connect", "salesforce", *given, folder=tmp_path / "acme")
        assert added.code == 0, added.err
        whole = run("apps", "salesforce", folder=tmp_path / "acme")
        assert "Billing_Id__c" in whole.out
        assert "read Contact" in whole.out
        monkeypatch.setattr(apps, "MANY", 3)
        names = run("apps", "salesforce", folder=tmp_path / "acme")
        assert "Billing_Id__c" not in names.out
        assert "oploop apps salesforce Account" in names.out
        one = run("apps", "salesforce", "Account", folder=tmp_path / "acme")
        assert "Billing_Id__c" in one.out
        assert "Contact" not in one.out


def test_apps_tells_of_limits_and_of_the_tables_beside_one_that_is_out_of_order(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("CREATE TABLE customers (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE log (text TEXT)")
    db.close()
    (tmp_path / "oploop.yml").write_text(
        "name: a\nmodels: {engine: none}\napps: {s: {type: sqlite, database: shop.db}}\n"
    )
    done = run("apps", "s", folder=tmp_path)
    assert done.code == 0
    assert "read customers key id" in done.words
    assert "log has no primary key" in done.words
    told = run("apps", "s", "-o", "json", folder=tmp_path).json
    assert (list(told["streams"]), list(told["untold"])) == (["customers"], ["log"])
    for app in ("zendesk", "stripe"):
        assert "\nlimit   " in run("apps", app).out


def test_an_address_that_is_another_api_is_named_with_its_line(tmp_path: Path) -> None:
    from oploop.apps.zendesk.sandbox import ZendeskSandbox

    with ZendeskSandbox().running() as url:
        (tmp_path / "oploop.yml").write_text(
            "name: a\nmodels: {engine: none}\napps:\n  hubspot:\n    access_token: x\n"
            f"    base_url: {url}\n    read: [contacts]\n"
        )
        for command in ("doctor", "extract"):
            done = run(command, folder=tmp_path)
            assert done.code == 2
            assert "oploop.yml:6: GET " in done.out + done.err
            assert "was refused: HTTP 404 — check base_url" in done.out + done.err


def test_doctor_looks_at_the_tables_that_others_load(tmp_path: Path) -> None:
    import duckdb

    from oploop.apps.zendesk.sandbox import ZendeskSandbox

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        db.execute("CREATE SCHEMA lake; CREATE TABLE lake.ticket AS SELECT 1 AS id, now() AS loaded_at")
    with ZendeskSandbox().running() as url:
        said = ZendeskSandbox.default_config(url)
        block = "".join(f"    {k}: {v}\n" for k, v in said.items())
        for table, code, says in (
            ("{tickets: {table: lake.ticket, key: id, version: loaded_at}}", 0, "zendesk.tickets from lake.ticket"),
            ("{tickets: {table: lake.tikets_of_us, key: id, version: loaded_at}}", 2, "did you mean 'lake.ticket'?"),
            ("{tickets: {table: lake.ticket, key: nr, version: loaded_at}}", 2, "lake.ticket has no column 'nr'"),
            ("{tikets: {table: lake.ticket, key: id, version: loaded_at}}", 2, "no stream 'tikets' — did you mean"),
        ):
            (tmp_path / "oploop.yml").write_text(
                f"name: a\nmodels: {{engine: none}}\napps:\n  zendesk:\n{block}    tables: {table}\n"
            )
            done = run("doctor", folder=tmp_path)
            assert (done.code, says in done.words) == (code, True), done.out


def test_a_draft_of_a_sync_that_would_map_nothing_is_not_written(tmp_path: Path) -> None:
    import duckdb

    from oploop.apps.zendesk.sandbox import ZendeskSandbox

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        db.execute("CREATE SCHEMA mart; CREATE TABLE mart.t AS SELECT 1 AS id, 2 AS odd")
    with ZendeskSandbox().running() as url:
        block = "".join(f"    {k}: {v}\n" for k, v in ZendeskSandbox.default_config(url).items())
        (tmp_path / "oploop.yml").write_text(f"name: a\nmodels: {{engine: none}}\napps:\n  zendesk:\n{block}")
        done = run("new", "sync", "mart.t", "zendesk.tickets", folder=tmp_path)
        assert (done.code, "so nothing was written" in done.err) == (2, True)
        assert run("new", "sync", "mart.t", "zendesk.tickets", "--name", "tö", folder=tmp_path).code == 2
        assert run("doctor", folder=tmp_path).code == 0
        assert "fields: {}" in run("new", "sync", "mart.t", "zendesk.tickets", "--dry-run", folder=tmp_path).out


def test_trace_of_a_record_that_was_made_and_no_read_has_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    from oploop.stages import looking

    monkeypatch.setattr(looking, "READ_BACK", 1)
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as house:
        house.execute(
            "CREATE SCHEMA mart; CREATE TABLE mart.m AS SELECT i AS id, 'n' || i AS name FROM range(1, 4) t(i)"
        )
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "things.yml").write_text(
        "model: mart.m\nto: s.things\nmode: upsert\nkey: {id: id}\nfields: [name]\n"
    )
    (tmp_path / "oploop.yml").write_text(
        "name: a\nwarehouse: {type: duckdb, database: w.duckdb}\nmodels: {engine: none}\n"
        "apps: {s: {type: sqlite, database: shop.db}}\nenvironments: {prod: {}}\n"
    )
    assert run("run", "--env", "prod", "--yes", "--allow", "things:first-run", folder=tmp_path).code == 0
    done = run("trace", "s.things", "3", "--env", "prod", folder=tmp_path)
    assert "s.things 3 no read has shown it" in done.words
    assert "name empty n3 sent just now; no read has shown it yet" in done.words
    assert "create, sent sync things" in done.words
    assert "name empty → n3" in done.words
    assert "never changed" not in done.words


def test_who_only_looks_loads_no_app(tmp_path: Path) -> None:
    """An app brings Arrow and numpy with it, which takes as long as all else that such a command does."""
    (tmp_path / "oploop.yml").write_text("name: a\nmodels: {engine: none}\napps: {stripe: {api_key: '${K}'}}\n")
    code = (
        "import sys\nfrom oploop.cli.group import cli\n"
        f"try: cli.main(['status', '--project', {str(tmp_path)!r}])\nexcept SystemExit as e: code = e.code\n"
        "print(code, [m for m in ('oploop.apps.stripe', 'pyarrow', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip().split("\n")[-1] == "0 []"
