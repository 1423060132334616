"""A dbt project's `manifest.json`, as a new oploop project takes it up: its models are tables that dbt keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place

#: What a model that stands as a table or view of its own may be materialized as.
_STANDING = ("table", "view", "incremental", "materialized_view", "snapshot")


@dataclass(frozen=True, slots=True)
class DbtModel:
    """One model: `table` as it stands in the warehouse (schema.name), and what dbt's files say of it."""

    table: str
    columns: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class DbtSource:
    """One source table, as some loader keeps it. `loaded_at`: the column by which its freshness is told."""

    name: str
    table: str
    loaded_at: str | None


@dataclass(frozen=True, slots=True)
class DbtProject:
    """What a manifest tells. `warehouse`: dbt's adapter."""

    name: str
    warehouse: str
    models: tuple[DbtModel, ...]
    sources: tuple[DbtSource, ...]


def read_manifest(path: Path) -> DbtProject:
    """A manifest of dbt 1.0 or later (schema v4 on). FixConfig, with the mend, for what is none."""
    import orjson

    place = Place(str(path))
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as e:
        raise FixConfig(
            f"cannot be read: {(e.strerror or str(e)).lower()}",
            mend="dbt parse writes target/manifest.json",
            place=place,
        ) from None
    except orjson.JSONDecodeError:
        raise FixConfig("is no JSON", mend="dbt parse writes target/manifest.json", place=place) from None
    try:
        return _project(data)
    except (KeyError, TypeError, AttributeError):  # it has not the shape of one
        raise FixConfig("is no manifest of dbt", mend="dbt parse writes target/manifest.json", place=place) from None


def _project(data: Any) -> DbtProject:
    """What a manifest says. KeyError, TypeError or AttributeError where it is none."""
    nodes, meta = data["nodes"], data["metadata"]
    models = [_model(n) for n in nodes.values() if _stands(n)]
    sources = [_source(s) for s in (data.get("sources") or {}).values()]
    name = meta.get("project_name") or next((n.get("package_name") for n in nodes.values()), "") or "dbt"
    return DbtProject(
        _line(name),
        _line(meta["adapter_type"]),
        tuple(sorted(models, key=lambda m: m.table)),
        tuple(sorted(sources, key=lambda s: s.table)),
    )


def _line(value: Any) -> str:
    """A text as it may stand in a comment: one line, nothing that YAML refuses."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _stands(node: Mapping[str, Any]) -> bool:
    kind = (node.get("config") or {}).get("materialized")
    return (
        node.get("resource_type") in ("model", "snapshot")
        and kind in _STANDING
        and bool((node.get("config") or {}).get("enabled", True))
    )


def _model(node: Mapping[str, Any]) -> DbtModel:
    name = node.get("alias") or node["name"]
    columns = tuple(str(c.get("name", k)) for k, c in (node.get("columns") or {}).items())
    return DbtModel(_line(f"{node['schema']}.{name}"), columns, _line(node.get("description") or ""))


def _source(node: Mapping[str, Any]) -> DbtSource:
    table = f"{node['schema']}.{node.get('identifier') or node['name']}"
    loaded_at = node.get("loaded_at_field")
    return DbtSource(
        _line(f"{node['source_name']}.{node['name']}"), _line(table), _line(loaded_at) if loaded_at else None
    )


__all__ = ["DbtModel", "DbtProject", "DbtSource", "read_manifest"]
