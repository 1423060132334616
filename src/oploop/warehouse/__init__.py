"""The only code that speaks to SQL engines: one file an engine, behind the Warehouse protocol of base.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oploop.runtime import Runtime
from oploop.warehouse.base import SqlError, Warehouse

if TYPE_CHECKING:
    from oploop.project import WarehouseBlock


def open_warehouse(
    path: Path,
    *,
    read_only: bool,
    runtime: Runtime,
    wait: float | None = None,
    holder: Callable[[], str | None] = lambda: None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Warehouse:
    """Open the warehouse file at `path`, making it and its folder unless `read_only`.

    While another process holds the file, tries again for `wait` seconds (None or 0: not at all); `on_wait` is told
    once who holds it, `runtime.nap` sleeps between tries. `holder` is what our own state knows of the holder ("oploop run
    (pid 123) since 10:02"), or None.

    Raises FixConfig when there is no warehouse to read, when the file is none, when a newer engine wrote it, when it
    may not be opened, and when another process still holds it.
    """
    from oploop.warehouse.duckdb import open_duckdb  # DuckDB is loaded only by those who open a warehouse

    return open_duckdb(path, read_only=read_only, runtime=runtime, wait=wait, holder=holder, on_wait=on_wait)


def open_server(block: WarehouseBlock, *, read_only: bool) -> Warehouse:
    """Open a warehouse that is a server, making our helper functions there unless `read_only`.

    Raises FixConfig for an address that leads nowhere, RetryLater when the server does not answer.
    """
    from oploop.errors import OploopError

    try:
        opened: Warehouse = _engine(block).open_at(block.address(), read_only=read_only)
        return opened
    except OploopError as e:
        raise e.at(block.place) from None


def open_session(block: WarehouseBlock) -> Any:
    """Another session with the server, for the state that stands in it; a connection of the driver's."""
    return _engine(block).session_at(block.address())


def _engine(block: WarehouseBlock) -> Any:
    """The file of a server's engine, which is called as the engine is in `oploop.yml`."""
    return import_module(f"{__name__}.{block.type}")


__all__ = ["SqlError", "Warehouse", "open_server", "open_session", "open_warehouse"]
