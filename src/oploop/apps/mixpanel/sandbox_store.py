"""What the Mixpanel sandbox holds, and the rules by which it takes it in.

Source: docs.mixpanel.com/reference: import-events ("Validation"), track-event, profile-set and its like, user-profile-limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from oploop.apps.mixpanel.writer import MAX_RECORD_BYTES

#: Ids under which Mixpanel takes no event: they come of mistakes.
BAD_IDS = frozenset(
    [
        "00000000-0000-0000-0000-000000000000", "anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown",
        "<nil>", "0", "-1", "true", "false", "[]", "{}",
    ]
)  # fmt: skip
_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")
EARLIEST_MS = 31_536_000_000  #: 1971
HOUR_MS = 3_600_000
Profile = dict[str, Any]


class Store:
    """Events as they came (nothing is deduplicated), profiles by group key ("" for users) with all that they ever were."""

    def __init__(self, now: Callable[[], datetime], zone: str) -> None:
        self.now, self.zone = now, ZoneInfo(zone)
        self.events: list[dict[str, Any]] = []
        self.profiles: dict[tuple[str, str], list[tuple[datetime, Profile | None]]] = {}
        self.dropped: list[dict[str, Any]] = []

    # -- events ------------------------------------------------------------------------------------------------------

    def add_event(self, event: Mapping[str, Any], at: datetime | None = None) -> None:
        """Keep an event, with the time at which it came; a time in the future becomes now."""
        came = at or self.now()
        properties = dict(event["properties"])
        properties["time"] = min(_milliseconds(properties["time"]), round(came.timestamp() * 1000))
        properties["mp_processing_time_ms"] = round(came.timestamp() * 1000)
        self.events.append({"event": event["event"], "properties": properties})

    def exported(self, first: date, last: date, names: list[str] | None, limit: int | None) -> list[dict[str, Any]]:
        """Raw events of some days of the project's zone; times in milliseconds by the project's clock."""
        found = []
        for event in self.events:
            local = datetime.fromtimestamp(event["properties"]["time"] / 1000, UTC).astimezone(self.zone)
            if first <= local.date() <= last and (names is None or event["event"] in names):
                wall = round(local.replace(tzinfo=UTC).timestamp() * 1000)
                found.append({"event": event["event"], "properties": {**event["properties"], "time": wall}})
        return found[:limit]

    def distinct_events(self) -> list[dict[str, Any]]:
        """Events as queries show them: of those alike in name, time, user and $insert_id, the latest."""
        kept = {}
        for event in self.events:
            p = event["properties"]
            kept[event["event"], p["time"], p.get("distinct_id"), p.get("$insert_id")] = event
        return list(kept.values())

    def why_no_event(self, event: Any) -> tuple[str, str] | None:
        """(field, message) of what is wrong with an event."""
        if not isinstance(event, dict) or not isinstance(event.get("properties"), dict):
            return "event", "each event must be an object with event and properties"
        p = event["properties"]
        if not isinstance(event.get("event"), str) or not event["event"]:
            return "event", "'event' is required and must be a non-empty string"
        when = _milliseconds(p.get("time"))
        if when <= EARLIEST_MS or when > self.now().timestamp() * 1000 + HOUR_MS:
            return "properties.time", "'properties.time' is invalid: must be specified as seconds since epoch"
        who = p.get("distinct_id")
        if not isinstance(who, str) or who.lower() in BAD_IDS:
            return "properties.distinct_id", "'properties.distinct_id' is invalid: must not be missing or a placeholder"
        known = p.get("$insert_id")
        if not isinstance(known, str) or not _INSERT_ID.fullmatch(known) or known.lower() in BAD_IDS:
            return (
                "properties.$insert_id",
                "'properties.$insert_id' is invalid: at most 36 alphanumeric characters or '-'",
            )
        return _too_wide("properties", p)

    # -- profiles ----------------------------------------------------------------------------------------------------

    def profile(self, group: str, key: str, before: datetime | None = None) -> Profile | None:
        """A profile as it is, or as it was before some instant."""
        states = [p for at, p in self.profiles.get((group, key), []) if before is None or at <= before]
        return states[-1] if states else None

    def shown(self, group: str, before: datetime) -> dict[str, Profile]:
        """All profiles of a kind as a query shows them that knows nothing later than `before`."""
        found = {k: self.profile(g, k, before) for g, k in self.profiles if g == group}
        return {k: p for k, p in found.items() if p is not None}

    def put(self, group: str, key: str, profile: Profile | None, at: datetime | None = None) -> None:
        self.profiles.setdefault((group, key), []).append((at or self.now(), profile))

    def why_no_update(self, update: Any, group: bool) -> tuple[str, str] | None:
        """(field, message) of what is wrong with a profile update."""
        whose = "$group_id" if group else "$distinct_id"
        if not isinstance(update, dict):
            return "", "each update must be an object"
        for name in ("$token", whose, *(["$group_key"] if group else [])):
            if not isinstance(update.get(name), str) or not update[name]:
                return name, f"{name}, missing or empty"
        ops = [k for k in update if k in OPERATIONS]
        if len(ops) != 1:
            return "", "exactly one operation is needed"
        value = update[ops[0]]
        if ops[0] == "$unset" and not (isinstance(value, list) and value):
            return "$unset", "$unset must be a list of names"
        if ops[0] not in ("$unset", "$delete"):
            if not isinstance(value, dict):
                return ops[0], f"{ops[0]} must be an object"
            return _too_wide(ops[0], value)
        return None

    def update(self, update: Mapping[str, Any]) -> None:
        """Apply an update that is right."""
        group = str(update.get("$group_key", ""))
        key = str(update["$group_id" if group else "$distinct_id"])
        known = self.profile(group, key)
        if "$delete" in update:
            if known is not None:
                self.put(group, key, None)
            return
        [op] = [k for k in update if k in OPERATIONS]
        if known is None and op in ("$unset", "$remove"):
            return
        self.put(group, key, OPERATIONS[op](dict(known or {}), update[op]))


def _union(profile: Profile, value: Mapping[str, Any]) -> Profile:
    for name, items in value.items():
        held = profile.get(name) if isinstance(profile.get(name), list) else []
        profile[name] = held + [i for i in items if i not in held]  # type: ignore[operator]
    return profile


def _append(profile: Profile, value: Mapping[str, Any]) -> Profile:
    for name, item in value.items():
        held = profile.get(name)
        profile[name] = [*(held if isinstance(held, list) else []), item]
    return profile


def _remove(profile: Profile, value: Mapping[str, Any]) -> Profile:
    for name, item in value.items():
        if isinstance(profile.get(name), list):
            profile[name] = [i for i in profile[name] if i != item]
    return profile


def _add(profile: Profile, value: Mapping[str, Any]) -> Profile:
    return {**profile, **{n: (profile.get(n) or 0) + v for n, v in value.items()}}


OPERATIONS: Mapping[str, Callable[[Profile, Any], Profile]] = {
    "$set": lambda p, v: {**p, **v},
    "$set_once": lambda p, v: {**v, **p},
    "$add": _add,
    "$union": _union,
    "$append": _append,
    "$remove": _remove,
    "$unset": lambda p, v: {n: x for n, x in p.items() if n not in v},
    "$delete": lambda p, v: p,
}


def _milliseconds(time: Any) -> int:
    """Seconds or milliseconds since 1970 as milliseconds; 0 for what is neither."""
    if isinstance(time, bool) or not isinstance(time, int | float):
        return 0
    return round(time if time > 1e11 else time * 1000)


def _too_wide(where: str, properties: Mapping[str, Any]) -> tuple[str, str] | None:
    if len(properties) >= 255:
        return where, f"'{where}' is invalid: must have fewer than 255 properties"
    for name, value in properties.items():
        if isinstance(value, list | dict) and len(value) >= 255:
            return f"{where}.{name}", f"'{where}.{name}' is invalid: must have fewer than 255 elements"
        if isinstance(value, str) and len(value.encode()) >= MAX_RECORD_BYTES:
            return f"{where}.{name}", f"'{where}.{name}' is invalid: too large"
    return None
