"""`oploop connect`: an app's credentials tried, then its block written, with nothing else touched."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.apps.registry import app_class, known_types
from oploop.apps.sheets.sandbox import SheetsSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.cli.commands import connect
from oploop.errors import FixConfig
from oploop.project import load_project
from oploop.project.connect import NewApp, with_app
from oploop.project.yaml import parse_yaml
from tests.unit.cli.support import run


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project as `oploop init` leaves it."""
    folder = tmp_path / "acme"
    assert run("init", str(folder)).code == 0
    return folder


def test_an_app_that_answers_is_added_and_read(fresh: Path, zendesk: ZendeskSandbox) -> None:
    (fresh / ".env").write_text("OTHER=1\nZENDESK_API_TOKEN=zd_test_oploop")
    before = (fresh / "oploop.yml").read_text()
    given_settings = (
        "--set",
        "subdomain=sandbox",
        "--set",
        "email=ops@acme.example",
        "--set",
        f"base_url={zendesk.url}",
    )
    done = run("connect", "zendesk", *given_settings, "--read", "tickets, users", folder=fresh)
    assert done.code == 0, done.err
    assert "ops <ops@acme.example>" in done.out
    block = (
        f"apps:\n  zendesk:\n    subdomain: sandbox\n    email: ops@acme.example\n    base_url: {zendesk.url}\n"
        "    api_token: ${ZENDESK_API_TOKEN}\n    read: [tickets, users]\n"
    )
    assert (fresh / "oploop.yml").read_text() == before.replace("apps:\n", block)
    assert (fresh / ".env").read_text() == "OTHER=1\nZENDESK_API_TOKEN=zd_test_oploop"
    assert run("extract", folder=fresh).code == 0


def test_a_sync_that_names_the_app_may_be_there_before_it(fresh: Path) -> None:
    (fresh / "syncs/users.yml").write_text("model: a.b\nto: segment.identify\nkey: {userId: id}\nfields: [x]\n")
    assert "there is no app 'segment'" in run("extract", folder=fresh).err
    done = run("connect", "segment", "--set", "logs=./logs", "--unchecked", folder=fresh)
    assert done.code == 0, done.err
    assert "segment" in load_project(fresh).apps


def test_line_ends_stay_as_they_are(fresh: Path) -> None:
    text = (fresh / "oploop.yml").read_bytes().replace(b"\n", b"\r\n")
    (fresh / "oploop.yml").write_bytes(text)
    done = run("connect", "segment", "--set", "logs=./logs", "--unchecked", folder=fresh)
    assert done.code == 0, done.err
    block = b"apps:\r\n  segment:\r\n    logs: ./logs\r\n"
    assert (fresh / "oploop.yml").read_bytes() == text.replace(b"apps:\r\n", block)


