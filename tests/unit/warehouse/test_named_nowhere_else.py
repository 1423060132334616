"""What engines do differently is declared by them: nothing outside `warehouse/` asks which of them it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src" / "oploop"
ENGINES = {"duckdb", "postgres", "postgresql", "snowflake", "bigquery", "databricks", "redshift"}
DRIVERS = {"duckdb", "psycopg", "adbc_driver_manager", "adbc_driver_postgresql", "sqlite3"}
#: Where a warehouse's name may stand, and why.
NAMED = {
    "records.py": "the dialect in which all SQL is written",
    "project/config.py": "the kinds that oploop.yml may name",
    "project/init.py": "the files of a new project",
    "state/__init__.py": "which of them hold the state",
}
#: What speaks to a database of its own; that of `formats` is in memory, and casts what files hold.
OWN = {"apps/formats.py", "state/postgres.py", "state/sqlite.py", "state/store.py"}
#: What all of `warehouse/` shares and others may import: the protocol, and expressions in the one dialect.
SHARED = {"oploop.warehouse.base", "oploop.warehouse.forms"}
FILES = sorted(
    p
    for p in SOURCE.rglob("*.py")
    if p.relative_to(SOURCE).parts[0] not in ("warehouse", "apps") or p.parent.name == "apps"
)


def told(path: Path) -> Iterator[str]:
    """What a file says of an engine."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in ENGINES:
            yield f"line {node.lineno} names {node.value}"
        if isinstance(node, ast.Attribute) and node.attr.lower() in ENGINES:
            yield f"line {node.lineno} names {node.attr}"


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module.split(".")[0] in DRIVERS or (module.startswith("oploop.warehouse.") and module not in SHARED):
                yield f"line {node.lineno} imports {module}"  # type: ignore[attr-defined]


def test_a_module_outside_names_no_engine_and_imports_no_driver() -> None:
    names = {str(p.relative_to(SOURCE)): p for p in FILES}
    assert {n: found for n, p in names.items() if n not in NAMED and (found := list(told(p)))} == {}
    assert {n: found for n, p in names.items() if n not in OWN and (found := list(imported(p)))} == {}


def test_what_may_name_one_does() -> None:
    """Nothing stands in the lists above for no reason."""
    assert [n for n in NAMED if not list(told(SOURCE / n))] == []
    assert [n for n in OWN if not list(imported(SOURCE / n))] == []
