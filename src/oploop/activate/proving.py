"""A sync's own SQL tried on its model: before a plan on no row of it, after a failure on all of them."""

from __future__ import annotations

from collections.abc import Iterator

from oploop.activate.bound import BoundSync
from oploop.activate.mapping import MODEL, no_row
from oploop.errors import FixConfig, FixData, OploopError, Place
from oploop.project import Sync
from oploop.warehouse.base import SqlError, Warehouse, quote_table


def sql_of(sync: Sync) -> Iterator[tuple[str, str, Place]]:
    """The SQL texts of a sync's file: the key, the text, where it stands."""
    if sync.where:
        yield "where", sync.where, sync.place_of("where")
    for i, check in enumerate(sync.checks):
        yield "checks", check.sql, sync.place_of("checks", i)
    for m in sync.fields:
        if m.sql is not None:
            yield "fields", m.sql, sync.place_of("fields", m.field)


#: The types of SQL that can be asked whether they are true.
YES_OR_NO = frozenset(
    ("BOOLEAN", '"NULL"', "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
)


def prove(bound: BoundSync, warehouse: Warehouse) -> None:
    """Try the sync's own SQL on its model, which must stand; FixConfig with the place of the first that is wrong."""
    for name, expr, place in sql_of(bound.sync):
        try:
            [(kind, _)] = warehouse.rows(f"SELECT typeof({expr}), ({expr}) FROM {no_row(bound.model_table)}")
        except SqlError as e:
            raise FixConfig(
                f"{name}: {expr!r} cannot be asked of {bound.sync.model}: {e.reason}",
                mend="mend the expression",
                place=place,
            ) from None
        if name != "fields" and str(kind) not in YES_OR_NO:
            raise FixConfig(
                f"{name}: {expr!r} is {str(kind).lower()}, neither true nor false",
                mend="compare it with something, like `score > 0`",
                place=place,
            )


def blame(bound: BoundSync, warehouse: Warehouse, error: SqlError) -> OploopError:
    """An error of a sync's statement as one of the line whose SQL fails on some row; the error itself when none does."""
    for name, expr, place in sql_of(bound.sync):
        try:
            warehouse.rows(f"SELECT count({expr}) FROM {quote_table(bound.model_table)} AS {MODEL}")
        except SqlError as e:
            return FixData(
                f"{name}: {expr!r} fails on a row of {bound.sync.model}: {e.reason}",
                mend="mend the expression, with try_cast where it converts",
                place=place,
            )
    return error
