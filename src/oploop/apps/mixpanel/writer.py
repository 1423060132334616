"""Steps into calls of `/engage`, `/groups` and `/import`, and their answers into receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from oploop.apps.jsonvalues import plain
from oploop.apps.mixpanel import objects
from oploop.apps.mixpanel.client import Client, read_written
from oploop.apps.sending import Sent, in_calls, in_turn, prepared, worst
from oploop.apps.transport import Answer, Refused
from oploop.errors import FixConfig
from oploop.records import Change, Outcome, Receipt, Step


class Writer:
    """Sends the project's steps. `group_keys`: object name -> group key."""

    def __init__(self, client: Client, group_keys: Mapping[str, str]) -> None:
        self._client, self._group_keys = client, group_keys

    async def send(self, step: Step) -> list[Receipt]:
        """The step in as few calls as its records and bytes allow; the receipts tell record by record. See `in_turn`. Sent again,
        a step does no harm."""
        good, refused = prepared(step.changes, lambda change: self._texts(step, change))
        lines = [(change, text) for change, texts in good for text in texts]
        calls = list(in_calls(lines, most=objects.MAX_RECORDS, size=objects.MAX_CALL_BYTES))
        return refused + worst(await in_turn(calls, lambda call: self._post(step, call)))

    def _texts(self, step: Step, change: Change) -> list[bytes]:
        """The JSON of what a change takes; ValueError when that is too large for Mixpanel."""
        if step.object == "events":
            records = [objects.event_of(step, change)]
        else:
            records = objects.updates_of(step.op, change, self._who(step.object))
        texts = [orjson.dumps(r, default=lambda v: plain(v, objects.utc)) for r in records]
        size = max(map(len, texts))
        if size > objects.MAX_RECORD_BYTES:
            raise ValueError(f"it has {size:,} bytes; Mixpanel takes {objects.MAX_RECORD_BYTES:,}")
        return texts

    def _who(self, name: str) -> dict[str, Any]:
        token = self._client.config.token
        if token is None:
            raise FixConfig("writing profiles needs the project's token", mend="set token in the app's block")
        who = {"$token": token.get_secret_value()}
        return {**who, "$group_key": self._group_keys[name]} if name in self._group_keys else who

    async def _post(self, step: Step, call: Sequence[Sent[bytes]]) -> list[Receipt]:
        name, body = step.object, b"[" + b",".join(text for _, text in call) + b"]"
        if name == "events":
            asked = {"strict": 1, "project_id": self._client.config.project_id}
            answer = await self._client.write("import", asked, body, packed=True)
        else:
            path = "groups" if name in self._group_keys else "engage"
            answer = await self._client.write(path, {"ip": 0, "strict": 1, "verbose": 1}, body)
        return receipts_of(answer, step, [change for change, _ in call])


def receipts_of(answer: Answer, step: Step, changes: Sequence[Change]) -> list[Receipt]:
    """What an answer says of each record: all, or all but those that `failed_records` names by their index.

    Refused, so that the call is halved, when it says that something was wrong and not what. Source: import-events,
    "Example of a validation error"; an answer of `/engage` may also be a bare 1 or 0.
    """
    said = read_written(answer)
    failed = {int(f["index"]): _why(f) for f in said.get("failed_records") or () if "index" in f}
    if not failed and (answer.status == 400 or said.get("status") in (0, "error")):
        raise Refused(answer, str(said.get("error") or f"HTTP {answer.status}"))
    version = answer.date_micros()
    return [
        Receipt(change.number, Outcome.REJECTED, error=failed[i])
        if i in failed
        else Receipt(change.number, Outcome.OK, objects.id_of(step, change), version=version)
        for i, change in enumerate(changes)
    ]


def _why(failed: Mapping[str, Any]) -> str:
    message, field = str(failed.get("message") or "refused"), failed.get("field")
    return message if field is None or str(field) in message else f"{field}: {message}"
