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

from oploop.apps.arrow import table_from_records
from oploop.apps.lists import fetched, whole
from oploop.apps.sending import refused
from oploop.apps.transport import Refused
from oploop.apps.zendesk.client import LIST_PAGE, Client
from oploop.apps.zendesk.objects import CUSTOM_PREFIX, SAID, custom_object
from oploop.apps.zendesk.streams import version_of
from oploop.apps.zendesk.writer import custom_value, job_receipts, note_job, single_receipt
from oploop.errors import FixConfig, did_you_mean
from oploop.records import Batch, Change, Field, Object, Op, ReadOptions, Receipt, Step, Stream

PREFIX = "custom_objects."
KEY = re.compile(r"[A-Za-z0-9_-]+")
#: The fields that every custom object has.
KNOWN: Mapping[str, Field] = custom_object("_").fields
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


def _path(name: str) -> str:
    """Where a custom object stands."""
    return f"custom_objects/{name.removeprefix(PREFIX)}"


class CustomObjects:
    """The account's custom objects."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def refuse_missing(self, names: Sequence[str]) -> None:
        """FixConfig for a name of which the account has no custom object."""
        if not names:
            return
        found = (await self._client.shown("custom_objects", "custom_objects")).records
        known = [f"{PREFIX}{o.get('key')}" for o in found]
        for name in names:
            if name not in known:
                raise FixConfig(f"Zendesk has no {name!r} in this account", mend=did_you_mean(name, known))

    async def definitions(self, name: str) -> list[dict[str, Any]]:
        """The definitions of an object's own fields."""
        pages = self._client.listed(f"{_path(name)}/fields", "custom_object_fields")
        return [field async for page in pages for field in page.records]

    def read(self, name: str, options: ReadOptions) -> AsyncIterator[Batch]:
        return whole(
            SAID.stream("_custom", name),
            self._client.listed(f"{_path(name)}/records", "custom_object_records"),
            options.exclude,
        )

    async def fetch(self, name: str, ids: Sequence[str]) -> Batch:
        """The records with these ids; those that are gone have `_deleted` true."""
        stream = SAID.stream("_custom", name)

        async def show(some: Sequence[str]) -> pa.Table:
            asked = {"filter[ids]": ",".join(some), "page[size]": LIST_PAGE}
            page = await self._client.shown(f"{_path(name)}/records", "custom_object_records", asked)
            shown = {str(r["id"]) for r in page.records}
            rows = [*page.records, *({"id": i} for i in some if i not in shown)]
            versions = [max(page.at, version_of(r) or 0) for r in rows]
            gone = [str(r["id"]) not in shown for r in rows]
            return table_from_records(stream, rows, versions=versions, extracted_at=page.began, deleted=gone)

        return await fetched(stream, ids, LIST_PAGE, show)

    async def send(self, step: Step) -> list[Receipt]:
        """One change, or two, by single calls, which cost no more; more by one job."""
        path = _path(step.object)
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
            return refused(change, e)
        return single_receipt(change, "custom_object_record", answer)


def record_of(op: Op, change: Change) -> dict[str, Any]:
    """The record to send for a change; of a removal only its id. What an append's own key is called is not sent."""
    body: dict[str, Any] = {} if op in (Op.CREATE, Op.UPSERT) else {"id": change.remote_id}
    if op is Op.REMOVE:
        return body
    wanted = change.fields if op is Op.UPDATE else {**change.key, **change.fields}
    own: dict[str, Any] = {}
    for name, value in wanted.items():
        key = name.removeprefix(CUSTOM_PREFIX)
        if key != name:
            own[key] = custom_value(value)
        elif name in KNOWN and not KNOWN[name].read_only:
            body[name] = value
    return {**body, **({"custom_object_fields": own} if own else {})}
