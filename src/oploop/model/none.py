"""No modelling engine: `models: {engine: none}`. Syncs read tables that others keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from oploop.model.base import ColumnSource, ModelInfo, ModelResult, UnitTestResult


class NoNames:
    """A sync names the table itself; see `Names`."""

    def files(self) -> Mapping[str, Path]:
        return {}

    def table(self, model: str) -> str:
        return model

    def declared(self, model: str) -> list[str] | None:
        return None


class NoModeler:
    """A Modeler without models: there is nothing to build, to test or to trace."""

    def models(self) -> Sequence[ModelInfo]:
        return ()

    def build(
        self, environment: str, *, select: Sequence[str] = (), progress: Callable[[str], None] = lambda _: None
    ) -> Sequence[ModelResult]:
        return ()

    def test(self) -> Sequence[UnitTestResult]:
        return ()

    def lineage(self, model: str, column: str) -> Sequence[ColumnSource]:
        return ()
