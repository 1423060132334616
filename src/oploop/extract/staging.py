"""Rows into staging tables: by COPY into a server, by dlt's Arrow path into DuckDB. The only importer of dlt (1.3 s, so it is imported when there are rows to load).

Staging is made anew for each load and dropped after it. What a failed or killed load left behind is thrown away first:
nothing of it was merged and no cursor moved, so the rows come again. (dlt itself would load the left-over package with
the next run, and silently not take the new rows.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from oploop.errors import OploopError
from oploop.warehouse.base import SqlError, Warehouse, quote

DATASET = "oploop_staging"
PIPELINE = "oploop"


class StagingFailed(OploopError):
    """dlt could not load a chunk into staging; nothing of it was merged."""


class Staging:
    """Where chunks are put before they are merged. Loads chunks over the warehouse's own connection; dlt's working files are in `work_dir`."""

    def __init__(self, warehouse: Warehouse, work_dir: Path) -> None:
        self._warehouse = warehouse
        self._work_dir = work_dir / "dlt"

    def load(self, tables: Mapping[str, pa.Table]) -> Mapping[str, str]:
        """Load each Arrow table as a fresh staging table; their quoted names. In one dlt run."""
        self.clear()
        names = {key: f"s{i}" for i, key in enumerate(tables)}
        try:
            _run_dlt(self._warehouse.connection, self._work_dir, {names[k]: t for k, t in tables.items()})
        except Exception as e:
            raise StagingFailed(f"loading {', '.join(tables)} failed: {_cause(e)}", mend="run again") from e
        return {key: f"{quote(DATASET)}.{quote(name)}" for key, name in names.items()}

    def clear(self) -> None:
        """Drop the staging tables and dlt's packages, whoever left them."""
        self._warehouse.execute(f"DROP SCHEMA IF EXISTS {quote(DATASET)} CASCADE")
        shutil.rmtree(self._work_dir, ignore_errors=True)

    def finish(self) -> None:
        """Undo what dlt set for the whole database: a log of up to 1 GB before it is written into the file."""
        self._warehouse.execute("RESET GLOBAL checkpoint_threshold")

    def warm_up(self) -> None:
        """Import dlt, so that the first load need not wait for it."""
        _dlt()


class ServerStaging:
    """Where chunks are put on a server: temporary tables, filled by COPY, which nothing outlives."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._names: list[str] = []

    def load(self, tables: Mapping[str, pa.Table]) -> Mapping[str, str]:
        """Load each Arrow table as a fresh staging table; their quoted names."""
        self.clear()
        names = {key: f"{DATASET}_s{i}" for i, key in enumerate(tables)}
        for key, name in names.items():
            self._names.append(name)
            try:
                self._warehouse.register(name, tables[key])
            except SqlError as e:
                raise StagingFailed(f"loading {key} failed: {e.reason}", mend="run again") from e
        return {key: quote(name) for key, name in names.items()}

    def clear(self) -> None:
        """Drop the staging tables."""
        while self._names:
            self._warehouse.unregister(self._names.pop())

    def finish(self) -> None:
        """Nothing was set for the whole database."""

    def warm_up(self) -> None:
        """Nothing needs to be loaded first."""


AnyStaging: TypeAlias = Staging | ServerStaging


def staging_of(warehouse: Warehouse, work_dir: Path) -> AnyStaging:
    """The way to stage rows that is the fastest with this warehouse."""
    return ServerStaging(warehouse) if warehouse.copies else Staging(warehouse, work_dir)


def _run_dlt(connection: Any, work_dir: Path, tables: Mapping[str, pa.Table]) -> None:
    dlt = _dlt()
    from dlt.common.schema import Schema

    pipeline = dlt.pipeline(
        PIPELINE,
        destination=dlt.destinations.duckdb(connection, naming_convention="direct"),
        dataset_name=DATASET,
        pipelines_dir=str(work_dir),
    )
    pipeline.config.restore_from_destination = False  # there is no state of dlt's to restore: cursors are ours
    resources = [dlt.resource(iter([t]), name=n, write_disposition="append") for n, t in tables.items()]
    info = pipeline.run(resources, schema=Schema(DATASET), loader_file_format="parquet")
    info.raise_on_failed_jobs()


def _dlt() -> Any:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"  # read while dlt is imported; on by default
    os.environ.setdefault("RUNTIME__LOG_LEVEL", "CRITICAL")
    import dlt

    return dlt


def _cause(error: BaseException) -> str:
    """The first line of the error that dlt wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
