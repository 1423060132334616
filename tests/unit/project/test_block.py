"""An app's own keys: variables, paths, types, and secrets that never show."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, Secret, SecretStr, field_validator

from oploop.errors import FixConfig
from oploop.project import load_project, validate_block, written_secrets
from oploop.project.block import is_secret
from tests.unit.project.conftest import Write


class Inner(BaseModel):
    """A nested block."""

    model_config = ConfigDict(extra="forbid")
    table: str
    size: int = 1


class Config(BaseModel):
    """What an app may declare."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    api_key: SecretStr
    subdomain: str | None = None
    port: int | None = None
    logs: str | None = Field(default=None, json_schema_extra={"path": True})
    places: dict[str, Inner] = {}

    @field_validator("subdomain")
    @classmethod
    def _no_url(cls, value: str | None) -> str | None:
        if value is not None and "/" in value:
            raise ValueError(f"{value} is a URL")
        return value


def config(write: Write, lines: str, env: dict[str, str] | None = None, dotenv: str | None = None) -> Config:
    root = write(f"name: acme\napps:\n  app:\n{lines}")
    if dotenv is not None:
        (root / ".env").write_text(dotenv)
    return validate_block(Config, load_project(root, env or {}).apps["app"])


def mistake(write: Write, lines: str, env: dict[str, str] | None = None, dotenv: str | None = None) -> str:
    with pytest.raises(FixConfig) as found:
        config(write, lines, env, dotenv)
    assert found.value.__cause__ is None
    assert found.value.__suppress_context__ or found.value.__context__ is None
    return str(found.value)


KEY = "    api_key: ${APP_KEY}\n"


def test_variables_come_from_the_environment_then_from_dotenv(write: Write) -> None:
    before = dict(os.environ)
    dotenv = "# a comment\nexport APP_KEY='pa$$w${X}d'\nPORT=8080\n"
    found = config(
        write, KEY + '    port: "${PORT}"\n    subdomain: a-${SUB}-$${X}-$5\n', {"SUB": "b", "PORT": "9090"}, dotenv
    )
    assert found.api_key.get_secret_value() == "pa$$w${X}d"
    assert found.port == 9090
    assert found.subdomain == "a-b-${X}-$5"
    assert dict(os.environ) == before


def test_variables_in_nested_values(write: Write) -> None:
    found = config(write, KEY + "    places: {a: {table: ${T}}}\n", {"APP_KEY": "k", "T": "x.y"})
    assert found.places["a"].table == "x.y"


def test_the_process_environment_is_the_default(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_KEY", "from the process")
    block = load_project(write("name: acme\napps:\n  app: {api_key: ${APP_KEY}}\n")).apps["app"]
    assert validate_block(Config, block).api_key.get_secret_value() == "from the process"


def test_paths_are_taken_from_the_projects_folder(write: Write, tmp_path: Path) -> None:
    env = {"APP_KEY": "k"}
    assert config(write, KEY + "    logs: ./a/../logs\n", env).logs == str(tmp_path / "logs")
    assert config(write, KEY + "    logs: /var/logs\n", env).logs == "/var/logs"
    assert config(write, KEY + "    logs: s3://b/logs\n", env).logs == "s3://b/logs"
    assert config(write, KEY, env).logs is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (KEY, "oploop.yml:4: environment variable APP_KEY is not set — export APP_KEY=... or add it to .env"),
        ("    api_key: ${}\n", "oploop.yml:4: ${...} must hold just a variable's name — write ${NAME}"),
        ('    api_key: "${A:-b}"\n', "oploop.yml:4: ${...} must hold just a variable's name"),
        ("    subdomain: x\n", "oploop.yml:3: app has no 'api_key' — add `api_key: ${APP_API_KEY}`"),
        (
            "    api_key: k\n    subdomian: x\n",
            "oploop.yml:5: unknown key 'subdomian' in app — did you mean 'subdomain'?",
        ),
        ("    api_key: k\n    raed: [x]\n", "oploop.yml:5: unknown key 'raed' in app — did you mean 'read'?"),
        ("    api_key: k\n    subdomain: 5\n", "oploop.yml:5: app.subdomain must be text — quote this"),
        ("    api_key: k\n    port: x\n", "oploop.yml:5: app.port must be a valid integer"),
        (
            "    api_key: k\n    places:\n      a: {table: t}\n      b: {}\n",
            "oploop.yml:7: app has no 'places.b.table' — add `table: ...`",
        ),
        (
            "    api_key: k\n    places:\n      a: {table: t, siz: 1}\n",
            "oploop.yml:6: unknown key 'siz' in app.places.a — did you mean 'size'?",
        ),
    ],
)
def test_mistakes(write: Write, lines: str, said: str) -> None:
    assert mistake(write, lines).startswith(said)


