"""What the Zendesk sandbox's addresses share: bodies, ids, pages, cursors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.zendesk.sandbox_store import Refusal

MAX_ITEMS = 100  #: records in one bulk call, ids in one show_many
MAX_PAGE = 100
MAX_OFFSET = 10_000  #: records that offset paging reaches


async def body_of(request: web.Request, name: str) -> dict[str, Any]:
    """The object under `name` of a request's JSON."""
    record = (await _json(request)).get(name)
    if not isinstance(record, dict):
        raise Refusal(
            400, "InvalidAttribute", f"You passed an invalid value for the {name} attribute. must be an object"
        )
    return record


async def bodies_of(request: web.Request, name: str) -> list[Any]:
    """The list under `name` of a request's JSON, of no more than 100 items."""
    records = (await _json(request)).get(name)
    if not isinstance(records, list):
        raise Refusal(
            400, "InvalidAttribute", f"You passed an invalid value for the {name} attribute. must be an array"
        )
    _not_too_many(records, name)
    return [r if isinstance(r, dict) else {} for r in records]


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "InvalidJSON", "The request body is no JSON object")
    return body


def _not_too_many(values: Sequence[Any], name: str) -> None:
    if len(values) > MAX_ITEMS:
        raise Refusal(400, "TooManyValues", f"Parameter {name} has too many values: no more than {MAX_ITEMS}")


def ids_of(request: web.Request, name: str) -> list[str]:
    """Comma separated ids of the query, no more than 100."""
    ids = [i.strip() for i in request.query.get(name, "").split(",") if i.strip()]
    _not_too_many(ids, name)
    return ids


def page_size(request: web.Request, name: str, most: int) -> int:
    """How many records a page shall have; Refusal (400) for what is no number or too many."""
    text = request.query.get(name, str(most))
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise Refusal(400, "InvalidPaginationParameter", f"{name} must be a number from 1 to {most}")
    return int(text)


def page_of(
    request: web.Request, name: str, records: Sequence[Mapping[str, Any]], show: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """One page of a list: by cursor when the request says page[size], else by offset."""
    if "page[size]" not in request.query:
        page, size = offset_of(request)
        if (page - 1) * size >= MAX_OFFSET:
            raise Refusal(400, "RequestLimitExceeded", "Offset paging ends at 10,000 records: use cursor paging")
        answer = offset_page(request, name, records, page, size)
        return {**answer, name: [show(r) for r in answer[name]]}
    size = page_size(request, "page[size]", MAX_PAGE)
    after = read_cursor(request.query["page[after]"])[1] if "page[after]" in request.query else 0
    found = [r for r in records if r["id"] > after]
    shown, more = found[:size], len(found) > size
    last = cursor_of((0, shown[-1]["id"])) if shown else None
    link = f"{request.url.origin()}{request.path}?page[size]={size}&page[after]={last}"
    return {
        name: [show(r) for r in shown],
        "meta": {"has_more": more, "after_cursor": last, "before_cursor": None},
        "links": {"next": link if more else None, "prev": None},
    }


def offset_of(request: web.Request) -> tuple[int, int]:
    """(page from 1, records a page) of offset paging."""
    page = request.query.get("page", "1")
    if not page.isdigit() or int(page) < 1:
        raise Refusal(400, "InvalidPaginationParameter", "page must be a number from 1")
    return int(page), min(MAX_PAGE, page_size(request, "per_page", 1000) if "per_page" in request.query else MAX_PAGE)


def offset_page(request: web.Request, name: str, records: Sequence[Any], page: int, size: int) -> dict[str, Any]:
    """A page by offset, with links to its neighbours."""

    def link(number: int) -> str:
        return str(request.url.update_query({"page": str(number), "per_page": str(size)}))

    return {
        name: list(records[(page - 1) * size : page * size]),
        "count": len(records),
        "next_page": link(page + 1) if page * size < len(records) else None,
        "previous_page": link(page - 1) if page > 1 else None,
    }


def cursor_of(place: tuple[int, int]) -> str:
    """An opaque cursor for a place (second, id), made like Zendesk's own."""
    return base64.b64encode(f"{place[0]}.0||{place[1]}|".encode()).decode()


def read_cursor(text: str) -> tuple[int, int]:
    """The place (second, id) that a cursor names; Refusal (400) when it is none."""
    try:
        second, number = base64.b64decode(text, validate=True).decode().rstrip("|").split(".0||")
        return int(second), int(number)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise Refusal(400, "InvalidValue", "The cursor is invalid") from None


def matches(record: Mapping[str, Any], terms: Mapping[str, str], words: Sequence[str]) -> bool:
    """Whether a record fits a search: each `field:value`, and each word in its subject or name."""
    for name, wanted in terms.items():
        value = record.get(name)
        if isinstance(value, list):
            if wanted.lower() not in value:
                return False
        elif str(value).lower() != wanted.strip('"').lower():
            return False
    text = str(record.get("subject") or record.get("name") or "").lower()
    return all(word in text for word in words)
