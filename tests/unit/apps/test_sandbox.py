"""The base of all sandboxes: a real server with a log, faults on demand and a clock that can be moved."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from oploop.apps.sandbox import Fault, Sandbox, json_response


class Shelf(Sandbox):
    """Counts what is put on it."""

    title = "shelf"

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.things: list[dict[str, Any]] = []

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/things", self._put), web.get("/things", self._get)]

    def reset(self) -> None:
        self.things.clear()

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        if kind != "things":
            raise LookupError(f"no {kind}")
        self.things += records

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return {"things": self.things}[kind]

    async def _put(self, request: web.Request) -> web.Response:
        self.things.append(orjson.loads(await request.read()))
        return json_response({"id": len(self.things), "padding": "x" * 50}, 201)

    async def _get(self, request: web.Request) -> web.Response:
        return json_response({"things": self.things})


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    with made.running():
        yield made


async def call(sandbox: Sandbox, method: str, path: str, **more: Any) -> tuple[int, bytes, Any]:
    async with aiohttp.ClientSession() as session, session.request(method, sandbox.url + path, **more) as answer:
        return answer.status, await answer.read(), answer.headers


async def put(sandbox: Sandbox) -> tuple[int, bytes, Any]:
    return await call(sandbox, "POST", "/things", json={"a": 1})


async def test_it_answers_and_keeps_a_log(shelf: Shelf) -> None:
    status, _, headers = await call(shelf, "POST", "/things?x=1&x=2", json={"a": "é"}, headers={"X-Key": "k"})
    assert status == 201
    assert abs((parsedate_to_datetime(headers["Date"]) - shelf.now()).total_seconds()) < 5
    (entry,) = shelf.log
    assert (entry.method, entry.path, entry.query, entry.status) == ("POST", "/things", [("x", "1"), ("x", "2")], 201)
    assert orjson.loads(entry.body) == {"a": "é"}
    assert orjson.loads(entry.answer)["id"] == 1
    assert entry.headers["X-Key"] == "k"
    status, body, _ = await call(shelf, "GET", "/_sandbox/log")
    assert [(e["method"], e["status"]) for e in orjson.loads(body)] == [
        ("POST", 201)
    ]  # the control routes are not in it


async def test_what_is_not_there_is_answered_and_logged(shelf: Shelf) -> None:
    assert (await call(shelf, "GET", "/nowhere"))[0] == 404
    assert (await call(shelf, "DELETE", "/things"))[0] == 405
    assert [e.status for e in shelf.log] == [404, 405]


@pytest.mark.parametrize(
    ("action", "done", "lost"),
    [
        ("status", 0, False),
        ("cut", 0, True),
        ("lose", 1, True),
        ("html", 0, False),
        ("empty", 0, False),
        ("truncate", 1, False),
        ("delay", 1, False),
    ],
)
async def test_each_fault_does_what_it_says(shelf: Shelf, action: str, done: int, lost: bool) -> None:
    shelf.faults.append(
        Fault("POST /things", action, status=418, headers={"X-Odd": "1"}, body='{"no": 1}', seconds=0.05)
    )
    began = asyncio.get_running_loop().time()
    if lost:
        with pytest.raises(aiohttp.ClientError):
            await put(shelf)
    else:
        status, body, headers = await put(shelf)
        whole = orjson.dumps({"id": 1, "padding": "x" * 50})
        wanted = {
            "status": (418, b'{"no": 1}'),
            "html": (200, b"<!doctype html><title>Sign in</title>"),
            "empty": (200, b""),
            "truncate": (200, whole[: len(whole) // 2]),
            "delay": (201, whole),
        }[action]
        assert (status, body) == wanted
        assert headers.get("X-Odd") == ("1" if action == "status" else None)
    assert len(shelf.things) == done
    assert action != "delay" or asyncio.get_running_loop().time() - began >= 0.05
    assert (await put(shelf))[0] == 201  # once only


async def test_faults_skip_and_end_and_hit_only_what_they_name(shelf: Shelf) -> None:
    faults = [{"match": "POST /things$", "action": "status", "status": 503, "skip": 1, "times": 2}]
    await call(shelf, "POST", "/_sandbox/faults", json=faults)
    assert [(await put(shelf))[0] for _ in range(4)] == [201, 503, 503, 201]
    assert (await call(shelf, "GET", "/things"))[0] == 200


async def test_control_routes_load_dump_move_the_clock_and_reset(shelf: Shelf) -> None:
    status, body, _ = await call(shelf, "POST", "/_sandbox/load", json={"things": [{"a": 1}, {"a": 2}]})
    assert (status, orjson.loads(body)) == (200, {"things": 2})
    status, body, _ = await call(shelf, "POST", "/_sandbox/load", json={"others": []})
    assert (status, orjson.loads(body)) == (400, {"error": "no others"})
    for said in (b"things", b"[1]", b""):
        status, body, _ = await call(shelf, "POST", "/_sandbox/load", data=said)
        assert (status, orjson.loads(body)) == (400, {"error": 'what is loaded is JSON: {"kind": [records]}'})
    for wrong, says in (
        ({"match": "x", "action": "explode"}, "there is no action 'explode'; there are status, say, cut,"),
        ({"match": "x"}, 'what goes wrong is JSON: [{"match": ..., "action": ...}]'),
        ({"match": "(", "action": "cut"}, 'what goes wrong is JSON: [{"match": ..., "action": ...}]'),
    ):
        status, body, _ = await call(shelf, "POST", "/_sandbox/faults", json=[wrong])
        assert (status, orjson.loads(body)["error"].startswith(says)) == (400, True)
    assert shelf.faults == []
    status, body, _ = await call(shelf, "GET", "/_sandbox/dump")
    assert (status, orjson.loads(body)) == (400, {"error": "say which: /_sandbox/dump?kind=..."})
    status, body, _ = await call(shelf, "GET", "/_sandbox/dump?kind=others")
    assert (status, orjson.loads(body)) == (400, {"error": "there is no kind 'others'"})
    assert orjson.loads((await call(shelf, "GET", "/_sandbox/dump?kind=things"))[1]) == [{"a": 1}, {"a": 2}]
    before = shelf.now()
    await call(shelf, "POST", "/_sandbox/clock", json={"advance": 3600})
    assert 3600 <= (shelf.now() - before).total_seconds() < 3610
    shelf.faults.append(Fault("POST", "status", times=9))
    await call(shelf, "POST", "/_sandbox/reset")
    assert (shelf.things, shelf.log, shelf.faults) == ([], [], [])


async def test_without_a_log_it_keeps_none() -> None:
    shelf = Shelf(keep_log=False)
    with shelf.running():
        assert (await put(shelf))[0] == 201
    assert shelf.log == []


def test_it_listens_on_loopback_only_and_stops() -> None:
    shelf = Shelf()
    with shelf.running() as url:
        port = int(url.rsplit(":", 1)[1])
        assert url == f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{url}/_sandbox/log", timeout=5) as answer:
            assert answer.read() == b"[]"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 2)
    shelf.stop()


def test_a_port_that_is_taken_is_said() -> None:
    with Shelf().running() as url, pytest.raises(OSError):
        Shelf().start(int(url.rsplit(":", 1)[1]))
