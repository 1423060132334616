"""The documents are true where that can be told: links, commands, columns, and the example app, which is run as it is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import psycopg
import pytest

from oploop import loop
from oploop.activate import ledger
from oploop.activate.bind import NOT_YET
from oploop.apps.registry import sandbox_class
from oploop.apps.sandbox import Fault
from oploop.cli.group import cli
from oploop.errors import FixConfig
from oploop.extract.cursors import ensure_table
from oploop.loop import Options
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.warehouse import open_warehouse
from oploop.warehouse.postgres import open_postgres
from oploop.workspace import Workspace
from tests.postgres import Cluster

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")])
names = [p.relative_to(ROOT).as_posix() for p in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=names)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[str]:
    return re.findall(r"(?ms)^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", t).lower()).replace(" ", "-") for t in titles}


def printed_commands() -> list[tuple[str, str]]:
    """(page, command line) of each `$ oploop ...` in the documents, and of each bare `oploop ...` line that is no usage."""
    found = []
    for page, name in zip(PAGES, names, strict=True):
        for block in blocks(page):
            lines = re.findall(r"(?m)^(?:\$ )?(oploop .*)$", block)
            found += [(name, line) for line in lines if "[OPTIONS]" not in line and not line.startswith("oploop -")]
    return found


# -- links and commands --------------------------------------------------------------------------------------------------


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@every_page
def test_every_document_is_reached_from_the_index(page: Path) -> None:
    index = ROOT / "docs/README.md"
    reached = {
        (index.parent / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    reached |= {index, ROOT / "CHANGELOG.md", *(ROOT / "docs/commands").glob("*.md")}
    assert page in reached


def test_there_are_commands_to_look_at() -> None:
    assert len(printed_commands()) > 40


@pytest.mark.parametrize(("page", "line"), [pytest.param(p, c, id=f"{p}: {c}"[:90]) for p, c in printed_commands()])
def test_printed_command_lines_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    words = words[: words.index("&")] if "&" in words else words
    context = click.Context(cli, info_name="oploop", **cli.context_settings)
    command = cli.get_command(context, words[0])
    assert command is not None, words[0]
    command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", "docs/how-a-sync-works.md", "docs/README.md"])
def test_commands_named_in_prose_exist(name: str) -> None:
    context = click.Context(cli, **cli.context_settings)
    named = set(re.findall(r"`oploop (\w+)", prose(ROOT / name)))
    assert {n for n in named if cli.get_command(context, n) is None} == set()


def test_each_installed_app_of_ours_has_its_page() -> None:
    ours = {e.name for e in entry_points(group="oploop.apps") if e.value.startswith("oploop.")}
    assert ours
    assert ours == {p.stem for p in (ROOT / "docs/apps").glob("*.md")}


def test_no_document_names_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|home|root|tmp)/", page.read_text(encoding="utf-8")), page


# -- the ledger ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[object]:
    opened = open_warehouse(tmp_path / "w.duckdb", read_only=False, runtime=Runtime())
    ledger.ensure(opened)
    ensure_table(opened)
    yield opened
    opened.close()


def test_the_ledgers_columns_are_those_of_the_page(warehouse: object) -> None:
    page = (ROOT / "docs/ledger.md").read_text(encoding="utf-8")
    told = {}
    for part in page.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        if title.startswith("oploop."):
            told[title] = re.findall(r"(?m)^\| `(\w+)` \|", body)
    assert told.keys() >= {f"oploop.{t}" for t in ("changes", "held", "parked", "runs", "sync_runs", "records")}
    assert told == {title: list(warehouse.columns(title)) for title in told}  # type: ignore[attr-defined]
    there = warehouse.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'oploop'")  # type: ignore[attr-defined]
    own = re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\|([^|]+)\|", page.partition("oploop's own\n")[2])))
    assert {n for (n,) in there} - {"held_log"} == {title.removeprefix("oploop.") for title in told} | set(own)


def test_the_ledgers_questions_can_be_asked(warehouse: object) -> None:
    asked = re.findall(r"(?ms)^```sql\n(.*?)^```", (ROOT / "docs/ledger.md").read_text(encoding="utf-8"))
    assert len(asked) >= 5
    for question in asked:
        for statement in filter(str.strip, question.split(";")):
            warehouse.rows(statement)  # type: ignore[attr-defined]


def test_the_ledgers_questions_are_postgres_too(cluster: Cluster) -> None:
    dsn = cluster.made("ledger_page")
    opened = open_postgres(dsn, read_only=False)
    ledger.ensure(opened)
    opened.close()
    asked = re.findall(r"(?ms)^```sql\n(.*?)^```", (ROOT / "docs/ledger.md").read_text(encoding="utf-8"))
    with psycopg.connect(dsn) as connection:  # as they stand, which oploop's own session would translate
        for question in asked:
            for statement in filter(str.strip, question.split(";")):
                connection.execute(statement.encode())


# -- the tutorial --------------------------------------------------------------------------------------------------------


def test_the_tutorials_files_make_a_project(tmp_path: Path) -> None:
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    written = re.findall(r"(?ms)^cat (>>?) (\S+) <<'EOF'\n(.*?)^EOF$", text)
    assert len(written) >= 7
    for how, name, content in written:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("a" if how == ">>" else "w", encoding="utf-8") as out:
            out.write(content)
    project = load_project(tmp_path, {})
    assert project.warnings == []
    [sync] = project.syncs.values()
    assert sync.explain == ("customer", "spend")
    assert len(sync.checks) == 1


# -- the example app -----------------------------------------------------------------------------------------------------

BLOCKS = re.compile(r"(?ms)^```(?:python|toml)\n# (\S+\.py|\S+/app\.toml)\n(.*?)^```")
PROJECT = "name: shop\nmodels: {engine: none}\napps:\n  bookshop: {base_url: '${URL}', token: '${TOKEN}'}\n"
SYNC = "model: main.shelves\nto: bookshop.books\nmode: update\nkey: {id: book}\nfields: [shelf]\n"


@pytest.fixture
def bookshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's package, installed as far as Python is concerned; a project that uses it."""
    site, page = tmp_path / "site", (ROOT / "docs/adding-an-app.md").read_text(encoding="utf-8")
    for name, code in BLOCKS.findall(page):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(code, encoding="utf-8")
    info = site / "oploop_bookshop-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oploop-bookshop\nVersion: 0.1.0\n")
    groups = re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "(\S+)"', page)
    (info / "entry_points.txt").write_text("".join(f"[{g}]\n{n} = {v}\n" for g, n, v in groups))
    monkeypatch.syspath_prepend(str(site))
    project = tmp_path / "shop"
    (project / "syncs").mkdir(parents=True)
    (project / "oploop.yml").write_text(PROJECT)
    (project / "syncs/shelves.yml").write_text(SYNC)
    return project


