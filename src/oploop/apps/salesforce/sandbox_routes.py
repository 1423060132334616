"""The addresses of the stand-in org: what objects there are, queries, single records, collections.

Source: REST API Developer Guide (describe, query, sObject rows, external ids, collections).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.salesforce.sandbox_jobs import Missing
from oploop.apps.salesforce.sandbox_org import Org, Refusal, Unreadable
from oploop.apps.salesforce.sandbox_schema import PREFIXES
from oploop.apps.salesforce.sandbox_soql import BadQuery, run
from oploop.apps.sandbox import json_response

VERSION = "62.0"
MOST, MOST_IDS = 200, 2_000


def name_of(org: Org, request: web.Request) -> str:
    """The object that an address names, however its letters are written; Missing when there is none."""
    known = {n.lower(): n for n in org.records}
    name = known.get(request.match_info["name"].lower())
    if name is None:
        raise Missing
    return name


class QueryRoutes:
    """What there is, and what a query finds of it. `page`: rows of an answer."""

    def __init__(self, org: Org, page: int) -> None:
        self.org, self.page = org, page
        self._cursors: dict[str, tuple[str, list[str], list[dict[str, Any]]]] = {}

    def routes(self, base: str) -> list[web.RouteDef]:
        """Its addresses under `base`."""
        return [
            web.get(base + "/sobjects", self.objects),
            web.get(base + "/sobjects/", self.objects),
            web.get(base + "/sobjects/{name}/describe", self.describe),
            web.get(base + "/query{all:(All)?}/", self.query),
            web.get(base + "/query{all:(All)?}", self.query),
            web.get(base + "/query{all:(All)?}/{locator}", self.more),
        ]

    async def objects(self, request: web.Request) -> web.Response:
        told = [{k: v for k, v in d.items() if k != "fields"} for d in self.org.described.values()]
        return json_response({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": told})

    async def describe(self, request: web.Request) -> web.Response:
        return json_response(self.org.described[name_of(self.org, request)])

    async def query(self, request: web.Request) -> web.Response:
        found = run(self.org, request.query.get("q", ""), all_rows=bool(request.match_info["all"]))
        if found.count:
            return json_response({"totalSize": len(found.rows), "done": True, "records": []})
        key = f"01g5g{len(self._cursors):010d}"
        self._cursors[key] = (found.name, found.fields, found.rows)
        return self._page(key, 0)

    async def more(self, request: web.Request) -> web.Response:
        key, _, start = request.match_info["locator"].partition("-")
        if key not in self._cursors or not start.isdigit():
            raise BadQuery("INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(key, int(start))

    def _page(self, key: str, start: int) -> web.Response:
        name, fields, rows = self._cursors[key]
        end = start + self.page
        told: dict[str, Any] = {
            "totalSize": len(rows),
            "done": end >= len(rows),
            "records": [_shown(name, r, fields) for r in rows[start:end]],
        }
        if end < len(rows):
            told["nextRecordsUrl"] = f"/services/data/v{VERSION}/query/{key}-{end}"
        else:
            del self._cursors[key]
            self._cursors[f"done {key}"] = (name, [], [])
        return json_response(told)

    def forget_cursors(self) -> None:
        """Queries that are under way cannot be gone on with."""
        self._cursors = {f"gone {k}": v for k, v in self._cursors.items()}


class RecordRoutes:
    """One record, by its id or by an external one."""

    def __init__(self, org: Org) -> None:
        self.org = org

    def routes(self, base: str) -> list[web.RouteDef]:
        """Its addresses under `base`."""
        one, by = base + "/sobjects/{name}/{id}", base + "/sobjects/{name}/{field}/{value}"
        return [
            web.post(base + "/sobjects/{name}", self.create),
            web.post(base + "/sobjects/{name}/", self.create),
            web.get(one, self.show),
            web.patch(one, self.update),
            web.delete(one, self.delete),
            web.get(by, self.show_by),
            web.patch(by, self.upsert),
        ]

    async def create(self, request: web.Request) -> web.Response:
        name, sent = name_of(self.org, request), orjson.loads(await request.read())
        self.org.known(name, sent)
        return json_response({"id": self.org.insert(name, sent), "success": True, "errors": []}, 201)

    async def show(self, request: web.Request) -> web.Response:
        name = name_of(self.org, request)
        try:
            record = self.org.held(name, request.match_info["id"])
        except Refusal:
            raise Missing from None
        return json_response(_shown(name, record, list(record)))

    async def update(self, request: web.Request) -> web.Response:
        name, sent = name_of(self.org, request), orjson.loads(await request.read())
        self.org.known(name, sent)
        since = request.headers.get("If-Unmodified-Since")
        held = self.org.held(name, request.match_info["id"])
        if since is not None and datetime.fromisoformat(held["LastModifiedDate"]) > parsedate_to_datetime(since):
            said = "the record has been modified since"
            return json_response([{"errorCode": "PRECONDITION_FAILED", "message": said}], 412)
        self.org.update(name, request.match_info["id"], sent)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        self.org.delete(name_of(self.org, request), request.match_info["id"])
        return web.Response(status=204)

    async def show_by(self, request: web.Request) -> web.Response:
        name, ids = name_of(self.org, request), self._by(request)
        if len(ids) > 1:
            return self._choices(name, ids)
        if not ids:
            raise Missing
        record = self.org.held(name, ids[0])
        return json_response(_shown(name, record, list(record)))

    async def upsert(self, request: web.Request) -> web.Response:
        name, ids, sent = name_of(self.org, request), self._by(request), orjson.loads(await request.read())
        if len(ids) > 1:
            return self._choices(name, ids)
        self.org.known(name, sent)
        field, value = request.match_info["field"], request.match_info["value"]
        record_id, made = self.org.upsert(name, field, {**sent, field: value})
        return json_response({"id": record_id, "success": True, "errors": [], "created": made}, 201 if made else 200)

    def _by(self, request: web.Request) -> list[str]:
        name, field = name_of(self.org, request), request.match_info["field"]
        if not self.org.fields[name].get(field, {}).get("externalId"):
            raise Refusal("NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}")
        return self.org.found(name, field, request.match_info["value"])

    def _choices(self, name: str, ids: list[str]) -> web.Response:
        return json_response([f"/services/data/v{VERSION}/sobjects/{name}/{i}" for i in ids], 300)


class CollectionRoutes:
    """Up to 200 records in a call, each done or refused by itself. `locked`: record id -> how often it is still locked when
    somebody writes it."""

    def __init__(self, org: Org, locked: dict[str, int]) -> None:
        self.org, self.locked = org, locked

    def routes(self, base: str) -> list[web.RouteDef]:
        """Its addresses under `base`."""
        many = base + "/composite/sobjects"
        return [
            web.post(many, self.create_many),
            web.patch(many, self.update_many),
            web.delete(many, self.delete_many),
            web.patch(many + "/{name}/{field}", self.upsert_many),
            web.post(many + "/{name}", self.show_many),
        ]

    async def create_many(self, request: web.Request) -> web.Response:
        return await self._many(request, lambda name, r: self.org.insert(name, r))

    async def update_many(self, request: web.Request) -> web.Response:
        def change(name: str, record: Mapping[str, Any]) -> str:
            record_id = record.get("id") or record.get("Id")
            if record_id is None:
                raise Refusal("MISSING_ARGUMENT", "Id not specified in an update call")
            self._lock(str(record_id))
            return self.org.update(name, str(record_id), record)

        return await self._many(request, change)

    async def upsert_many(self, request: web.Request) -> web.Response:
        name, field = name_of(self.org, request), request.match_info["field"]
        if not self.org.fields[name].get(field, {}).get("externalId"):
            raise Unreadable("INVALID_FIELD", f"Field name provided, {field} is not an External ID for {name}")
        sent = orjson.loads(await request.read())["records"]
        keys = [str(r.get(field)).strip().lower() for r in sent]

        def put(_: str, record: Mapping[str, Any]) -> tuple[str, bool]:
            value = str(record.get(field))
            if record.get(field) is not None and keys.count(value.strip().lower()) > 1:
                raise Refusal("DUPLICATE_VALUE", f"Duplicate external id specified: {value}", field)
            if "id" in record or "Id" in record:
                raise Refusal("INVALID_FIELD", "cannot specify Id in an upsert by an external id", "Id")
            return self.org.upsert(name, field, record)

        return await self._many(request, put)

    async def _many(
        self, request: web.Request, one: Callable[[str, Mapping[str, Any]], str | tuple[str, bool]]
    ) -> web.Response:
        records = orjson.loads(await request.read()).get("records") or []
        if len(records) > MOST:
            raise Unreadable(
                "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {MOST} records into this call"
            )
        for record in records:
            kind = (record.get("attributes") or {}).get("type")
            if kind not in self.org.records:
                raise Unreadable("INVALID_TYPE", f"sObject type '{kind}' is not supported.")
            self.org.known(kind, record)
            self._readable(kind, record)
        results: list[dict[str, Any]] = []
        for record in records:
            try:
                done = one(record["attributes"]["type"], record)
            except Refusal as e:
                results.append({"success": False, "errors": [e.as_json()]})
                continue
            told = {"id": done[0], "created": done[1]} if isinstance(done, tuple) else {"id": done}
            results.append({**told, "success": True, "errors": []})
        return json_response(results)

    def _readable(self, name: str, record: Mapping[str, Any]) -> None:
        """Values of a kind that the JSON of a call cannot have there make the whole call unreadable."""
        try:
            self.org.taken(name, {k: v for k, v in record.items() if k in self.org.fields[name]}, new=True)
        except Refusal:
            return  # said of the record alone

    async def delete_many(self, request: web.Request) -> web.Response:
        ids = [i for i in request.query.get("ids", "").split(",") if i]
        if len(ids) > MOST:
            raise Unreadable(
                "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {MOST} records into this call"
            )
        names = {prefix: name for name, prefix in PREFIXES.items()}
        results: list[dict[str, Any]] = []
        for record_id in ids:
            try:
                if record_id[:3] not in names:
                    raise Refusal("MALFORMED_ID", f"bad id {record_id}")
                self._lock(record_id)
                results.append({"id": self.org.delete(names[record_id[:3]], record_id), "success": True, "errors": []})
            except Refusal as e:
                results.append({"id": record_id, "success": False, "errors": [e.as_json()]})
        return json_response(results)

    def _lock(self, record_id: str) -> None:
        if self.locked.get(record_id, 0) > 0:
            self.locked[record_id] -= 1
            raise Refusal(
                "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records: " + record_id
            )

    async def show_many(self, request: web.Request) -> web.Response:
        name, asked = name_of(self.org, request), orjson.loads(await request.read())
        if len(asked["ids"]) > MOST_IDS:
            raise Unreadable("EXCEEDED_ID_LIMIT", f"cannot retrieve more than {MOST_IDS} records")
        unknown = [f for f in asked["fields"] if f not in self.org.fields[name]]
        if unknown:
            raise BadQuery("INVALID_FIELD", f"No such column '{unknown[0]}' on entity '{name}'.")
        found: list[dict[str, Any] | None] = []
        for record_id in asked["ids"]:
            try:
                found.append(_shown(name, self.org.held(name, record_id), asked["fields"]))
            except Refusal:
                found.append(None)
        return json_response(found)


def _shown(name: str, record: Mapping[str, Any], fields: list[str]) -> dict[str, Any]:
    """A record as answers have it: its address, and the fields that were asked for."""
    address = f"/services/data/v{VERSION}/sobjects/{name}/{record['Id']}"
    values = {f: _time(record[f]) for f in fields}
    return {"attributes": {"type": name, "url": address}, **values}


def _time(value: Any) -> Any:
    """Times as answers write them: 2025-03-01T12:00:00.000+0000."""
    if isinstance(value, str) and len(value) == 25 and value.endswith("+00:00") and value[10] == "T":
        return value.replace("+00:00", ".000+0000")
    return value
