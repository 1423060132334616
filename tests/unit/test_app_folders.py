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


def test_code_lines_are_counted() -> None:
    text = '"""What."""\n\n# why\nx = """a\n\nb"""\ndef f():\n    "doc"\n    return 1\n'
    assert code_lines(text) == 5


def test_the_page_says_how_many_lines_each_app_has() -> None:
    table = PAGE.partition("## What an app costs")[2]
    said = {n: (int(a), int(c)) for n, a, c in re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|$", table, re.MULTILINE)}
    assert sorted(said) == APPS
    for name, (lines, code) in said.items():
        texts = [f.read_text(encoding="utf-8") for f in files_of(name)]
        found = sum(len(t.splitlines()) for t in texts), sum(map(code_lines, texts))
        assert abs(found[0] - lines) <= found[0] / 10, f"{name} has {found} lines"
        assert abs(found[1] - code) <= found[1] / 10, f"{name} has {found} lines"


@cache
def others() -> list[tuple[str, ast.Module]]:
    """The modules that are no app's: their paths, parsed."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        of_an_app = any(name.startswith(f"apps/{app}/") for app in APPS)
        if not of_an_app and not any(name == a or name.startswith(f"{a}/") for a in ALLOWED):
            found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


@pytest.mark.parametrize("app", APPS)
def test_nothing_outside_an_apps_folder_knows_it(app: str) -> None:
    """No import of it, and no value that is its name: so that another app needs no change there. Examples in help and
    messages may name one; kinds of warehouses, dialects and schemes of addresses are no apps."""
    module = f"oploop.apps.{app}"
    for name, tree in others():
        for node in ast.walk(tree):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(n == module or n.startswith(f"{module}.") for n in named), f"{name}:{node.lineno}"
            if isinstance(node, ast.Compare):
                compared = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant)]
                is_a_type = "type" in ast.unparse(node) or ".name" in ast.unparse(node)
                assert not (app in compared and is_a_type), f"{name}:{node.lineno}: {ast.unparse(node)}"


def test_the_allowed_are_there_and_need_it() -> None:
    for name in ALLOWED:
        assert (SOURCE / name).exists()
        files = (SOURCE / name).rglob("*.py") if (SOURCE / name).is_dir() else [SOURCE / name]
        assert any(re.search(r"oploop\.apps\.(stripe|zendesk|segment)|oploop\.demo", f.read_text()) for f in files)
