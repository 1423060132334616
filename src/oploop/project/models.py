"""`models` in `oploop.yml`: what builds the models, and how it is started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.project.secrets import Variables
from oploop.project.values import Read, a_map, choice, take, text
from oploop.project.yaml import Block


class Engine(StrEnum):
    """Modelling engines."""

    SQLMESH = "sqlmesh"
    DBT = "dbt"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ModelsBlock:
    """What builds the models. `path` is the absolute folder of the SQLMesh or dbt project.

    The rest is dbt's: `command`, the words that start it; `profiles`, the folder of its `profiles.yml`, where that is not
    for dbt to find; `targets`, its target of an environment, where the two have other names.
    """

    engine: Engine
    path: Path
    place: Place | None = None
    command: tuple[str, ...] = ("dbt",)
    profiles: Path | None = None
    targets: Mapping[str, str] = field(default_factory=dict)
    targets_place: Place | None = None
    variables: Variables | None = field(default=None, repr=False, compare=False)

    def target(self, environment: str) -> str:
        """dbt's target of an environment."""
        return self.targets.get(environment, environment)


def unread_tests(block: ModelsBlock) -> list[str]:
    """Warnings of files that look like unit tests and are none by their names, by which SQLMesh finds them."""
    if block.engine is not Engine.SQLMESH:
        return []
    found = [p.relative_to(block.path) for p in (block.path / "tests").glob("**/*.y*ml")]
    return [
        f"{p.as_posix()}: is not read — unit tests are in files called test_*.yaml"
        for p in sorted(found)
        if p.suffix in (".yaml", ".yml") and not p.name.startswith("test")
    ]


def targets(value: Any, place: Place, key: str) -> dict[str, str]:
    """Environment to target."""
    block = a_map(value, place, key)
    return {name: text(inner, block.places[name], name) for name, inner in block.items()}


MODELS_KEYS: dict[str, Read] = {
    "engine": choice(Engine),
    "project": text,
    "command": text,
    "profiles": text,
    "targets": targets,
}
_OF_DBT = ("command", "profiles", "targets")


def models(inner: Block | None, place: Place, root: Path, variables: Variables) -> ModelsBlock:
    """The block as it stands in a file whose project is in `root`; `place` is the block's own, or the file's."""
    if inner is None:
        return ModelsBlock(Engine.SQLMESH, root)
    taken = take(inner, MODELS_KEYS, "models")
    engine = taken.get("engine", Engine.SQLMESH)
    odd = next((k for k in _OF_DBT if k in taken and engine is not Engine.DBT), None)
    if odd is not None:
        raise FixConfig(f"models.{odd} is for engine: dbt", mend="remove it", place=inner.places[odd])

    def folder(key: str, usual: str | None) -> Path | None:
        at = inner.places.get(key, place)
        written = taken.get(key, usual)
        if written is None:
            return None
        path = Path(os.path.normpath(root / os.path.expanduser(variables.fill(written, at))))
        if engine is not Engine.NONE and not os.path.isdir(path):
            mend = "make the folder, or name the right one"
            raise FixConfig(f"models.{key} is no folder: {path}", mend=mend, place=at)
        return path

    path = folder("project", ".")
    assert path is not None
    if engine is Engine.DBT and not (path / "dbt_project.yml").is_file():
        mend = "name the folder with dbt_project.yml: `project: ./dbt`"
        raise FixConfig(f"{path} is no dbt project", mend=mend, place=inner.places.get("project", place))
    return ModelsBlock(
        engine,
        path,
        inner.places.get("project", place),
        _command(taken.get("command", "dbt"), inner.places.get("command", place), root, variables),
        folder("profiles", None),
        taken.get("targets", {}),
        inner.places.get("targets", place),
        variables,
    )


def _command(written: str, place: Place, root: Path, variables: Variables) -> tuple[str, ...]:
    """The words of a command; a path is meant from the project's folder."""
    try:
        first, *rest = shlex.split(variables.fill(written, place))
    except ValueError:
        raise FixConfig(
            f"models.command is no command: {written}", mend="write `command: ../dbt-env/bin/dbt`", place=place
        ) from None
    first = os.path.expanduser(first)
    return (os.path.normpath(root / first) if "/" in first else first, *rest)


def check_targets(block: ModelsBlock, environments: Collection[str]) -> None:
    """Raise FixConfig for a target of an environment that there is not, and for two environments with one target.

    They would build over each other's tables. An environment that is not named here has the target of its own name.
    """
    if block.engine is not Engine.DBT:
        return
    for name in block.targets:
        if name not in environments:
            mend = did_you_mean(name, environments)
            raise FixConfig(
                f"models.targets names {name!r}, which is no environment", mend=mend, place=block.targets_place
            )
    taken: dict[str, str] = {}
    for name in sorted(environments, key=lambda n: (n not in block.targets, n)):
        target = block.target(name)
        twin = taken.setdefault(target, name)
        if twin != name:
            raise FixConfig(
                f"models.targets: {twin} and {name} both have dbt's target {target!r}, so that each would build over the "
                "other's tables",
                mend="give each environment a target of its own",
                place=block.targets_place,
            )


__all__ = ["MODELS_KEYS", "Engine", "ModelsBlock", "check_targets", "models", "targets"]
