"""Changes to API calls, and answers to receipts.

One change goes as a single call; more go as one background job, whose results come in any order, failures among them.
Source: developer.zendesk.com, API reference: tickets, users, organizations (bulk endpoints), job statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import orjson

from oploop.apps.base import new_values
from oploop.apps.documents import zulu
from oploop.apps.jsonvalues import plain
from oploop.apps.sending import Sent, in_turn, prepared, refused
from oploop.apps.transport import Answer, Refused
from oploop.apps.zendesk.client import BulkClosed, Client, detail_texts
from oploop.apps.zendesk.objects import OBJECTS, PREFIXES
from oploop.apps.zendesk.streams import version_of
from oploop.records import Change, Op, Outcome, Receipt, Step

SINGULAR: Mapping[str, str] = {"tickets": "ticket", "users": "user", "organizations": "organization"}
#: Fields that Zendesk takes only when it creates a record; later it would ignore them, or do something else.
CREATE_ONLY: Mapping[str, Mapping[str, str]] = {
    "tickets": {
        "description": "a ticket's description is its first comment and cannot be changed later",
        "submitter_id": "a ticket's submitter cannot be changed later",
        "recipient": "a ticket's recipient cannot be changed later",
    },
    "users": {
        "email": "Zendesk would add a second address instead of changing the primary one; change it in Zendesk",
    },
    "organizations": {},
}
#: Why a conditional update was not made.
CHANGED = "changed in Zendesk since it was read"
#: Kinds of failure inside a job that say nothing against the record itself.
PASSING = re.compile(r"conflict|lock|timeout|too.?many|rate.?limit|unavailable|internal", re.IGNORECASE)


async def note_job(step: Step, changes: Sequence[Change], job_id: str, accepted: int | None) -> None:
    """Keep a job's id with the step, when it was accepted, and which changes it was given, in its order: results are known by
    their place in it."""
    if step.note is not None:
        told = {"job": job_id, "accepted": accepted, "numbers": [c.number for c in changes]}
        await step.note(orjson.dumps(told).decode())


async def settle_job(client: Client, op: Op, note: str, changes: Sequence[Change]) -> list[Receipt]:
    """See App.settle, of a job that `note_job` has noted."""
    told = orjson.loads(note)
    status = await client.job_of_before(told["job"])
    if status is None:
        return [
            Receipt(c.number, Outcome.UNKNOWN, c.remote_id, "Zendesk does not know its job any more") for c in changes
        ]
    known = {c.number: c for c in changes}
    given = [known.get(n) or Change(n, op, {}, {}) for n in told["numbers"]]
    receipts = job_receipts(op, [(c, c.key) for c in given], status, told["accepted"])
    return [r for r in receipts if r.number in known]


class Writer:
    """Delivers steps. All writes of an account share the client's job limit."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._singles_only: set[str] = set()  #: bulk endpoints that this account has not been given

    async def send(self, step: Step) -> list[Receipt]:
        """Deliver a step, as `App.send` says."""
        bodies, receipts = prepared(step.changes, lambda change: record_body(step.object, change))
        if len(bodies) == 1:
            receipts.append(await self._single(step, *bodies[0]))
        elif bodies:
            receipts += await self._bulk(step, bodies)
        return receipts

    async def _single(self, step: Step, change: Change, body: dict[str, Any]) -> Receipt:
        name, one = step.object, SINGULAR[step.object]
        body = {k: v for k, v in body.items() if k != "id"}  # the address has it
        stamp = change.as_read.get("updated_at") if step.conditional else None
        if stamp is not None:
            body |= {"safe_update": True, "updated_stamp": stamp}
        try:
            match change.op:
                case Op.REMOVE:
                    answer = await self._client.write("DELETE", f"{name}/{change.remote_id}")
                case Op.UPDATE:
                    answer = await self._client.write("PUT", f"{name}/{change.remote_id}", json={one: body})
                case Op.UPSERT:
                    answer = await self._client.write("POST", f"{name}/create_or_update", json={one: body})
                case Op.CREATE:
                    answer = await self._client.write("POST", name, json={one: body})
        except Refused as e:
            if stamp is not None and e.status == 409:
                return Receipt(change.number, Outcome.CHANGED, change.remote_id, CHANGED)
            return refused(change, e)
        return single_receipt(change, one, answer)

    async def _bulk(self, step: Step, bodies: Sequence[Sent[dict[str, Any]]]) -> list[Receipt]:
        name = step.object
        records = [body for _, body in bodies]
        changes = [change for change, _ in bodies]
        note = partial(note_job, step, changes)
        match step.op:
            case Op.REMOVE:
                ids = ",".join(str(c.remote_id) for c in changes)
                status, version = await self._client.job(
                    "DELETE", f"{name}/destroy_many", params={"ids": ids}, note=note
                )
            case Op.UPDATE:
                status, version = await self._client.job("PUT", f"{name}/update_many", json={name: records}, note=note)
            case Op.CREATE | Op.UPSERT:
                if name == "organizations" and step.op is Op.UPSERT:  # Zendesk has no bulk call for it
                    return await self._one_by_one(step, bodies)
                path = f"{name}/create_many" if step.op is Op.CREATE else f"{name}/create_or_update_many"
                if path in self._singles_only:
                    return await self._one_by_one(step, bodies)
                try:
                    status, version = await self._client.job(
                        "POST", path, json={name: records}, may_be_closed=name == "users", note=note
                    )
                except BulkClosed:
                    self._singles_only.add(path)
                    return await self._one_by_one(step, bodies)
        return job_receipts(step.op, bodies, status, version)

    async def _one_by_one(self, step: Step, bodies: Sequence[Sent[dict[str, Any]]]) -> list[Receipt]:
        """Single calls for a batch, where the account has no bulk call."""

        async def single(call: Sequence[Sent[dict[str, Any]]]) -> list[Receipt]:
            return [await self._single(step, *call[0])]

        return await in_turn([[body] for body in bodies], single, apart=True)


