"""What dbt writes of a project (`manifest.json`), as far as oploop asks: models, tests, sources, and where each stands.

The one reader of it: `oploop init --from-dbt` takes up tables by it, and models of `engine: dbt` are known by it.
Documents: https://schemas.getdbt.com/dbt/manifest/v12.json, and v4 to v11 alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place

#: What a model that stands as a table or view of its own may be materialized as.
_STANDING = ("table", "view", "incremental", "materialized_view", "snapshot")
_KINDS = ("model", "snapshot", "seed")
_TESTS = ("test", "unit_test")


@dataclass(frozen=True, slots=True)
class DbtModel:
    """A model, snapshot or seed. `table`: schema and name in the warehouse, empty for an ephemeral one, which stands nowhere.

    `parents`: dbt's ids of what it reads; `file`: from the dbt project's folder.
    """

    id: str
    name: str
    kind: str
    file: str
    package: str
    table: str
    parents: tuple[str, ...]
    description: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DbtTest:
    """A data test or unit test. `of`: dbt's ids of the models that it may stop; `shown`: `unique(account_id)`."""

    id: str
    shown: str
    of: tuple[str, ...]
    file: str


@dataclass(frozen=True, slots=True)
class DbtSource:
    """One source table, as some loader keeps it. `loaded_at`: the column by which its freshness is told."""

    name: str
    table: str
    loaded_at: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A project for one target. `models` by the names that syncs use, dependencies first; `sources` by dbt's ids.

    `version`: dbt's; `schema`: the manifest's, `.../manifest/v12.json`; `adapter`: the kind of warehouse.
    """

    name: str
    version: str
    schema: str
    adapter: str
    models: Mapping[str, DbtModel]
    tests: tuple[DbtTest, ...]
    sources: Mapping[str, DbtSource]

    def by_id(self) -> dict[str, DbtModel]:
        """Models by dbt's ids."""
        return {m.id: m for m in self.models.values()}

    def upstream(self, model: DbtModel) -> set[str]:
        """dbt's ids of all that a model depends on."""
        known, found, todo = self.by_id(), set[str](), list(model.parents)
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += known[each].parents if each in known else ()
        return found

    def standing(self) -> list[DbtModel]:
        """Models and snapshots with a table or view of their own, by its name."""
        return sorted((m for m in self.models.values() if m.kind in _STANDING), key=lambda m: m.table)

    def named(self, ids: Iterable[str]) -> list[str]:
        """What a user calls these nodes: models by name, sources by their tables."""
        known = {**{i: s.table for i, s in self.sources.items()}, **{i: m.name for i, m in self.by_id().items()}}
        return sorted(known[i] for i in ids if i in known)


def read_manifest(path: Path, *, mend: str = "dbt parse writes target/manifest.json") -> Manifest:
    """A manifest of dbt 1.0 or later (schema v4 on). FixConfig, with the mend, for what is none."""
    import orjson

    place = Place(str(path))
    try:
        return _manifest(orjson.loads(path.read_bytes()))
    except OSError as e:
        raise FixConfig(f"cannot be read: {(e.strerror or str(e)).lower()}", mend=mend, place=place) from None
    except orjson.JSONDecodeError:
        raise FixConfig("is no JSON", mend=mend, place=place) from None
    except _NoManifest as e:
        raise FixConfig(f"is no manifest of dbt: {e}", mend=mend, place=place) from None


class _NoManifest(Exception):
    """It has not the shape of one; says where."""


def _manifest(data: Any) -> Manifest:
    if not isinstance(data, dict):
        raise _NoManifest("it is no object")
    meta, nodes = _map(data, "metadata"), _map(data, "nodes")
    every = [*_each(nodes, "nodes"), *_each(_map(data, "unit_tests", {}), "unit_tests")]
    enabled = [n for n in every if _map(n, "config", {}).get("enabled") is not False]
    known = [n for n in enabled if _text(n, "resource_type") in _KINDS]
    project = _text(meta, "project_name", "") or (_text(known[0], "package_name", "") if known else "") or "dbt"
    return Manifest(
        name=project,
        version=_text(meta, "dbt_version", ""),
        schema=_text(meta, "dbt_schema_version", ""),
        adapter=_text(meta, "adapter_type"),
        models=_models(known, project),
        tests=tuple(_test(n) for n in enabled if n["resource_type"] in _TESTS),
        sources={s[_ID]: _source(s) for s in _each(_map(data, "sources", {}), "sources")},
    )


