"""Changes to batch calls, and their answers to receipts.

A batch whose inputs have trace ids may be done in part (207), with the trace id of each input that was refused; otherwise
one bad input lets HubSpot refuse the whole batch (400), and the engine halves it. Results come in any order.
Sources: developers.hubspot.com, API reference: objects (batch create, update, upsert, archive), error handling
(multi-status errors), properties (how values are written), associations v4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from oploop.apps.hubspot.client import Client, error_text
from oploop.apps.hubspot.links import associate
from oploop.apps.hubspot.objects import COMPANY, PRIMARY_COMPANY
from oploop.apps.hubspot.reader import versions_of
from oploop.apps.transport import Answer, Refused
from oploop.errors import OploopError
from oploop.records import Change, Op, Outcome, Receipt, Step

CALLS: Mapping[Op, str] = {Op.CREATE: "create", Op.UPDATE: "update", Op.UPSERT: "upsert"}
#: Kinds of failure that say nothing against the record itself.
PASSING = frozenset({"RATE_LIMITS", "RATE_LIMIT", "LOCKED", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE"})


class Writer:
    """Delivers steps of one type of records."""

    def __init__(self, client: Client, name: str, kind: str) -> None:
        self._client, self._name, self._kind = client, name, kind

    async def send(self, step: Step) -> list[Receipt]:
        """Deliver a step, as `App.send` says. A changed primary company costs one more call."""
        path = f"crm/v3/objects/{self._kind}/batch"
        if step.op in (Op.ARCHIVE, Op.REMOVE):
            body = {"inputs": [{"id": c.remote_id} for c in step.changes]}
            answer = await self._client.write("POST", f"{path}/archive", body, safe=True)
            return [Receipt(c.number, Outcome.OK, c.remote_id, version=answer.date_micros()) for c in step.changes]
        known = {p["name"] for p in await self._client.properties(self._name)}
        inputs = [(c, self._input(step, c, known)) for c in step.changes]
        sent = [(c, i) for c, i in inputs if i["properties"] or step.op is not Op.UPDATE]
        receipts = {c.number: Receipt(c.number, Outcome.OK, c.remote_id) for c, _ in inputs}
        if sent:
            told = await self._client.write(
                "POST", f"{path}/{CALLS[step.op]}", {"inputs": [i for _, i in sent]}, safe=step.op is not Op.CREATE
            )
            receipts |= {r.number: r for r in _receipts(step, sent, told)}
        if step.op is not Op.CREATE:
            await self._companies(step, receipts)
        return list(receipts.values())

    def _input(self, step: Step, change: Change, known: Collection[str]) -> dict[str, Any]:
        """One input of a batch. A create takes the company along; its trace id lets the batch be done in part.

        A key that is no property (an append may have one of its own) is not sent.
        """
        wanted = {k: v for k, v in change.fields.items() if k not in (COMPANY, "id")}
        made: dict[str, Any] = {"objectWriteTraceId": f"{step.id}-{change.number}"}
        if step.op is Op.UPDATE:
            made["id"] = change.remote_id
        else:
            wanted = {**{k: v for k, v in change.key.items() if k in known}, **wanted}
        if step.op is Op.UPSERT:
            [(unique, value)] = change.key.items()
            made |= {"idProperty": unique, "id": text_of(value)}
        if step.op is Op.CREATE:
            company = change.fields.get(COMPANY)
            made["associations"] = [{"to": {"id": str(company)}, "types": self._primary()}] if company else []
        return {**made, "properties": {k: text_of(v) for k, v in wanted.items()}}

    def _primary(self) -> list[dict[str, Any]]:
        number = PRIMARY_COMPANY[self._name][1]
        return [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": number}]

    async def _companies(self, step: Step, receipts: dict[int, Receipt]) -> None:
        """Make the companies that were asked for primary, of the records that are there."""
        links: dict[tuple[str, str], int] = {}
        for change in step.changes:
            receipt, company = receipts[change.number], change.fields.get(COMPANY)
            if company and receipt.outcome is Outcome.OK and receipt.remote_id is not None:
                links[receipt.remote_id, str(company)] = change.number
        if not links:
            return
        path = f"crm/v4/associations/{self._kind}/companies/batch/create"
        try:
            failed = await associate(self._client, path, list(links), self._primary())
        except OploopError as e:  # the records are written: only this is to be tried again, which does no harm
            refused = isinstance(e, Refused)
            for number in links.values():
                outcome = Outcome.RETRY if not refused or len(links) > 1 else Outcome.REJECTED
                receipts[number] = Receipt(number, outcome, receipts[number].remote_id, f"{COMPANY}: {e.message}")
            return
        for link, number in links.items():
            why = failed.get(":".join(link))
            if why is not None:
                receipts[number] = Receipt(number, Outcome.REJECTED, receipts[number].remote_id, f"{COMPANY}: {why}")
            elif receipts[number].version is None:
                receipts[number] = Receipt(number, Outcome.OK, link[0], version=failed.at)


def text_of(value: Any) -> str:
    """A value as HubSpot's properties are written: text; days and times in milliseconds (a day at midnight UTC)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return str(round(value.astimezone(UTC).timestamp() * 1000))
    if isinstance(value, date):
        return str(int(datetime.combine(value, time(), UTC).timestamp() * 1000))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list | tuple | set | frozenset):
        return ";".join(map(str, value))
    return str(value)


