"""Steps into calls of `/engage`, `/groups` and `/import`, and their answers into receipts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from oploop.apps.mixpanel import objects
from oploop.apps.mixpanel.client import Client, read_written
from oploop.apps.transport import Answer, LostAnswer, Refused
from oploop.errors import FixConfig, OploopError
from oploop.records import Outcome, Receipt, Step


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a call: an event, or a profile update of the change with this number."""

    number: int
    body: bytes
    remote_id: str


class Writer:
    """Sends the project's steps. `group_keys`: object name -> group key."""

    def __init__(self, client: Client, group_keys: Mapping[str, str]) -> None:
        self._client, self._group_keys = client, group_keys

    async def send(self, step: Step) -> list[Receipt]:
        """The step in as few calls as its records and bytes allow; the receipts tell record by record.

        Raises what the transport raises if nothing of the step was done; once a call got through, or an answer was lost, the
        receipts tell of the others too. Sent again, a step does no harm.
        """
        lines, receipts = self._lines(step)
        done: dict[int, Receipt] = {}
        calls = list(split(lines))
        for i, call in enumerate(calls):
            try:
                found = await self._post(step.object, call)
            except LostAnswer as e:
                _note(done, call, Outcome.UNKNOWN, e.message)
                _note(done, [x for later in calls[i + 1 :] for x in later], Outcome.RETRY, e.message)
                break
            except OploopError as e:
                if i == 0:
                    raise
                _note(done, [x for later in calls[i:] for x in later], Outcome.RETRY, e.message)
                break
            for receipt in found:
                _worse(done, receipt)
        return [*receipts, *done.values()]

    def _lines(self, step: Step) -> tuple[list[Line], list[Receipt]]:
        """The step's records as JSON, and the receipts of those that are too large for Mixpanel."""
        lines: list[Line] = []
        refused: list[Receipt] = []
        for change in step.changes:
            if step.object == "events":
                event = objects.event_of(step, change)
                records, remote_id = [event], str(event["properties"]["$insert_id"])
            else:
                records = objects.updates_of(step.op, change, self._who(step.object))
                remote_id = change.remote_id or str(change.key["$distinct_id"])
            bodies = [orjson.dumps(r, default=objects.plain) for r in records]
            size = max(map(len, bodies))
            if size > objects.MAX_RECORD_BYTES:
                error = f"it has {size:,} bytes; Mixpanel takes {objects.MAX_RECORD_BYTES:,}"
                refused.append(Receipt(change.number, Outcome.REJECTED, error=error))
            else:
                lines += [Line(change.number, body, remote_id) for body in bodies]
        return lines, refused

    def _who(self, name: str) -> dict[str, Any]:
        token = self._client.config.token
        if token is None:
            raise FixConfig("writing profiles needs the project's token", mend="set token in the app's block")
        who = {"$token": token.get_secret_value()}
        return {**who, "$group_key": self._group_keys[name]} if name in self._group_keys else who

    async def _post(self, name: str, call: Sequence[Line]) -> list[Receipt]:
        body = b"[" + b",".join(line.body for line in call) + b"]"
        if name == "events":
            asked = {"strict": 1, "project_id": self._client.config.project_id}
            answer = await self._client.write("import", asked, body, packed=True)
        else:
            path = "groups" if name in self._group_keys else "engage"
            answer = await self._client.write(path, {"ip": 0, "strict": 1, "verbose": 1}, body)
        return receipts_of(answer, call)


def receipts_of(answer: Answer, call: Sequence[Line]) -> list[Receipt]:
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
        Receipt(line.number, Outcome.REJECTED, error=failed[i])
        if i in failed
        else Receipt(line.number, Outcome.OK, line.remote_id, version=version)
        for i, line in enumerate(call)
    ]


def split(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """As few calls as bytes and count allow, in order."""
    call: list[Line] = []
    size = 2
    for line in lines:
        more = len(line.body) + 1
        if call and (size + more > objects.MAX_CALL_BYTES or len(call) >= objects.MAX_RECORDS):
            yield call
            call, size = [], 2
        call.append(line)
        size += more
    if call:
        yield call


def _why(failed: Mapping[str, Any]) -> str:
    message, field = str(failed.get("message") or "refused"), failed.get("field")
    return message if field is None or str(field) in message else f"{field}: {message}"


def _note(done: dict[int, Receipt], lines: Sequence[Line], outcome: Outcome, error: str) -> None:
    for line in lines:
        _worse(done, Receipt(line.number, outcome, line.remote_id if outcome is Outcome.UNKNOWN else None, error))


#: What a change is when its updates ended differently: the first of these.
_ORDER = (Outcome.UNKNOWN, Outcome.RETRY, Outcome.REJECTED, Outcome.OK)


def _worse(done: dict[int, Receipt], receipt: Receipt) -> None:
    """A change of several updates is what the worst of them is."""
    known = done.get(receipt.number)
    if known is None or _ORDER.index(receipt.outcome) < _ORDER.index(known.outcome):
        done[receipt.number] = receipt
