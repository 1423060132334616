"""Models: SQL in git, built in the warehouse by an engine behind the Modeler protocol.

This module loads no engine; `make_modeler` does, as it takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from oploop.errors import Place
from oploop.model.base import Modeler, Names, environment_table
from oploop.model.places import place_of
from oploop.project import ModelsBlock
from oploop.records import DIALECT
from oploop.runtime import Runtime
from oploop.warehouse.base import Warehouse

#: `MODEL ( name mart.account_health, ...` as SQLMesh has it; comments before the name are allowed.
_NAME = re.compile(r"\bMODEL\s*\((?:\s|--[^\n]*\n|/\*.*?\*/)*name\s+([A-Za-z_][\w.]*)", re.IGNORECASE | re.DOTALL)


#: `@field(zendesk.tickets, 'Account spend')`: a custom field's present value, by its title.
FIELD_USE = re.compile(r"@field\s*\(\s*([A-Za-z_][\w.]*)\s*,\s*'((?:[^']|'')*)'\s*\)", re.IGNORECASE)


def named_fields(root: Path, shown_from: Path) -> dict[tuple[str, str], Place | None]:
    """The custom fields that models name by `@field`, (`app.object`, title), and where each is named first."""
    found: dict[tuple[str, str], Place | None] = {}
    for path in model_names(root).values():
        text = path.read_text(encoding="utf-8")
        for use in FIELD_USE.finditer(text):
            line = text.count("\n", 0, use.start()) + 1
            found.setdefault((use[1], use[2].replace("''", "'")), place_of(path, shown_from, line))
    return found


def model_names(root: Path) -> dict[str, Path]:
    """Models by the names that their files in `models/` declare, without starting an engine; unreadable files are left out."""
    found = {}
    for path in sorted(p for p in (root / "models").rglob("*.sql") if p.is_file()):
        try:
            match = _NAME.search(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
        if match:
            found[match.group(1)] = path
    return found


def declared_columns(path: Path) -> list[str] | None:
    """The columns that a SQLMesh model's file selects, by its text alone; None where that cannot be told (`*`, macros)."""
    import sqlglot
    from sqlglot import expressions as exp

    text = path.read_text(encoding="utf-8")
    found = re.search(r"\bMODEL\s*\(", text, re.IGNORECASE)
    if found is None:
        return None
    try:
        statements = sqlglot.parse(text[_closing(text, found.end()) :].lstrip(" \n;"), dialect=DIALECT)
    except sqlglot.errors.SqlglotError:
        return None
    queries = [s for s in statements if isinstance(s, exp.Query)]
    names = queries[-1].named_selects if queries else ["*"]
    return None if not all(names) or "*" in names else list(names)


def _closing(text: str, start: int) -> int:
    """The position after the parenthesis that closes the one before `start`; quoted text and comments do not count."""
    depth = 1
    for token in re.finditer(r"'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|[()]", text[start:], re.DOTALL):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        if depth == 0:
            return start + token.end()
    return len(text)


def make_names(block: ModelsBlock, environment: str, root: Path, state_dir: Path) -> Names:
    """What is told of the models of an environment without building any. `root`: the project's folder."""
    match str(block.engine):
        case "sqlmesh":
            return SqlmeshNames(block.path, environment)
        case "dbt":
            from oploop.model.dbt_names import DbtNames
            from oploop.model.dbt_process import Dbt

            return DbtNames(Dbt(block, environment, root, state_dir))
        case _:
            from oploop.model.none import NoNames

            return NoNames()


@dataclass(frozen=True, slots=True)
class SqlmeshNames:
    """SQLMesh's models as their files alone tell; see `Names`."""

    folder: Path
    environment: str

    def files(self) -> Mapping[str, Path]:
        return model_names(self.folder)

    def table(self, model: str) -> str:
        return environment_table(model, self.environment)

    def declared(self, model: str) -> list[str] | None:
        file = self.files().get(model)
        return declared_columns(file) if file is not None else None


def make_modeler(
    block: ModelsBlock,
    names: Names,
    warehouse: Warehouse,
    runtime: Runtime,
    *,
    field_sql: Callable[[str, str], str] | None = None,
) -> Modeler:
    """The project's modelling engine, over its open warehouse. `field_sql`: what `@field(app.object, title)` stands for."""
    match str(block.engine):
        case "dbt":
            from oploop.model.dbt import DbtModeler
            from oploop.model.dbt_names import DbtNames

            assert isinstance(names, DbtNames)
            return DbtModeler(names.dbt, warehouse)
        case "sqlmesh":
            from oploop.model.sqlmesh import SqlmeshModeler

            return SqlmeshModeler(block.path, warehouse, runtime, field_sql=field_sql)
        case _:
            from oploop.model.none import NoModeler

            return NoModeler()
