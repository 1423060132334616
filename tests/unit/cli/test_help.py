"""The list of commands, their help, and that help costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oploop.cli.group import GROUPS
from oploop.cli.reference import commands, pages
from tests.unit.cli.support import run

DOCS = Path(__file__).parents[3] / "docs" / "commands"
NAMES = sorted(commands())


def test_the_list_says_what_the_commands_say_of_themselves() -> None:
    listed = {name: text for group in GROUPS.values() for name, text in group.items()}
    assert listed == {name: command.short_help for name, command in commands().items()}


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.code == 0
    assert all(f"  {name} " in done.out for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_and_json(name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert "Example:" in done.out
    assert f"  oploop {name}" in done.out
    for option in ("--output", "--project", "--debug", "--quiet"):
        assert option in done.out


def test_help_loads_nothing_but_click() -> None:
    heavy = (
        "rich",
        "pydantic",
        "duckdb",
        "pyarrow",
        "aiohttp",
        "orjson",
        "sqlmesh",
        "dlt",
        "asyncio",
        "oploop.project",
    )
    code = (
        "import sys\nfrom oploop.cli.group import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage: oploop" in done.stdout
    assert done.stderr.strip() == "[]"


def test_every_command_has_a_page_and_its_table_is_the_helps() -> None:
    stale = [path.name for path, wanted in pages(DOCS).items() if path.read_text(encoding="utf-8") != wanted]
    assert stale == [], "run: python -m oploop.cli.reference docs/commands"


def test_there_is_no_page_of_a_command_that_is_not_there() -> None:
    assert sorted(p.stem for p in DOCS.glob("*.md") if p.name != "README.md") == NAMES
