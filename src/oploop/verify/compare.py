"""Conditions over a state's row `s`, the app's record `a` and the ledger's row `l`: what of the one is as in the other."""

from __future__ import annotations

from oploop.records import Canonical, FieldType
from oploop.verify.nouns import Target, Watched
from oploop.warehouse.base import literal, quote
from oploop.warehouse.forms import canonical

#: From so many characters on, a text that begins like ours is taken for ours, cut off by the app.
CUT_FROM = 20


def seen(target: Target) -> str:
    """Whether what was read is news to the acknowledgement: the rule of `activate.sql.superseded`."""
    patient = f"a._extracted_at > s.acked_at + INTERVAL '{target.lag:f} seconds'"
    seen = (
        f"CASE WHEN s.receipt_version IS NULL THEN {patient} "
        "ELSE a._version >= s.receipt_version AND a._extracted_at > s.acked_at END IS TRUE"
    )
    if target.vouched is not None:
        seen += f" OR s.acked_at < TIMESTAMPTZ {literal(target.vouched.isoformat())}"
    return f"COALESCE({seen}, FALSE)"


def here(f: Watched) -> str:
    """Whether the record's last change sent the field."""
    return f"COALESCE(s.{quote(f.name + '.at')} = s.acked_at, FALSE)"


def unshown(target: Target) -> str:
    """Whether the app shows nothing of what the record's last change sent, so that no look can confirm it."""
    sent = [f"COALESCE(s.{quote(name + '.at')} = s.acked_at, FALSE)" for name, _ in target.unshown]
    if not sent:
        return "FALSE"
    return f"(({' OR '.join(sent)}) AND NOT ({' OR '.join(here(f) for f in target.fields) or 'FALSE'}))"


def unlike(i: int, f: Watched, part: str) -> str:
    """Whether the app holds something else than was `sent`, or than it `stored`."""
    was = stored(f.name) if part == "stored" else f"s.{quote(f'{f.name}.{part}')}"
    now, then = (comparable(e, f.canonical) for e in (f"a.n{i}", was))
    return f"{now} IS DISTINCT FROM {then}"


def stored(name: str) -> str:
    """What the app made of a field, from the state's row `s` (see `activate.states.stored`)."""
    sent, own = (f"s.{quote(f'{name}.{part}')}" for part in ("sent", "stored"))
    return f"CASE WHEN s.as_sent THEN {sent} ELSE {own} END"


def comparable(expr: str, form: Canonical) -> str:
    forms = {
        Canonical.LOWER: f"lower(trim({expr}))",
        Canonical.TRIM: f"trim({expr})",
        Canonical.ID_15_18: f"substr({expr}, 1, 15)",
        Canonical.NUMBER: canonical(expr, form),
        Canonical.MOMENT: canonical(expr, form),
    }
    return forms.get(form, expr)


def before(f: Watched) -> str:
    """What the app held before the record's last change, from the ledger."""
    return noted(f, "before")


def noted(f: Watched, side: str) -> str:
    """A field's value in the ledger's row `l`: `before` or `after` the change, in the field's type."""
    if f.type in (FieldType.LIST, FieldType.JSON):
        return f"NULLIF(CAST(json_extract(CAST(l.{side} AS JSON), {pointer(f.label)}) AS VARCHAR), 'null')"
    return f"TRY_CAST((CAST(l.{side} AS JSON) ->> {pointer(f.label)}) AS {f.sql_type})"


def pointer(label: str) -> str:
    return literal("/" + label.replace("~", "~0").replace("/", "~1"))


def unlike_noted(i: int, f: Watched) -> str:
    """Whether the app holds something else than the change `l` sent."""
    now, then = (comparable(e, f.canonical) for e in (f"a.n{i}", noted(f, "after")))
    return f"{now} IS DISTINCT FROM {then}"


def sent_in(label: str) -> str:
    """Whether the change `l` sent the field."""
    return f"json_exists(CAST(l.after AS JSON), {pointer(label)})"


def by_the_app(i: int, f: Watched) -> str:
    """Whether the app holds what was sent, or what it makes of it by itself, which is looked at only where it differs."""
    return f"(CASE WHEN {unlike(i, f, 'sent')} THEN {alike(i, f)} ELSE TRUE END)"


def alike(i: int, f: Watched) -> str:
    """What an app makes of a value by itself: other case, trimmed blanks, a cut end, a rounded number or time."""
    now, sent = f"a.n{i}", f"s.{quote(f.name + '.sent')}"
    match f.type:
        case FieldType.TEXT:
            x, y = (f"lower(trim({v}))" for v in (now, sent))
            number = f"round(TRY_CAST({now} AS DOUBLE), 2) = round(TRY_CAST({sent} AS DOUBLE), 2)"
            alike = f"{x} = {y} OR (length({x}) >= {CUT_FROM} AND starts_with({y}, {x})) OR {number}"
        case FieldType.NUMBER:
            alike = f"round({now}, 2) = round({sent}, 2)"
        case FieldType.TIMESTAMP:
            alike = f"date_trunc('minute', {now}) = date_trunc('minute', {sent})"
        case FieldType.LIST:
            x, y = (f"list_sort(TRY_CAST(TRY_CAST(lower({v}) AS JSON) AS VARCHAR[]))" for v in (now, sent))
            alike = f"{x} = {y}"
        case _:
            alike = f"{now} = {sent}"
    return f"COALESCE({alike}, FALSE)"
