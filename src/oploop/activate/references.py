"""References: a field's value looked up among the records of an object, by one of their fields.

Expressions for the diff's statement. A record counts as the app showed it last; one that we made counts from the
answer on, until a read must have shown it. For field `i` the statement has:

    __r{i}  what is looked up, canonical; NULL where the model has no value
    __m{i}  how many records it means: 0 is a miss, more than 1 ambiguous
    __h{i}  whether the record is one that this run makes: the row waits for it
    w{i}    the id, where it means just one record
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.refbind import RAWT, BoundRef
from oploop.records import DELETED, FieldType
from oploop.warehouse.base import Warehouse, literal, quote, quote_table


@dataclass(frozen=True, slots=True)
class RefKnown:
    """What the warehouse has about a reference. `vouched`: see `sql.Known`, of the referenced object's stream;
    `makers`: relations with a column `__key`, the keys of records that are about to be made."""

    has_records: bool
    vouched: datetime | None
    makers: tuple[str, ...] = ()
    #: of a reference to the sync's own object: a relation with the keys of the rows that make records
    own: str = "model"


def found_by(ref: BoundRef, known: RefKnown) -> str:
    """The referenced object's records, one row a key: `__ref`, `__id` (one of them) and `__n`, how many have it."""
    rid = f"CAST({RAWT}.{quote(ref.id_column)} AS VARCHAR)"
    raw = quote_table(ref.raw_table)
    records = f"SELECT {ref.held} AS __ref, {rid} AS __id FROM {raw} AS {RAWT} WHERE NOT {RAWT}.{DELETED}"
    if known.has_records:
        fresh = ""
        if known.vouched is not None:  # a complete read must have shown it, and did not
            fresh = f" AND rec.known_since >= TIMESTAMPTZ {literal(known.vouched.isoformat())}"
        records += (
            f" UNION ALL SELECT rec.canonical_key, rec.remote_id FROM oploop.records rec WHERE rec.app = {literal(ref.app)} "
            f"AND rec.object = {literal(ref.object)} AND rec.key_fields = {literal(ref.by.name)}{fresh} "
            f"AND rec.remote_id NOT IN (SELECT {rid} FROM {raw} AS {RAWT})"
        )
    return (
        f"SELECT __ref, min(__id) AS __id, count(DISTINCT __id) AS __n FROM ({records}) AS f "
        "WHERE __ref IS NOT NULL GROUP BY __ref"
    )


def model_columns(f: BoundField, i: int) -> list[str]:
    """The columns of the model's CTE that a reference has instead of its value."""
    assert f.ref is not None
    return [f"{f.ref.key} AS __r{i}", f"{f.source} AS __s{i}"]


def joins(bound: BoundSync, known: Mapping[int, RefKnown]) -> str:
    """The joins of the model's rows `m` to what they refer to."""
    return "".join(
        f" LEFT JOIN ({found_by(f.ref, known[i])}) ref{i} ON ref{i}.__ref = m.__r{i}"
        for i, f in enumerate(bound.fields)
        if f.ref is not None
    )


def base_columns(bound: BoundSync, warehouse: Warehouse, known: Mapping[int, RefKnown]) -> list[str]:
    """The columns that the joins bring."""
    columns = []
    for i, f in enumerate(bound.fields):
        if f.ref is None:
            continue
        one = f"CASE WHEN ref{i}.__n = 1 THEN ref{i}.__id END"
        wanted = one if f.field.type is FieldType.TEXT else warehouse.typed_value(one, f.field.type)
        columns += [f"{wanted} AS w{i}", f"COALESCE(ref{i}.__n, 0) AS __m{i}"]
        made = " OR ".join(f"m.__r{i} IN (SELECT __key FROM {maker})" for maker in _makers(bound, f.ref, known[i]))
        itself = f" AND m.__r{i} <> m.__key" if is_own(bound, f.ref) else ""
        wait = f"COALESCE(ref{i}.__n IS NULL AND ({made}){itself}, FALSE)" if made else "FALSE"
        columns.append(f"{wait} AS __h{i}")
    return columns


def _makers(bound: BoundSync, ref: BoundRef, known: RefKnown) -> Sequence[str]:
    own = (known.own,) if is_own(bound, ref) and bound.create_op is not None else ()
    return (*own, *known.makers)


def is_own(bound: BoundSync, ref: BoundRef) -> bool:
    """Whether a reference is to records of the sync's own object, by the sync's key."""
    return ref.target == bound.app_object and bound.key_names == ref.by.name


def own_waits(bound: BoundSync) -> list[int]:
    """The positions of fields for which a row waits until this sync has made another of its rows."""
    if bound.create_op is None:
        return []
    return [
        i for i, f in enumerate(bound.fields) if f.ref is not None and f.ref.on_miss == "hold" and is_own(bound, f.ref)
    ]


def clears_own(bound: BoundSync) -> bool:
    """Whether a field is cleared where it refers to a row of this sync that makes no record."""
    return bound.create_op is not None and any(
        f.ref is not None and f.ref.on_miss == "clear" and is_own(bound, f.ref) for f in bound.fields
    )


def waited_for(bound: BoundSync) -> list[str]:
    """Columns `__q{i}`: the key of the row that a waiting row waits for."""
    return [f"CASE WHEN __h{i} THEN __r{i} END AS __q{i}" for i in own_waits(bound)]


def is_miss(f: BoundField, i: int) -> str:
    """Whether a row refers to no record, or to more than one."""
    return f"(__r{i} IS NOT NULL AND __m{i} <> 1)"


def rules(f: BoundField, i: int) -> list[tuple[str, str, str]]:
    """What holds a row by its reference: (how it is said, condition, value)."""
    ref = f.ref
    assert ref is not None
    found = []
    if ref.on_miss == "hold":
        says = f"{f.label}: no {ref.target} has {ref.by.name} {{}}"
        found.append((says, f"__r{i} IS NOT NULL AND __m{i} = 0 AND NOT __h{i}", f"__s{i}"))
        says = f"{f.label}: more than one {ref.target} has {ref.by.name} {{}}"
        found.append((says, f"__m{i} > 1", f"__s{i}"))
    if f.field.type is not FieldType.TEXT:
        says = f"{f.label}: the id of {ref.target} {{}} is no {f.field.type.value}"
        found.append((says, f"__m{i} = 1 AND w{i} IS NULL", f"__s{i}"))
    return found


def may_be_null(f: BoundField, i: int) -> str:
    """Whether a NULL of the field is sent."""
    assert f.ref is not None
    parts = []
    if f.on_null == "clear":
        parts.append(f"__r{i} IS NULL")
    if f.ref.on_miss == "clear":
        parts.append(f"({is_miss(f, i)} AND NOT __h{i})")
    return " OR ".join(parts) or "FALSE"