# -- nodes ------------------------------------------------------------------------------------------------------------


def _models(nodes: Sequence[Mapping[str, Any]], project: str) -> dict[str, DbtModel]:
    """By the names that syncs use: dbt's own, with the package's before one that several packages have."""
    from graphlib import CycleError, TopologicalSorter

    times = Counter(_named(n) for n in nodes)
    models = {}
    for n in nodes:
        twin = times[_named(n)] > 1 and _text(n, "package_name") != project
        m = _model(n, f"{n['package_name']}.{_named(n)}" if twin else _named(n))
        models[m.id] = m
    order = TopologicalSorter({i: [p for p in m.parents if p in models] for i, m in sorted(models.items())})
    try:
        return {models[i].name: models[i] for i in order.static_order()}
    except CycleError as e:
        raise _NoManifest(f"models depend on each other in a circle: {', '.join(e.args[1])}") from None


def _named(node: Mapping[str, Any]) -> str:
    version, name = node.get("version"), _text(node, "name")
    return name if version is None else f"{name}.v{version}"


def _model(node: Mapping[str, Any], name: str) -> DbtModel:
    kind = _text(_map(node, "config", {}), "materialized", "") or node["resource_type"]
    columns = {_text(c, "name", c[_ID]): _text(c, "data_type", "") for c in _each(_map(node, "columns", {}), "columns")}
    return DbtModel(
        id=node[_ID],
        name=name,
        kind=kind,
        file=_text(node, "original_file_path"),
        package=_text(node, "package_name"),
        table="" if kind == "ephemeral" else _table(node, "alias"),
        parents=_parents(node),
        description=_text(node, "description", ""),
        columns=columns,
    )


def _source(node: Mapping[str, Any]) -> DbtSource:
    name = f"{_text(node, 'source_name')}.{_text(node, 'name')}"
    return DbtSource(name, _table(node, "identifier"), _text(node, "loaded_at_field", ""))


def _table(node: Mapping[str, Any], name: str) -> str:
    return f"{_text(node, 'schema')}.{_text(node, name, '') or _text(node, 'name')}"


def _parents(node: Mapping[str, Any]) -> tuple[str, ...]:
    found = _map(node, "depends_on", {}).get("nodes") or ()
    if not isinstance(found, list | tuple) or not all(isinstance(i, str) for i in found):
        raise _NoManifest(f"depends_on of {node[_ID]} has no list of names")
    return tuple(found)


def _test(node: Mapping[str, Any]) -> DbtTest:
    """A generic test is of the model that it stands at, also where it looks at others; any other of all that it reads."""
    own, meta = _text(node, "attached_node", ""), _map(node, "test_metadata", {})
    shown = f"{_text(meta, 'name')}({_text(node, 'column_name', '')})" if meta else _text(node, "name")
    if node["resource_type"] == "unit_test":
        shown = f"unit test {shown}"
    return DbtTest(node[_ID], shown, (own,) if own else _parents(node), _text(node, "original_file_path"))


# -- what a manifest may hold of any kind ------------------------------------------------------------------------------

_ID = "\0"  #: under which a member has its own name, which is dbt's id of a node


def _each(members: Mapping[str, Any], of: str) -> list[dict[str, Any]]:
    """The members, each of which is an object, with its name."""
    for name, member in members.items():
        if not isinstance(member, dict):
            raise _NoManifest(f"{of}: {name} is no object")
    return [{**member, _ID: name} for name, member in members.items()]


def _map(node: Mapping[str, Any], key: str, usual: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """An object; `usual` where there is none, if that may be."""
    found = node.get(key)
    if found is None and usual is not None:
        return usual
    if not isinstance(found, dict):
        raise _NoManifest(f"{_at(node, key)} is no object")
    return found


def _text(node: Mapping[str, Any], key: str, usual: str | None = None) -> str:
    """A text; `usual` where there is none, if that may be."""
    found = node.get(key)
    if found is None and usual is not None:
        return usual
    if not isinstance(found, str):
        raise _NoManifest(f"{_at(node, key)} is no text")
    return found


def _at(node: Mapping[str, Any], key: str) -> str:
    return f"{key} of {node[_ID]}" if _ID in node else key


__all__ = ["DbtModel", "DbtSource", "DbtTest", "Manifest", "read_manifest"]
