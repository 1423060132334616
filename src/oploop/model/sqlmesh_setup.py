"""SQLMesh set up over our warehouse: quiet, without analytics, on the caller's connection, knowing the raw tables.

Everything that SQLMesh keeps stands in the warehouse's schema `sqlmesh`; parsed
models are cached in the state folder. Process globals that SQLMesh has (console, macros) are set before each use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sqlglot import exp
from sqlmesh.core.config import (
    CategorizerConfig,
    Config,
    DuckDBConnectionConfig,
    GatewayConfig,
    ModelDefaultsConfig,
    PlanConfig,
    RunConfig,
)
from sqlmesh.core.console import NoopConsole, set_console
from sqlmesh.core.context import Context
from sqlmesh.core.engine_adapter import EngineAdapter, create_engine_adapter
from sqlmesh.core.loader import SqlMeshLoader
from sqlmesh.core.model import create_external_model
from sqlmesh.core.notification_target import BaseNotificationTarget, NotificationEvent
from sqlmesh.utils.metaprogramming import Executable

from oploop.errors import OploopError, Place
from oploop.model import fields
from oploop.model.places import line_of
from oploop.model.sqlmesh_import import environment_kept
from oploop.records import DIALECT
from oploop.warehouse.base import Warehouse, quote, quote_table

GATEWAY = "oploop"
STATE_SCHEMA = "sqlmesh"
FIRST_DAY = "2020-01-01"  #: where models begin that say no `start` themselves


@dataclass
class Seen:
    """What happened in a plan or run, collected from SQLMesh's console and notifications. Keys are SQLMesh's names."""

    evaluated: set[str] = field(default_factory=set)
    milliseconds: dict[str, int] = field(default_factory=dict)
    failed: dict[str, BaseException] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    audit_errors: list[Any] = field(default_factory=list)


class Ears(NoopConsole):  # type: ignore[misc]  # SQLMesh has no types that we use
    """A console that shows nothing and remembers what matters."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.progress: Callable[[str], None] = lambda _: None

    def start_snapshot_evaluation_progress(self, snapshot: Any, *args: Any, **kwargs: Any) -> None:
        self.progress(snapshot.node.name)

    def update_snapshot_evaluation_progress(
        self, snapshot: Any, interval: Any, batch_idx: int, duration_ms: int | None, *args: Any, **kwargs: Any
    ) -> None:
        self.seen.evaluated.add(snapshot.name)
        self.seen.milliseconds[snapshot.name] = self.seen.milliseconds.get(snapshot.name, 0) + (duration_ms or 0)

    def log_skipped_models(self, snapshot_names: set[str]) -> None:
        self.seen.skipped |= snapshot_names

    def log_failed_models(self, errors: Sequence[Any]) -> None:
        for error in errors:
            unit = error.node
            name = (
                unit if isinstance(unit, str) else getattr(unit, "snapshot_name", None) or getattr(unit, "name", unit)
            )
            self.seen.failed[str(name)] = error.__cause__ or error


class AuditEar(BaseNotificationTarget, frozen=True):  # type: ignore[misc, call-arg]
    """Hears of each failed audit, blocking or not, with its number of rows."""

    type_: str = "oploop"
    notify_on: frozenset[NotificationEvent] = frozenset({NotificationEvent.AUDIT_FAILURE})
    ears: Any = None

    def notify_audit_failure(self, audit_error: Any, *args: Any, **kwargs: Any) -> None:
        self.ears.seen.audit_errors.append(audit_error)

    def __hash__(self) -> int:
        return id(self)


class Connection(DuckDBConnectionConfig):  # type: ignore[misc]
    """Hands SQLMesh our own adapter in place of one that opens the file again."""

    _adapter: Any = None

    def create_engine_adapter(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapter


def connection_of(warehouse: Warehouse, adapter: Any) -> Connection:
    """The connection of a warehouse, in whose dialect the models are written."""

    class Own(Connection):
        DIALECT: ClassVar[str] = warehouse.dialect

    made = Own(database=warehouse.label)
    made._adapter = adapter
    return made


class RawTables(SqlMeshLoader):  # type: ignore[misc]
    """Loads a project, and for each table that a model names and no model makes, its columns from the warehouse."""

    warehouse: Warehouse  #: of the class, as SQLMesh pickles the arguments of loaders

    def _load_models(self, macros: Any, jinja_macros: Any, gateway: Any, audits: Any, *args: Any, **kwargs: Any) -> Any:
        models, index = super()._load_models(macros, jinja_macros, gateway, audits, *args, **kwargs)
        for model in [m for m in models.values() if m.is_sql]:
            try:
                used = fields.resolved(model.query_.sql)
            except OploopError as e:
                raise e.at(Place(str(model._path), line_of(model._path, "@field"))) from e
            if used:
                model.python_env["__oploop_fields__"] = Executable.value(sorted(used.items()))
        named = {fqn for model in models.values() for fqn in model.depends_on}
        for fqn in sorted(named - set(models)):
            table = exp.to_table(fqn, dialect=DIALECT)
            columns = self.warehouse.columns(f"{table.db}.{table.name}") if table.db else {}
            if columns:
                if self.warehouse.folds_case:
                    columns = {quote(n): exp.DataType.build(t, dialect=DIALECT) for n, t in columns.items()}
                external = self._external(f"{table.db}.{table.name}", columns, audits)
                models[external.fqn] = external
        return models, index

    def _external(self, name: str, columns: dict[str, Any], audits: Any) -> Any:
        return create_external_model(
            quote_table(name),
            columns=columns,
            dialect=self.warehouse.dialect,
            default_catalog=self.context.default_catalog,
            defaults=self.config.model_defaults.dict(),
            project=self.config.project,
            audit_definitions=audits,
        )


def make_context(root: Path, warehouse: Warehouse, cache_dir: Path, ears: Ears, adapter: Any) -> Context:
    """A loaded SQLMesh context for the project at `root`. Raises SQLMesh's ConfigError for models that cannot be."""
    set_console(ears)
    connection = connection_of(warehouse, adapter)
    loader = type("Loader", (RawTables,), {"warehouse": warehouse})
    config = Config(
        gateways={GATEWAY: GatewayConfig(connection=connection, state_schema=STATE_SCHEMA)},
        default_gateway=GATEWAY,
        model_defaults=ModelDefaultsConfig(dialect=warehouse.dialect, start=FIRST_DAY, allow_partials=True),
        plan=PlanConfig(auto_categorize_changes=CategorizerConfig.all_full()),
        run=RunConfig(environment_check_interval=1, environment_check_max_wait=1),
        cache_dir=str(cache_dir),
        infer_python_dependencies=False,  # only matters to remote workers, and takes 0.3 s
        disable_anonymized_analytics=True,
    )
    with environment_kept():
        return Context(paths=str(root), config=config, loader=loader, notification_targets=[AuditEar(ears=ears)])


def make_adapter(warehouse: Warehouse) -> EngineAdapter:
    """SQLMesh's adapter: on a cursor of the warehouse's own connection, or on a session of its own with a server. To be
    closed after each use, as an open cursor keeps the file held."""
    [(catalog,)] = warehouse.rows("SELECT current_database()")
    return create_engine_adapter(
        lambda *_, **__: warehouse.session(),
        warehouse.dialect,
        multithreaded=False,
        default_catalog=catalog,
        register_comments=True,
    )
