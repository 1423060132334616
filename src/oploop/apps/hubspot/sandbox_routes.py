"""The HubSpot sandbox's addresses: records, their batches and search; properties; schemas; associations; lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.hubspot.sandbox_links import Associations, Lists
from oploop.apps.hubspot.sandbox_search import behind, changed_at, fits, order
from oploop.apps.hubspot.sandbox_shapes import LINKS, Refusal, iso
from oploop.apps.hubspot.sandbox_store import Kind, Record, Store
from oploop.apps.sandbox import json_response

Reply = Callable[[web.Request], Awaitable[web.Response]]
Route = tuple[str, str, Reply]
MOST_INPUTS, MOST_PAIRS, MOST_FOUND = 100, 2_000, 10_000
DEFAULTS: Mapping[str, tuple[str, ...]] = {
    "contacts": ("email", "firstname", "lastname", "lastmodifieddate"), "companies": ("name", "domain"),
    "deals": ("dealname", "amount", "closedate", "pipeline", "dealstage"),
    "tickets": ("subject", "content", "hs_pipeline", "hs_pipeline_stage", "hs_ticket_priority"),
}  # fmt: skip


async def body_of(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        raise Refusal(400, "Invalid input JSON") from None


async def inputs_of(request: web.Request, most: int = MOST_INPUTS) -> list[dict[str, Any]]:
    """A batch's inputs: some, not too many, none twice."""
    inputs = (await body_of(request)).get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise Refusal(400, "Invalid input JSON: inputs must not be empty")
    if len(inputs) > most:
        raise Refusal(
            400, f"The maximum number of inputs supported in a batch request is {most}. Received {len(inputs)}"
        )
    ids = [i["id"] for i in inputs if isinstance(i.get("id"), str)]
    if len(ids) != len(set(ids)):
        raise Refusal(400, "Duplicate IDs found in batch input: all must be different")
    return inputs


def size_of(request: web.Request, default: int, most: int) -> int:
    text = request.query.get("limit", str(default))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise Refusal(400, f"limit must be a number from 1 to {most}, not {text}")
    return int(text)


def _archived(request: web.Request) -> bool:
    return request.query.get("archived", "").lower() == "true"  # HubSpot's Python client writes True


def batch_response(store: Store, results: Sequence[Any], errors: Sequence[Any] = (), status: int = 200) -> web.Response:
    now = iso(store.clock())
    body: dict[str, Any] = {"status": "COMPLETE", "results": list(results), "startedAt": now, "completedAt": now}
    if errors:
        body |= {"numErrors": len(errors), "errors": list(errors)}
    return json_response(body, 207 if errors else status)


