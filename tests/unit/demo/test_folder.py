from __future__ import annotations

from pathlib import Path

import pytest

from oploop.demo import folder as folders
from oploop.errors import FixConfig
from oploop.project import load_project

URLS = {app: f"http://127.0.0.1:{port}" for app, port in (("stripe", 9001), ("zendesk", 9002), ("segment", 9003))}


def made(at: Path) -> Path:
    folders.check(at)
    folders.clear(at)
    folders.make(at, URLS)
    return at


def test_a_demo_that_was_interrupted_early_can_be_begun_again(tmp_path: Path) -> None:
    (tmp_path / "acme" / ".oploop" / "sandboxes").mkdir(parents=True)
    assert folders.is_demo(made(tmp_path / "acme"))


def test_the_folder_is_a_whole_project(tmp_path: Path) -> None:
    folder = made(tmp_path / "acme")
    project = load_project(folder)
    assert not project.warnings
    assert {s.name: s.enabled for s in project.syncs.values()} == {"ticket_priority": True, "customer_health": False}
    assert folders.ports(folder) == {"stripe": 9001, "zendesk": 9002, "segment": 9003}
    assert "__" not in (folder / "oploop.yml").read_text()
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    assert (folder / ".oploop").stat().st_mode & 0o777 == 0o700


def test_it_is_made_again_over_itself(tmp_path: Path) -> None:
    folder = made(tmp_path / "acme")
    (folder / "warehouse.duckdb").write_bytes(b"old")
    (folder / "segment-logs" / "a").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    made(folder)
    assert not (folder / "warehouse.duckdb").exists()
    assert not (folder / "segment-logs").exists()
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["models/mart/ticket_priority.sql", "syncs/mine.yml", "oploop.yml"])
def test_it_is_never_made_over_changes(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path / "acme")
    (folder / name).write_text("changed")
    with pytest.raises(FixConfig, match=rf"changes of your own \({name}\).*--serve"):
        folders.check(folder)
    (folder / name).unlink()
    if name != "syncs/mine.yml":
        with pytest.raises(FixConfig, match=f"changes of your own \\({name}\\)"):
            folders.check(folder)


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(FixConfig, match=r"not empty.*--folder"):
        folders.check(tmp_path)
    with pytest.raises(FixConfig, match="is no folder"):
        folders.check(tmp_path / "thesis.tex")
    with pytest.raises(FixConfig, match="no demo's folder"):
        folders.ports(tmp_path)
