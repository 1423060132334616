"""`@field(zendesk.tickets, 'Account spend')` in a model: a custom field's present value, by its title.

A macro of SQLMesh is stored with the model by its import path, so what it resolves titles with stands in this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlglot import exp, parse_one
from sqlmesh import macro

from oploop.errors import FixConfig
from oploop.model import FIELD_USE

#: From `app.object` and a title to an SQL expression over the raw table's columns.
FieldSql = Callable[[str, str], str]

_resolvers: list[FieldSql] = []


def resolve_with(field_sql: FieldSql | None) -> None:
    """Set what titles are resolved with; None: `@field` is refused."""
    _resolvers[:] = [] if field_sql is None else [field_sql]


def resolved(sql: str) -> dict[str, str]:
    """What each `@field(...)` of a query stands for now: part of the model's fingerprint, as its text does not change
    when the field behind a title does."""
    return {f"{obj}:{title}": _resolve(obj, title.replace("''", "'")) for obj, title in FIELD_USE.findall(sql)}


def _resolve(app_object: str, title: str) -> str:
    if not _resolvers:
        raise FixConfig(f"@field({app_object}, '{title}') cannot be resolved here", mend="name the raw column instead")
    return _resolvers[0](app_object, title)


def field(evaluator: Any, app_object: Any, title: Any) -> Any:
    """The macro. `app_object` comes as the column expression `app.object`, `title` as a literal."""
    name = app_object.sql() if isinstance(app_object, exp.Expression) else str(app_object)
    name = name.replace('"', "")
    text = title.name if isinstance(title, exp.Expression) else str(title)
    return parse_one(f"({_resolve(name, text)})", dialect=evaluator.dialect)


macro()(field)
