"""Apps by name: ours come through the same door as anyone else's."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from oploop.apps import registry
from oploop.apps.base import Account, App, AppConfig
from oploop.apps.sandbox import Sandbox
from oploop.errors import FixConfig
from oploop.project import load_project
from oploop.runtime import Runtime

SECRET = "hunter2hunter2"


class OutsideConfig(AppConfig):
    token: SecretStr
    region: str = "eu"


class OutsideApp(App):
    """What an outside developer writes."""

    type = "outside"
    title = "Outside"
    Config = OutsideConfig

    async def check(self) -> Account:
        return Account("outside")

    def read(self, stream: str, cursor: Any, options: Any) -> Any: ...


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.installed

    def more(group: str) -> dict[str, EntryPoint]:
        mine = {"outside": "OutsideApp"} if group == registry.GROUP else {}
        named = {**mine, "broken": "NotThere"}
        outside = {name: EntryPoint(name, f"{__name__}:{value}", group) for name, value in named.items()}
        return {**real(group), **outside, "ours": EntryPoint("ours", "oploop.apps.stripe:NotThere", group)}

    monkeypatch.setattr(registry, "installed", more)


def make(folder: Path, block: str, env: dict[str, str] | None = None) -> App:
    (folder / "oploop.yml").write_text(
        f"name: acme\nwarehouse: {{type: duckdb, database: w.duckdb}}\nmodels: {{engine: none}}\napps:\n  crm: {block}\n"
    )
    project = load_project(folder, env or {"TOKEN": SECRET})
    return registry.make_app(project.apps["crm"], Runtime())


def test_ours_and_others_are_known() -> None:
    assert {"stripe", "zendesk", "segment", "outside"} <= registry.known_types().keys()
    assert issubclass(registry.app_class("stripe"), App)
    assert registry.app_class("outside").__name__ == "OutsideApp"
    for name in ("stripe", "zendesk", "segment"):
        assert issubclass(registry.sandbox_class(name), Sandbox)
        assert registry.app_class(name).type == name


@pytest.mark.parametrize(
    ("find", "says"), [(registry.app_class, "no app of type"), (registry.sandbox_class, "no sandbox for")]
)
def test_an_unknown_type_has_a_nearest_one(find: Any, says: str) -> None:
    with pytest.raises(FixConfig, match=f"{says} 'zendsk' — did you mean 'zendesk'"):
        find("zendsk")


@pytest.mark.parametrize("find", [registry.app_class, registry.sandbox_class])
def test_a_package_of_others_that_cannot_be_loaded_is_no_defect_of_ours(find: Any) -> None:
    with pytest.raises(
        FixConfig, match=r"the app 'broken', .*:NotThere, cannot be loaded: AttributeError: .*uninstall it"
    ):
        find("broken")
    with pytest.raises(AttributeError):
        find("ours")


def test_an_app_is_made_from_its_block(tmp_path: Path) -> None:
    app = make(tmp_path, "{type: outside, token: '${TOKEN}'}")
    assert (app.name, app.type, app.config.token.get_secret_value(), app.config.region) == (
        "crm",
        "outside",
        SECRET,
        "eu",
    )
    assert SECRET not in repr(app.config)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("{type: outsid, token: '${TOKEN}'}", "did you mean 'outside'"),
        ("{type: outside, token: '${TOKEN}', regoin: us}", "regoin"),
        ("{type: outside}", "token"),
        ("{type: outside, token: '${TOKEN}', base_url: ''}", "base_url is empty"),
    ],
)
def test_a_wrong_block_is_named_with_its_line_and_without_its_secrets(tmp_path: Path, block: str, says: str) -> None:
    with pytest.raises(FixConfig, match=says) as e:
        make(tmp_path, block)
    assert str(e.value).startswith("oploop.yml:5: ")
    assert SECRET not in str(e.value)
    assert "\n" not in str(e.value)
