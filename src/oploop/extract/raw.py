"""Raw tables: made, widened when an app's records change their form, and looked at through a view of the live rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oploop.apps.arrow import empty_table
from oploop.extract.shape import shape
from oploop.records import DELETED, Stream
from oploop.warehouse.base import Warehouse, quote, quote_table, raw_table

_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT"}


def ensure_raw_table(warehouse: Warehouse, app: str, stream: Stream) -> None:
    """Make a stream's raw table and its view, so that models can be built before the first rows; add new columns."""
    table = raw_table(app, stream.name, deleted_too=True)
    has = warehouse.columns(table)
    wanted = shape(stream, [empty_table(stream)], has, warehouse.kept_name).columns
    if has and warehouse.columns(raw_table(app, stream.name)) and all(name in has for name, _ in wanted):
        return
    with warehouse.transaction():
        evolve(warehouse, app, stream, wanted)


def evolve(warehouse: Warehouse, app: str, stream: Stream, wanted: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Bring the raw table to hold `wanted` columns; returns its columns and types as they are then.

    A type that changed is widened where that loses nothing; otherwise the column keeps its type, and what does not
    fit is NULL there (and whole in `_raw`).
    """
    table = raw_table(app, stream.name, deleted_too=True)
    has = warehouse.columns(table)
    if not has:
        warehouse.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(f'raw_{app}')}")
        columns = ", ".join(f"{quote(name)} {kind}" for name, kind in wanted)
        warehouse.execute(f"CREATE TABLE {quote_table(table)} ({columns})")
        _make_view(warehouse, app, stream)
        return dict(wanted)
    view = raw_table(app, stream.name)
    widened = [] if warehouse.depended_on(view) else _widenings(warehouse, table, has, wanted)
    if widened:  # some engines change no column that a view shows
        warehouse.execute(f"DROP VIEW IF EXISTS {quote_table(view)}")
    changes = _additions(has, wanted) + widened
    for change in changes:
        warehouse.execute(f"ALTER TABLE {quote_table(table)} {change}")
    if changes or not warehouse.columns(raw_table(app, stream.name)):
        _make_view(warehouse, app, stream)
    return warehouse.columns(table) if changes else has


def _make_view(warehouse: Warehouse, app: str, stream: Stream) -> None:
    view, table = raw_table(app, stream.name), raw_table(app, stream.name, deleted_too=True)
    warehouse.execute(
        f"CREATE OR REPLACE VIEW {quote_table(view)} AS SELECT * FROM {quote_table(table)} WHERE NOT {quote(DELETED)}"
    )


def _additions(has: Mapping[str, str], wanted: Sequence[tuple[str, str]]) -> list[str]:
    return [f"ADD COLUMN {quote(name)} {kind}" for name, kind in wanted if name not in has]


def _widenings(
    warehouse: Warehouse, table: str, has: Mapping[str, str], wanted: Sequence[tuple[str, str]]
) -> list[str]:
    changes = []
    for name, kind in wanted:
        stored = has.get(name, kind)
        if stored == kind or not (_wider(stored, kind) or _fits(warehouse, table, name, stored, kind)):
            continue
        using = converted(quote(name), stored, kind)
        changes.append(f"ALTER COLUMN {quote(name)} SET DATA TYPE {kind} USING {using}")
    return changes


def _wider(stored: str, wanted: str) -> bool:
    """Whether every value of one type has a place in the other."""
    if wanted == "JSON" or (wanted == "VARCHAR" and stored != "JSON"):
        return True
    if stored in _INTEGERS:
        return wanted in ("BIGINT", "DOUBLE")
    return stored == "DATE" and wanted.startswith("TIMESTAMP")


def _fits(warehouse: Warehouse, table: str, name: str, stored: str, wanted: str) -> bool:
    """Whether a JSON column (a field that was not declared) holds nothing but values of the type it now gets."""
    if stored != "JSON":
        return False
    column = quote(name)
    back = converted(converted(column, "JSON", wanted), wanted, "JSON")
    kept = f"{back} IS NOT NULL" if wanted.startswith(("TIMESTAMP", "DATE")) else f"{back} = {column}"
    lost = f"json_type({column}) <> 'NULL' AND NOT COALESCE({kept}, FALSE)"
    return warehouse.rows(f"SELECT count(*) FROM {quote_table(table)} WHERE {column} IS NOT NULL AND {lost}") == [(0,)]


def converted(expression: str, has: str, wanted: str) -> str:
    """An expression of one type as another; what does not fit becomes NULL."""
    if wanted == "JSON":
        return expression if has == "JSON" else f"CASE WHEN {expression} IS NOT NULL THEN to_json({expression}) END"
    if has == wanted:
        return expression
    return f"TRY_CAST({expression} ->> '$' AS {wanted})" if has == "JSON" else f"TRY_CAST({expression} AS {wanted})"
