"""The Zendesk sandbox's addresses: records one by one and in bulk, exports, search, field definitions.

Each class takes the store and what else it needs, and lists its routes as (method, path, handler).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from oploop.apps.sandbox import json_response
from oploop.apps.zendesk.sandbox_http import (
    bodies_of,
    body_of,
    cursor_of,
    ids_of,
    matches,
    offset_of,
    offset_page,
    page_of,
    page_size,
    read_cursor,
)
from oploop.apps.zendesk.sandbox_jobs import Jobs
from oploop.apps.zendesk.sandbox_shapes import ADDRESS
from oploop.apps.zendesk.sandbox_store import KINDS, SINGULAR, WITHHELD, Refusal, Store, not_found

Reply = Callable[[web.Request], Awaitable[web.Response]]
Route = tuple[str, str, Reply]

KIND = "{kind:tickets|users|organizations}"
DEFINITIONS = "{kind:ticket_fields|user_fields|organization_fields}"
NUMBER = r"{id:\d+}"
MAX_EXPORT_PAGE = 1000
MAX_FOUND = 1000  #: results of a search
ADMIN_ID = 1  #: the user whom the API token belongs to
PAST_ALL_IDS = 1 << 62


class RecordRoutes:
    """Lists, and records one by one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """(method, path, handler)."""
        one = f"{KIND}/{NUMBER}"
        return [
            ("GET", f"{KIND}/show_many", self._show_many),
            ("GET", f"{KIND}/count", self._count),
            ("GET", "{kind:users|organizations}/search", self._list),
            ("GET", "search", self._search),
            ("POST", "{kind:users|organizations}/create_or_update", self._create_or_update),
            ("GET", KIND, self._list),
            ("POST", KIND, self._create),
            ("GET", f"tickets/{NUMBER}/comments", self._comments),
            ("GET", one, self._show),
            ("PUT", one, self._update),
            ("DELETE", one, self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        records = self._store.live(kind)
        if "external_id" in request.query:
            wanted = request.query["external_id"].lower()
            records = [r for r in records if str(r["external_id"] or "").lower() == wanted]
        elif "query" in request.query:
            terms = dict(w.split(":", 1) for w in request.query["query"].split() if ":" in w)
            records = [r for r in records if matches(r, terms, [])]
        return json_response(page_of(request, kind, records, lambda r: self._store.show(kind, r)))

    async def _count(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return json_response({"count": {"value": len(self._store.live(kind)), "refreshed_at": None}})

    async def _show_many(self, request: web.Request) -> web.Response:
        """By ids or external ids. Deleted tickets and organizations are left out; deleted users are shown as such."""
        kind = request.match_info["kind"]
        if "external_ids" in request.query:
            wanted = {i.lower() for i in ids_of(request, "external_ids")}
            found = [r for r in self._store.live(kind) if str(r["external_id"]).lower() in wanted]
        else:
            held = self._store.records[kind]
            listed = [held.get(int(i)) for i in ids_of(request, "ids") if i.isdigit()]
            found = [r for r in listed if r and (kind == "users" or not self._store.is_deleted(kind, r))]
        shown = [self._store.show(kind, r) for r in found]
        return json_response({kind: shown, "count": len(shown), "next_page": None, "previous_page": None})

    async def _search(self, request: web.Request) -> web.Response:
        """`type:ticket external_id:A-1 status:open word`: minimal, pages by offset, no more than 1,000 results."""
        words = request.query.get("query", "").split()
        terms = dict(w.split(":", 1) for w in words if ":" in w)
        free = [w.lower() for w in words if ":" not in w]
        wanted = terms.pop("type", None)
        found = [
            {**self._store.show(kind, record), "result_type": SINGULAR[kind]}
            for kind in KINDS
            if wanted in (None, SINGULAR[kind])
            for record in self._store.live(kind)
            if matches(record, terms, free)
        ]
        page, size = offset_of(request)
        if page * size > MAX_FOUND:
            text = "Invalid search: Requested response size was greater than Search Response Limits"
            raise Refusal(422, "invalid", text)
        return json_response({**offset_page(request, "results", found, page, size), "facets": None})

    async def _show(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        return self._one(kind, self._store.get(kind, int(request.match_info["id"])))

    async def _create(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        record = self._store.create(kind, await body_of(request, SINGULAR[kind]), submitter=ADMIN_ID)
        return self._one(kind, record, 201, audit=kind == "tickets")

    async def _create_or_update(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        record, new = self._store.upsert(kind, await body_of(request, SINGULAR[kind]), submitter=ADMIN_ID)
        return self._one(kind, record, 201 if new else 200)

    async def _update(self, request: web.Request) -> web.Response:
        kind, number = request.match_info["kind"], int(request.match_info["id"])
        body = with_tag_changes(self._store.get(kind, number), await body_of(request, SINGULAR[kind]))
        record = self._store.update(kind, number, body)
        return self._one(kind, record, audit=kind == "tickets", commented=bool(body.get("comment")))

    async def _comments(self, request: web.Request) -> web.Response:
        number = self._store.get("tickets", int(request.match_info["id"]))["id"]
        return json_response(page_of(request, "comments", self._store.comments.get(number, []), dict))

    async def _delete(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        record = self._store.delete(kind, int(request.match_info["id"]))
        return self._one(kind, record) if kind == "users" else web.Response(status=204)

    def _one(
        self, kind: str, record: Mapping[str, Any], status: int = 200, *, audit: bool = False, commented: bool = False
    ) -> web.Response:
        body: dict[str, Any] = {SINGULAR[kind]: self._store.show(kind, record)}
        if audit:
            body["audit"] = {
                "id": record["id"] * 1000 + 1,
                "ticket_id": record["id"],
                "created_at": record["updated_at"],
                "author_id": ADMIN_ID,
                "metadata": {},
                "events": self._store.comments.get(record["id"], [])[-1:] if commented else [],
            }
        return json_response(body, status, {"Location": f"{ADDRESS}/{kind}/{record['id']}.json"})


class BulkRoutes:
    """Bulk calls and the jobs that they start."""

    def __init__(self, store: Store, jobs: Jobs, *, imports: bool) -> None:
        self._store, self._jobs, self._imports = store, jobs, imports

    def routes(self) -> list[Route]:
        """(method, path, handler)."""
        return [
            ("POST", f"{KIND}/create_many", self._create_many),
            ("POST", "{kind:users}/create_or_update_many", self._upsert_many),
            ("PUT", f"{KIND}/update_many", self._update_many),
            ("DELETE", f"{KIND}/destroy_many", self._destroy_many),
            ("GET", "job_statuses", self._list_jobs),
            ("GET", "job_statuses/show_many", self._list_jobs),
            ("GET", r"job_statuses/{id:\w+}", self._show_job),
        ]

    async def _create_many(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        self._allow_imports(kind)

        def create(body: Any) -> dict[str, Any]:
            return {"id": self._store.create(kind, body, submitter=ADMIN_ID)["id"]}

        return self._submit(request, "Create", await bodies_of(request, kind), create)

    async def _upsert_many(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        self._allow_imports(kind)

        def upsert(body: Any) -> dict[str, Any]:
            record, new = self._store.upsert(kind, body, submitter=ADMIN_ID)
            named = {"external_id": record["external_id"], "email": record["email"]}
            return {**_result(record, "create" if new else "update", "Created" if new else "Updated"), **named}

        return self._submit(request, "CreateOrUpdate", await bodies_of(request, kind), upsert)

    async def _update_many(self, request: web.Request) -> web.Response:
        """One change for the ids of the query, or a change for each record of the body."""
        kind = request.match_info["kind"]
        if "ids" in request.query or "external_ids" in request.query:
            change = await body_of(request, SINGULAR[kind])
            items: list[Any] = [{**change, "id": number} for number in self._named_ids(request, kind)]
        else:
            items = await bodies_of(request, kind)

        def update(body: Any) -> dict[str, Any]:
            if not str(body.get("id", "")).isdigit():
                raise not_found()
            number = int(body["id"])
            fields = with_tag_changes(self._store.get(kind, number), body)
            return _result(self._store.update(kind, number, fields), "update", "Updated")

        return self._submit(request, "Update", items, update)

    async def _destroy_many(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]

        def destroy(number: Any) -> dict[str, Any]:
            return _result(self._store.delete(kind, number), "delete", "Deleted")

        return self._submit(request, "Delete", self._named_ids(request, kind), destroy)

    def _allow_imports(self, kind: str) -> None:
        if kind == "users" and not self._imports:
            raise Refusal(403, "Forbidden", "Data imports are not enabled: contact Zendesk Customer Support")

    def _named_ids(self, request: web.Request, kind: str) -> list[int]:
        if "ids" in request.query:
            return [int(i) for i in ids_of(request, "ids") if i.isdigit()]
        found = (self._store.find(kind, "external_id", i) for i in ids_of(request, "external_ids"))
        return [r["id"] for r in found if r is not None]

    def _submit(
        self, request: web.Request, action: str, items: list[Any], work: Callable[[Any], dict[str, Any]]
    ) -> web.Response:
        one = SINGULAR[request.match_info["kind"]].capitalize()
        job = self._jobs.submit(f"Bulk {action} {one}", items, work, f"{one}{action}Failed")
        return json_response({"job_status": job.show(str(request.url.origin()))})

    async def _list_jobs(self, request: web.Request) -> web.Response:
        known = self._jobs.all
        ids = ids_of(request, "ids") if "ids" in request.query else list(known)[-100:]
        origin = str(request.url.origin())
        return json_response({"job_statuses": [known[i].show(origin) for i in ids if i in known]})

    async def _show_job(self, request: web.Request) -> web.Response:
        job = self._jobs.all.get(request.match_info["id"])
        if job is None:
            raise not_found()
        return json_response({"job_status": job.show(str(request.url.origin()))})


class ExportRoutes:
    """Incremental exports. `count_call(bucket)` counts a call against the exports' limit and gives its headers."""

    def __init__(self, store: Store, count_call: Callable[[str], dict[str, str]]) -> None:
        self._store, self._count_call = store, count_call

    def routes(self) -> list[Route]:
        """(method, path, handler)."""
        return [
            ("GET", "incremental/{kind:tickets|users}/cursor", self._by_cursor),
            ("GET", f"incremental/{KIND}", self._by_time),
        ]

    def _start_time(self, request: web.Request) -> int:
        try:
            start = int(request.query["start_time"])
        except (KeyError, ValueError):
            raise Refusal(400, "InvalidValue", "start_time is required, in seconds since 1970") from None
        if start > self._store.seconds() - WITHHELD:
            raise Refusal(400, "InvalidValue", "Too recent start_time. Use a start_time older than 60 seconds")
        return start

    async def _by_cursor(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        headers = self._count_call("exports" if kind == "tickets" else "cursor exports")
        given = request.query.get("cursor")
        after = read_cursor(given) if given else (self._start_time(request) - 1, PAST_ALL_IDS)
        size = page_size(request, "per_page", MAX_EXPORT_PAGE)
        records, last, ended = self._store.export(kind, after, size)
        cursor = cursor_of(last) if records else given
        body = {
            kind: records,
            "after_url": f"{request.url.origin()}{request.path}?cursor={cursor}&per_page={size}" if cursor else None,
            "before_url": None,
            "after_cursor": cursor,
            "before_cursor": None,
            "end_of_stream": ended,
        }
        return json_response(body, headers=headers)

    async def _by_time(self, request: web.Request) -> web.Response:
        """Everything from `start_time` on, so that the next page begins with the last second of this one."""
        kind = request.match_info["kind"]
        headers = self._count_call("exports")
        start = self._start_time(request)
        size = page_size(request, "per_page", MAX_EXPORT_PAGE)
        records, last, ended = self._store.export(kind, (start - 1, PAST_ALL_IDS), size)
        end = last[0] if records else None
        body = {
            kind: records,
            "count": len(records),
            "end_time": end,
            "next_page": f"{request.url.origin()}{request.path}?start_time={end}&per_page={size}" if records else None,
            "end_of_stream": ended,
        }
        return json_response(body, headers=headers)


class DefinitionRoutes:
    """Ticket fields, user fields, organization fields."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self) -> list[Route]:
        """(method, path, handler)."""
        one = f"{DEFINITIONS}/{NUMBER}"
        return [
            ("GET", DEFINITIONS, self._list),
            ("POST", DEFINITIONS, self._create),
            ("GET", one, self._show),
            ("PUT", one, self._update),
            ("DELETE", one, self._delete),
        ]

    def _find(self, request: web.Request) -> dict[str, Any]:
        found = self._store.definitions[request.match_info["kind"]].get(int(request.match_info["id"]))
        if found is None:
            raise not_found()
        return found

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        records = [d for _, d in sorted(self._store.definitions[kind].items())]
        if kind == "ticket_fields" and "page[size]" not in request.query:  # they come whole
            return json_response({kind: records, "count": len(records), "next_page": None, "previous_page": None})
        return json_response(page_of(request, kind, records, dict))

    async def _show(self, request: web.Request) -> web.Response:
        return json_response({request.match_info["kind"].removesuffix("s"): self._find(request)})

    async def _create(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        body = {k: v for k, v in (await body_of(request, kind.removesuffix("s"))).items() if k != "id"}
        return json_response({kind.removesuffix("s"): self._store.define(kind, body)}, 201)

    async def _update(self, request: web.Request) -> web.Response:
        kind, old = request.match_info["kind"], self._find(request)
        body = await body_of(request, kind.removesuffix("s"))
        return json_response({kind.removesuffix("s"): self._store.define(kind, {**old, **body, "id": old["id"]})})

    async def _delete(self, request: web.Request) -> web.Response:
        definition = self._find(request)
        if definition.get("removable") is False:
            raise Refusal(422, "RecordInvalid", "System fields cannot be deleted")
        del self._store.definitions[request.match_info["kind"]][definition["id"]]
        return web.Response(status=204)


def with_tag_changes(record: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """A change with `additional_tags` and `remove_tags` worked into `tags`."""
    more, fewer = body.get("additional_tags"), body.get("remove_tags")
    if not more and not fewer:
        return dict(body)
    tags = [t for t in body.get("tags", record["tags"]) if t not in (fewer or ())]
    return {**body, "tags": [*tags, *(more or ())]}


def _result(record: Mapping[str, Any], action: str, status: str) -> dict[str, Any]:
    return {"id": record["id"], "action": action, "success": True, "status": status}
