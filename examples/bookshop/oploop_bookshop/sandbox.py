"""A stand-in for the bookshop's stock system."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from oploop.apps.sandbox import Sandbox, json_response

TOKEN = "book_test"
PAGE = 100


class BookshopSandbox(Sandbox):
    title = "The bookshop's stock system"

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, str]:
        return {"base_url": url, "token": TOKEN}

    def reset(self) -> None:
        self.books: dict[int, dict[str, Any]] = {}

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.put(record["id"], {"title": "", "stock": 0, "shelf": None, "deleted": False, **record})

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return list(self.books.values())

    def put(self, number: int, fields: dict[str, Any]) -> dict[str, Any]:
        self.books[number] = {**self.books.get(number, {}), **fields, "updated_at": self.now().isoformat()}
        return self.books[number]

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/shop", self.shop), web.get("/books", self.list), web.put("/books/{id}", self.change)]

    async def shop(self, request: web.Request) -> web.Response:
        return self.refusal(request) or json_response({"name": "Sandbox Books"})

    async def list(self, request: web.Request) -> web.Response:
        asked = request.query
        found = sorted(self.books.values(), key=lambda b: (b["updated_at"], b["id"]))
        if "ids" in asked:
            found = [b for b in found if str(b["id"]) in asked["ids"].split(",")]
        else:
            found = [b for b in found if b["updated_at"] >= asked.get("changed_since", "")]
        if "after" in asked:  # a page begins behind a book, not at a number, which moves when a book does
            when, _, number = asked["after"].partition("|")
            found = [b for b in found if (b["updated_at"], b["id"]) > (when, int(number))]
        page = found[:PAGE]
        further = f"{page[-1]['updated_at']}|{page[-1]['id']}" if len(found) > PAGE else None
        return self.refusal(request) or json_response({"books": page, "next": further})

    async def change(self, request: web.Request) -> web.Response:
        number, fields = int(request.match_info["id"]), json.loads(await request.read())
        if number not in self.books or self.books[number]["deleted"]:
            return json_response({"error": f"there is no book {number}"}, 404)
        return self.refusal(request) or json_response(self.put(number, fields))

    def refusal(self, request: web.Request) -> web.Response | None:
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return None if known else json_response({"error": "who are you?"}, 401)
