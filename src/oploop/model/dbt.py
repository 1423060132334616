"""The Modeler that a dbt project stands behind: dbt as a process, and what it writes of it. Never an import of dbt's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from oploop.errors import FixConfig, did_you_mean
from oploop.model import dbt_faults
from oploop.model.base import CheckResult, ColumnSource, ModelInfo, ModelResult, ModelStatus, UnitTestResult
from oploop.model.dbt_artifacts import Result
from oploop.model.dbt_lineage import Lineage
from oploop.model.dbt_process import Dbt, Ran
from oploop.project.dbt import DbtModel, DbtTest, Manifest
from oploop.warehouse.base import Warehouse

#: Asks dbt's target which database it is in; `%s`: our warehouse's dialect, and the question.
_WHERE = '{%% if execute and target.type == "%s" %%}{{ run_query("%s").columns[0].values()[0] }}{%% endif %%}'


class DbtModeler:
    """The models of a dbt project in one environment, which is one target of dbt's; see `oploop.model.base.Modeler`.

    dbt runs as a process of its own, so a warehouse that is a file is let go of meanwhile. Every method raises FixConfig,
    with file and line, for what dbt refuses.
    """

    def __init__(self, dbt: Dbt, warehouse: Warehouse) -> None:
        self._dbt, self._warehouse = dbt, warehouse

    def models(self) -> Sequence[ModelInfo]:
        manifest = self._dbt.manifest()
        return [self._info(manifest, m) for m in manifest.models.values()]

    def build(
        self, environment: str, *, select: Sequence[str] = (), progress: Callable[[str], None] = lambda _: None
    ) -> Sequence[ModelResult]:
        """`dbt build` of the models and of what they depend on; their tests are the checks, and unit tests too."""
        assert environment == self._dbt.environment
        progress("dbt")
        self._prove()
        manifest = self._dbt.manifest()
        chosen = _chosen(manifest, select)
        words = ["--select", *(f"+{name}" for name in select)] if select else []
        with self._warehouse.parted():
            ran = self._dbt.call("build", *words, "--indirect-selection", "buildable", progress=progress)
        found = _Results(manifest, ran, self._dbt)
        results = [found.result(m) for m in chosen if m.table]
        self._there(manifest, results)
        return results

    def test(self) -> Sequence[UnitTestResult]:
        return ()  # dbt runs a model's unit tests in its build, before it makes the model

    def lineage(self, model: str, column: str) -> Sequence[ColumnSource]:
        manifest = self._dbt.manifest()
        if model not in manifest.models:
            raise FixConfig(f"there is no model {model}", mend=did_you_mean(model, manifest.models))
        return Lineage(manifest, self._dbt.folder, self._warehouse).edges(model, column)

    def _info(self, manifest: Manifest, m: DbtModel) -> ModelInfo:
        there = self._warehouse.columns(m.table) if m.table else {}
        path = os.path.relpath(self._dbt.block.path / m.file, self._dbt.root)
        return ModelInfo(m.name, m.kind, path, there or m.columns, manifest.named(m.parents), m.description)

    # -- one warehouse -------------------------------------------------------------------------------------------------

    def _prove(self) -> None:
        """Before dbt writes anything: its target is in our warehouse. Asked once of a profile as it stands."""
        ours = os.path.realpath(self._dbt.block.path / self._warehouse.identity())
        stands = f"{self._dbt.place()} {ours}"
        if self._dbt.noted("proved") == stands:
            return
        question = _WHERE % (self._warehouse.dialect, self._warehouse.identity_sql)
        with self._warehouse.parted():
            ran = self._dbt.call("compile", "--inline", question)
        self._dbt.note(parsed=self._dbt.fingerprint())
        adapter, target = self._dbt.manifest().adapter, self._dbt.block.target(self._dbt.environment)
        told = next((e.compiled for e in ran.events if e.name == "CompiledNode"), "").strip()
        if adapter != self._warehouse.dialect:
            raise self._elsewhere(
                f"dbt's target {target!r} is a {adapter}, and the warehouse is a {self._warehouse.dialect}"
            )
        # a file is named from the project's folder; of a server's words the path only makes other words
        if os.path.realpath(self._dbt.block.path / told) != ours:
            raise self._elsewhere(f"dbt's target {target!r} writes into {told}, which is not the warehouse")
        self._dbt.note(proved=stands)

    def _elsewhere(self, what: str) -> FixConfig:
        mend = f"let the target in profiles.yml be {self._warehouse.label}, or name its database under warehouse"
        return FixConfig(what, mend=mend, place=self._dbt.block.place)

    def _there(self, manifest: Manifest, results: Sequence[ModelResult]) -> None:
        """What dbt says it built stands in the warehouse: a model may name a database of its own."""
        for r in results:
            table = manifest.models[r.model].table
            if r.status is ModelStatus.OK and not self._warehouse.columns(table):
                raise FixConfig(
                    f"dbt built {r.model} as {table}, and the warehouse has no such table",
                    mend="let it be built in the target's own database, where oploop may read it",
                    place=self._dbt.block.place,
                )


class _Results:
    """What came of a build, model by model."""

    def __init__(self, manifest: Manifest, ran: Ran, dbt: Dbt) -> None:
        self._manifest, self._ran, self._dbt = manifest, ran, dbt
        self._tests: dict[str, list[DbtTest]] = {}
        for test in manifest.tests:
            for model in test.of:
                self._tests.setdefault(model, []).append(test)

    def result(self, m: DbtModel) -> ModelResult:
        done = self._ran.results.get(m.id)
        checks = [c for t in self._tests.get(m.id, ()) if (c := self._check(t)) is not None]
        if done is None:
            return ModelResult(m.name, ModelStatus.FAILED, checks, self._ran.said or "dbt did not come to it")
        seconds = done.seconds
        if any(not c.ok and c.blocking for c in checks):
            why = "; ".join(c.message for c in checks if not c.ok and c.blocking)
            return ModelResult(m.name, ModelStatus.FAILED, checks, why, seconds)
        match done.status:
            case "success":
                return ModelResult(m.name, ModelStatus.OK, checks, seconds=seconds)
            case "skipped":
                return ModelResult(m.name, ModelStatus.SKIPPED, checks, f"{self._causes(m) or 'its input'} failed")
            case _:
                return ModelResult(m.name, ModelStatus.FAILED, checks, self._why(done), seconds)

    def _check(self, test: DbtTest) -> CheckResult | None:
        """A test's result; None where it did not run, as what it looks at was not made."""
        done = self._ran.results.get(test.id)
        if done is None or done.status == "skipped":
            return None
        rows, status = done.failures, done.status
        if status == "pass":
            return CheckResult(test.shown, True)
        failed = f"{rows:,} {'row fails' if rows == 1 else 'rows fail'} {test.shown}"
        message = failed if rows and status in ("fail", "warn") and "unit test" not in test.shown else self._why(done)
        return CheckResult(test.shown, False, status != "warn", rows, message)

    def _why(self, done: Result) -> str:
        return dbt_faults.failure(done.message or "dbt does not say why", self._dbt.block.path, self._dbt.root)

    def _causes(self, m: DbtModel) -> str:
        """What failed of all that a model depends on: models, and tests of them."""
        above = self._manifest.upstream(m)
        bad = {i for i, r in self._ran.results.items() if r.bad}
        models = self._manifest.named(above & bad)
        tests = [t.shown for t in self._manifest.tests if t.id in bad and above & {*t.of}]
        return ", ".join([*models, *tests])


def _chosen(manifest: Manifest, select: Sequence[str]) -> list[DbtModel]:
    """The models that were asked for and what they depend on, dependencies first."""
    for name in select:
        if name not in manifest.models:
            raise FixConfig(f"there is no model {name}", mend=did_you_mean(name, manifest.models))
    asked = [manifest.models[name] for name in select or manifest.models]
    ids = {m.id for m in asked}.union(*(manifest.upstream(m) for m in asked))
    return [m for m in manifest.models.values() if m.id in ids]


__all__ = ["DbtModeler"]