# -- answers to receipts -------------------------------------------------------------------------------------------------


def _receipts(step: Step, sent: Sequence[tuple[Change, Mapping[str, Any]]], answer: Answer) -> list[Receipt]:
    """A receipt for each input of a batch, whatever the order of its results and errors."""
    body = answer.written(dict)
    results, errors = body.get("results") or [], body.get("errors") or []
    by_trace = {str(r.get("objectWriteTraceId")): r for r in results}
    by_id = {str(r.get("id")): r for r in results}
    refused = {trace: e for e in errors for trace in _named(e, "objectWriteTraceId")}
    unknown = {number: e for e in errors for number in _named(e, "ids") + _named(e, "id")}
    versions = dict(zip((str(r.get("id")) for r in results), versions_of(results), strict=True))
    receipts = []
    for at, (change, put) in enumerate(sent):
        trace = str(put["objectWriteTraceId"])
        found = by_trace.get(trace) or (by_id.get(str(put["id"])) if step.op is Op.UPDATE else None)
        found = (
            found
            or _by_value(results, put)
            or (results[at] if not errors and len(results) == len(sent) and step.op is Op.CREATE else None)
        )
        error = refused.get(trace) or unknown.get(str(put.get("id")))
        if found is not None:
            receipts.append(Receipt(change.number, Outcome.OK, str(found["id"]), version=versions[str(found["id"])]))
        elif error is not None:
            receipts.append(_refusal(change, error))
        else:
            receipts.append(_unsaid(step, change, errors))
    return receipts


def _named(error: Mapping[str, Any], key: str) -> list[str]:
    """The inputs that an error names in its context: one, or a list."""
    told = (error.get("context") or {}).get(key) or []
    return [str(t) for t in (told if isinstance(told, list) else [told])]


def _by_value(results: Sequence[Mapping[str, Any]], put: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The result of an upsert, by the unique property that it was looked up by."""
    unique = put.get("idProperty")
    if unique is None:
        return None
    wanted = str(put["id"]).strip().lower()
    return next((r for r in results if str(r["properties"].get(unique)).strip().lower() == wanted), None)


def _refusal(change: Change, error: Mapping[str, Any]) -> Receipt:
    said, category = error_text(error, "refused without a reason")
    outcome = Outcome.RETRY if category in PASSING else Outcome.REJECTED
    return Receipt(change.number, outcome, change.remote_id, f"{category}: {said}" if category else said)


def _unsaid(step: Step, change: Change, errors: Sequence[Mapping[str, Any]]) -> Receipt:
    """An input of which the answer says nothing. Alone in its batch, the batch's error is its own."""
    if len(step.changes) == 1 and errors:
        return _refusal(change, errors[0])
    outcome = Outcome.UNKNOWN if step.op is Op.CREATE else Outcome.RETRY
    return Receipt(change.number, outcome, change.remote_id, "HubSpot's answer does not say what became of it")
