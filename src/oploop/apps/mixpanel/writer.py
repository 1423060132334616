"""What can be written to Mixpanel: profiles of users and groups, events, and (see lookups.py) lookup tables. Changes as its records,
steps as calls of `/engage`, `/groups` and `/import`, their answers as receipts.

Sources: docs.mixpanel.com/reference: profile-batch-update, group-batch-update, user-profile-limits, import-events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from oploop.apps.mixpanel.client import SAID, Client, read_written
from oploop.apps.mixpanel.streams import group_name
from oploop.apps.sending import Sent, as_text, in_calls, in_turn, prepared, told, worst
from oploop.apps.transport import Answer, LostAnswer, Refused
from oploop.errors import FixConfig
from oploop.records import Change, Object, Op, Receipt, Step

MAX_RECORDS = SAID.objects["profiles"].operations[Op.UPSERT].batch  #: profile updates, or events, a call
MAX_CALL_BYTES = 10_000_000
MAX_RECORD_BYTES = 1_000_000
PREFIX = "properties."

_NAMESPACE = UUID("7a3d1f0e-5b6c-5c1e-9d55-6f0b7c1a9e21")


def objects_of(groups: Mapping[str, int | None]) -> dict[str, Object]:
    """The objects of a project with these group keys."""
    found = dict(SAID.objects)
    for key, number in groups.items():
        name, said = group_name(key), f"groups by {key}; $distinct_id is the group's id"
        found[name] = SAID.object("_group", name, said, stream=name if number is not None else "")
    return found


class Writer:
    """Sends the project's steps. `group_keys`: object name -> group key."""

    def __init__(self, client: Client, group_keys: Mapping[str, str]) -> None:
        self._client, self._group_keys = client, group_keys

    async def send(self, step: Step) -> list[Receipt]:
        """The step in as few calls as its records and bytes allow; the receipts tell record by record. See `in_turn`. Sent again,
        a step does no harm."""
        good, refused = prepared(step.changes, lambda change: self._texts(step, change))
        lines = [(change, text) for change, texts in good for text in texts]
        calls = list(in_calls(lines, most=MAX_RECORDS, size=MAX_CALL_BYTES))
        return refused + worst(await in_turn(calls, lambda call: self._post(step, call)))

    def _texts(self, step: Step, change: Change) -> list[bytes]:
        """The JSON of what a change takes; ValueError when that is too large for Mixpanel."""
        if step.object == "events":
            records = [event_of(step, change)]
        else:
            records = updates_of(step.op, change, self._who(step.object))
        return [as_text(r, MAX_RECORD_BYTES, "Mixpanel", utc) for r in records]

    def _who(self, name: str) -> dict[str, Any]:
        token = self._client.config.token
        if token is None:
            raise FixConfig("writing profiles needs the project's token", mend="set token in the app's block")
        who = {"$token": token.get_secret_value()}
        return {**who, "$group_key": self._group_keys[name]} if name in self._group_keys else who

    async def _post(self, step: Step, call: Sequence[Sent[bytes]]) -> list[Receipt]:
        name, body = step.object, b"[" + b",".join(text for _, text in call) + b"]"
        if name == "events":
            answer = await self._client.write("import", {"strict": 1, **self._client.project}, body, packed=True)
        else:
            path = "groups" if name in self._group_keys else "engage"
            answer = await self._client.write(path, {"ip": 0, "strict": 1, "verbose": 1}, body)
        return receipts_of(answer, step, [change for change, _ in call])


def event_of(step: Step, change: Change) -> dict[str, Any]:
    """An event as `/import` takes it. `$insert_id` is made of the sync and the row's key: sent again, by whichever run, the
    row is the same event."""
    known = SAID.objects["events"].fields
    sent = {n: v for n, v in {**change.key, **change.fields}.items() if n in known or n.startswith(PREFIX)}
    event = {"event": sent.pop("event")} if "event" in sent else {}
    properties = {n.removeprefix(PREFIX): v for n, v in sent.items()}
    if "time" in sent:
        properties["time"] = round(sent["time"].timestamp() * 1000)
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
    fields = {n: v for n, v in change.fields.items() if n != "$distinct_id"}
    gone = [n.removeprefix(PREFIX) for n, v in fields.items() if v is None]
    once = {n.removeprefix(PREFIX): v for n, v in fields.items() if v is not None and n in change.once}
    always = {n.removeprefix(PREFIX): v for n, v in fields.items() if v is not None and n not in change.once}
    found = [{**whom, "$set": always}] if always or not (gone or once) else []
    if once:
        found.append({**whom, "$set_once": once})
    if gone:
        found.append({**whom, "$unset": gone})
    return found


def utc(at: datetime) -> str:
    """A time in Mixpanel's JSON: in UTC without a zone, as it writes them itself."""
    return (at.astimezone(UTC) if at.tzinfo is not None else at).strftime("%Y-%m-%dT%H:%M:%S")


def receipts_of(answer: Answer, step: Step, changes: Sequence[Change]) -> list[Receipt]:
    """What an answer says of each record: all, or all but those that `failed_records` names by their index.

    Refused, so that the call is halved, when it says that something was wrong and not what. Source: import-events,
    "Example of a validation error"; an answer of `/engage` may also be a bare 1 or 0.
    """
    said = read_written(answer)
    failed = {int(f["index"]): _why(f) for f in said.get("failed_records") or () if "index" in f}
    if not failed and (answer.status == 400 or said.get("status") in (0, "error")):
        raise Refused(answer, str(said.get("error") or f"HTTP {answer.status}"))
    imported = said.get("num_records_imported")
    if imported is not None and imported < len(changes) - len(failed):
        raise LostAnswer(f"Mixpanel took {imported} of {len(changes)} records, and does not say which")
    return told(changes, failed, answer, lambda change: id_of(step, change))


def _why(failed: Mapping[str, Any]) -> str:
    message, field = str(failed.get("message") or "refused"), failed.get("field")
    return message if field is None or str(field) in message else f"{field}: {message}"
