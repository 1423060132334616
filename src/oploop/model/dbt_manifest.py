"""What dbt writes of a project (`manifest.json`), as far as oploop asks: models, tests, and where each stands.

Documents: https://schemas.getdbt.com/dbt/manifest/v12.json and later; v12 came with dbt 1.8.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import orjson

from oploop.errors import FixConfig

OLDEST = 12  #: the manifest's version
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
class Manifest:
    """A project for one target. `models` by the names that syncs use, dependencies first; `sources`: tables by dbt's ids."""

    version: str
    adapter: str
    models: Mapping[str, DbtModel]
    tests: tuple[DbtTest, ...]
    sources: Mapping[str, str]

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


def read(path: Path) -> Manifest:
    """The manifest that dbt wrote. FixConfig where dbt is too old, or what it wrote is nothing that we know."""
    try:
        data = orjson.loads(path.read_bytes())
        meta = data["metadata"]
        version = str(meta["dbt_version"])
        found = re.search(r"/v(\d+)\.json", str(meta["dbt_schema_version"]))
        if found is None or int(found.group(1)) < OLDEST:
            raise FixConfig(f"dbt {version} is too old", mend="use dbt-core 1.8 or newer")
        nodes = [*data["nodes"].values(), *(data.get("unit_tests") or {}).values()]
        sources = {i: _table(s, "identifier") for i, s in (data.get("sources") or {}).items()}
        enabled = [n for n in nodes if (n.get("config") or {}).get("enabled", True)]
        models = _models([n for n in enabled if n["resource_type"] in _KINDS], str(meta.get("project_name") or ""))
        tests = tuple(_test(n) for n in enabled if n["resource_type"] in _TESTS)
        return Manifest(version, str(meta["adapter_type"]), models, tests, sources)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as e:
        raise FixConfig(f"what dbt wrote is no manifest: {path} ({type(e).__name__})", mend="remove it") from None


def _models(nodes: Sequence[Mapping[str, Any]], project: str) -> dict[str, DbtModel]:
    """By the names that syncs use: dbt's own, with the package's before one that several packages have."""
    times = Counter(_named(n) for n in nodes)
    models = {}
    for n in nodes:
        twin = times[_named(n)] > 1 and n["package_name"] != project
        m = _model(n, f"{n['package_name']}.{_named(n)}" if twin else _named(n))
        models[m.id] = m
    order = TopologicalSorter({i: [p for p in m.parents if p in models] for i, m in sorted(models.items())})
    return {models[i].name: models[i] for i in order.static_order()}


def _named(node: Mapping[str, Any]) -> str:
    return f"{node['name']}.v{node['version']}" if node.get("version") is not None else str(node["name"])


def _model(node: Mapping[str, Any], name: str) -> DbtModel:
    kind = str((node.get("config") or {}).get("materialized") or node["resource_type"])
    columns = {str(c.get("name", k)): str(c.get("data_type") or "") for k, c in (node.get("columns") or {}).items()}
    return DbtModel(
        id=node["unique_id"],
        name=name,
        kind=kind,
        file=node["original_file_path"],
        package=node["package_name"],
        table="" if kind == "ephemeral" else _table(node, "alias"),
        parents=_nodes(node),
        description=str(node.get("description") or ""),
        columns=columns,
    )


def _table(node: Mapping[str, Any], name: str) -> str:
    return f"{node['schema']}.{node.get(name) or node['name']}"


def _nodes(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple((node.get("depends_on") or {}).get("nodes") or ())


def _test(node: Mapping[str, Any]) -> DbtTest:
    """A generic test is of the model that it stands at, also where it looks at others; any other of all that it reads."""
    own = node.get("attached_node")
    meta, column = node.get("test_metadata") or {}, node.get("column_name")
    shown = f"{meta['name']}({column or ''})" if meta else str(node["name"])
    if node["resource_type"] == "unit_test":
        shown = f"unit test {shown}"
    return DbtTest(node["unique_id"], shown, (own,) if own else _nodes(node), node["original_file_path"])


def names(manifest: Manifest, ids: Iterable[str]) -> list[str]:
    """What a user calls these nodes: models by name, sources by their tables."""
    known = manifest.by_id()
    found = (known[i].name if i in known else manifest.sources.get(i, "") for i in ids)
    return sorted(n for n in found if n)


__all__ = ["DbtModel", "DbtTest", "Manifest", "names", "read"]