# -- a change to a record's body -----------------------------------------------------------------------------------------


def record_body(object_name: str, change: Change) -> dict[str, Any]:
    """The record to send for a change; ValueError with the reason when Zendesk could not take it.

    Zendesk silently ignores fields that it does not know, so an unknown one is an error here.
    """
    if change.op in (Op.UPDATE, Op.REMOVE):
        if change.remote_id is None:
            raise ValueError(f"no {SINGULAR[object_name]} id is known for it")
        if change.op is Op.REMOVE:
            return {}
    body: dict[str, Any] = {"id": int(change.remote_id)} if change.op is Op.UPDATE and change.remote_id else {}
    wanted = dict(change.fields)
    if change.op in (Op.CREATE, Op.UPSERT):
        wanted = new_values(OBJECTS[object_name], change)
        wanted.pop("id", None)
    for name, value in wanted.items():
        _put(object_name, change.op, body, name, value)
    if object_name == "users" and change.op in (Op.CREATE, Op.UPSERT):
        body["skip_verify_email"] = True  # nobody shall get mail because a row was synced
    return body


def _put(object_name: str, op: Op, body: dict[str, Any], name: str, value: Any) -> None:
    prefix = PREFIXES[object_name]
    own = name.removeprefix(prefix)
    if own != name or (object_name == "tickets" and name.isdigit()):
        if object_name == "tickets":
            entry = {"id": int(own), "value": custom_value(value)}
            body.setdefault("custom_fields", []).append(entry)
        else:
            body.setdefault(prefix.rstrip("."), {})[own] = custom_value(value)
        return
    field = OBJECTS[object_name].fields.get(name)
    if field is None:
        raise ValueError(f"{object_name} has no field {name!r}")
    if field.read_only:
        raise ValueError(f"{name} cannot be written")
    if op is Op.UPDATE and name in CREATE_ONLY[object_name]:
        raise ValueError(CREATE_ONLY[object_name][name])
    if object_name == "tickets" and name == "description":
        body["comment"] = {"body": value}
    elif name in ("tags", "domain_names"):
        body[name] = [str(v) for v in value or ()]  # to clear a list is to send an empty one
    else:
        body[name] = plain(value, zulu)


def custom_value(value: Any) -> Any:
    """A custom field's value: decimals as text, so that no digit is lost."""
    return format(value, "f") if isinstance(value, Decimal) else plain(value, zulu)


# -- answers to receipts -------------------------------------------------------------------------------------------------


def single_receipt(change: Change, one: str, answer: Answer) -> Receipt:
    if answer.status == 204:
        return Receipt(change.number, Outcome.OK, change.remote_id, version=answer.date_micros())
    record = answer.written(dict, f"{one}.id")[one]
    return Receipt(change.number, Outcome.OK, str(record["id"]), version=version_of(record) or answer.date_micros())


