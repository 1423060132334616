"""A kept plan table read for sending: in the order of its numbers, in bounded memory, as Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa

from oploop.activate import diff as d
from oploop.activate.bind import BoundSync
from oploop.apps.columns import Chunk, Columns
from oploop.records import Op
from oploop.warehouse.base import Warehouse, literal, quote_table

#: Changes of a plan table that are sorted at once: what the warehouse holds in memory for a delivery.
PAGE = 200_000


def read_chunks(
    bound: BoundSync, warehouse: Warehouse, table: str, rows_of: Callable[[Op, int], int]
) -> Iterator[tuple[Op, Columns]]:
    """The changes, operation by operation; `rows_of`: how many a chunk is to have of an operation with so many changes."""
    keys = [(k.field.name, f"k{i}") for i, k in enumerate(bound.keys)]
    fields = [(f.field.name, f"w{i}", f"c{i}") for i, f in enumerate(bound.fields)]
    guards = d.guards(bound)
    make, fields_of, keys_of = partial(d.changes_of, bound), partial(d.fields_of, bound), partial(d.keys_of, bound)
    for op, first, last in spans(bound, warehouse, table):
        for rows in _gathered(_paged(bound, warehouse, table, first, last), rows_of(op, last - first + 1)):
            yield op, Columns(Chunk(rows, keys, fields, make, fields_of, keys_of, guards), 0, rows.num_rows)


def spans(bound: BoundSync, warehouse: Warehouse, table: str) -> list[tuple[Op, int, int]]:
    """(operation, first number, last number) in the order of sending."""
    found: list[tuple[Op, int, int]] = []
    kinds = ", ".join(map(literal, d.SENT))
    for status, first, last in warehouse.rows(
        f"SELECT __status, min(__number), max(__number) FROM {quote_table(table)} WHERE __number IS NOT NULL "
        f"AND __status IN ({kinds}) GROUP BY 1 ORDER BY 2"
    ):
        op = bound.op_of(status)
        if found and found[-1][0] is op:
            found[-1] = (op, found[-1][1], last)
        else:
            found.append((op, first, last))
    return found


def _paged(bound: BoundSync, warehouse: Warehouse, table: str, first: int, last: int) -> Iterator[pa.RecordBatch]:
    columns = d.change_columns(bound, "wc")
    for low in range(first, last + 1, PAGE):
        high = min(low + PAGE - 1, last)
        yield from warehouse.stream(
            f"SELECT {columns} FROM {quote_table(table)} WHERE __number BETWEEN {low} AND {high} ORDER BY __number",
            batch_rows=50_000,
        )


def _gathered(batches: Iterator[pa.RecordBatch], want: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `want`, the last one of what is left."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count < want:
            continue
        table = pa.Table.from_batches(held)
        whole = count - count % want
        for start in range(0, whole, want):
            yield one_batch(table.slice(start, want))
        held = table.slice(whole).to_batches()
        count -= whole
    if count:
        yield one_batch(pa.Table.from_batches(held))


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table's rows as one batch."""
    return table.combine_chunks().to_batches()[0]