def opened(folder: Path, url: str, token: str = "book_test") -> Workspace:
    return Workspace(load_project(folder, {"URL": url, "TOKEN": token}), "prod", Runtime(), "test")


async def turn(folder: Path, url: str, model: str | None = None) -> loop.RunReport:
    async with opened(folder, url) as ws:
        if model is not None:
            ws.warehouse.execute(f"CREATE OR REPLACE TABLE main.shelves AS {model}")
        return await loop.run(ws, Options(yes=True))


async def test_the_example_app_turns_the_loop(bookshop: Path) -> None:
    sandbox = sandbox_class("bookshop")()
    shelves = "SELECT i AS book, CASE WHEN i % 2 = 0 THEN 'front' ELSE 'back' END AS shelf FROM range(1, 251) t(i)"
    with sandbox.running() as url:
        sandbox.load("books", [{"id": i, "title": f"Book {i}"} for i in range(1, 251)])
        sandbox.faults.append(Fault("PUT /books/7$", "lose"))
        first = await turn(bookshop, url, shelves)
        assert first.status == "ok", first.as_json()
        assert first.extracted[0].rows == 250
        assert first.syncs[0].delivery is not None
        assert first.syncs[0].delivery.delivered == 250
        assert first.syncs[0].read_back is not None
        assert first.syncs[0].read_back.counts == {"confirmed": 250}
        assert {b["shelf"] for b in sandbox.dump("books") if b["id"] % 2} == {"back"}

        sandbox.put(3, {"shelf": "cellar"})  # somebody carries it downstairs
        sandbox.put(4, {"deleted": True})
        second = await turn(bookshop, url)
        assert second.verified[0].counts == {"confirmed": 248, "drifted": 1, "gone": 1}
        assert second.syncs[0].plan is not None
        assert second.syncs[0].plan.diff.counts == {"kept": 1, "gone": 1}


async def test_the_example_app_names_the_wrong_credential(bookshop: Path) -> None:
    with sandbox_class("bookshop")().running() as url:
        async with opened(bookshop, url, token="nobody's") as ws:
            with pytest.raises(FixConfig, match="token"):
                await ws.app("bookshop").check()


def test_the_example_app_is_the_one_in_examples() -> None:
    """Whose tests, built and installed, run in tests/examples."""
    page = (ROOT / "docs/adding-an-app.md").read_text(encoding="utf-8")
    blocks = BLOCKS.findall(page)
    assert len(blocks) == 4
    for name, code in blocks:
        path = ROOT / "examples/bookshop" / (name if "/" in name else f"tests/{name}")
        assert path.read_text(encoding="utf-8") == code, path
    announced = re.findall(r"(?m)^\[project\.entry-points.*\n.*", page)
    package = (ROOT / "examples/bookshop/pyproject.toml").read_text(encoding="utf-8")
    assert len(announced) == 2
    assert all(lines in package for lines in announced)


def test_keys_that_nothing_acts_on_are_marked() -> None:
    """What `bind` refuses today carries the mark in the page of keys, and nothing else of a sync does."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    table = page.split("## syncs/*.yml")[1].split("### fields")[0]
    assert set(re.findall(r"(?m)^\| `(\w+)` † \|", table)) == set(NOT_YET)