def test_keys_that_hold_maps_are_given_on_one_line(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = "{spreadsheet: 1oploopSandboxSpreadsheet, sheet: Targets, key: Account, columns: {Account: text}}"
    with SheetsSandbox().running() as url:
        monkeypatch.setenv("SHEETS_KEY", SheetsSandbox.default_config(url)["key"])
        monkeypatch.setenv("OTHER_KEY", SheetsSandbox.default_config(url)["key"])
        given_settings = ("--set", f"base_url={url}", "--set", f"sheets={{targets: {sheet}}}", "--read", "targets")
        done = run("connect", "sheets", *given_settings, folder=fresh)
        assert done.code == 0, done.err
        assert "streams: targets" in done.out
        assert run("doctor", folder=fresh).code == 0
    block = load_project(fresh).apps["sheets"]
    assert block.options["sheets"]["targets"]["columns"] == {"Account": "text"}
    assert block.options["key"] == "${SHEETS_KEY}"
    (fresh / "drop").mkdir()
    files = ("--set", "url=drop", "--set", 'streams={people: {files: "*.csv", key: [id]}}')
    assert run("connect", "files", *files, folder=fresh).code == 0
    for wrong, says in (
        ("sheets={targets: ", "--set:1: a bracket is not closed"),
        ("sheets={targets: {sheet: x}}", "add `spreadsheet: ...`"),
        ('key={"private_key": "x"}', "key is a secret, and a command line is no place for one"),
    ):
        done = run("connect", "sheets", "--as", "other", "--set", wrong, folder=fresh)
        assert (done.code, says in done.err) == (2, True), done.err
    assert "other" not in load_project(fresh).apps


def test_what_only_looks_like_a_number_is_no_defect_of_ours(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_1")
    done = run("connect", "stripe", "--set", "rate_limit=\u00b2", folder=fresh)
    assert (done.code, "defect" in done.err, "rate_limit" in done.err) == (2, False, True), done.err


def test_wrong_credentials_write_nothing(fresh: Path, zendesk: ZendeskSandbox) -> None:
    (fresh / ".env").write_text("DESK_API_TOKEN=wrong\n")
    before = (fresh / "oploop.yml").read_text()
    given_settings = (
        "--set",
        "subdomain=sandbox",
        "--set",
        "email=ops@acme.example",
        "--set",
        f"base_url={zendesk.url}",
    )
    done = run("connect", "zendesk", "--as", "desk", *given_settings, folder=fresh)
    assert done.code == 2
    assert "api_token" in done.err
    assert "wrong" not in done.err
    assert (fresh / "oploop.yml").read_text() == before


def talked(folder: Path, *args: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """`oploop connect` at a terminal, each question that is expected next answered: its code, and all that stood on the screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "oploop", "connect", *args]
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said, seen, left = "", 0, list(answers)
        while True:
            if not select.select([ours], [], [], 30)[0]:  # it waits for an answer to a question that was not expected
                process.kill()
                break
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            said += part.decode()
            if left and left[0][0] in said[seen:]:
                seen = len(said)
                os.write(ours, f"{left.pop(0)[1]}\n".encode())
    os.close(ours)
    assert not left, said
    return process.returncode, said


def test_a_person_is_asked_again_for_what_was_wrong_alone_and_secrets_stay_out_of_sight(
    fresh: Path, zendesk: ZendeskSandbox
) -> None:
    code, said = talked(
        fresh,
        "zendesk",
        "--set",
        f"base_url={zendesk.url}",
        answers=[
            ("subdomain (", "sandbox"),
            ("email (", "ops@acme.example"),
            ("api_token (", "zd_test_nobodys"),
            ("email (of the agent whose API token it is; Enter: ops@acme.example): ", ""),
            ("api_token (made in the Admin Center, under APIs; Enter: as before): ", "zd_test_oploop"),
            ("what syncs need): ", "ticket"),  # a stream that is mistyped is asked for again
            ("has no stream 'ticket'", "tickets"),
        ],
    )
    assert code == 0, said
    assert "refused the credentials" in said
    assert (said.count("subdomain ("), said.count("zd_test")) == (1, 0)
    assert (fresh / ".env").read_text() == "ZENDESK_API_TOKEN=zd_test_oploop\n"
    assert (fresh / ".env").stat().st_mode & 0o777 == 0o600
    block = load_project(fresh).apps["zendesk"]
    assert (list(block.read), block.options["email"]) == (["tickets"], "ops@acme.example")


@pytest.mark.parametrize(
    ("said", "asked_again"),
    [
        ("https://x refused the credentials (HTTP 401) — check api_token", ["api_token"]),
        ("zendesk: write only the first part of subdomain", ["subdomain"]),
        ("cannot reach https://acmee.zendesk.com: is base_url right?", ["subdomain", "email", "api_token"]),
        ("rate_limit must be a number", []),  # what was not typed is mended where it was given
    ],
)
def test_which_keys_an_error_puts_in_doubt(fresh: Path, said: str, asked_again: list[str]) -> None:
    keys = connect._given(fresh, app_class("zendesk"), "zendesk", ("rate_limit=9",))
    keys.typed = {"subdomain": "acmee", "email": "", "api_token": "x"}
    assert keys.in_doubt(FixConfig(said)) == asked_again


SETS = ("--set", "client_id=x", "--set", "refresh_token=${HOME}", "--set")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("zendesks",), "there is no app of type 'zendesks'"),
        (("zendesk", "--set", "subdomian=x"), "zendesk has no key 'subdomian' — did you mean 'subdomain'?"),
        (("zendesk", "--set", "subdomain"), "--set 'subdomain' is no KEY=VALUE"),
        (("zendesk", "--set", "api_token=abc"), "api_token is a secret, and a command line is no place for one"),
        (("stripe",), "api_key is not known, and there is no terminal to ask — export STRIPE_API_KEY="),
        (
            ("salesforce", *SETS, "domain=a.b"),
            "oploop: salesforce.domain: write only the first part of My Domain's address",
        ),
        (
            ("files", "--set", "url=x"),
            "needs streams (to read) or objects (to write), or both — give them by --set KEY=VALUE",
        ),
        (("stripe", "--as", "My Shop"), "'My Shop' cannot be an app's name"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(fresh: Path, args: tuple[str, ...], says: str) -> None:
    before = (fresh / "oploop.yml").read_text()
    done = run("connect", *args, folder=fresh)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert says in done.err
    assert (fresh / "oploop.yml").read_text() == before


def test_a_name_that_is_taken_is_refused(project: Path) -> None:
    done = run("connect", "zendesk", folder=project)
    assert done.code == 2
    assert "there is an app 'zendesk' already — choose another name with --as" in done.err


APPS = [
    "name: a\n",
    "name: a\napps: {}\nmodels: {engine: none}\n",
    "name: a\napps:   # all\n    # none yet\nmodels: {engine: none}\n",
    "name: a\napps:\n    crm:   # ours\n        type: http\n# end\n",
    "name: a\r\napps:\r\n  crm:\r\n    type: http\r\n",
    "apps:\n  crm: {type: http}\nname: a",
]


@pytest.mark.parametrize("text", APPS)
def test_any_way_of_writing_apps_takes_another(text: str) -> None:
    new = with_app(text, NewApp("shop", "stripe", {"api_key": "${SHOP_API_KEY}"}, ["charges"]))
    block = parse_yaml(new, "oploop.yml")
    assert block["apps"].pop("shop") == {"type": "stripe", "api_key": "${SHOP_API_KEY}", "read": ["charges"]}
    before = parse_yaml(text, "oploop.yml")
    assert block["apps"] == (before.get("apps") or {})
    assert set(text.replace("\r\n", "\n").split("\n")) - {"apps: {}"} <= set(new.replace("\r\n", "\n").split("\n"))


def test_apps_on_one_line_are_left_to_the_person() -> None:
    with pytest.raises(FixConfig, match="apps is written on one line"):
        with_app("name: a\napps: {crm: {type: http}}\n", NewApp("shop", "stripe", {}))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12))
@settings(deadline=None)
def test_any_setting_comes_back(value: str) -> None:
    new = with_app("name: a\n", NewApp("shop", "stripe", {"k": value}))
    assert parse_yaml(new, "oploop.yml")["apps"]["shop"]["k"] == value


def test_one_of_several_credentials_is_named_where_nobody_can_be_asked(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUBSPOT_ACCESS_TOKEN", raising=False)
    done = run("connect", "hubspot", folder=fresh)
    assert done.code == 2
    assert "export HUBSPOT_ACCESS_TOKEN=..., or add it to .env" in done.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: no such file or directory"),
        ("{", "is no JSON — give the whole file, as it was made"),
    ],
)
def test_a_secret_that_is_a_file_is_taken_from_it_on_one_line(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "key.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FixConfig, match=says):
        connect._secret("key", f"@{file}")
    file.write_text('{\n  "client_email": "a@b",\n  "private_key": "-----BEGIN\\nx\\n"\n}\n')
    assert connect._secret("key", f"@{file}") == '{"client_email":"a@b","private_key":"-----BEGIN\\nx\\n"}'
    file.write_text("a token\n")
    assert connect._secret("key", f"@{file}") == "a token"
    assert connect._secret("key", "typed") == "typed"


@pytest.mark.parametrize("secret", ["@s3cret", "@~nobody-here/s3cret", "@s3cret\0"])
def test_a_secret_that_begins_like_a_file_is_not_shown(secret: str) -> None:
    with pytest.raises(FixConfig) as told:
        connect._secret("key", secret)
    assert "s3cret" not in str(told.value)
    assert "goes into .env by hand" in str(told.value)


def test_each_key_that_is_asked_for_says_what_is_wanted() -> None:
    for name in known_types():
        cls = app_class(name)
        fields = {i.alias or n: i for n, i in cls.Config.model_fields.items()}
        bare = [key for key in connect.asked(cls) if not fields[key].description]
        assert bare == [], f"{name}: {bare}"
