"""The Zendesk sandbox's custom objects, and the lists that can only be read: ratings, metrics, memberships."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from oploop.apps.sandbox import json_response
from oploop.apps.zendesk.sandbox_http import MAX_PAGE, body_of, ids_of, page_of, page_size
from oploop.apps.zendesk.sandbox_jobs import Jobs
from oploop.apps.zendesk.sandbox_routes import ADMIN_ID, Route
from oploop.apps.zendesk.sandbox_shapes import ADDRESS, field_template
from oploop.apps.zendesk.sandbox_store import Refusal, invalid, iso, not_found

KEY = r"{key:[\w-]+}"
_MINUTES = {"calendar": 0, "business": 0}
#: What a listed record has if nothing else is said.
LISTED: Mapping[str, Mapping[str, Any]] = {
    "satisfaction_ratings": {
        "ticket_id": 1, "requester_id": 1, "assignee_id": 1, "group_id": 1, "score": "offered", "comment": "", "reason": "",
        "reason_code": 0, "reason_id": 0,
    },
    "ticket_metrics": {
        "ticket_id": 1, "reopens": 0, "replies": 0, "group_stations": 1, "assignee_stations": 1,
        **dict.fromkeys(
            ("reply_time_in_minutes", "reply_time_in_seconds", "first_resolution_time_in_minutes",
             "full_resolution_time_in_minutes", "agent_wait_time_in_minutes", "requester_wait_time_in_minutes",
             "on_hold_time_in_minutes"), _MINUTES),
    },
    "organization_memberships": {
        "user_id": 1, "organization_id": 1, "organization_name": "", "default": None, "view_tickets": True,
    },
}  # fmt: skip


class CustomStore:
    """Custom objects with their fields and records; listed records by kind."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        self.listed: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in LISTED}
        self.objects: dict[str, dict[str, Any]] = {}
        self.fields: dict[str, list[dict[str, Any]]] = {}
        self.records: dict[str, dict[str, dict[str, Any]]] = {}
        self._next = 1

    def load_listed(self, kind: str, given: Mapping[str, Any]) -> None:
        number = int(given.get("id") or max(self.listed[kind], default=0) + 1)
        now = iso(self._clock())
        own = {"id": number, "url": f"{ADDRESS}/{kind}/{number}.json", "created_at": now, "updated_at": now}
        self.listed[kind][number] = {**LISTED[kind], **own, **given}

    def load_object(self, given: Mapping[str, Any]) -> None:
        """A custom object: {key, title, fields: [...]}."""
        key, now = str(given["key"]), iso(self._clock())
        title = given.get("title", key.title())
        texts = {"title": title, "title_pluralized": f"{title}s", "description": ""}
        self.objects[key] = {
            "key": key,
            "url": f"{ADDRESS}/custom_objects/{key}.json",
            **texts,
            **{f"raw_{k}": v for k, v in texts.items()},
            **dict.fromkeys(("created_at", "updated_at"), now),
            **dict.fromkeys(("created_by_user_id", "updated_by_user_id"), str(ADMIN_ID)),
        }
        self.fields[key] = [
            field_template("user_fields", 7_000 + i, f, now) for i, f in enumerate(given.get("fields", ()))
        ]
        self.records.setdefault(key, {})

    def of(self, key: str) -> dict[str, dict[str, Any]]:
        """An object's records; Refusal (404) when there is no such object."""
        if key not in self.records:
            raise not_found()
        return self.records[key]

    def get(self, key: str, number: str) -> dict[str, Any]:
        if number not in self.of(key):
            raise not_found()
        return self.of(key)[number]

    def put(self, key: str, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> dict[str, Any]:
        """Make or change a record; Refusal (422) when it breaks a rule."""
        known = {f["key"]: f for f in self.fields[key]}
        own, wrong = dict(old["custom_object_fields"]) if old else dict.fromkeys(known), {}
        for name, value in (body.get("custom_object_fields") or {}).items():
            if name not in known:
                wrong[name] = [f"{name} is not a field of {key}"]
            elif known[name]["type"] == "integer" and value is not None and not str(value).lstrip("-").isdigit():
                wrong[name] = [f"{known[name]['title']}: {value} is invalid"]
            else:
                own[name] = value
        name, external = (body.get(k, (old or {}).get(k)) for k in ("name", "external_id"))
        if not name:
            wrong["name"] = ["Name: cannot be blank"]
        number = old["id"] if old else f"01SANDBOX{self._next:017}"
        taken = [r for r in self.of(key).values() if external and r["external_id"] == external and r["id"] != number]
        if taken:
            wrong["external_id"] = [f"External: {external} has already been taken"]
        if wrong:
            raise invalid(wrong)
        self._next += old is None
        now = iso(self._clock())
        record = {
            "url": f"{ADDRESS}/custom_objects/{key}/records/{number}.json",
            "id": number,
            "custom_object_key": key,
            "created_by_user_id": str(ADMIN_ID),
            "updated_by_user_id": str(ADMIN_ID),
            "created_at": old["created_at"] if old else now,
            "updated_at": now,
            "name": name,
            "external_id": external,
            "custom_object_fields": own,
        }
        self.of(key)[number] = record
        return record

    def load_record(self, key: str, given: Mapping[str, Any]) -> None:
        record = self.put(key, {"name": "…", **given}, None)
        if "id" in given:
            del self.records[key][record["id"]]
            self.records[key][str(given["id"])] = {**record, "id": str(given["id"])}

    def by_external(self, key: str, external: Any) -> dict[str, Any] | None:
        return next((r for r in self.of(key).values() if r["external_id"] == external), None)


class CustomRoutes:
    """Their addresses."""

    def __init__(self, store: CustomStore, jobs: Jobs) -> None:
        self._store, self._jobs = store, jobs

    def routes(self) -> list[Route]:
        """(method, path, handler)."""
        records = f"custom_objects/{KEY}/records"
        return [
            ("GET", f"{{kind:{'|'.join(LISTED)}}}", self._listed),
            ("GET", "custom_objects", self._objects),
            ("GET", f"custom_objects/{KEY}/fields", self._fields),
            ("POST", f"custom_objects/{KEY}/jobs", self._job),
            ("GET", records, self._list),
            ("POST", records, self._create),
            ("PATCH", records, self._upsert),
            ("GET", rf"{records}/{{id:\w+}}", self._show),
            ("PATCH", rf"{records}/{{id:\w+}}", self._update),
            ("DELETE", rf"{records}/{{id:\w+}}", self._delete),
        ]

    async def _listed(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        found = [r for _, r in sorted(self._store.listed[kind].items())]
        return json_response(page_of(request, kind, found, dict))

    async def _objects(self, request: web.Request) -> web.Response:
        return json_response({"custom_objects": list(self._store.objects.values())})

    async def _fields(self, request: web.Request) -> web.Response:
        self._store.of(request.match_info["key"])
        fields = self._store.fields[request.match_info["key"]]
        return json_response(page_of(request, "custom_object_fields", fields, dict))

    async def _list(self, request: web.Request) -> web.Response:
        """By id, page by page; or those with these ids."""
        records = self._store.of(request.match_info["key"])
        wanted = ids_of(request, "filter[ids]") if "filter[ids]" in request.query else None
        found = [r for i, r in sorted(records.items()) if wanted is None or i in wanted]
        size, after = page_size(request, "page[size]", MAX_PAGE), request.query.get("page[after]", "")
        rest = [r for r in found if r["id"] > after]
        page, more = rest[:size], len(rest) > size
        last = page[-1]["id"] if page else None
        link = f"{request.url.origin()}{request.path}?page[size]={size}&page[after]={last}"
        meta = {"has_more": more, "after_cursor": last, "before_cursor": None}
        links = {"next": link if more else None, "prev": None}
        return json_response({"custom_object_records": page, "count": len(page), "meta": meta, "links": links})

    async def _show(self, request: web.Request) -> web.Response:
        return self._one(self._store.get(request.match_info["key"], request.match_info["id"]))

    async def _create(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self._store.of(key)
        return self._one(self._store.put(key, await body_of(request, "custom_object_record"), None), 201)

    async def _upsert(self, request: web.Request) -> web.Response:
        key, external = request.match_info["key"], request.query.get("external_id")
        if not external:
            raise Refusal(400, "InvalidValue", "external_id is required")
        old = self._store.by_external(key, external)
        body = {**await body_of(request, "custom_object_record"), "external_id": external}
        return self._one(self._store.put(key, body, old), 201 if old is None else 200)

    async def _update(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        old = self._store.get(key, request.match_info["id"])
        return self._one(self._store.put(key, await body_of(request, "custom_object_record"), old))

    async def _delete(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        del self._store.of(key)[self._store.get(key, request.match_info["id"])["id"]]
        return web.Response(status=204)

    def _one(self, record: Mapping[str, Any], status: int = 200) -> web.Response:
        return json_response({"custom_object_record": record}, status)

    async def _job(self, request: web.Request) -> web.Response:
        key, job = request.match_info["key"], await body_of(request, "job")
        self._store.of(key)
        items = job.get("items")
        if not isinstance(items, list) or len(items) > 100:
            raise Refusal(400, "TooManyValues", "items must be a list of up to 100 records")
        works: Mapping[str, Callable[[Any], dict[str, Any]]] = {
            "create": lambda b: {"id": self._store.put(key, b, None)["id"]},
            "update": lambda b: self._result(self._store.put(key, b, self._store.get(key, str(b.get("id")))), "update"),
            "delete": lambda b: self._result(self._store.of(key).pop(self._store.get(key, str(b))["id"]), "delete"),
            "create_or_update_by_external_id": lambda b: self._result(
                self._store.put(key, b, self._store.by_external(key, b.get("external_id"))), "create_or_update"
            ),
        }
        action = str(job.get("action"))
        if action not in works:
            raise Refusal(400, "InvalidValue", f"{action} is no action")
        made = self._jobs.submit(f"Bulk {action} custom object records", items, works[action], "RecordInvalid")
        return json_response({"job_status": made.show(str(request.url.origin()))}, 201)

    def _result(self, record: Mapping[str, Any], action: str) -> dict[str, Any]:
        told = {"id": record["id"], "external_id": record["external_id"]}
        return {**told, "action": action, "success": True, "status": "Completed"}
