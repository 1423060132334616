"""JSON text of values, made in SQL: what the ledger, saved plans and `oploop.parked` keep."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from oploop.activate.bound import BoundSync
from oploop.records import FieldType
from oploop.warehouse.base import Warehouse, literal


def after_json(bound: BoundSync) -> str:
    """JSON text of the values that a change sends, over the plan table's columns."""
    return json_object([(f.label, f"w{i}", f"c{i}") for i, f in enumerate(bound.fields)], lists(bound), finite(bound))


def before_json(bound: BoundSync) -> str:
    """JSON text of what the app holds in the fields that a change sends; of a record that is removed, in all."""
    shown = "(c{0} OR (__status IN ('archive', 'remove') AND b{0} IS NOT NULL))"
    return json_object(
        [(f.label, f"b{i}", shown.format(i)) for i, f in enumerate(bound.fields)], lists(bound), finite(bound)
    )


def quick_after(bound: BoundSync, warehouse: Warehouse) -> str:
    """The same text as `after_json`, made at once where a change sends all fields."""
    return _quick(bound, warehouse, "w", after_json(bound))


def quick_before(bound: BoundSync, warehouse: Warehouse) -> str:
    """The same text as `before_json`, made at once where a change sends all fields; of new records it is always the same."""
    n = range(len(bound.fields))
    nothing = literal("{" + ",".join(f"{orjson.dumps(f.label).decode()}:null" for f in bound.fields) + "}")
    new = " AND ".join([f"c{i} AND b{i} IS NULL" for i in n])
    made = _quick(bound, warehouse, "b", before_json(bound))
    return f"(CASE WHEN {new} THEN {nothing} ELSE {made} END)" if bound.fields else made


def _quick(bound: BoundSync, warehouse: Warehouse, part: str, slow: str) -> str:
    whole = warehouse.json_of([(f.label, f"{part}{i}") for i, f in enumerate(bound.fields)])
    if whole is None or lists(bound) or not bound.fields:
        return slow
    tests = [f"c{i}" for i in range(len(bound.fields))]
    endless = [i for i, f in enumerate(bound.fields) if f.label not in finite(bound)]
    tests += [f"({part}{i} IS NULL OR isfinite({part}{i}))" for i in endless]
    return f"(CASE WHEN {' AND '.join(tests)} THEN {whole} ELSE {slow} END)"


def lists(bound: BoundSync) -> frozenset[str]:
    return frozenset(f.label for f in bound.fields if f.field.type in (FieldType.LIST, FieldType.JSON))


def finite(bound: BoundSync) -> frozenset[str]:
    """Labels of the fields whose values cannot be NaN or infinite."""
    endless = (FieldType.NUMBER, FieldType.DATE, FieldType.TIMESTAMP)
    return frozenset(f.label for f in bound.fields if f.field.type not in endless)


def json_object(
    members: Sequence[tuple[str, str, str | None]],
    as_json: frozenset[str] = frozenset(),
    finite: frozenset[str] = frozenset(),
) -> str:
    """JSON text of (name, expression, condition) members; a member whose condition is false is left out."""
    parts = []
    for name, expr, condition in members:
        text = f"to_json({literal(name)})::VARCHAR || ':' || {json_member(expr, as_json=name in as_json, finite=name in finite)}"
        parts.append(f"CASE WHEN {condition} THEN {text} END" if condition else text)
    return f"('{{' || concat_ws(',', {', '.join(parts)}) || '}}')" if parts else "'{}'"


def json_member(expr: str, *, as_json: bool, finite: bool = False) -> str:
    """JSON text of one value; `as_json`: it is JSON text already; `finite`: it is no number that JSON does not have."""
    value = f"CAST({expr} AS VARCHAR)"
    if finite and not as_json:
        value = f"CAST(to_json({expr}) AS VARCHAR)"
    elif not as_json:  # to_json writes NaN and Infinity as they are, which is no JSON
        json = f"CAST(to_json({expr}) AS VARCHAR)"
        value = (
            f"CASE WHEN regexp_matches({json}, 'NaN|Infinity') THEN CAST(to_json({value}) AS VARCHAR) ELSE {json} END"
        )
    return f"COALESCE({value}, 'null')"
