"""What dbt writes of a project (`manifest.json`), as far as oploop asks: models, tests, sources, and where each stands.

The one reader of it: `oploop init --from-dbt` takes up tables by it, and models of `engine: dbt` are known by it.
Documents: https://schemas.getdbt.com/dbt/manifest/v12.json, and v4 to v11 alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from oploop.errors import FixConfig, Place

if TYPE_CHECKING:
    from oploop.project.dbt_document import Document, Node, Source

#: What a model that stands as a table or view of its own may be materialized as.
_STANDING = ("table", "view", "incremental", "materialized_view", "snapshot")
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
    from graphlib import CycleError

    from pydantic import ValidationError

    from oploop.project.dbt_document import Document

    place = Place(str(path))
    try:
        return _manifest(Document.model_validate_json(path.read_bytes()))
    except OSError as e:
        raise FixConfig(f"cannot be read: {(e.strerror or str(e)).lower()}", mend=mend, place=place) from None
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        at = " ".join(map(str, first["loc"]))
        said = "is no JSON" if first["type"] == "json_invalid" else f"is no manifest of dbt: {at}: {first['msg']}"
        raise FixConfig(said, mend=mend, place=place) from None
    except CycleError as e:
        said = f"is no manifest of dbt: models depend on each other in a circle: {', '.join(e.args[1])}"
        raise FixConfig(said, mend=mend, place=place) from None


def _manifest(found: Document) -> Manifest:
    from oploop.project.dbt_document import KINDS

    every = {**found.nodes, **(found.unit_tests or {})}
    enabled = {i: n for i, n in every.items() if n.config is None or n.config.enabled is not False}
    known = {i: n for i, n in enabled.items() if n.resource_type in KINDS}
    meta = found.metadata
    project = meta.project_name or next((n.package_name for n in known.values()), "") or "dbt"
    return Manifest(
        name=project,
        version=meta.dbt_version,
        schema=meta.dbt_schema_version,
        adapter=meta.adapter_type,
        models=_models(known, project),
        tests=tuple(_test(i, n) for i, n in enabled.items() if n.resource_type in _TESTS),
        sources={i: _source(s) for i, s in (found.sources or {}).items()},
    )


def _models(nodes: Mapping[str, Node], project: str) -> dict[str, DbtModel]:
    """By the names that syncs use: dbt's own, with the package's before one that several packages have."""
    from graphlib import TopologicalSorter

    times = Counter(map(_named, nodes.values()))
    models = {}
    for i, n in nodes.items():
        twin = times[_named(n)] > 1 and n.package_name != project
        models[i] = _model(i, n, f"{n.package_name}.{_named(n)}" if twin else _named(n))
    order = TopologicalSorter({i: [p for p in m.parents if p in models] for i, m in sorted(models.items())})
    return {models[i].name: models[i] for i in order.static_order()}


def _named(node: Node) -> str:
    return node.name if node.version is None else f"{node.name}.v{node.version}"


def _model(id: str, node: Node, name: str) -> DbtModel:
    return DbtModel(
        id=id,
        name=name,
        kind=node.kind,
        file=node.original_file_path,
        package=node.package_name,
        table="" if node.kind == "ephemeral" else f"{node.schema_}.{node.alias or node.name}",
        parents=_parents(node),
        description=node.description or "",
        columns={c.name or key: c.data_type or "" for key, c in (node.columns or {}).items()},
    )


def _source(source: Source) -> DbtSource:
    table = f"{source.schema_}.{source.identifier or source.name}"
    return DbtSource(f"{source.source_name}.{source.name}", table, source.loaded_at_field or "")


def _parents(node: Node) -> tuple[str, ...]:
    return tuple((node.depends_on and node.depends_on.nodes) or ())


def _test(id: str, node: Node) -> DbtTest:
    """A generic test is of the model that it stands at, also where it looks at others; any other of all that it reads."""
    own, generic = node.attached_node, node.test_metadata
    shown = node.name if generic is None else f"{generic.name}({node.column_name or ''})"
    if node.resource_type == "unit_test":
        shown = f"unit test {shown}"
    return DbtTest(id, shown, (own,) if own else _parents(node), node.original_file_path)


__all__ = ["DbtModel", "DbtSource", "DbtTest", "Manifest", "read_manifest"]
