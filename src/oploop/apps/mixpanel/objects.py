"""What can be written to Mixpanel: profiles of users and groups, events, and (see lookups.py) lookup tables.

Sources: docs.mixpanel.com/reference: profile-batch-update, group-batch-update, user-profile-limits, import-events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from oploop.apps.jsonvalues import plain
from oploop.apps.mixpanel.streams import SAID, group_name
from oploop.records import Change, Object, Op, Step

MAX_RECORDS = SAID.objects["profiles"].operations[Op.UPSERT].batch  #: profile updates, or events, a call
MAX_CALL_BYTES = 10_000_000
MAX_RECORD_BYTES = 1_000_000
PREFIX = "properties."

_NAMESPACE = UUID("7a3d1f0e-5b6c-5c1e-9d55-6f0b7c1a9e21")


def objects_of(groups: Mapping[str, int | None]) -> dict[str, Object]:
    """The objects of a project with these group keys."""
    found = dict(SAID.objects)
    for key, number in groups.items():
        name = group_name(key)
        said = f"groups by {key}; $distinct_id is the group's id"
        found[name] = SAID.object("_group", name, said, stream=name if number is not None else "")
    return found


def event_of(step: Step, change: Change) -> dict[str, Any]:
    """An event as `/import` takes it. `$insert_id` is made of the sync and the row's key: sent again, by whichever run, the
    row is the same event."""
    event: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for name, value in {**change.key, **change.fields}.items():
        if name == "event":
            event["event"] = value
        elif name == "time":
            properties["time"] = round(value.timestamp() * 1000)
        elif name in SAID.objects["events"].fields:
            properties[name] = value
        elif name.startswith(PREFIX):
            properties[name.removeprefix(PREFIX)] = plain(value, utc)
    properties["$insert_id"] = id_of(step, change)
    return {**event, "properties": properties}


def id_of(step: Step, change: Change) -> str:
    """The id of a change's record: a profile's, or an event's `$insert_id`, its own or one that is made for it."""
    if step.object != "events":
        return change.remote_id or str(change.key["$distinct_id"])
    return str({**change.key, **change.fields}.get("$insert_id") or insert_id(step, change))


def insert_id(step: Step, change: Change) -> str:
    """36 letters, digits and dashes."""
    key = "\x1f".join(f"{name}\x1e{value}" for name, value in sorted(change.key.items()))
    return str(uuid5(_NAMESPACE, f"{step.sync}\x1d{step.object}\x1d{key}"))


def updates_of(op: Op, change: Change, who: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A change as the profile updates that it takes: what is set, what is set only where nothing is, what is unset.

    `who`: the token and, of a group, its key; the record's id is added here.
    """
    record = change.remote_id or str(change.key["$distinct_id"])
    whom = {**who, "$group_id" if "$group_key" in who else "$distinct_id": record}
    if op is Op.REMOVE:
        return [{**whom, "$delete": None, **({} if "$group_key" in who else {"$ignore_alias": True})}]
    values = {n.removeprefix(PREFIX): (n, v) for n, v in change.fields.items() if n != "$distinct_id"}
    gone = [n for n, (_, v) in values.items() if v is None]
    once = {n: plain(v, utc) for n, (label, v) in values.items() if v is not None and label in change.once}
    always = {n: plain(v, utc) for n, (_, v) in values.items() if v is not None and n not in once}
    found = [{**whom, "$set": always}] if always or not (gone or once) else []
    if once:
        found.append({**whom, "$set_once": once})
    if gone:
        found.append({**whom, "$unset": gone})
    return found


def utc(at: datetime) -> str:
    """A time in Mixpanel's JSON: in UTC without a zone, as it writes them itself."""
    return (at.astimezone(UTC) if at.tzinfo is not None else at).strftime("%Y-%m-%dT%H:%M:%S")
