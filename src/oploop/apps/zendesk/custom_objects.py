"""Records of custom objects, `custom_objects.KEY`: read whole, written by single calls or jobs of up to 100.

Source: developer.zendesk.com, API reference: custom objects, custom object fields, custom object records (jobs), and the
OpenAPI document (CustomObjectRecord, CustomObjectRecordsBulkCreateRequest).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from oploop.apps.arrow import empty_table, table_from_records
from oploop.apps.base import micros
from oploop.apps.transport import Refused
from oploop.apps.zendesk.client import Client
from oploop.apps.zendesk.objects import CUSTOM_PREFIX, SAID, custom_object
from oploop.apps.zendesk.streams import LIST_PAGE, Reader, records_of, version_of
from oploop.apps.zendesk.writer import custom_value, job_receipts, note_job, single_receipt
from oploop.errors import FixConfig, did_you_mean
from oploop.records import Batch, Change, Field, Object, Op, Outcome, ReadOptions, Receipt, Step, Stream

PREFIX = "custom_objects."
KEY = re.compile(r"[A-Za-z0-9_-]+")
ACTIONS: Mapping[Op, str] = {
    Op.CREATE: "create",
    Op.UPDATE: "update",
    Op.UPSERT: "create_or_update_by_external_id",
    Op.REMOVE: "delete",
}


def is_custom(name: str) -> bool:
    """Whether a name is that of a custom object's records."""
    return name.startswith(PREFIX) and bool(KEY.fullmatch(name.removeprefix(PREFIX)))


def stream_named(name: str) -> Stream | None:
    return SAID.stream("_custom", name) if is_custom(name) else None


def object_named(name: str) -> Object | None:
    return custom_object(name) if is_custom(name) else None


class CustomObjects:
    """The account's custom objects."""

    def __init__(self, client: Client, reader: Reader) -> None:
        self._client, self._reader = client, reader

    async def refuse_missing(self, names: Sequence[str]) -> None:
        """FixConfig for a name of which the account has no custom object."""
        if not names:
            return
        _, found = records_of(await self._client.get("custom_objects"), "custom_objects")
        known = [f"{PREFIX}{o.get('key')}" for o in found]
        for name in names:
            if name not in known:
                raise FixConfig(f"Zendesk has no {name!r} in this account", mend=did_you_mean(name, known))

    async def definitions(self, name: str) -> list[dict[str, Any]]:
        """The definitions of an object's own fields."""
        path = f"custom_objects/{name.removeprefix(PREFIX)}/fields"
        return list(records_of(await self._client.get(path), "custom_object_fields")[1])

    def read(self, name: str, options: ReadOptions) -> AsyncIterator[Batch]:
        path = f"custom_objects/{name.removeprefix(PREFIX)}/records"
        return self._reader.listed(SAID.stream("_custom", name), path, "custom_object_records", options)

    async def fetch(self, name: str, ids: Sequence[str]) -> Batch:
        """The records with these ids; those that are gone have `_deleted` true."""
        stream, wanted = SAID.stream("_custom", name), list(dict.fromkeys(ids))
        tables = [empty_table(stream)]
        for i in range(0, len(wanted), LIST_PAGE):
            page, began = wanted[i : i + LIST_PAGE], self._client.runtime.now()
            params = {"filter[ids]": ",".join(page), "page[size]": LIST_PAGE}
            answer = await self._client.get(f"custom_objects/{name.removeprefix(PREFIX)}/records", params)
            _, records = records_of(answer, "custom_object_records")
            shown = {str(r["id"]) for r in records}
            rows = [*records, *({"id": i} for i in page if i not in shown)]
            at = answer.date_micros() or micros(began)
            versions = [max(at, version_of(r) or 0) for r in rows]
            gone = [str(r["id"]) not in shown for r in rows]
            tables.append(table_from_records(stream, rows, versions=versions, extracted_at=began, deleted=gone))
        return Batch(name, pa.concat_tables(tables, promote_options="default"))

    async def send(self, step: Step) -> list[Receipt]:
        """One change, or two, by single calls, which cost no more; more by one job."""
        path = f"custom_objects/{step.object.removeprefix(PREFIX)}"
        bodies = [(c, record_of(step.op, c)) for c in step.changes]
        if len(bodies) == 1:
            return [await self._single(f"{path}/records", *bodies[0])]
        items: list[Any] = [b["id"] if step.op is Op.REMOVE else b for _, b in bodies]
        job = {"action": ACTIONS[step.op], "items": items}
        status, version = await self._client.job(
            "POST", f"{path}/jobs", json={"job": job}, note=partial(note_job, step, step.changes)
        )
        return job_receipts(step.op, bodies, status, version)

    async def _single(self, path: str, change: Change, body: dict[str, Any]) -> Receipt:
        record = {"custom_object_record": {k: v for k, v in body.items() if k != "id"}}
        try:
            match change.op:
                case Op.REMOVE:
                    answer = await self._client.write("DELETE", f"{path}/{change.remote_id}")
                case Op.UPDATE:
                    answer = await self._client.write("PATCH", f"{path}/{change.remote_id}", json=record)
                case Op.UPSERT:
                    params = {"external_id": str(body["external_id"])}
                    answer = await self._client.write("PATCH", path, params=params, json=record)
                case _:
                    answer = await self._client.write("POST", path, json=record)
        except Refused as e:
            if change.op is Op.REMOVE and e.status == 404:
                return Receipt(change.number, Outcome.OK, change.remote_id, version=e.answer.date_micros())
            return Receipt(change.number, Outcome.REJECTED, change.remote_id, str(e))
        return single_receipt(change, "custom_object_record", answer)


def record_of(op: Op, change: Change) -> dict[str, Any]:
    """The record to send for a change; of a removal only its id. What an append's own key is called is not sent."""
    known: Mapping[str, Field] = custom_object("_").fields
    body: dict[str, Any] = {} if op in (Op.CREATE, Op.UPSERT) else {"id": change.remote_id}
    if op is Op.REMOVE:
        return body
    wanted = change.fields if op is Op.UPDATE else {**change.key, **change.fields}
    own: dict[str, Any] = {}
    for name, value in wanted.items():
        key = name.removeprefix(CUSTOM_PREFIX)
        if key != name:
            own[key] = custom_value(value)
        elif name in known and not known[name].read_only:
            body[name] = value
    return {**body, **({"custom_object_fields": own} if own else {})}
