"""The Modeler that SQLMesh stands behind; imported by `oploop.model.sqlmesh`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlmesh.core import lineage as sqlmesh_lineage
from sqlmesh.core.console import set_console
from sqlmesh.utils.errors import SQLMeshError

from oploop.errors import FixConfig, OploopError, did_you_mean
from oploop.model import fields, sqlmesh_faults
from oploop.model.base import ColumnSource, ModelInfo, ModelResult, UnitTestResult
from oploop.model.sqlmesh_build import Build
from oploop.model.sqlmesh_faults import display
from oploop.model.sqlmesh_import import quietly
from oploop.model.sqlmesh_setup import Ears, make_adapter, make_context
from oploop.records import DIALECT
from oploop.runtime import Runtime
from oploop.warehouse.base import Warehouse


class SqlmeshModeler:
    """The models of a SQLMesh project, built over our own warehouse connection; see `oploop.model.base.Modeler`.

    `root` is the project's folder; it needs no config file of SQLMesh's, and one that is there is not read. `field_sql`
    resolves `@field(app.object, 'title')`. Each call looks at the files and the raw tables anew.

    Every method raises FixConfig, with file and line, for models that cannot be loaded or that name tables or
    columns that do not exist. Then nothing was changed anywhere.
    """

    def __init__(
        self,
        root: Path,
        warehouse: Warehouse,
        runtime: Runtime,
        *,
        field_sql: fields.FieldSql | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        self._root = root
        self._warehouse = warehouse
        self._runtime = runtime
        self._field_sql = field_sql
        self._cache_dir = cache_dir or root / ".oploop" / "sqlmesh"
        self._ears = Ears()
        self._adapter: Any = None
        self._context: Any = None
        self._loaded_as: object = None

    def models(self) -> Sequence[ModelInfo]:
        with self._loaded() as context:
            return [self._info(context, fqn) for fqn in _sorted(context)]

    def build(
        self, environment: str, *, select: Sequence[str] = (), progress: Callable[[str], None] = lambda _: None
    ) -> Sequence[ModelResult]:
        with self._loaded() as context:
            chosen = _chosen(context, select)
            build = Build(context, self._ears, self._warehouse, self._runtime, environment, chosen, progress)
            return build.results()

    def test(self) -> Sequence[UnitTestResult]:
        """Run the unit tests, in an in-memory database of SQLMesh's."""
        with self._loaded() as context, _json_as_text(context):
            lost = sqlmesh_faults.tests_of_nothing(context, self._root)
            if lost:
                return lost
            try:
                with sqlmesh_faults.whole_tables():
                    result = context.test(stream=io.StringIO())
            except SQLMeshError as e:
                raise sqlmesh_faults.from_loading(e, self._root) from e
            bad = [*result.original_failures, *result.original_errors]
            failed = [sqlmesh_faults.failed_test(test, error[1], self._root) for test, error in bad]
            passed = [UnitTestResult(test.test_name, True) for test in result.successes]
            return sorted(failed + passed, key=lambda r: r.name)

    def lineage(self, model: str, column: str) -> Sequence[ColumnSource]:
        with self._loaded() as context:
            known = {m.name: m for m in context.models.values() if not m.kind.is_external}
            if model not in known:
                raise FixConfig(f"there is no model {model}", mend=did_you_mean(model, known))
            start = _spelled(column, known[model].columns_to_types or {})
            if start is None:
                columns = known[model].columns_to_types or {}
                raise FixConfig(f"{model} has no column {column!r}", mend=did_you_mean(column, columns))
            return self._edges(context, known[model].fqn, start)

    # -- loading -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _loaded(self) -> Iterator[Any]:
        """The project as it stands now. Afterwards SQLMesh lets go of the warehouse."""
        fields.resolve_with(self._field_sql)
        set_console(self._ears)
        try:
            with quietly():
                if self._context is None or self._loaded_as != self._fingerprint(self._context):
                    self._context = None
                    self._context = self._load()
                    self._loaded_as = self._fingerprint(self._context)
                yield self._context
        finally:
            if self._adapter is not None:
                self._adapter.close()

    def _load(self) -> Any:
        sqlmesh_lineage.CACHE.clear()
        self._make_cache_dir()
        self._adapter = make_adapter(self._warehouse)
        try:
            context = make_context(self._root, self._warehouse, self._cache_dir, self._ears, self._adapter)
        except Exception as e:
            wrong = sqlmesh_faults.bad_test_file(self._root)
            if wrong is None and not isinstance(e, (SQLMeshError, OploopError)):
                raise
            raise wrong or sqlmesh_faults.from_loading(e, self._root) from e
        own = [context.models[fqn] for fqn in _sorted(context)]
        sqlmesh_faults.check_names(own, context.models, self._warehouse, self._root)
        return context

    def _fingerprint(self, context: Any) -> object:
        """What a loaded project depends on: its files, and the columns of the tables that no model makes."""
        folders = [self._root / name for name in ("models", "audits", "macros", "seeds", "signals", "tests")]
        files = {(str(p), p.stat().st_mtime_ns) for folder in folders for p in folder.rglob("*") if p.is_file()}
        tables = [display(fqn) for fqn, model in context.models.items() if model.kind.is_external]
        return files, {t: self._warehouse.columns(t) for t in tables}

    def _make_cache_dir(self) -> None:
        self._cache_dir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cache_dir.mkdir(mode=0o700, exist_ok=True)

    def _info(self, context: Any, fqn: str) -> ModelInfo:
        model = context.models[fqn]
        path = Path(model._path).resolve() if model._path else None
        inside = path is not None and path.is_relative_to(self._root.resolve())
        return ModelInfo(
            name=model.name,
            kind=model.kind.name.value,
            path=str(path.relative_to(self._root.resolve()) if path is not None and inside else path or ""),
            columns={name: kind.sql(dialect=DIALECT) for name, kind in (model.columns_to_types or {}).items()},
            depends_on=sorted(display(parent) for parent in model.depends_on),
            description=model.description or "",
        )

    # -- lineage -------------------------------------------------------------------------------------------------------

    def _edges(self, context: Any, fqn: str, column: str) -> list[ColumnSource]:
        edges: dict[ColumnSource, None] = {}
        todo, done = [(fqn, column)], {(fqn, column)}
        while todo:
            at, name = todo.pop(0)
            for parent, columns in sorted(_parents(context, at, name).items()):
                for source in sorted(columns):
                    edges[ColumnSource(display(at), name, display(parent), self._raw_name(parent, source))] = None
                    if (parent, source) not in done:
                        done.add((parent, source))
                        todo.append((parent, source))
        return list(edges)

    def _raw_name(self, fqn: str, column: str) -> str:
        """SQLMesh writes names in lower case; raw columns keep the API's spelling."""
        table = display(fqn)
        return (_spelled(column, self._warehouse.columns(table)) or column) if table.startswith("raw_") else column


