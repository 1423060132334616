"""A kept plan table read for sending: in the order of its numbers, in bounded memory, as Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from oploop.activate import diff as d
from oploop.activate.bound import BoundSync
from oploop.apps.columns import Chunk, Columns
from oploop.apps.rowtexts import Member
from oploop.records import Change, Field, FieldType, Op
from oploop.warehouse.base import NoRoom, Warehouse, literal, quote_table

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
    members = partial(key_members, bound), partial(sent_members, bound)
    for op, first, last in spans(bound, warehouse, table):
        for rows in _gathered(_paged(bound, warehouse, table, first, last), rows_of(op, last - first + 1)):
            yield op, Columns(Chunk(rows, keys, fields, make, fields_of, keys_of, guards, *members), 0, rows.num_rows)


def read_span(bound: BoundSync, warehouse: Warehouse, table: str, first: int, last: int) -> list[Change]:
    """The changes of these numbers, which are of one step."""
    return [c for rows in _page(bound, warehouse, table, first, last) for c in d.changes_of(bound, rows)]


def key_members(bound: BoundSync, rows: pa.RecordBatch) -> list[Member]:
    """The key's fields as members of each row's object."""
    return [Member(k.field.name, rows.column(f"k{i}"), None, _json(k.field)) for i, k in enumerate(bound.keys)]


def sent_members(bound: BoundSync, rows: pa.RecordBatch) -> list[Member] | None:
    """What `diff.fields_of` sends of each row, as members; None where some rows are new and others are not."""
    new = pc.sum(pc.equal(rows.column("__status"), "create")).as_py() or 0
    if new and new < rows.num_rows:
        return None
    made = zip(key_members(bound, rows), bound.keys, strict=True) if new else ()
    found = {member.name: member for member, key in made if not key.field.read_only}
    for i, f in enumerate(bound.fields):
        mask, name = rows.column(f"c{i}"), f.field.name
        whole = mask.true_count == rows.num_rows
        if name in found and not whole:
            return None
        if mask.true_count:
            found[name] = Member(name, rows.column(f"w{i}"), None if whole else mask, _json(f.field))
    return list(found.values())


def _json(field: Field) -> bool:
    return field.type in (FieldType.LIST, FieldType.JSON)


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
    for low in range(first, last + 1, PAGE):
        high, done = min(low + PAGE - 1, last), low - 1
        try:
            for batch in _page(bound, warehouse, table, low, high):
                done = batch.column("__number")[-1].as_py()
                yield batch
        except NoRoom:  # what of the page has come is not read again
            warehouse.unbound()
            yield from _page(bound, warehouse, table, done + 1, high)


def _page(bound: BoundSync, warehouse: Warehouse, table: str, first: int, last: int) -> Iterator[pa.RecordBatch]:
    return warehouse.stream(
        f"SELECT {d.change_columns(bound, 'wc')} FROM {quote_table(table)} WHERE __number BETWEEN {first} AND {last} "
        "ORDER BY __number",
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
