"""What a modelling engine is to oploop: it builds tables from SQL in git, and says which of them failed a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from oploop.errors import Place


class ModelStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"  #: its query failed, or a blocking audit did
    SKIPPED = "skipped"  #: something that it depends on failed
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One audit (or dbt test) of a model. `blocking`: its failure stops the model's syncs."""

    name: str
    ok: bool
    blocking: bool = True
    rows: int = 0  #: failing rows
    message: str = ""


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What a build did with one model. Names are as the user writes them: `mart.account_health`."""

    model: str
    status: ModelStatus
    checks: Sequence[CheckResult] = ()
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as it stands in the project. `columns`: name to SQL type where known without a build."""

    name: str
    kind: str
    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    depends_on: Sequence[str] = ()  #: models and raw tables
    description: str = ""


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """One edge of column lineage: `model.column` is computed from `source.source_column`."""

    model: str
    column: str
    source: str
    source_column: str


@dataclass(frozen=True, slots=True)
class UnitTestResult:
    name: str
    ok: bool
    message: str = ""
    place: Place | None = None


class Modeler(Protocol):
    """A modelling engine over the project's warehouse."""

    def models(self) -> Sequence[ModelInfo]:
        """All models, dependencies first."""
        ...

    def build(
        self, environment: str, *, select: Sequence[str] = (), progress: Callable[[str], None] = lambda _: None
    ) -> Sequence[ModelResult]:
        """Bring an environment up to date with the models in git and the raw data; always looks at new data.

        `select`: only these models and what they depend on (all by default).
        """
        ...

    def test(self) -> Sequence[UnitTestResult]:
        """Run the models' unit tests."""
        ...

    def lineage(self, model: str, column: str) -> Sequence[ColumnSource]:
        """All edges from a column back to raw tables' columns."""
        ...


class Names(Protocol):
    """What is told of an environment's models without building any."""

    def files(self) -> Mapping[str, Path]:
        """The models by name, with their files; empty where others build what syncs read."""
        ...

    def table(self, model: str) -> str:
        """The table or view of a model. A name that no model has is a table's own."""
        ...

    def declared(self, model: str) -> list[str] | None:
        """The columns that a model's file selects; None where that cannot be told without building it."""
        ...


def environment_table(model: str, environment: str) -> str:
    """The name under which a model stands in an environment: `mart.x` in prod, `mart__dev.x` elsewhere.

    This is SQLMesh's own naming (schema suffix), so that plans need not start it to find a table.
    """
    if environment == "prod":
        return model
    *schema, name = model.split(".")
    return (
        ".".join([*schema[:-1], f"{schema[-1]}__{environment}", name]) if schema else f"default__{environment}.{name}"
    )