@contextmanager
def _json_as_text(context: Any) -> Iterator[None]:
    """Raw tables with text for JSON, which reads the same. SQLMesh fills columns that a unit test leaves out with the
    text "None", which is no JSON, so that each test would have to name every JSON column of a raw table."""
    own = {fqn: model for fqn, model in context.models.items() if model.kind.is_external}
    try:
        for fqn, model in own.items():
            columns = {n: _text() if t.is_type("json") else t for n, t in (model.columns_to_types or {}).items()}
            dict.__setitem__(context._models, fqn, model.copy(update={"columns_to_types_": columns}))
        yield
    finally:
        for fqn, model in own.items():
            dict.__setitem__(context._models, fqn, model)


def _text() -> Any:
    from sqlglot import exp

    return exp.DataType.build("text")


def _sorted(context: Any) -> list[str]:
    """The project's own models by SQLMesh's names, dependencies first."""
    models = context.models
    return [fqn for fqn in context.dag.sorted if fqn in models and not models[fqn].kind.is_external]


def _chosen(context: Any, select: Sequence[str]) -> list[str]:
    """The models that were asked for and what they depend on, dependencies first."""
    if not select:
        return _sorted(context)
    by_name = {m.name: fqn for fqn, m in context.models.items() if not m.kind.is_external}
    wanted: set[str] = set()
    for name in select:
        if name not in by_name:
            raise FixConfig(f"there is no model {name}", mend=did_you_mean(name, by_name))
        wanted |= {by_name[name], *context.dag.upstream(by_name[name])}
    return [fqn for fqn in _sorted(context) if fqn in wanted]


def _parents(context: Any, fqn: str, column: str) -> dict[str, set[str]]:
    model = context.models.get(fqn)
    if model is None or not model.is_sql:
        return {}
    found: dict[str, set[str]] = sqlmesh_lineage.column_dependencies(context, fqn, column)
    return found


def _spelled(name: str, known: Any) -> str | None:
    return next((k for k in known if k.lower() == name.lower()), None)