def test_an_empty_variable_is_as_bad_as_none(write: Write) -> None:
    assert "APP_KEY is empty" in mistake(write, KEY, {"APP_KEY": ""})


def test_a_variable_of_nearly_that_name(write: Write) -> None:
    assert "did you mean 'APP_KEYS'" in mistake(write, KEY, {}, "APP_KEYS=x\n")


def test_a_broken_dotenv(write: Write, tmp_path: Path) -> None:
    said = mistake(write, KEY, {}, "A=1\n'hunter2\n")
    assert said.startswith(".env:2: the line is no NAME=value")
    assert "hunter2" not in said
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(FixConfig, match=r"^\.env: cannot be read as UTF-8"):
        validate_block(Config, load_project(tmp_path, {}).apps["app"])


def test_values_never_show(write: Write) -> None:
    env = {"APP_KEY": "hunter2", "SUB": "hunter2/x", "SHORT": "a/"}
    said = mistake(write, KEY + "    subdomain: ${SUB}\n", env)
    assert said == "oploop.yml:5: app.subdomain: *** is a URL"
    assert "a/ is" not in mistake(write, KEY + "    subdomain: ${SHORT}\n", env)
    assert "hunter2" not in mistake(write, "    api_key: [hunter2]\n")
    block = load_project(write("name: acme\napps:\n  app: {api_key: hunter2hunter2}\n"), env).apps["app"]
    assert "hunter2" not in repr(block)
    assert "hunter2" not in repr(validate_block(Config, block))


def test_secrets_written_into_the_file_are_warned_of(write: Write) -> None:
    root = write(
        "name: acme\napps:\n  app:\n    api_key: hunter2hunter2\n    dsn: postgres://me:hunter2hunter2@db/x\n"
        "  ok: {api_key: ${K}, dsn: 'postgres://me:${P}@db/x', key: Id, primary: {key: id}, base_url: 'http://127.0.0.1:1'}\n"
    )
    warnings = load_project(root, {}).warnings
    assert [w.split(" looks")[0] for w in warnings] == ["oploop.yml:4: app.api_key", "oploop.yml:5: app.dsn"]
    assert "${APP_API_KEY}" in warnings[0]
    assert "hunter2" not in str(warnings)


def test_secrets_by_the_apps_own_declaration(write: Write) -> None:
    class Odd(BaseModel):
        pin: SecretStr
        other: SecretStr | None = None
        name: str = ""

    block = load_project(write("name: acme\napps:\n  app: {pin: hunter2, other: ${O}, name: x}\n"), {}).apps["app"]
    (warning,) = written_secrets(Odd, block)
    assert warning == "oploop.yml:3: app.pin is a secret written into the file — put it into ${APP_PIN}"


def test_secrets_within_a_secret_less_key_are_found_and_hidden(write: Write) -> None:
    class Login(BaseModel):
        user: str
        pin: SecretStr | None = None

    class Nested(BaseModel):
        login: Login | None = None
        hosts: dict[str, Login] = {}
        pins: list[SecretStr] = []
        label: dict[str, str] = {}

    text = (
        "name: acme\napps:\n  app:\n    login: {user: me, pin: hunter2hunter2}\n    hosts:\n      a: {user: me, pin: '${P}'}\n"
        "      b: {user: me, pin: hunter3hunter3}\n    pins: [hunter4hunter4]\n    label: {pin: x}\n"
    )
    block = load_project(write(text), {"P": "swordfish"}).apps["app"]
    assert written_secrets(Nested, block) == [
        "oploop.yml:7: app.hosts.b.pin is a secret written into the file — put it into ${APP_HOSTS_B_PIN}",
        "oploop.yml:4: app.login.pin is a secret written into the file — put it into ${APP_LOGIN_PIN}",
        "oploop.yml:8: app.pins.0 is a secret written into the file — put it into ${APP_PINS_0}",
    ]


class Pin(SecretStr):
    """A kind of secret of an app's own."""


class NoSecretAtAll(BaseModel):
    """What only speaks of secrets."""

    pin: str


def test_secrets_are_known_by_their_type_and_not_by_its_name(write: Write) -> None:
    class Odd(BaseModel):
        pin: Pin
        code: Secret[str]
        login: NoSecretAtAll
        kind: Literal["Secret", "Open"] = "Open"

    text = "name: acme\napps:\n  app:\n    pin: a\n    code: b\n    login: {pin: c}\n    kind: Secret\n"
    block = load_project(write(text), {}).apps["app"]
    assert [w.partition(" is a secret")[0] for w in written_secrets(Odd, block)] == [
        "oploop.yml:5: app.code",
        "oploop.yml:4: app.pin",
    ]
    assert [n for n, info in Odd.model_fields.items() if is_secret(info)] == ["pin", "code"]
