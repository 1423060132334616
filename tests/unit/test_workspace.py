"""A project opened for a command: what a word selects, who may deliver, what is opened and let go of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.errors import FixConfig, Place
from oploop.project import Project, Sync, load_project
from oploop.runtime import Runtime
from oploop.selection import Selection, matches
from oploop.stages.streams import stream_requests
from oploop.state import StateReader
from oploop.storage import WAREHOUSE_LEASE
from oploop.workspace import Workspace

PROJECT = """\
name: acme
warehouse: {type: duckdb, database: warehouse.duckdb}
models: {engine: none}
apps:
  zendesk: {subdomain: acme, email: ops@acme.example, api_token: "${TOKEN}", base_url: "%s", read: %s}
environments: {prod: {}, staging: {}}
"""
SYNC = "model: mart.%s\nto: zendesk.%s\nmode: update\nkey: {id: id}\nfields: [%s]\n%s"


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    def make(base_url: str = "http://127.0.0.1:9", read: str = "[]", **syncs: str) -> Project:
        (tmp_path / "oploop.yml").write_text(PROJECT % (base_url, read))
        (tmp_path / "syncs").mkdir(exist_ok=True)
        for name, text in syncs.items():
            (tmp_path / "syncs" / f"{name}.yml").write_text(text)
        return load_project(tmp_path, {"TOKEN": "hunter2"})

    return make


def sync(
    name: str, *, model: str = "mart.a", tags: Sequence[str] = (), enabled: bool = True, app: str = "zendesk"
) -> Sync:
    return Sync(name, model, app, "tickets", {"id": "id"}, (), Place("x"), tags=tuple(tags), enabled=enabled)


class Holder:
    """All that Selection needs of a project."""

    def __init__(self, *syncs: Sync) -> None:
        self.syncs = {s.name: s for s in syncs}

    def pick(self, *select: str, exclude: Sequence[str] = ()) -> list[str]:
        held: Any = self
        return [s.name for s in Selection(select, tuple(exclude)).pick(held, lambda: PARENTS)]


#: staging.x is made of a raw table, mart.a of it, mart.b of mart.a.
PARENTS = {"staging.x": ["raw_zendesk.tickets"], "mart.a": ["staging.x"], "mart.b": ["mart.a"], "mart.c": []}
ALL = Holder(
    sync("beta", tags=["vip"]),
    sync("alpha", model="mart.b", tags=["vip", "new"]),
    sync("gamma", app="stripe"),
    sync("off", enabled=False, tags=["old"]),
)


@pytest.mark.parametrize(
    ("select", "exclude", "names"),
    [
        ([], [], ["alpha", "beta", "gamma"]),
        (["beta"], [], ["beta"]),
        (["*a"], [], ["alpha", "beta", "gamma"]),
        (["tag:vip"], [], ["alpha", "beta"]),
        (["tag:vip", "beta", "gamma"], [], ["alpha", "beta", "gamma"]),
        (["app:stripe"], [], ["gamma"]),
        (["model:mart.b"], [], ["alpha"]),
        (["mart.b+"], [], ["alpha"]),
        (["mart.a+"], ["gamma"], ["alpha", "beta"]),
        (["staging.x+"], ["mart.b+"], ["beta", "gamma"]),
        (["raw_zendesk.tickets+"], ["mart.a+"], []),
        (["+mart.b"], ["app:stripe"], ["alpha", "beta"]),
        (["+mart.a"], [], ["beta", "gamma"]),
        (["+alpha"], ["gamma"], ["alpha", "beta"]),
        (["+beta"], [], ["beta"]),
        (["+mart.a+"], [], ["alpha", "beta", "gamma"]),
        (["alpha+"], [], ["alpha"]),
        (["mart.*+"], ["gamma"], ["alpha", "beta"]),
        ([], ["tag:vip"], ["gamma"]),
        (["off"], [], ["off"]),
        (["off+", "app:stripe"], [], ["gamma", "off"]),
        ([], ["*"], []),
    ],
)
def test_words_select_syncs(select: list[str], exclude: list[str], names: list[str]) -> None:
    assert ALL.pick(*select, exclude=exclude) == names


@pytest.mark.parametrize("word", ["betta", "tag:nope", "app:hubspot", "mart.z+", "mart.c+", "+staging.x", "+", "Beta"])
def test_a_word_that_selects_nothing_is_a_mistake(word: str) -> None:
    with pytest.raises(FixConfig, match="selects no sync"):
        ALL.pick(word)
    with pytest.raises(FixConfig, match="did you mean 'beta'"):
        ALL.pick("betta")


def test_what_is_not_enabled_is_selected_by_name_alone() -> None:
    with pytest.raises(FixConfig, match="selects only what is not enabled: off") as told:
        ALL.pick("tag:old")
    assert told.value.mend == "select it by name: --select off"
    held: Any = ALL
    assert [s.name for s in Selection(("tag:old",), off=True).pick(held)] == ["off"]


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,5}", fullmatch=True)


@given(NAMES, NAMES)
@settings(database=None, derandomize=True)
def test_a_syncs_name_selects_it_alone(one: str, other: str) -> None:
    assert matches(sync(one), one)
    assert matches(sync(one), other) == (one == other)


def test_an_unknown_environment_has_a_nearest_one(project: Callable[..., Project]) -> None:
    with pytest.raises(FixConfig, match="did you mean 'staging'"):
        Workspace(project(), "stagin", Runtime())
    for known in ("dev", "prod", "staging"):
        Workspace(project(), known, Runtime())


@pytest.mark.parametrize(
    ("base_url", "env", "delivers"),
    [
        ("http://127.0.0.1:9", "dev", True),
        ("http://localhost:9", "staging", True),
        ("https://acme.zendesk.com", "dev", False),
        ("https://acme.zendesk.com", "staging", False),
        ("https://127.0.0.1.evil.example", "dev", False),
        ("https://acme.zendesk.com", "prod", True),
    ],
)
async def test_only_prod_delivers_to_what_is_not_on_this_machine(
    project: Callable[..., Project], base_url: str, env: str, delivers: bool
) -> None:
    async with Workspace(project(base_url), env, Runtime()) as ws:
        assert ws.delivers("zendesk") is delivers


async def test_the_warehouse_is_held_while_it_is_open_and_let_go_of(
    project: Callable[..., Project], tmp_path: Path
) -> None:
    async with Workspace(project(), "prod", Runtime(), "oploop run") as ws:
        assert not (tmp_path / "warehouse.duckdb").exists()  # opened when it is first needed
        assert ws.warehouse is ws.warehouse
        assert "oploop.changes" in ws.warehouse.tables()
        lease = ws.store.lease(WAREHOUSE_LEASE)
        assert lease is not None
        assert lease.command == "oploop run"
        await ws.aclose()
    reader = StateReader(tmp_path / ".oploop")
    assert reader.lease(WAREHOUSE_LEASE) is None
    reader.close()
    async with Workspace(project(), "prod", Runtime(), read_only=True) as ws:
        assert ws.warehouse.read_only
        with pytest.raises(AssertionError):
            _ = ws.store


async def test_a_read_only_workspace_makes_nothing(project: Callable[..., Project], tmp_path: Path) -> None:
    async with Workspace(project(), "prod", Runtime(), read_only=True) as ws:
        assert ws.state.runs() == []
        with pytest.raises(FixConfig):
            _ = ws.warehouse
    assert sorted(p.name for p in tmp_path.iterdir()) == ["oploop.yml", "syncs"]


async def test_apps_are_made_once_and_unknown_streams_and_objects_are_named(project: Callable[..., Project]) -> None:
    made = project(read="[tickts]", a=SYNC % ("a", "tikets", "priority", ""))
    async with Workspace(made, "prod", Runtime()) as ws:
        assert ws.app("zendesk") is ws.app("zendesk")
        with pytest.raises(FixConfig, match="no stream 'tickts' — did you mean 'tickets'") as e:
            stream_requests(ws, [])
        assert e.value.place is not None
        with pytest.raises(FixConfig, match="no object 'tikets' — did you mean 'tickets'") as e:
            ws.target(made.syncs["a"])
        assert e.value.place == Place("syncs/a.yml", 2, e.value.place.column if e.value.place else None)


async def test_a_syncs_target_is_read_without_being_asked_for(project: Callable[..., Project]) -> None:
    made = project(read="{users: {since: 2025-01-01, exclude: [phone]}}", a=SYNC % ("a", "tickets", "priority", ""))
    async with Workspace(made, "prod", Runtime()) as ws:
        alone = {r.stream.name: r.options for r in stream_requests(ws, [])}
        assert (set(alone), alone["users"].exclude) == ({"users"}, {"phone"})
        assert alone["users"].since is not None
        both = {r.stream.name: r for r in stream_requests(ws, list(made.syncs.values()), full=True)}
        assert set(both) == {"users", "tickets"}
        assert both["tickets"].full
