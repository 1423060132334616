"""Writing: one call for a change, or for a batch of them; what the answer says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from oploop.apps.columns import Columns, Taken, span
from oploop.apps.documents import at
from oploop.apps.http.config import Call
from oploop.apps.http.templates import Filling, Missing, path_of
from oploop.apps.jsonvalues import plain
from oploop.apps.sending import refused
from oploop.apps.transport import Answer, LostAnswer, NotTheApi, Refused, Transport
from oploop.records import Change, Outcome, Receipt, Replay, Step


async def send(transport: Transport, call: Call, replay: Replay, step: Step, *, whole_id: bool) -> Sequence[Receipt]:
    """Make the call that a step stands for; see App.send. `whole_id`: the app's ids are whole numbers."""
    if call.batch > 1:
        return await _batch(transport, call, replay, step, whole_id)
    [change] = step.changes
    filling = filling_of(step, change, whole_id)
    try:
        path, header = path_of(call.path, filling), _condition(call, step, change)
    except Missing as e:
        return [Receipt(change.number, Outcome.REJECTED, change.remote_id, str(e))]
    name = f"{step.id}:{change.number}"
    try:
        # a conditional call that was done would be refused the second time: it is for the caller to send it again
        answer = await _call(
            transport, call, Replay.NEVER if header else replay, path, call.make_body(filling), name, header
        )
    except Refused as e:
        if header and call.if_match is not None and e.status in call.if_match.status:
            why = f"changed in the app since it was read ({e})"
            return [Receipt(change.number, Outcome.CHANGED, change.remote_id, why)]
        gone = refused(change, e)
        if gone.outcome is Outcome.REJECTED:
            raise
        return [gone]
    return [_one(call, change, answer)]


def filling_of(step: Step, change: Change, whole_id: bool) -> Filling:
    return Filling(change.fields, change.key, change.remote_id, f"{step.id}:{change.number}", whole_id)


def _condition(call: Call, step: Step, change: Change) -> dict[str, str]:
    """The header that makes a call conditional, where it is to be and the record's stamp is known; Missing for a stamp that no
    header can carry."""
    stamp = change.as_read.get(call.if_match.field) if step.conditional and call.if_match is not None else None
    if stamp is None or call.if_match is None:
        return {}
    if not str(stamp).isprintable():
        raise Missing(
            f"{call.if_match.field} of the record cannot stand in a header, so nothing tells whether it has changed"
        )
    return {call.if_match.header: call.if_match.value.replace("{}", str(stamp))}


async def _call(
    transport: Transport,
    call: Call,
    replay: Replay,
    path: str,
    body: Any,
    name: str,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    if call.idempotency is not None:
        headers = {**headers, call.idempotency: name}
    again = replay in (Replay.SAFE, Replay.KEY)
    sent = None if call.method == "DELETE" and call.body == "$record" else body
    return await transport.request(
        call.method, path, json=sent, headers=headers, idempotent=again, ok=tuple(call.status)
    )


async def _batch(transport: Transport, call: Call, replay: Replay, step: Step, whole_id: bool) -> Sequence[Receipt]:
    named = call.results is not None and call.by != "index"  # each result is found by a field of the record
    text = None if named else _text(call, step.changes, whole_id)
    listed = _records(call, step, whole_id) if text is None else []
    first, last = span(step.changes)
    name = f"{step.id}:{first}-{last}"
    body = call.make_body(Filling({}, {}, None, step.id, records=text or listed))
    answer = await _call(transport, call, replay, call.path, body, name)
    said = _json(answer)
    if call.results is None:
        bad = _refusal(call, said)
        if bad is not None:
            raise Refused(answer, bad)
        return Taken(step.changes, answer.date_micros())
    results = at(said, call.results)
    if not isinstance(results, list):
        raise LostAnswer(f"{call.method} {call.path}: there are no results at {call.results!r} in the answer")
    return _matched(call, step.changes, listed, results, answer)


def _text(call: Call, changes: Sequence[Change], whole_id: bool) -> orjson.Fragment | None:
    return call.make_text(changes, whole_id) if isinstance(changes, Columns) else None


def _records(call: Call, step: Step, whole_id: bool) -> list[Any]:
    if isinstance(step.changes, Columns) and call.make_records is not None:
        return call.make_records(step.changes, whole_id)
    return [call.make_record(filling_of(step, c, whole_id)) for c in step.changes]


def _matched(
    call: Call, changes: Sequence[Change], records: Sequence[Any], results: Sequence[Any], answer: Answer
) -> list[Receipt]:
    """Each change's receipt by its result; one that has none is unknown. `records`: what was sent, if results name it."""
    if call.by == "index":
        numbered = dict(enumerate(results))
        if results and all(isinstance(r, dict) and isinstance(r.get("index"), int) for r in results):
            numbered = {r["index"]: r for r in results}
        elif len(results) != len(changes):
            numbered = {}  # of a list that leaves some out nobody knows which is whose
        found: list[Any] = [numbered.get(n) for n in range(len(changes))]
    else:
        named = {str(at(r, call.by)): r for r in results if at(r, call.by) is not None}
        found = [named.get(str(_name(call.by, c, record))) for c, record in zip(changes, records, strict=True)]
    version = answer.date_micros()
    return [
        _receipt(call, c, result, version)
        if result is not None
        else Receipt(c.number, Outcome.UNKNOWN, c.remote_id, "the answer does not name it")
        for c, result in zip(changes, found, strict=True)
    ]


def _name(by: str, change: Change, record: Any) -> Any:
    value = at(record, by)
    if value is None:
        value = change.remote_id if by == "id" else change.key.get(by, change.fields.get(by))
    return plain(value)


def _one(call: Call, change: Change, answer: Answer) -> Receipt:
    if call.ok and not answer.body.strip():
        return Receipt(change.number, Outcome.UNKNOWN, change.remote_id, "the answer says nothing, not even `ok`")
    return _receipt(call, change, _json(answer), answer.date_micros())


def _receipt(call: Call, change: Change, result: Any, version: int | None) -> Receipt:
    bad = _refusal(call, result)
    if bad is not None:
        return Receipt(change.number, Outcome.REJECTED, change.remote_id, bad)
    made = at(result, call.id)
    remote = change.remote_id if made is None else str(made)
    return Receipt(change.number, Outcome.OK, remote, version=version)


def _refusal(call: Call, result: Any) -> str | None:
    """Why the result is no success, in the app's words; None when it is one."""
    said = _words(at(result, call.error))
    for path, wanted in call.ok.items():
        held = at(result, path)
        if held != wanted:
            return said or f"{path} is {held!r}, not {wanted!r}"
    return None if call.ok else said


def _words(said: Any) -> str | None:
    if isinstance(said, Mapping):
        said = said.get("message", said)
    return None if said in (None, "", [], {}) else str(said)


def _json(answer: Answer) -> Any:
    """The answer's document; nothing for an answer without one. What is cut off or no JSON may have been done."""
    if not answer.body.strip():
        return None
    try:
        return answer.json()
    except NotTheApi as e:
        raise LostAnswer(str(e)) from None
