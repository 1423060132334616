"""Writing: one call for a change, or for a batch of them; what the answer says of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    return [_receipt(call, change, _json(answer), answer.date_micros())]


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
        told, bad = _verdict(call, said)
        if told is Outcome.REJECTED:
            raise Refused(answer, bad or "")
        if told is Outcome.UNKNOWN:
            raise LostAnswer(f"{call.method} {call.path}: {bad}")
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
        wanted: list[Any] = list(range(len(changes)))
        if results and all(isinstance(r, dict) and isinstance(r.get("index"), int) for r in results):
            named = _once((r["index"], r) for r in results)
        else:  # of a list that leaves some out nobody knows which is whose
            named = dict(enumerate(results)) if len(results) == len(changes) else {}
    else:
        named = _once((str(name), r) for r in results if (name := at(r, call.by)) is not None)
        wanted = [str(_name(call.by, c, record)) for c, record in zip(changes, records, strict=True)]
    times = Counter(wanted)
    found = [named.get(name) if times[name] == 1 else None for name in wanted]
    version = answer.date_micros()
    return [
        _receipt(call, c, result, version)
        if result is not None
        else Receipt(c.number, Outcome.UNKNOWN, c.remote_id, "the answer does not name it")
        for c, result in zip(changes, found, strict=True)
    ]


def _once(results: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Results by their names, of which each has one: of several nobody knows which is a record's."""
    listed = list(results)
    times = Counter(name for name, _ in listed)
    return {name: result for name, result in listed if times[name] == 1}


def _name(by: str, change: Change, record: Any) -> Any:
    value = at(record, by)
    if value is None:
        value = change.remote_id if by == "id" else change.key.get(by, change.fields.get(by))
    return plain(value)


def _receipt(call: Call, change: Change, result: Any, version: int | None) -> Receipt:
    told, bad = _verdict(call, result)
    made = at(result, call.id) if told is Outcome.OK else None
    remote = str(made) if isinstance(made, str | int) and made != "" else change.remote_id
    return Receipt(change.number, told, remote, bad, version=version if told is Outcome.OK else None)


def _verdict(call: Call, result: Any) -> tuple[Outcome, str | None]:
    """What a result means, and why it is no success: unknown where it neither holds what `ok` names nor words of a refusal."""
    said = _words(at(result, call.error))
    for path, wanted in call.ok.items():
        held = at(result, path)
        if held is None and said is None and wanted is not None:
            return Outcome.UNKNOWN, f"the answer does not hold {path}, by which `ok` tells whether it was done"
        if held != wanted:
            return Outcome.REJECTED, said or f"{path} is {held!r}, not {wanted!r}"
    return (Outcome.OK, None) if call.ok or said is None else (Outcome.REJECTED, said)


def _words(said: Any) -> str | None:
    if isinstance(said, Mapping):
        said = said.get("message", said)
    return str(said) if said else None  # `error: false` says that there is none


def _json(answer: Answer) -> Any:
    """The answer's document; nothing for an answer without one. What is cut off or no JSON may have been done."""
    if not answer.body.strip():
        return None
    try:
        return answer.json()
    except NotTheApi as e:
        raise LostAnswer(str(e)) from None
