"""The example package and what `oploop apps new` lays out: built, installed, found by oploop, before the suite."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from oploop.cli.group import cli

ROOT = Path(__file__).parents[2]


def call(*words: str, cwd: Path, site: Path | None = None) -> str:
    """Run a program; what it said, when it ended well."""
    env = {**os.environ, "PYTHONPATH": str(site) if site is not None else "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def oploop(*words: str, cwd: Path, site: Path | None = None) -> str:
    return call(sys.executable, "-m", "oploop", *words, cwd=cwd, site=site)


def installed(folder: Path, tmp_path: Path) -> Path:
    """A package as it is after its installation: its wheel, built as its pyproject.toml says, unpacked."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(folder, source, ignore=shutil.ignore_patterns("__pycache__"))
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=source)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


def passes_the_suite(folder: Path, site: Path, cwd: Path) -> None:
    tests = shutil.copytree(folder / "tests", cwd / "suite", ignore=shutil.ignore_patterns("__pycache__"))
    said = call(
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        str(tests),
        cwd=cwd,
        site=site,
    )
    assert " passed" in said
    assert "skipped" not in said


def test_the_bookshop_is_a_package_that_passes_the_suite(tmp_path: Path) -> None:
    folder = ROOT / "examples/bookshop"
    site = installed(folder, tmp_path)
    assert "write books" in oploop("apps", "bookshop", cwd=tmp_path, site=site)
    passes_the_suite(folder, site, tmp_path)


def test_what_is_laid_out_is_a_package_that_passes_the_suite(tmp_path: Path) -> None:
    said = oploop("apps", "new", "my_crm", cwd=tmp_path)
    folder = tmp_path / "oploop-my-crm"
    made = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert made == {
        "README.md", "pyproject.toml", "oploop_my_crm/__init__.py", "oploop_my_crm/app.toml", "oploop_my_crm/sandbox.py",
        "tests/test_my_crm.py",
    }  # fmt: skip
    assert all(name in said for name in made)
    assert re.findall(r"%\w+%", "".join((folder / n).read_text() for n in made)) == []
    for words in (["check"], ["format", "--check"]):
        call(sys.executable, "-m", "ruff", *words, "--no-cache", ".", cwd=folder)  # by its own settings
    assert (ROOT / "src/oploop/py.typed").exists(), "without it nobody's mypy looks at what an app is"
    site = installed(folder, tmp_path)
    assert "My Crm" in oploop("apps", "my_crm", cwd=tmp_path, site=site)
    passes_the_suite(folder, site, tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["new", "My-Crm"], "no name for an app"),
        (["new", "new"], "cannot be called 'new'"),
        (["new"], "new takes one name"),
        (["stripe", "zendesk"], "stripe has no stream or object 'zendesk'"),
        (["stripe", "charges", "refunds"], "unexpected extra argument"),
        (["new", "full"], "is there already, and not empty"),
    ],
)
def test_what_cannot_be_laid_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    (tmp_path / "oploop-full").mkdir()
    (tmp_path / "oploop-full/x").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as e:
        cli.main(["apps", *words])
    said = capsys.readouterr()
    assert (e.value.code, said.out) == (2, "")
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1