def job_receipts(
    op: Op, bodies: Sequence[Sent[Mapping[str, Any]]], status: Mapping[str, Any], version: int | None
) -> list[Receipt]:
    """A receipt for each change of a job that has ended, whatever the order of its results."""
    results = status.get("results")
    listed = [r for r in results if isinstance(r, Mapping)] if isinstance(results, list) else []
    pairs, spare = match_results(op, bodies, listed)
    receipts = [_job_receipt(change, pairs[change.number], version) for change, _ in bodies if change.number in pairs]
    missing = [change for change, _ in bodies if change.number not in pairs]
    if not missing:
        return receipts
    if status.get("status") == "completed" and (_all_succeeded(results) or _fits(missing, spare)):
        return receipts + [Receipt(c.number, Outcome.OK, c.remote_id, version=version) for c in missing]
    said = status.get("message") or "no message"
    text = f"the job {status.get('status')} without a result for this record ({said})"
    # What may be sent again without harm is tried again; of a create nobody knows whether it was done.
    outcome = Outcome.UNKNOWN if op is Op.CREATE else Outcome.RETRY
    return receipts + [Receipt(c.number, outcome, c.remote_id, text) for c in missing]


def _all_succeeded(results: Any) -> bool:
    """Some jobs only say {"success": true} for all."""
    return isinstance(results, Mapping) and results.get("success") is True


def _fits(missing: Sequence[Change], spare: Sequence[Mapping[str, Any]]) -> bool:
    """Results that name no record, but all succeeded, one for each change that is left."""
    return len(missing) == len(spare) and not any(is_failure(r) for r in spare)


def match_results(
    op: Op, bodies: Sequence[Sent[Mapping[str, Any]]], results: Iterable[Mapping[str, Any]]
) -> tuple[dict[int, Mapping[str, Any]], list[Mapping[str, Any]]]:
    """({change number: its result}, results that could not be told apart).

    Updates and removals are known by id, then by index; creates by index; upserts by index, external id or e-mail.
    """
    by_id = {str(c.remote_id): c.number for c, _ in bodies if c.remote_id is not None and op in (Op.UPDATE, Op.REMOVE)}
    by_index = {i: c.number for i, (c, _) in enumerate(bodies)}
    by_name = {
        (name, str(body[name]).lower()): c.number
        for c, body in bodies
        for name in ("external_id", "email")
        if body.get(name) is not None
    }
    pairs: dict[int, Mapping[str, Any]] = {}
    spare: list[Mapping[str, Any]] = []
    for result in results:
        number = by_id.get(str(result.get("id")))
        if number is None and isinstance(result.get("index"), int):
            number = by_index.get(result["index"])
        for name in ("external_id", "email"):
            if number is None and result.get(name) is not None:
                number = by_name.get((name, str(result[name]).lower()))
        if number is None or number in pairs:
            spare.append(result)
        else:
            pairs[number] = result
    return pairs, spare


def is_failure(result: Mapping[str, Any]) -> bool:
    """Whether one result of a job says that its record was refused."""
    return (
        bool(result.get("error") or result.get("errors"))
        or result.get("success") is False
        or str(result.get("status", "")).lower() == "failed"
    )


def _job_receipt(change: Change, result: Mapping[str, Any], version: int | None) -> Receipt:
    if not is_failure(result):
        remote_id = change.remote_id or (str(result["id"]) if result.get("id") is not None else None)
        return Receipt(change.number, Outcome.OK, remote_id, version=version)
    code = str(result.get("error") or "")
    if change.op is Op.REMOVE and "notfound" in code.replace(" ", "").lower():
        return Receipt(change.number, Outcome.OK, change.remote_id, version=version)
    outcome, text = refused_in_job(result)
    return Receipt(change.number, outcome, change.remote_id, text)


def refused_in_job(result: Mapping[str, Any]) -> tuple[Outcome, str]:
    """(outcome, why) of a result that says that its record was refused."""
    code = str(result.get("error") or "")
    details = "; ".join(detail_texts(result.get("details") or result.get("errors")))
    outcome = Outcome.RETRY if PASSING.search(code) else Outcome.REJECTED
    return outcome, ": ".join(p for p in (code, details) if p) or "refused without a reason"
