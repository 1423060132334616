"""The dsn: which part of it is wrong, and that its password stands nowhere."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oploop.apps.postgres import PostgresApp, PostgresConfig
from oploop.apps.postgres.server import Server
from oploop.apps.registry import make_app
from oploop.cli.group import cli
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.project import load_project
from oploop.runtime import Runtime
from tests.apps.postgres.conftest import Database
from tests.postgres import PASSWORD, Cluster, free_port

PAGE = (Path(__file__).parents[3] / "docs" / "apps" / "postgres.md").read_text(encoding="utf-8")


def app_of(dsn: str, **more: Any) -> PostgresApp:
    return PostgresApp("crm", PostgresConfig.model_validate({"dsn": dsn} | more), Runtime())


async def test_a_good_dsn(db: Database) -> None:
    app = db.app()
    account = await app.check()
    assert account.line.startswith("PostgreSQL 18")
    assert account.line.endswith(f"{db.name} on 127.0.0.1 as oploop_test")
    assert app.config.base_url == f"postgresql://127.0.0.1:{db.cluster.port}/{db.name}"
    await app.aclose()
    await app.aclose()


async def test_calls_that_wait_for_one_connection_each_go_on_and_no_more_are_opened(db: Database) -> None:
    """Two syncs of a database deliver at once, and each begins to connect while its plan is written."""
    app = db.app()
    app.server.meanwhile(lambda: time.sleep(0.05))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: app.server._wait(), range(4)))
    for _ in range(3):
        app.prepare(writes=True)
        app.server._wait()
    assert len(app.server._idle) == 1
    await app.aclose()


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        (
            {"host": "no-such-host.invalid"},
            FixConfig,
            "dsn: there is no host 'no-such-host.invalid' — check the host in crm.dsn",
        ),
        ({"port": "closed"}, RetryLater, "cannot reach .*is it up"),
        ({"user": "nobody"}, FixConfig, "dsn: user 'nobody' is refused: wrong user or password"),
        ({"password": "wrong-Wort"}, FixConfig, "dsn: user 'oploop_test' is refused: wrong user or password"),
        ({"password": ""}, FixConfig, "dsn: user 'oploop_test' has no password"),
        ({"database": "t_none"}, FixConfig, "dsn: there is no database 't_none' at 127.0.0.1"),
    ],
)
async def test_a_wrong_dsn(cluster: Cluster, changed: dict[str, Any], kind: type[OploopError], says: str) -> None:
    if changed.get("port") == "closed":
        changed = {"port": free_port()}
    dsn = cluster.dsn(**{"database": "postgres"} | changed)
    app = app_of(dsn)
    with pytest.raises(kind, match=says) as e:
        await app.check()
    with pytest.raises(kind, match=says) as lazily:
        app.streams["public.accounts"]
    for said in (str(e.value), str(lazily.value)):
        assert PASSWORD not in said
        assert "wrong-Wort" not in said


def test_an_address_that_is_none(tmp_path: Path) -> None:
    for dsn in ("postgres://u:pa ss@h:1/d?x=y", "just s3cret words", "mysql://u:s3cret@h/d"):
        (tmp_path / "oploop.yml").write_text('name: acme\napps:\n  crm: {type: postgres, dsn: "${DSN}"}\n')
        block = load_project(tmp_path, {"DSN": dsn}).apps["crm"]
        with pytest.raises(FixConfig, match=r"crm\.dsn.* no address of a Postgres database") as e:
            make_app(block, Runtime())
        assert "s3cret" not in str(e.value)
        assert "pa ss" not in str(e.value)


def test_another_machine_is_spoken_to_encrypted_unless_told_otherwise() -> None:
    assert Server("crm", "postgres://u:p@db.example/d")._params["sslmode"] == "require"
    assert Server("crm", "postgres://u:p@db.example/d?sslmode=disable")._params["sslmode"] == "disable"
    assert "sslmode" not in Server("crm", "postgres://u:p@127.0.0.1/d")._params
    assert Server("crm", "host=/run/postgresql dbname=d").local


def test_the_types_page_needs_no_account(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["apps", "postgres"])
    assert left.value.code in (0, None)
    assert "PostgreSQL" in capsys.readouterr().out


def test_the_docs_name_every_key() -> None:
    keys = {f.alias or n for n, f in PostgresConfig.model_fields.items()} - {"base_url"}
    for key in keys:
        assert f"| `{key}` |" in PAGE
