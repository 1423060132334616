"""How far a sync's records have been looked at, so that the next look need not be at all of them.

Of a record that settled, and that was as it should be, only what was read since can tell anything else. `oploop.looks` has,
for each sync, which complete read its last look could go by. What a look depends on besides (fields, types of the raw table)
is in its fingerprint: where that has changed, all are looked at.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from oploop.verify.nouns import Target
from oploop.warehouse.base import Warehouse, literal, quote, quote_table

#: The ids of the records to look at.
ASKED = "oploop_asked"
#: The condition where no record is to be looked at.
NONE = "FALSE"
#: Changes after which a record was not as it should be.
ODD = "SELECT DISTINCT run_id, sync, number FROM oploop.change_outcomes WHERE status IN ('drifted', 'gone', 'ignored')"


def ask(target: Target, warehouse: Warehouse, *, odd: bool) -> str | None:
    """Put the ids of the records to look at into the temporary table ASKED; None where all are to be looked at. Else which of the
    state's rows `t` are theirs; NONE: no rows are.

    They are those that were read since, that have not settled, that no read could vouch for at the last look, and that were not
    as they should be: if there are any, `odd`.
    """
    vouched = _last(target, warehouse)
    if vouched is None:
        return None
    at, began = (f"TIMESTAMPTZ {literal(t.isoformat())}" for t in (vouched, vouched + timedelta(seconds=target.lag)))
    state, own = target.state_table, literal(target.sync)
    open_ = f"t.sync = {own} AND (t.settled_at IS NULL OR t.acked_at >= {at})"
    first = f"SELECT t.remote_id AS id, TRUE AS open FROM {state} AS t WHERE {open_}"
    read = f"SELECT CAST(r.{quote(target.id_column)} AS VARCHAR), FALSE FROM {quote_table(target.raw_table)} r WHERE r._extracted_at >= {began}"
    parts = [first, read]
    if odd:
        parts.append(
            f"SELECT s.remote_id, FALSE FROM {state} s JOIN ({ODD}) x ON x.run_id = s.run_id "
            f"AND x.sync = COALESCE(s.log_sync, s.sync) AND x.number = s.number WHERE s.sync = {own}"
        )
    each = f"SELECT id, bool_or(open) AS open FROM ({' UNION ALL '.join(parts)}) AS p GROUP BY id"
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {ASKED} AS {each}")
    [(every, found)] = warehouse.rows(f"SELECT count(*), count(*) FILTER (WHERE open) FROM {ASKED}")
    if not every:
        return NONE
    # mostly what was read is what we wrote
    return open_ if every == found else f"t.remote_id IN (SELECT id FROM {ASKED})"


def _last(target: Target, warehouse: Warehouse) -> datetime | None:
    """What the last look could go by; None where it tells nothing of this one."""
    rows = warehouse.rows(
        "SELECT vouched FROM oploop.looks WHERE sync = ? AND app = ? AND object = ? AND depends = ?",
        (target.sync, target.app, target.object, _depends(target, warehouse)),
    )
    last: datetime | None = rows[0][0] if rows else None
    known = last is not None and target.vouched is not None and last <= target.vouched
    return last if known else None


def note(target: Target, warehouse: Warehouse) -> None:
    """Note that all records were looked at, as far as they had been read."""
    warehouse.execute("DELETE FROM oploop.looks WHERE sync = ?", (target.sync,))
    if target.vouched is not None:
        values = (target.sync, target.app, target.object, target.vouched, _depends(target, warehouse))
        warehouse.execute("INSERT INTO oploop.looks VALUES (?, ?, ?, ?, ?)", values)


def _depends(target: Target, warehouse: Warehouse) -> str:
    raw = sorted(warehouse.columns(target.raw_table).items())
    said = (target.fields, target.raw_table, target.id_column, target.state_table, target.lag, raw)
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]
