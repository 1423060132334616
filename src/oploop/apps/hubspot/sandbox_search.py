"""How the HubSpot sandbox's search compares."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from oploop.apps.hubspot.sandbox_shapes import Refusal
from oploop.apps.hubspot.sandbox_store import Kind

COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "GT": operator.gt, "GTE": operator.ge, "LT": operator.lt, "LTE": operator.le, "EQ": operator.eq, "NEQ": operator.ne,
}  # fmt: skip


def fits(kind: Kind, then: Mapping[str, Any], f: Mapping[str, Any]) -> bool:
    """Whether a record, as the search knows it, fits one filter; Refusal (400) for one that is none."""
    name, what = f["propertyName"], f["operator"]
    if name not in kind.properties:
        raise Refusal(400, f"There was a problem with the request: unknown property {name}")
    value = then.get(name)
    if what in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return bool((value is not None) == (what == "HAS_PROPERTY"))
    if value is None:
        return what in ("NEQ", "NOT_IN")
    if what in ("IN", "NOT_IN"):
        return bool((value.lower() in [v.lower() for v in f.get("values") or ()]) == (what == "IN"))
    if what == "BETWEEN":
        low, high = order(kind, name, f["value"]), order(kind, name, f["highValue"])
        return bool(low <= order(kind, name, value) <= high)
    if what not in COMPARE:
        raise Refusal(400, f"the sandbox does not search by {what}")
    return COMPARE[what](order(kind, name, value), order(kind, name, f.get("value")))


def behind(f: Mapping[str, Any]) -> bool:
    """Whether a filter asks for what lies behind an id: the records stand in that order."""
    return bool(f["propertyName"] == "hs_object_id" and f["operator"] == "GT")


def changed_at(kind: Kind, then: Mapping[str, Any]) -> str:
    return str(then["lastmodifieddate" if kind.name == "contacts" else "hs_lastmodifieddate"])


def order(kind: Kind, name: str, value: Any) -> Any:
    """A value as it is compared: numbers and times as such, texts without regard to case."""
    match kind.properties[name]["type"] if name in kind.properties else "string":
        case "number":
            return float(value or 0)
        case "datetime" | "date":
            if value is None or str(value).lstrip("-").isdigit():
                return int(value or 0)
            at = datetime.fromisoformat(str(value))
            return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
        case _:
            return str(value or "").lower()
