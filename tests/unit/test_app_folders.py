"""What an app costs: its lines, as docs/adding-an-app.md has them, and no word of it outside its folder."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/oploop"
PAGE = (ROOT / "docs/adding-an-app.md").read_text(encoding="utf-8")
PACKAGE = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
APPS = sorted(
    re.findall(r"^(\w+) = ", PACKAGE.partition('entry-points."oploop.apps"]')[2].partition("[")[0], re.MULTILINE)
)
_SPACE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING
)  # fmt: skip
#: Where an app of ours is named on purpose.
ALLOWED = {
    "demo": "the made-up company uses Stripe, Zendesk and Segment",
    "cli/commands/demo.py": "runs it",
}


def files_of(app: str) -> list[Path]:
    """An app's files, without its sandbox."""
    folder = SOURCE / "apps" / app
    return sorted(f for f in folder.rglob("*.py") if not f.relative_to(folder).parts[0].startswith("sandbox"))


def code_lines(text: str) -> int:
    """Lines that are neither blank, nor a comment, nor a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SPACE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            said = node.body[0]
            lines -= set(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    return len(lines)


def declared_lines(app: str) -> int:
    """Lines of `app.toml` that are neither blank nor a comment."""
    path = SOURCE / "apps" / app / "app.toml"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


def test_code_lines_are_counted() -> None:
    text = '"""What."""\n\n# why\nx = """a\n\nb"""\ndef f():\n    "doc"\n    return 1\n'
    assert code_lines(text) == 5


def test_the_page_says_how_many_lines_each_app_has() -> None:
    table = PAGE.partition("## What an app costs")[2]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|$", table, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == APPS
    for name, *said in rows:
        texts = [f.read_text(encoding="utf-8") for f in files_of(name)]
        found = sum(len(t.splitlines()) for t in texts), sum(map(code_lines, texts)), declared_lines(name)
        for figure, count in zip(map(int, said), found, strict=True):
            assert abs(count - figure) <= count / 10, f"{name} has {found} lines"


def test_most_apps_keep_to_the_aim_and_of_each_other_the_page_says_why() -> None:
    table = PAGE.partition("## What an app costs")[2]
    small = [a for a, code in re.findall(r"^\| `(\w+)` \| \d+ \| (\d+) \|", table, re.MULTILINE) if int(code) < 400]
    assert len(small) > len(APPS) / 2
    assert f"under 400 lines of code; {len(small)} of {len(APPS)} keep to it" in table
    longer = re.findall(r"^- `(\w+)`: ", table.partition("What is longer, and why:")[2], re.MULTILINE)
    assert sorted([*small, *longer]) == APPS


@cache
def named_elsewhere() -> dict[str, list[str]]:
    """Where modules that are no app's import one, or compare a type or a name with one's: by the app."""
    found: dict[str, list[str]] = {app: [] for app in APPS}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if any(name.startswith(f"apps/{app}/") for app in APPS) or any(
            name == a or name.startswith(f"{a}/") for a in ALLOWED
        ):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for app in _apps_in(node):
                found[app].append(f"{name}:{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
    return found


def _apps_in(node: ast.AST) -> set[str]:
    """The apps that a statement imports, or that a comparison asks for."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        within = "" if isinstance(node, ast.Import) else f"{node.module}."
        modules = [f"{within}{a.name}" for a in node.names]
        return {m.split(".")[2] for m in modules if m.startswith("oploop.apps.") and m.split(".")[2] in APPS}
    if isinstance(node, ast.Compare):
        compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and c.value in APPS}
        return compared if compared and re.search(r"type|\.name\b", ast.unparse(node)) else set()
    return set()


@pytest.mark.parametrize("app", APPS)
def test_nothing_outside_an_apps_folder_knows_it(app: str) -> None:
    """So that another app needs no change there. Examples in help and messages may name one; kinds of warehouses, dialects and
    schemes of addresses are no apps."""
    assert named_elsewhere()[app] == []


def test_one_that_is_known_would_be_found() -> None:
    for text in ("import oploop.apps.stripe.client", "from oploop.apps import stripe", "x = app.type == 'stripe'"):
        assert any(_apps_in(node) == {"stripe"} for node in ast.walk(ast.parse(text))), text


def test_the_allowed_are_there_and_need_it() -> None:
    for name in ALLOWED:
        assert (SOURCE / name).exists()
        files = (SOURCE / name).rglob("*.py") if (SOURCE / name).is_dir() else [SOURCE / name]
        assert any(re.search(r"oploop\.apps\.(stripe|zendesk|segment)|oploop\.demo", f.read_text()) for f in files)
