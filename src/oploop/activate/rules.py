"""The rules that hold a row by its own values: what the app says of its fields, and the sync's checks, as conditions in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oploop.activate import references
from oploop.activate.bound import BoundField, BoundSync
from oploop.records import FieldType
from oploop.warehouse.base import literal


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that holds a row: a condition over the model's CTE and how it is said. `{}` stands for the value."""

    label: str  #: the field or check, for grouping
    says: str
    condition: str
    value: str | None = None
    stop: bool = False


#: Values that a warehouse has and no app takes: no number at all, years that no calendar of ours has.
_BEYOND = {
    FieldType.NUMBER: "NOT isfinite({})",
    FieldType.DATE: "{} NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
    FieldType.TIMESTAMP: "{} NOT BETWEEN TIMESTAMPTZ '0001-01-02 00:00:00+00' AND TIMESTAMPTZ '9999-12-30 00:00:00+00'",
}


def rules_of(bound: BoundSync) -> list[Rule]:
    """All rules that hold a row by its own values, in the order in which they are tried."""
    rules = []
    for i, k in enumerate(bound.keys):
        rules.append(Rule(k.field.name, f"key {k.column} is empty", f"__p{i} IS NULL"))
        beyond = _BEYOND.get(k.field.type)
        none = f"k{i} IS NULL" if beyond is None else f"(k{i} IS NULL OR {beyond.format(f'k{i}')})"
        rules.append(Rule(k.field.name, f"key {k.column}: {{}} is no {k.field.type.value}", none, f"__p{i}"))
    for i, f in enumerate(bound.fields):
        rules += _field_rules(f, i)
        if f.field.required and not f.in_place and bound.create_op is not None:
            says = f"{f.label}: is NULL, and a new record needs it"
            rules.append(Rule(f.label, says, f"w{i} IS NULL AND __remote IS NULL"))
    for j, c in enumerate(bound.checks):
        rules.append(Rule("check", f"check failed: {c.name}", f"__x{j} IS FALSE", stop=c.stop))
    return rules


def _field_rules(f: BoundField, i: int) -> list[Rule]:
    field = f.field
    rules: list[Rule] = []
    if f.in_place:
        return rules
    if f.unmapped is not None:
        rules.append(Rule(f.label, f"{f.label}: map has no entry for {{}}", f"__u{i} IS NOT NULL", f"__u{i}"))
    if f.ref is not None:
        rules += [Rule(f.label, *rule) for rule in references.rules(f, i)]
        if f.on_null == "clear" and not field.nullable:
            rules.append(Rule(f.label, f"{f.label}: is NULL and cannot be cleared", f"__r{i} IS NULL"))
        return rules
    if not f.fits:
        says = f"{f.label}: {{}} is no {'value' if field.type is FieldType.TEXT else field.type.value}"
        rules.append(Rule(f.label, says, f"w{i} IS NULL AND __s{i} IS NOT NULL", f"__s{i}"))
    beyond = _BEYOND.get(field.type)
    if beyond is not None:
        rules.append(Rule(f.label, f"{f.label}: {{}} is no {field.type.value}", beyond.format(f"w{i}"), f"w{i}"))
    if field.enum is not None and field.type is not FieldType.LIST:
        allowed = ", ".join(literal(v) for v in field.enum)
        shown = ", ".join(field.enum[:8]) + (", …" if len(field.enum) > 8 else "")
        says = f"{f.label}: {{}} is not one of {shown}"
        rules.append(Rule(f.label, says, f"w{i} IS NOT NULL AND w{i} NOT IN ({allowed})", f"w{i}"))
    if field.max_length is not None and field.type is FieldType.TEXT:
        says = f"{f.label}: longer than {field.max_length} characters: {{}}"
        rules.append(Rule(f.label, says, f"length(w{i}) > {field.max_length}", f"substr(w{i}, 1, 40) || '…'"))
    if f.on_null == "clear" and not field.nullable:
        rules.append(Rule(f.label, f"{f.label}: is NULL and cannot be cleared", f"w{i} IS NULL"))
    return rules


def besides(bound: BoundSync) -> list[Rule]:
    """What holds a row by what else there is, as it is said; numbered on from `rules_of`: two for each own reference."""
    found = [
        Rule("", "this key is in more than one row of the model", "__twice"),
        Rule("", "this key is that of more than one record in the app", "__hits > 1"),
    ]
    for i in references.own_waits(bound):
        f = bound.fields[i]
        assert f.ref is not None
        says = (
            f"{f.label}: the row with {f.ref.by.name} {{}} waits for others in turn, and none of them can be made first"
        )
        found.append(Rule(f.label, says, f"__q{i} IS NOT NULL"))
        says = f"{f.label}: no {f.ref.target} has {f.ref.by.name} {{}}, and the row that has it makes none"
        found.append(Rule(f.label, says, f"__q{i} IS NOT NULL"))
    return found


def first_late(rules: int) -> int:
    """The number of the first of those `besides` that are found when the plan table is there; `rules`: see `rules_of`."""
    return rules + 3


def bad_of(rules: Sequence[Rule]) -> str:
    """Which rule a row breaks, 0 for none. What stops the sync is looked at first, so that no other fault hides it."""
    stops, arms = (
        " ".join(f"WHEN {r.condition} THEN {n}" for n, r in enumerate(rules, 1) if r.stop is stop)
        for stop in (True, False)
    )
    twice, ambiguous = len(rules) + 1, len(rules) + 2
    return f"CASE {stops} WHEN __twice THEN {twice} WHEN __hits > 1 THEN {ambiguous} {arms} ELSE 0 END"
