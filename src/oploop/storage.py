"""Where a project's data is kept, each opened when it is first needed: its warehouse, its state, its apps' tokens.

One process writes a warehouse at a time: whoever holds the lease `warehouse`. Of a file the engine sees to that itself,
and the lease tells others who it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from oploop.activate import ledger
from oploop.errors import FixConfig, RetryLater
from oploop.project import Project
from oploop.project.secrets import Variables
from oploop.runtime import Runtime
from oploop.state import StateReader, StateStore, server_state
from oploop.state.sqlite import make_private
from oploop.state.vault import KEY_VARIABLE, StateVault
from oploop.warehouse import open_server, open_session, open_warehouse
from oploop.warehouse.base import Warehouse

WAREHOUSE_LEASE = "warehouse"


@dataclass
class Storage:
    """What a command has open. `wait`: seconds to wait for another process; `on_wait` is told once for whom."""

    project: Project
    runtime: Runtime
    command: str
    read_only: bool = False
    wait: float | None = None
    on_wait: Callable[[str], None] = lambda _: None
    _warehouse: Warehouse | None = None
    _state: StateReader | None = None
    _vault: StateVault | None = None

    def close(self) -> None:
        """Close all, and give up what is held; safe to call twice."""
        held = self._warehouse is not None or self.project.warehouse.server
        if self._warehouse is not None:
            self._warehouse.close()
            self._warehouse = None
        if held and not self.read_only and self._state is not None:
            with contextlib.suppress(RetryLater):  # a server that is away: the lease ends by itself
                self.store.drop_lease(WAREHOUSE_LEASE)
        if self._state is not None:
            self._state.close()
            self._state = None
        if self._vault is not None:
            self._vault.close()
            self._vault = None

    @property
    def state(self) -> StateReader:
        """The state, to read."""
        if self._state is None:
            self._state = self._reader() if self.read_only else self._writer()
        return self._state

    @property
    def store(self) -> StateStore:
        """The state, to write; only where something may be written."""
        state = self.state
        assert isinstance(state, StateStore), "a read-only workspace writes no state"
        return state

    @property
    def vault(self) -> StateVault:
        """Where apps keep tokens; opened when one is first kept, also where nothing else is written."""
        if self._vault is None:
            variables = Variables(self.project.root)
            self._vault = StateVault(self._writer, self.project.state_dir, lambda: variables.get(KEY_VARIABLE))
        return self._vault

    def _reader(self) -> StateReader:
        block, server = self.project.warehouse, server_state(self.project.warehouse.type)
        if server is None:
            return StateReader(self.project.state_dir)
        return server.Reader(lambda: open_session(block), "the warehouse")

    def _writer(self) -> StateStore:
        """The state; in a server, so that a runner that is thrown away leaves nothing behind."""
        block, server = self.project.warehouse, server_state(self.project.warehouse.type)
        if server is None:
            return StateStore(self.project.state_dir, self.runtime)
        make_private(self.project.state_dir)  # for what the models' engine keeps for a while
        return server.Store(lambda: open_session(block), self.runtime, "the warehouse")

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse, made ready when it may be written."""
        if self._warehouse is None:
            self._warehouse = self._server() if self.project.warehouse.server else self._file()
            if not self.read_only:
                ledger.ensure(self._warehouse)
        return self._warehouse

    def _file(self) -> Warehouse:
        opened = open_warehouse(
            self.project.warehouse.database,
            read_only=self.read_only,
            runtime=self.runtime,
            wait=self.wait,
            holder=self._holder,
            on_wait=self.on_wait,
        )
        if not self.read_only:
            self.store.take_lease(WAREHOUSE_LEASE, self.command)
        return opened

    def _server(self) -> Warehouse:
        """A warehouse that many may read at once."""
        if not self.read_only:
            self._take_lease()
        return open_server(self.project.warehouse, read_only=self.read_only)

    def _take_lease(self) -> None:
        """Become the one that writes, or wait for it."""
        until, told = self.runtime.monotonic() + (self.wait or 0.0), False
        while True:
            try:
                return self.store.take_lease(WAREHOUSE_LEASE, self.command)
            except RetryLater as e:
                holder, left = self._holder(), until - self.runtime.monotonic()
                if left <= 0 and holder is None:
                    raise
                if left <= 0:
                    mend = "let it finish, or wait for it with --wait SECONDS"
                    raise FixConfig(f"the warehouse is held by {holder}", mend=mend) from None
                if not told:
                    self.on_wait(f"{e.message}, waiting up to {self.wait:g} s")
                    told = True
                self.runtime.nap(min(0.2, left))

    def _holder(self) -> str | None:
        lease = self.state.lease(WAREHOUSE_LEASE)
        return str(lease) if lease is not None else None


__all__ = ["WAREHOUSE_LEASE", "Storage"]
