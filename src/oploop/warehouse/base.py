"""What a SQL engine is to oploop. One implementation a file: a driver, sqlglot for the dialect, declared capabilities.

Statements are written in the dialect of DuckDB where dialects agree; what engines do differently is a method here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from oploop.errors import FixData
from oploop.lean import arrow_alone
from oploop.records import FieldSource, FieldType

if TYPE_CHECKING:
    import pyarrow as pa

arrow_alone()

D = TypeVar("D")


class SqlError(FixData):
    """The engine refused a statement. `reason` is what it said, in one line, without the statement."""

    def __init__(self, reason: str) -> None:
        full = "no space left" in reason.lower()
        mend = "make room on its disk, then run again" if full else None
        super().__init__(f"the warehouse refused a statement: {reason}", mend=mend)
        self.reason = reason


class NoRoom(SqlError):
    """The engine had too little memory for a statement (see `Warehouse.bounded`)."""


class Values(Protocol):
    """Expressions for values, in the dialect in which statements are handed over."""

    def field_value(self, source: FieldSource, kind: FieldType, alias: str) -> str:
        """An expression for a field's present value, of `Warehouse.sql_type(kind)`, from the raw table called `alias`.

        JSON's null is SQL's NULL, and so is what does not fit the type. The form is that of `typed_value`.
        """
        ...

    def typed_value(self, expression: str, kind: FieldType) -> str:
        """An expression that brings any other one to `Warehouse.sql_type(kind)`, in the form in which values are compared.

        Lists become the JSON text of their sorted, distinct texts; JSON becomes text with sorted keys and no blanks.
        What does not fit the type (12.7 for an INTEGER, text for a DATE) becomes NULL.
        """
        ...

    def every(self, expression: str, kind: str, test: Callable[[str, str], str | None]) -> str | None:
        """The condition that each value within one of the SQL type `kind` passes a test: of a list its elements, of what has members
        those. `test` gets an expression and its type, and gives None where none can fail; so does this. A NULL passes."""
        ...

    def list_merge(self, expr: str, add: Sequence[str], remove: Sequence[str]) -> str:
        """A canonical list text with some texts added and others removed; a NULL list counts as empty."""
        ...

    def json_keys(self, expr: str) -> str:
        """An expression that makes a row of each key of an object's JSON text."""
        ...

    def median(self, expr: str, rows: int) -> tuple[str, bool]:
        """An aggregate for the median of so many numbers, as a float, and whether it is exact: of very many it may be about
        right, in bounded memory."""
        ...

    def json_of(self, members: Sequence[tuple[str, str]]) -> str | None:
        """An expression for the JSON text of an object of (name, expression) members, each written as `to_json` does; None
        where the engine has no quick one."""
        ...


class Warehouse(Values, Protocol):
    """An open warehouse. One writer; `read_only` ones never change it (temporary tables are allowed).

    Safe to use from several threads: statements take turns, and a transaction keeps the others waiting until it ends.
    Methods that run SQL raise SqlError.
    """

    dialect: str  #: sqlglot's name
    folds_case: bool  #: a name that is not quoted loses its capitals, or others find it by no other spelling
    read_only: bool
    label: str  #: how messages call it: the file's name, or database and host
    #: a table is read and changed column by column, and takes hardly more room than what stands in it
    columnar: bool
    alone: bool  #: nobody but this process writes while it is open

    @property
    def connection(self) -> Any:
        """The driver's own connection. Whoever uses it must not do so while others use this object."""
        ...

    def session(self) -> Any:
        """Another cursor or session of the driver's, for SQLMesh; whoever asks for it closes it."""
        ...

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed, where the engine tells, else -1."""
        ...

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        """The whole result as Arrow."""
        ...

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The whole result as Python tuples, for small results."""
        ...

    def stream(self, sql: str, params: Sequence[Any] = (), *, batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """The result batch by batch, in bounded memory, on a cursor of its own.

        It sees what is committed: neither the temporary tables nor the open transaction of the others.
        """
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing: commits at the end, rolls back on an exception."""
        ...

    def bulk(self, *, lasting: bool, ordered: bool = True) -> AbstractContextManager[None]:
        """Large tables that are written inside are compressed no more than is quick; not at all, unless they are `lasting`.
        Rows need not come in the order of a select that is not sorted, unless `ordered`."""
        ...

    def bounded(self, megabytes: int) -> AbstractContextManager[None]:
        """What would take more memory than this inside goes to the disk, where the engine can. A statement that cannot do with
        it raises NoRoom."""
        ...

    def unbound(self) -> None:
        """Lift the bound, for a statement that cannot do with it."""
        ...

    def kept_name(self, name: str) -> str:
        """A column's name as the engine keeps it; some cut long ones."""
        ...

    def columns(self, table: str) -> dict[str, str]:
        """Column names and SQL types of `schema.table` (or a bare or three-part name); empty when there is none.

        A name is found as it was written, also where the engine keeps it in another form.
        """
        ...

    def few(self, table: str, where: str) -> str:
        """A relation of the rows of a quoted table for which a condition over `t` holds. Mostly they are few and stand close
        together; then hardly more is read of the table than the columns that the condition names.
        """
        ...

    def apart(self, table: str, where: str) -> bool:
        """Whether the rows that `few` is asked for stand so far apart that a change of their values takes the engine to write
        most of the table."""
        ...

    def tables(self) -> list[str]:
        """All tables and views as `schema.name`."""
        ...

    def depended_on(self, view: str) -> bool:
        """Whether the engine lets nobody replace a view, as other views look at it."""
        ...

    def register(self, name: str, table: pa.Table) -> None:
        """Show an Arrow table under a temporary name; another of that name is replaced."""
        ...

    def unregister(self, name: str) -> None: ...

    def sql_type(self, kind: FieldType) -> str:
        """The SQL type in which values of a field type are compared and kept."""
        ...

    #: a question to which every session with this database has one answer, a text, and with no other the same
    identity_sql: str

    def identity(self) -> str:
        """The answer to `identity_sql`: a file's path, or words that tell one server from another."""
        ...

    def parted(self) -> AbstractContextManager[None]:
        """Inside, another process may write: a file is let go of, and taken up again afterwards. Nothing may be asked meanwhile;
        temporary tables are gone then. FixConfig where it cannot be opened again."""
        ...

    def put_off(self, grown: str) -> None:
        """Let `close` leave to a later one what it does for those who read, and what takes it longest: to join the small parts in
        which each process leaves its rows. Not where there are many by now, as `grown` tells: a table that each process adds to.
        """
        ...

    def close(self) -> None: ...


def roomy(warehouse: Warehouse, do: Callable[[], D]) -> D:
    """What comes of something that leaves nothing behind when it fails: as it is, and where memory is too little once more without
    the bound."""
    try:
        return do()
    except NoRoom:
        warehouse.unbound()
        return do()


def raw_table(app: str, stream: str, *, deleted_too: bool = False) -> str:
    """The raw table of a stream, `raw_stripe.charges`; with its deleted rows, `raw_stripe.charges__all`."""
    name = stream.replace(".", "__")  # Postgres: public.accounts
    return f"raw_{app}.{name}__all" if deleted_too else f"raw_{app}.{name}"


def quote(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_table(name: str) -> str:
    """A quoted `schema.table`."""
    return ".".join(quote(part) for part in name.split("."))


def literal(value: str) -> str:
    """A quoted SQL text."""
    return "'" + value.replace("'", "''") + "'"
