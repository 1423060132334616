"""One build with SQLMesh: a plan where models changed, then a run over new data; what came of each model.

A model that fails (its query, or a blocking audit) must not keep the others from their environment, as a failed plan of
SQLMesh would: the plan is made again without it and what depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlmesh.utils.errors import PlanError, SQLMeshError

from oploop.errors import FixConfig, StopRun
from oploop.model.base import CheckResult, ModelResult, ModelStatus
from oploop.model.sqlmesh_faults import failure, one_line, rows
from oploop.model.sqlmesh_setup import STATE_SCHEMA, Ears, Seen
from oploop.records import DIALECT
from oploop.runtime import Runtime
from oploop.warehouse.base import Warehouse


class Build:
    """Brings one environment up to date. `chosen`: the models to be built, by SQLMesh's names, dependencies first."""

    def __init__(
        self,
        context: Any,
        ears: Ears,
        warehouse: Warehouse,
        runtime: Runtime,
        environment: str,
        chosen: Sequence[str],
        progress: Callable[[str], None],
    ) -> None:
        self._context = context
        self._warehouse = warehouse
        self._runtime = runtime
        self._environment = environment
        self._chosen = list(chosen)
        self._seen = ears.seen = Seen()
        self._all = len(chosen) == len([m for m in context.models.values() if not m.kind.is_external])
        ears.progress = progress

    def results(self) -> list[ModelResult]:
        """Do it; a result for each chosen model."""
        if not self._chosen:
            return []
        built = self._plan()
        if built:
            self._run(built)
        standing = [self._result(self._context.models[fqn]) for fqn in self._chosen]
        return standing + self._standalone()

    # -- plan and run --------------------------------------------------------------------------------------------------

    def _plan(self) -> list[str]:
        """Apply what changed in the models; those that stand in the environment then."""
        left = self._chosen
        while left:
            plan = self._context.plan_builder(
                self._environment,
                skip_tests=True,
                skip_linter=True,
                include_unmodified=True,
                select_models=None if self._all and left is self._chosen else self._names(left),
            ).build()
            failed = set(self._seen.failed)
            try:
                self._context.apply(plan)
            except PlanError as e:
                new = set(self._seen.failed) - failed
                if not new:
                    raise FixConfig(f"the models cannot be built: {one_line(e.__cause__ or e)}") from e
                left = [fqn for fqn in left if fqn not in self._lost()]
                continue
            if plan.has_changes:
                self._context.run_janitor(ignore_ttl=False)
            return left
        return []

    def _run(self, standing: Sequence[str]) -> None:
        """Look at new data. Without an `end` of its own a run ends with the last full minute, and the next in the same
        minute would find nothing to do."""
        moment = self._moment()
        try:
            self._context.run(
                self._environment,
                end=moment,
                execution_time=moment,
                ignore_cron=True,
                skip_janitor=True,
                select_models=None if self._all and len(standing) == len(self._chosen) else self._names(standing),
            )
        except SQLMeshError as e:
            raise StopRun(f"the models cannot be built: {one_line(e)}", mend="run oploop build again") from e

    def _moment(self) -> int:
        """Now in milliseconds since 1970, and later than any build before."""
        [(last,)] = self._warehouse.rows(f"SELECT max(end_ts) FROM {STATE_SCHEMA}._intervals")
        return max(int(self._runtime.now().timestamp() * 1000), int(last or 0) + 1)

    def _names(self, fqns: Sequence[str]) -> list[str]:
        return [self._context.models[fqn].name for fqn in fqns]

    def _lost(self) -> set[str]:
        """What failed, and all that depends on it."""
        lost = set(self._seen.failed) | self._seen.skipped
        return lost.union(*(self._context.dag.downstream(fqn) for fqn in self._seen.failed))

    # -- results -------------------------------------------------------------------------------------------------------

    def _result(self, model: Any) -> ModelResult:
        seen, fqn = self._seen, model.fqn
        seconds = seen.milliseconds.get(fqn, 0) / 1000
        if fqn in seen.failed:
            message = failure(seen.failed[fqn])
            return ModelResult(model.name, ModelStatus.FAILED, self._checks(model), message, seconds)
        if fqn in self._lost():
            causes = [self._context.models[f].name for f in seen.failed if fqn in self._context.dag.downstream(f)]
            return ModelResult(model.name, ModelStatus.SKIPPED, message=f"{', '.join(causes) or 'its input'} failed")
        if fqn not in seen.evaluated:
            return ModelResult(model.name, ModelStatus.UNCHANGED)
        return ModelResult(model.name, ModelStatus.OK, self._checks(model), seconds=seconds)

    def _checks(self, model: Any) -> list[CheckResult]:
        """All audits of a model that was audited; none where its query failed."""
        # by name: what SQLMesh took from its state is another object, and no equal one
        errors = [e for e in self._seen.audit_errors if e.model is not None and e.model.fqn == model.fqn]
        failures = {_audit_key(e.audit_name, e.audit_args): e.count for e in errors}
        if model.fqn in self._seen.failed and not failures:
            return []
        checks = []
        for audit, args in model.audits_with_args:
            if audit.skip:
                continue
            count = failures.get(_audit_key(audit.name, args), 0)
            said = f"{rows(count)} {_shown(audit.name, args)}" if count else ""
            checks.append(CheckResult(audit.name, count == 0, _blocking(audit, args), count, said))
        return checks

    def _standalone(self) -> list[ModelResult]:
        """Failed audits of no model in particular; SQLMesh has them block nothing unless they say so."""
        results = []
        for error in self._seen.audit_errors:
            if error.model is None:
                audit = self._context.standalone_audits[error.audit_name]
                check = CheckResult(audit.name, False, audit.blocking, error.count, rows(error.count))
                status = ModelStatus.FAILED if audit.blocking else ModelStatus.OK
                results.append(ModelResult(audit.name, status, [check], check.message))
        return results


def _audit_key(name: str, args: dict[str, Any]) -> tuple[str, str]:
    return name, _arguments(args)


def _arguments(args: dict[str, Any]) -> str:
    shown = {k: v.sql(dialect=DIALECT) if hasattr(v, "sql") else str(v) for k, v in args.items() if k != "blocking"}
    return ", ".join(f"{k} := {v}" for k, v in sorted(shown.items()))


def _shown(name: str, args: dict[str, Any]) -> str:
    return f"{name}({_arguments(args)})" if _arguments(args) else name


def _blocking(audit: Any, args: dict[str, Any]) -> bool:
    own = args.get("blocking")
    return bool(audit.blocking) if own is None else str(own).lower() not in ("false", "0")
