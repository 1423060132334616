"""What differs from database to database: one subclass of Engine each. All of it blocks; reader and writer call it in threads."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

import orjson

from oploop.apps.sql.columns import STEPS, Described, SqlColumn, form_of
from oploop.apps.transport import Answer, Budget, Refused, Request
from oploop.errors import OploopError
from oploop.records import ColumnType


class RowsRefused(Refused):
    """A statement was refused for what its rows hold, and nothing was done."""

    def __init__(self, table: str, message: str) -> None:
        super().__init__(Answer(400, {}, b"", Request("INSERT", table)), message)


class Values:
    """How values travel."""

    text: ClassVar[str] = "TEXT"  #: the type to which a value is cast to be read as text

    def as_key(self, column: SqlColumn) -> SqlColumn:
        """A column that identifies records: text where its value would not be the same text everywhere."""
        kind = column.kind
        if kind.column in (ColumnType.TEXT, ColumnType.INTEGER):
            return column
        if kind.column is ColumnType.BOOLEAN:
            return replace(column, kind=replace(kind, column=ColumnType.INTEGER))
        read, form = f"CAST({{}} AS {self.text})", form_of(kind.column)
        return replace(column, kind=replace(kind, column=ColumnType.TEXT, read=read, rewritten=True, canonical=form))

    def staged(self, column: SqlColumn, value: Any) -> Any:
        """A value as the driver takes it."""
        match value:
            case None:
                return None
            case bool():
                return int(value) if column.kind.column is not ColumnType.TEXT else str(value).lower()
            case list() | dict():
                return orjson.dumps(value).decode()
            case datetime():
                return self.time_text(value)
            case date():
                return value.isoformat()
        if column.kind.column is ColumnType.JSON:
            return orjson.dumps(value).decode()
        if column.kind.column is ColumnType.TEXT and not isinstance(value, str):
            return str(value)
        if column.kind.column is ColumnType.TIMESTAMP and isinstance(value, str):
            return self.time_text(datetime.fromisoformat(value))
        return value

    def time_text(self, at: datetime) -> str:
        """An instant as a text in UTC, as this database writes it."""
        from datetime import UTC

        utc = at.astimezone(UTC) if at.tzinfo is not None else at
        return utc.replace(tzinfo=None).isoformat(sep=" ")

    def back(self, text: str, seconds: float) -> str:
        """A cursor's text, so many seconds earlier, in the form in which it was written."""
        try:
            at = datetime.fromisoformat(text[:19])
        except ValueError:
            return text
        return (at - timedelta(seconds=seconds)).isoformat(sep=text[10] if len(text) > 10 else "T")[: len(text[:19])]


class Faults(ABC):
    """What a driver's errors mean."""

    @abstractmethod
    def is_database_error(self, e: BaseException) -> bool:
        """Whether it is the driver's."""

    @abstractmethod
    def about_rows(self, e: BaseException) -> bool:
        """Whether an error lies in what the rows hold, so that other rows may pass."""

    @abstractmethod
    def is_transient(self, e: BaseException) -> bool:
        """Whether nothing was done and the same may succeed at once: a lock, a deadlock."""

    @abstractmethod
    def is_broken(self, e: BaseException) -> bool:
        """Whether the connection is gone."""

    @abstractmethod
    def explain(self, e: BaseException) -> OploopError:
        """A driver's error as ours, named by its remedy; never with the password."""

    def said(self, e: BaseException) -> str:
        """What a driver said, in one line of at most 300 characters."""
        text = " ".join(str(e.args[-1] if e.args else e).split())
        return text if len(text) <= 300 else text[:299] + "…"


class Engine(Values, Faults):
    """One database. `calls` counts steps sent, reads begun and fetches."""

    budget: Budget | None = None  #: a database of one's own has no quota
    mark: ClassVar[str] = "?"  #: a parameter in a statement
    stage: ClassVar[str] = "oploop_stage"  #: the temporary table, as statements name it
    batch: ClassVar[int] = 50_000
    in_flight: ClassVar[int] = 1
    lock: ClassVar[str] = ""  #: what a SELECT says so that its rows stay as they are to the end of the transaction
    counted_overlap: ClassVar[int] = 0  #: overlap of a cursor that counts rather than tells the time

    def __init__(self, app: str) -> None:
        self.app = app
        self.calls = 0

    async def aclose(self) -> None:
        """Connections are closed where they are used."""

    # -- connections ---------------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def place(self) -> str:
        """The database, as messages name it."""

    @property
    @abstractmethod
    def base_url(self) -> str:
        """The address without user and password."""

    @abstractmethod
    def connect(self, *, stream: bool = False) -> Any:
        """A DBAPI connection outside of any transaction; `stream`: rows are to come as they are fetched."""

    @contextlib.contextmanager
    def connection(self, *, stream: bool = False) -> Iterator[Any]:
        """A connection that is closed after use; a driver's error is one of ours then."""
        try:
            connection = self.connect(stream=stream)
        except OploopError:
            raise
        except Exception as e:
            raise self._ours(e) from None
        try:
            yield connection
        except OploopError:
            raise
        except Exception as e:
            raise self._ours(e) from None
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def _ours(self, e: Exception) -> BaseException:
        return self.explain(e) if self.is_database_error(e) else e

    @abstractmethod
    def begin(self, connection: Any, *, write: bool) -> None:
        """Begin a transaction: for reading one that shows a single moment."""

    @abstractmethod
    def clock(self, connection: Any) -> int:
        """The database's clock, in microseconds since 1970."""

    @abstractmethod
    def check(self, connection: Any) -> str:
        """Who answers, in a line for people."""

    # -- catalogue -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def names(self, connection: Any) -> Mapping[str, bool]:
        """All tables and views by name; False: a view."""

    @abstractmethod
    def describe(self, connection: Any, name: str, asked: Collection[str]) -> Described[SqlColumn] | None:
        """A table's columns and keys; None when there is no such table. `asked`: columns that the user names, which the
        database has though no catalogue shows them."""

    @abstractmethod
    def quote(self, name: str) -> str:
        """A quoted identifier."""

    # -- statements where they differ ----------------------------------------------------------------------------------

    @abstractmethod
    def make_stage(self, columns: Sequence[tuple[str, SqlColumn | str]]) -> str:
        """CREATE of the temporary table. A column has the type of a table's column (a key) or a type by name."""

    def drop_stage(self) -> str:
        return f"DROP TABLE IF EXISTS {self.stage}"

    def update(self, table: str, sets: Sequence[tuple[str, str]], same: str, rows: str) -> str:
        """UPDATE of `table` AS t from the staged rows s."""
        assigned = ", ".join(f"{name} = {value}" for name, value in sets)
        return f"UPDATE {table} AS t SET {assigned} FROM {self.stage} AS s WHERE {same} AND {rows}"

    @abstractmethod
    def remove(self, table: str, find: Sequence[str], same: str, rows: str) -> str:
        """DELETE of the rows of `table` that are staged."""

    @abstractmethod
    def make_steps(self) -> str:
        """CREATE of the table of steps, unless it is there."""

    def tuples(self, width: int, count: int) -> str:
        """`count` lists of values for IN, each of so many parameters."""
        one = ", ".join([self.mark] * width)
        return ", ".join([f"({one})" if width > 1 else one] * count)

    def is_done(self, e: BaseException) -> bool:
        """Whether an error says that a step's id stands there already."""
        return self.about_rows(e)

    @property
    def steps(self) -> str:
        return self.quote(STEPS)
