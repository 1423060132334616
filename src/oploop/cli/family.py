"""Models, columns and syncs as a family tree, for `oploop lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oploop.errors import FixConfig, did_you_mean
from oploop.records import DIALECT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oploop.model.base import ColumnSource, ModelInfo
    from oploop.project import FieldMapping, Sync
    from oploop.workspace import Workspace


def ancestry(ws: Workspace, name: str) -> dict[str, Any]:
    """{"name", "kind", "upstream": [tree], "used_by": [...]}; a tree is {"name", "from": [trees], "note"?}."""
    if ws.project.models.engine == "none":
        raise FixConfig("the project has no models, so there is no lineage", mend="set models.engine in oploop.yml")
    infos = {m.name: m for m in ws.modeler.models()}
    if name in ws.project.syncs:
        return _of_sync(ws, ws.project.syncs[name])
    if name in infos:
        return {
            "name": name,
            "kind": "model",
            "upstream": [_model_tree(infos, name, set())],
            "used_by": _used_by(ws, infos, name, None),
        }
    model, _, column = name.rpartition(".")
    if model not in infos:
        known = [*infos, *ws.project.syncs]
        raise FixConfig(f"there is no model, column or sync {name!r}", mend=did_you_mean(name, known))
    edges = ws.modeler.lineage(model, column)
    columns = set(infos[model].columns)
    if not edges and columns and column not in columns:
        raise FixConfig(f"model {model} has no column {column!r}", mend=did_you_mean(column, columns))
    return {
        "name": name,
        "kind": "column",
        "upstream": [_column_tree(edges, model, column)],
        "used_by": _used_by(ws, infos, model, column),
    }


def _of_sync(ws: Workspace, sync: Sync) -> dict[str, Any]:
    """One tree for each mapped field."""
    trees = []
    for f in sync.fields:
        for column in _columns(f):
            tree = _column_tree(ws.modeler.lineage(sync.model, column), sync.model, column)
            trees.append({**tree, "note": f"→ {sync.app}.{sync.object} {f.field}"})
    if not trees:
        raise FixConfig(f"sync {sync.name} maps no column of its model", place=sync.place_of("fields"))
    return {"name": sync.name, "kind": "sync", "upstream": trees, "used_by": []}


def _columns(f: FieldMapping) -> list[str]:
    """The columns that a mapping names."""
    if f.column is not None:
        return [f.column]
    if f.template is not None:
        from oploop.project.templates import parts

        return list(dict.fromkeys(p.text for p in parts(f.template) if p.column))
    if f.sql is None:
        return []
    from sqlglot import exp, parse_one

    return list(dict.fromkeys(c.name for c in parse_one(f.sql, dialect=DIALECT).find_all(exp.Column)))


def _model_tree(infos: Mapping[str, ModelInfo], name: str, seen: set[str]) -> dict[str, Any]:
    """A model and what it depends on; what was shown before is not unfolded again."""
    info = infos.get(name)
    if info is None or not info.depends_on:
        return {"name": name, "from": []}
    if name in seen:
        return {"name": name, "from": [], "note": "(see above)"}
    seen.add(name)
    return {"name": name, "from": [_model_tree(infos, d, seen) for d in info.depends_on]}


def _column_tree(edges: Sequence[ColumnSource], model: str, column: str) -> dict[str, Any]:
    """A column and what it is computed from."""
    seen: set[tuple[str, str]] = set()

    def grow(m: str, c: str) -> dict[str, Any]:
        above = [(e.source, e.source_column) for e in edges if (e.model, e.column) == (m, c)]
        if not above:
            return {"name": f"{m}.{c}", "from": []}
        if (m, c) in seen:
            return {"name": f"{m}.{c}", "from": [], "note": "(see above)"}
        seen.add((m, c))
        return {"name": f"{m}.{c}", "from": [grow(*source) for source in dict.fromkeys(above)]}

    return grow(model, column)


def _used_by(ws: Workspace, infos: Mapping[str, ModelInfo], model: str, column: str | None) -> list[dict[str, str]]:
    """Fields of apps that are written from a model or a column, also by way of other models."""
    below = _downstream(infos, model)
    used = []
    for sync in ws.project.syncs.values():
        if sync.model not in below:
            continue
        for f in sync.fields:
            for c in _columns(f):
                if column is None or _comes_from(ws, sync.model, c, model, column):
                    target = f"{sync.app}.{sync.object}"
                    used.append({"sync": sync.name, "object": target, "field": f.field, "column": f"{sync.model}.{c}"})
    return used


def _downstream(infos: Mapping[str, ModelInfo], model: str) -> set[str]:
    """A model and all that depend on it."""
    found = {model}
    for info in infos.values():  # dependencies come first
        if found & set(info.depends_on):
            found.add(info.name)
    return found


def _comes_from(ws: Workspace, model: str, column: str, source: str, source_column: str) -> bool:
    if (model, column) == (source, source_column):
        return True
    edges = ws.modeler.lineage(model, column)
    return any((e.source, e.source_column) == (source, source_column) for e in edges)
