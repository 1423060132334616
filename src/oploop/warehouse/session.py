"""What the engines' warehouses share: one session for all threads, transactions, and the forms of values by a module of the engine's."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from oploop.records import FieldSource, FieldType
from oploop.warehouse.base import Values

C = TypeVar("C")


class EngineValues(Values, Protocol):
    """The module in which an engine says how it writes values. `SQL_TYPES`: see `Warehouse.sql_type`."""

    SQL_TYPES: Mapping[FieldType, str]


class Session(ABC, Generic[C]):
    """A session over a driver's connection. Whoever makes one of an engine gives `values`, `_send` and `_roll_back`."""

    values: EngineValues

    def __init__(self, connection: C, *, read_only: bool, label: str) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._depth = 0
        self.read_only = read_only
        self.label = label

    @property
    def connection(self) -> C:
        """The driver's connection. Whoever uses it must not do so while others use this object."""
        return self._connection

    @abstractmethod
    def _send(self, sql: str, params: Sequence[Any] = ()) -> Any:
        """Run a statement. Within the lock."""

    @abstractmethod
    def _roll_back(self) -> None:
        """End the open transaction, also of a session that broke or has rolled back already."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. A transaction inside another is part of it."""
        with self._lock:
            if self._depth:
                yield
                return
            self._send("BEGIN")
            self._depth += 1
            try:
                yield
                self._depth -= 1
                self._send("COMMIT")
            except BaseException:
                self._depth = 0
                self._roll_back()
                raise

    def parted(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # a server takes others beside us

    def bounded(self, megabytes: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # a server has bounds of its own

    def unbound(self) -> None:
        """There is no bound to lift."""

    def kept_name(self, name: str) -> str:
        """As it is: most engines cut none."""
        return name

    def put_off(self, grown: str) -> None:
        """A server joins nothing when a session ends."""

    # -- values ------------------------------------------------------------------------------------------------------

    def sql_type(self, kind: FieldType) -> str:
        return self.values.SQL_TYPES[kind]

    def field_value(self, source: FieldSource, kind: FieldType, alias: str) -> str:
        return self.values.field_value(source, kind, alias)

    def typed_value(self, expression: str, kind: FieldType) -> str:
        return self.values.typed_value(expression, kind)

    def every(self, expression: str, kind: str, test: Callable[[str, str], str | None]) -> str | None:
        return self.values.every(expression, kind, test)

    def list_merge(self, expr: str, add: Sequence[str], remove: Sequence[str]) -> str:
        return self.values.list_merge(expr, add, remove)

    def json_keys(self, expr: str) -> str:
        return self.values.json_keys(expr)

    def median(self, expr: str, rows: int) -> tuple[str, bool]:
        return self.values.median(expr, rows)

    def json_of(self, members: Sequence[tuple[str, str]]) -> str | None:
        return self.values.json_of(members)
