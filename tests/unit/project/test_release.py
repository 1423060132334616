"""Which commit of the project a run is of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oploop.project.release import release_of


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@acme.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A project in a folder of a repository."""
    folder = tmp_path / "repo" / "acme"
    (folder / "syncs").mkdir(parents=True)
    (folder / "oploop.yml").write_text("name: acme\n")
    git(tmp_path / "repo", "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_and_whether_the_files_differ_from_it(acme: Path) -> None:
    head = git(acme, "rev-parse", "HEAD")
    assert release_of(acme) == head
    (acme / "warehouse.duckdb").write_text("not ours to look at")
    (acme.parent / "other").write_text("of another project")
    assert release_of(acme) == head
    (acme / "syncs" / "new.yml").write_text("model: x\n")
    assert release_of(acme) == f"{head}-dirty"
    git(acme, "add", ".")
    git(acme, "commit", "-qm", "second")
    assert release_of(acme) == git(acme, "rev-parse", "HEAD") != head
    (acme / "oploop.yml").write_text("name: other\n")
    assert release_of(acme) == git(acme, "rev-parse", "HEAD") + "-dirty"


def test_where_git_knows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert release_of(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert release_of(tmp_path) is None  # nothing was ever committed
    monkeypatch.setenv("PATH", "")
    assert release_of(tmp_path) is None