class RecordRoutes:
    """Records of all types. `multi_status`: the batches that may be done in part, when their inputs have trace ids."""

    def __init__(self, store: Store, links: Associations, multi_status: frozenset[str]) -> None:
        self.store, self.links, self._multi = store, links, multi_status

    def routes(self) -> list[Route]:
        base = "/crm/v3/objects/{type}"
        return [
            ("POST", f"{base}/batch/create", self.batch_create),
            ("POST", f"{base}/batch/update", self.batch_update),
            ("POST", f"{base}/batch/upsert", self.batch_upsert),
            ("POST", f"{base}/batch/read", self.batch_read),
            ("POST", f"{base}/batch/archive", self.batch_archive),
            ("POST", f"{base}/search", self.search),
            ("POST", f"{base}/merge", self.merge),
            ("GET", base, self.page),
            ("POST", base, self.create),
            ("GET", f"{base}/{{id}}", self.read),
            ("PATCH", f"{base}/{{id}}", self.update),
            ("DELETE", f"{base}/{{id}}", self.archive),
        ]

    def _kind(self, request: web.Request) -> Kind:
        return self.store.kind(request.match_info["type"])

    def _show(self, kind: Kind, record: Record, names: Sequence[str] = ()) -> dict[str, Any]:
        """A record with the properties that were asked for, and those that come anyway."""
        wanted = [*names, *DEFAULTS.get(kind.name, ())] if not names else list(names)
        always = (
            "hs_object_id",
            "createdate",
            "hs_lastmodifieddate" if kind.name != "contacts" else "lastmodifieddate",
        )
        known = [n for n in dict.fromkeys([*wanted, *always]) if n in kind.properties]
        return {**record, "properties": {n: record["properties"].get(n) for n in known}}

    def _asked(self, request: web.Request) -> list[str]:
        return [n for part in request.query.getall("properties", []) for n in part.split(",") if n]

    async def page(self, request: web.Request) -> web.Response:
        kind, size = self._kind(request), size_of(request, 10, 100)
        archived = _archived(request)
        records, more = self.store.page(kind, int(request.query.get("after", "0")), size, archived=archived)
        names = self._asked(request)
        results = [self._show(kind, r, names) for r in records]
        for name in request.query.get("associations", "").split(","):
            for shown in results if name else ():
                self._add_links(kind, shown, self.store.kind(name))
        body: dict[str, Any] = {"results": results}
        if more is not None:
            body["paging"] = {
                "next": {"after": str(more), "link": f"{request.url.origin()}{request.path}?after={more}"}
            }
        return json_response(body)

    def _add_links(self, kind: Kind, shown: dict[str, Any], right: Kind) -> None:
        """Associations as the list shows them: up to 100 of each record, an entry a type."""
        found = self.links.of(kind, right, int(shown["id"]))
        if not found:
            return
        one = f"{kind.name}_to_{right.name}"
        unlabelled = self.links.unlabelled(kind, right)
        named = {unlabelled: f"{one}_unlabeled"} if (kind.name, right.name) in LINKS else {}
        page = list(found.items())[:100]
        told = [{"id": str(n), "type": named.get(t, one)} for n, types in page for t in sorted(types)]
        more = {"paging": {"next": {"after": str(page[-1][0])}}} if len(found) > 100 else {}
        shown.setdefault("associations", {})[right.name] = {"results": told, **more}

    async def read(self, request: web.Request) -> web.Response:
        kind, archived = self._kind(request), _archived(request)
        unique = request.query.get("idProperty")
        record = self.store.get(kind, request.match_info["id"], unique, archived=archived)
        if record is None:
            raise Refusal(404, "resource not found", "OBJECT_NOT_FOUND")
        return json_response(self._show(kind, record, self._asked(request)))

    async def create(self, request: web.Request) -> web.Response:
        kind, body = self._kind(request), await body_of(request)
        return json_response(self._create(kind, body), 201)

    def _create(self, kind: Kind, body: Mapping[str, Any]) -> Record:
        record = self.store.create(kind, body.get("properties") or {})
        for link in body.get("associations") or ():
            right = next(r for (a, r), ids in LINKS.items() if a == kind.name and link["types"][0]["associationTypeId"] in ids)  # fmt: skip
            types = [t["associationTypeId"] for t in link["types"]]
            self.links.add(kind, self.store.kind(right), record["id"], str(link["to"]["id"]), types)
        self._after(kind, record, body.get("properties") or {})
        return kind.records[int(record["id"])]

    def _after(self, kind: Kind, record: Record, given: Mapping[str, Any]) -> None:
        """A contact's company, set as a property, is an association."""
        if kind.name == "contacts" and given.get("associatedcompanyid"):
            companies = self.store.kind("companies")
            if self.store.get(companies, given["associatedcompanyid"]) is not None:
                self.links.add(kind, companies, record["id"], given["associatedcompanyid"], [1])

    async def update(self, request: web.Request) -> web.Response:
        kind, body = self._kind(request), await body_of(request)
        record = self.store.get(kind, request.match_info["id"], request.query.get("idProperty"))
        if record is None:
            raise Refusal(404, "resource not found", "OBJECT_NOT_FOUND")
        return json_response(self._update(kind, record, body))

    def _update(self, kind: Kind, record: Record, body: Mapping[str, Any]) -> Record:
        record = self.store.update(kind, record, body.get("properties") or {})
        self._after(kind, record, body.get("properties") or {})
        return kind.records[int(record["id"])]

    async def archive(self, request: web.Request) -> web.Response:
        self.store.archive(self._kind(request), request.match_info["id"])
        return web.Response(status=204)

    async def merge(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        return json_response(self.store.merge(self._kind(request), body["primaryObjectId"], body["objectIdToMerge"]))

    async def batch_archive(self, request: web.Request) -> web.Response:
        kind = self._kind(request)
        for one in await inputs_of(request):
            self.store.archive(kind, str(one["id"]))
        return web.Response(status=204)

    async def batch_read(self, request: web.Request) -> web.Response:
        kind, body = self._kind(request), await body_of(request)
        archived, unique = _archived(request), body.get("idProperty")
        asked = [str(i["id"]) for i in await inputs_of(request)]
        found = {i: self.store.get(kind, i, unique, archived=archived) for i in asked}
        results = {r["id"]: self._show(kind, r, body.get("properties") or ()) for r in found.values() if r is not None}
        missing = [i for i, r in found.items() if r is None]
        lost = Refusal(404, "Could not get some objects, they may be deleted or not exist.", "OBJECT_NOT_FOUND")
        return batch_response(self.store, list(results.values()), [lost.in_batch(ids=missing)] if missing else ())

    async def batch_create(self, request: web.Request) -> web.Response:
        kind = self._kind(request)
        return await self._batch(request, kind, "create", lambda one: self._create(kind, one), 201)

    async def batch_update(self, request: web.Request) -> web.Response:
        kind = self._kind(request)
        inputs = await inputs_of(request)
        found = {i["id"]: self.store.get(kind, str(i["id"]), i.get("idProperty")) for i in inputs}
        missing = [str(i) for i, r in found.items() if r is None]

        def one(given: Mapping[str, Any]) -> Record:
            record = found[given["id"]]
            assert record is not None
            return self._update(kind, record, given)

        lost = Refusal(404, "Could not get some objects, they may be deleted or not exist.", "OBJECT_NOT_FOUND")
        errors = [lost.in_batch(ids=missing)] if missing else []
        there = [i for i in inputs if found[i["id"]] is not None]
        return self._done(kind, "update", there, one, 200, errors)

    async def batch_upsert(self, request: web.Request) -> web.Response:
        kind = self._kind(request)

        def one(given: Mapping[str, Any]) -> Record:
            unique = given.get("idProperty") or "hs_object_id"
            if not kind.keeps_unique(unique):
                raise Refusal(400, f"{unique} is not a unique property of {kind.name}")
            record = self.store.get(kind, str(given["id"]), unique)
            properties = {**(given.get("properties") or {}), unique: str(given["id"])}
            if record is None:
                return {**self._create(kind, {**given, "properties": properties}), "new": True}
            return {**self._update(kind, record, {**given, "properties": properties}), "new": False}

        return await self._batch(request, kind, "upsert", one, 200)

    async def _batch(
        self, request: web.Request, kind: Kind, what: str, one: Callable[[Mapping[str, Any]], Record], status: int
    ) -> web.Response:
        return self._done(kind, what, await inputs_of(request), one, status, [])

    def _done(
        self, kind: Kind, what: str, inputs: Sequence[Mapping[str, Any]],
        one: Callable[[Mapping[str, Any]], Record], status: int, errors: list[Any],
    ) -> web.Response:  # fmt: skip
        """Do a batch: in part, where trace ids allow it; else wholly or, when one input is bad, not at all."""
        traces = [str(i["objectWriteTraceId"]) for i in inputs if i.get("objectWriteTraceId")]
        in_part = what in self._multi and len(set(traces)) == len(inputs)
        before = None if in_part else _Kept(self.links, kind, inputs)
        results = []
        for given in inputs:
            trace = given.get("objectWriteTraceId")
            try:
                done = one(given)
            except Refusal as e:
                if before is not None:
                    before.restore()
                    raise
                errors.append(e.in_batch(trace))
                continue
            results.append({**done, **({"objectWriteTraceId": trace} if trace is not None else {})})
        return batch_response(
            self.store, results[::-1], errors, status
        )  # in any order, as HubSpot does not promise one

    # -- search --------------------------------------------------------------------------------------------------------

    async def search(self, request: web.Request) -> web.Response:
        kind, body = self._kind(request), await body_of(request)
        size, offset = int(body.get("limit") or 10), int(body.get("after") or 0)
        groups, sorts = body.get("filterGroups") or [], body.get("sorts") or []
        if not 1 <= size <= 200 or len(groups) > 5 or len(sorts) > 1 or any(len(g["filters"]) > 6 for g in groups):
            raise Refusal(400, "Invalid search: limit up to 200, 5 filter groups of 6 filters, one sort")
        if offset + size > MOST_FOUND:
            raise Refusal(400, "The maximum supported number of search results is 10000; use fewer pages")
        ids = [int(f["value"]) for g in groups[:1] for f in g["filters"] if behind(f)] if len(groups) == 1 else []
        found = [
            (record, then)
            for record, then in self.store.indexed(kind, max(ids, default=0))
            if not groups or any(all(fits(kind, then, f) for f in g["filters"]) for g in groups)
        ]
        for sort in sorts:
            name, way = (sort["propertyName"], sort.get("direction")) if isinstance(sort, Mapping) else (sort, None)
            found.sort(key=lambda f: order(kind, name, f[1].get(name)), reverse=way == "DESCENDING")
        page = found[offset : offset + size]
        results = [self._show(kind, {**r, "archived": False, "properties": then, "updatedAt": changed_at(kind, then)}, body.get("properties") or ()) for r, then in page]  # fmt: skip
        answer: dict[str, Any] = {"total": len(found), "results": results}
        if len(found) > offset + size:
            answer["paging"] = {"next": {"after": str(offset + size)}}
        return json_response(answer)


class _Kept:
    """What a batch that is refused as a whole must leave as it was."""

    def __init__(self, links: Associations, kind: Kind, inputs: Sequence[Mapping[str, Any]]) -> None:
        self._kind, self._links = kind, links
        self._was = (dict(kind.records), list(kind.order), dict(kind.seen), dict(kind.unique))
        linking = any(i.get("associations") or "associatedcompanyid" in i.get("properties", ()) for i in inputs)
        self._linked = links.state() if linking else None

    def restore(self) -> None:
        kind = self._kind
        kind.records, kind.order, kind.seen, kind.unique = self._was
        if self._linked is not None:
            self._links.set_state(self._linked)


class AccountRoutes:
    """Properties, schemas, associations, lists, owners."""

    def __init__(self, store: Store, links: Associations, lists: Lists, owners: list[dict[str, Any]]) -> None:
        self.store, self.links, self.lists, self.owners = store, links, lists, owners

    def routes(self) -> list[Route]:
        pair, a_list = "/crm/v4/associations/{type}/{to}/batch", "/crm/v3/lists/{list}"
        return [
            ("GET", "/crm/v3/properties/{type}", self.properties),
            ("POST", "/crm/v3/properties/{type}", self.add_property),
            ("GET", "/crm/v3/properties/{type}/{name}", self.one_property),
            ("DELETE", "/crm/v3/properties/{type}/{name}", self.drop_property),
            ("GET", "/crm-object-schemas/v3/schemas", self.schemas),
            ("GET", "/crm-object-schemas/v3/schemas/{type}", self.one_schema),
            ("GET", "/crm/v3/owners/", self.list_owners),
            ("POST", f"{pair}/read", self.read_pairs),
            ("POST", f"{pair}/associate/default", self.associate),
            ("POST", f"{pair}/create", self.associate),
            ("POST", f"{pair}/archive", self.dissociate),
            ("POST", "/crm/v3/lists/", self.add_list),
            ("POST", "/crm/v3/lists/search", self.search_lists),
            ("GET", a_list, self.one_list),
            ("GET", f"{a_list}/memberships", self.members),
            ("PUT", f"{a_list}/memberships/{{what}}", self.change_members),
        ]

    async def properties(self, request: web.Request) -> web.Response:
        kind, archived = self.store.kind(request.match_info["type"]), _archived(request)
        return json_response({"results": [p for p in kind.properties.values() if p["archived"] == archived]})

    async def one_property(self, request: web.Request) -> web.Response:
        found = self.store.kind(request.match_info["type"]).properties.get(request.match_info["name"])
        if found is None:
            raise Refusal(404, f"Property {request.match_info['name']} does not exist", "OBJECT_NOT_FOUND")
        return json_response(found)

    async def add_property(self, request: web.Request) -> web.Response:
        kind, body = self.store.kind(request.match_info["type"]), await body_of(request)
        if body["name"] in kind.properties:
            raise Refusal(409, f"A property named '{body['name']}' already exists.", "CONFLICT")
        return json_response(self.store.define(kind.name, body), 201)

    async def drop_property(self, request: web.Request) -> web.Response:
        self.store.kind(request.match_info["type"]).properties[request.match_info["name"]]["archived"] = True
        return web.Response(status=204)

    async def schemas(self, request: web.Request) -> web.Response:
        return json_response({"results": [self._schema(k) for k in self.store.kinds.values() if k.schema is not None]})

    async def one_schema(self, request: web.Request) -> web.Response:
        return json_response(self._schema(self.store.kind(request.match_info["type"])))

    def _schema(self, kind: Kind) -> dict[str, Any]:
        return {**(kind.schema or {"name": kind.name}), "properties": list(kind.properties.values())}

    async def list_owners(self, request: web.Request) -> web.Response:
        start, size = int(request.query.get("after", "0")), size_of(request, 100, 500)
        more = {"paging": {"next": {"after": str(start + size)}}} if len(self.owners) > start + size else {}
        return json_response({"results": self.owners[start : start + size], **more})

    # -- associations --------------------------------------------------------------------------------------------------

    def _pair(self, request: web.Request) -> tuple[Kind, Kind]:
        return self.store.kind(request.match_info["type"]), self.store.kind(request.match_info["to"])

    async def read_pairs(self, request: web.Request) -> web.Response:
        left, right = self._pair(request)
        results, errors = [], []
        for one in await inputs_of(request, 1_000):
            found = self.links.of(left, right, int(one["id"]))
            rest = [(n, t) for n, t in found.items() if n > int(one.get("after") or 0)]
            if not rest:
                said = f"No {right.name} is associated with {left.name} {one['id']}."
                none = Refusal(404, said, "OBJECT_NOT_FOUND").in_batch(ids=[one["id"]])
                errors.append({**none, "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND"})
                continue
            to = [{"toObjectId": n, "associationTypes": [self._type(left, right, t) for t in sorted(types)]} for n, types in rest[:500]]  # fmt: skip
            more = {"paging": {"next": {"after": str(rest[499][0])}}} if len(rest) > 500 else {}
            results.append({"from": {"id": str(one["id"])}, "to": to, **more})
        return batch_response(self.store, results, errors)

    def _type(self, left: Kind, right: Kind, number: int) -> dict[str, Any]:
        label = "Primary" if number == LINKS.get((left.name, right.name), (0, None))[1] else None
        return {"category": "HUBSPOT_DEFINED", "typeId": number, "label": label}

    async def associate(self, request: web.Request) -> web.Response:
        left, right = self._pair(request)
        default = request.path.endswith("/default")
        results, errors = [], []
        for one in await inputs_of(request, MOST_PAIRS):
            a, b = str(one["from"]["id"]), str(one["to"]["id"])
            types = [t["associationTypeId"] for t in one.get("types") or ()]
            try:
                self.links.add(left, right, a, b, types)
            except Refusal as e:
                errors.append({**e.in_batch(), "context": {"fromObjectId": [a], "toObjectId": [b]}})
                continue
            kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": self.links.unlabelled(left, right)}
            labelled = {"fromObjectTypeId": left.type_id, "fromObjectId": a, "toObjectTypeId": right.type_id, "toObjectId": b, "labels": []}  # fmt: skip
            results.append({"from": {"id": a}, "to": {"id": b}, "associationSpec": kind} if default else labelled)
        return batch_response(self.store, results, errors, 200 if default else 201)

    async def dissociate(self, request: web.Request) -> web.Response:
        left, right = self._pair(request)
        for one in await inputs_of(request, MOST_PAIRS):
            for to in one["to"]:
                self.links.remove(left, right, str(one["from"]["id"]), str(to["id"]))
        return web.Response(status=204)

    # -- lists ---------------------------------------------------------------------------------------------------------

    async def add_list(self, request: web.Request) -> web.Response:
        return json_response({"list": self.lists.create(await body_of(request))})

    async def one_list(self, request: web.Request) -> web.Response:
        return json_response({"list": self.lists.get(request.match_info["list"])})

    async def search_lists(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        kinds, start, size = (
            body.get("processingTypes") or (),
            int(body.get("offset") or 0),
            int(body.get("count") or 20),
        )
        if size > 500:
            raise Refusal(400, "count must be at most 500")
        found = [x for _, x in sorted(self.lists.lists.items()) if not kinds or x["processingType"] in kinds]
        shown = [
            {**x, "additionalProperties": {"hs_list_size": str(len(self.lists.live(x["listId"])))}}
            for x in found[start : start + size]
        ]
        more = len(found) > start + size
        return json_response({"lists": shown, "hasMore": more, "offset": start + len(shown), "total": len(found)})

    async def members(self, request: web.Request) -> web.Response:
        size, after = size_of(request, 100, 250), int(request.query.get("after", "0"))
        live = [(n, at) for n, at in self.lists.live(request.match_info["list"]).items() if n > after]
        more = {"paging": {"next": {"after": str(live[size - 1][0])}}} if len(live) > size else {}
        results = [{"recordId": str(n), "membershipTimestamp": at} for n, at in live[:size]]
        return json_response({"results": results, "total": len(live), **more})

    async def change_members(self, request: web.Request) -> web.Response:
        body, what = await body_of(request), request.match_info["what"]
        add = body if what == "add" else body.get("recordIdsToAdd", []) if what == "add-and-remove" else []
        remove = body if what == "remove" else body.get("recordIdsToRemove", []) if what == "add-and-remove" else []
        return json_response(
            self.lists.change(request.match_info["list"], [str(i) for i in add], [str(i) for i in remove])
        )
