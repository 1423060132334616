"""What all sandboxes share: a real HTTP server on loopback, its log, a clock that can be moved, faults on demand.

An app's `sandbox.py` subclasses Sandbox and adds the vendor's routes over a store in memory. Besides those, each
sandbox answers on `/_sandbox/...`, for tests, the demo and `oploop sandbox`:

    GET  /_sandbox/log            every request and answer since the start (or the last reset)
    POST /_sandbox/faults         a list of Fault objects: what goes wrong, where, how often
    POST /_sandbox/clock          {"advance": seconds}
    POST /_sandbox/load           {"kind": [records]}: fill the store at once, as if the records had always been there
    GET  /_sandbox/dump?kind=K    all records of a kind as they stand
    POST /_sandbox/reset          empty the store, the log and the faults
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
from aiohttp import web

from oploop.runtime import Runtime

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_LOG = 200_000


@dataclass(slots=True)
class Logged:
    """One request and its answer, as they went over the wire."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""
    answer_headers: dict[str, str] = field(default_factory=dict)


ACTIONS = ("status", "say", "cut", "lose", "html", "empty", "truncate", "delay")


@dataclass(slots=True)
class Fault:
    """Something that goes wrong on requests whose "METHOD /path" matches the regular expression `match`.

    action: "status" (answer `status` with `headers` and `body`, nothing is done) | "cut" (close the connection,
    nothing is done) | "lose" (do it, then close without an answer) | "html" | "empty" | "truncate" (do it, answer half) |
    "say" (do it, then answer `status` with `headers` and `body`) | "delay" (wait `seconds`, then do it) |
    "then" (answer as always, and call `then`, before the answer goes out: what a person does meanwhile). The first `skip` matches are spared, the next `times` are hit.
    """

    match: str
    action: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0
    skip: int = 0
    times: int = 1
    then: Callable[[], None] | None = None


class Sandbox:
    """A stand-in for one vendor's API. Subclasses implement `routes`, `reset`, `load` and `dump`.

    `keep_log=False` for benches: the log of bodies costs memory.
    """

    title = "sandbox"

    def __init__(self, *, runtime: Runtime | None = None, keep_log: bool = True) -> None:
        self._runtime = runtime or Runtime()
        self._offset = timedelta(0)
        self.keep_log = keep_log
        self.log: list[Logged] = []
        self.faults: list[Fault] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.url = ""

    # -- for subclasses --------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """The vendor's routes."""
        return []

    def reset(self) -> None:
        """Empty the store."""

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """Put records into the store as they are."""
        raise LookupError(kind)

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind."""
        raise LookupError(kind)

    def now(self) -> datetime:
        """The sandbox's clock, UTC: the machine's, moved by `advance`."""
        return self._runtime.now() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock."""
        self._offset += timedelta(seconds=seconds)

    # -- running it --------------------------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """The aiohttp application: the vendor's routes, the control routes, log and faults around them."""
        app = web.Application(middlewares=[self._around], client_max_size=64 * 2**20)
        app.add_routes(self.routes())
        app.add_routes(
            [
                web.get("/_sandbox/log", self._get_log),
                web.post("/_sandbox/faults", self._post_faults),
                web.post("/_sandbox/clock", self._post_clock),
                web.post("/_sandbox/load", self._post_load),
                web.get("/_sandbox/dump", self._get_dump),
                web.post("/_sandbox/reset", self._post_reset),
            ]
        )
        return app

    async def serve(self, port: int = 0, *, ready: Callable[[str], None] | None = None) -> None:
        """Serve on loopback until `stop`; `ready` is told the address (port 0: any free one)."""
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        address = runner.addresses[0]
        self.url = f"http://127.0.0.1:{address[1]}"
        if ready is not None:
            ready(self.url)
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()
            await asyncio.sleep(0.01)  # connections that were cut off close in the loop's next rounds

    def start(self, port: int = 0) -> str:
        """Serve in a thread of this process; returns the address. For tests."""
        up = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self.serve(port, ready=lambda _: up.set()))
            except BaseException as e:  # handed to the caller of start()
                failed.append(e)
                up.set()

        self._thread = threading.Thread(target=run, name=f"sandbox-{self.title}", daemon=True)
        self._thread.start()
        up.wait(10)
        if failed:
            raise failed[0]
        return self.url

    def stop(self) -> None:
        """Stop serving; safe to call from any thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(10)

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """`with sandbox.running() as url:`."""
        try:
            yield self.start(port)
        finally:
            self.stop()

    # -- log and faults ----------------------------------------------------------------------------------------------

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/_sandbox/"):
            return await handler(request)
        body = await request.read()
        entry = Logged(request.method, request.path, list(request.query.items()), dict(request.headers), body)
        fault = self._fault(f"{request.method} {request.path}")
        try:
            response = await self._answer(request, handler, fault)
        except web.HTTPException as e:  # aiohttp's own 404 and 405
            response = self.not_found(e.status)
        response.headers.setdefault("Date", format_datetime(self.now(), usegmt=True))
        if self.keep_log and len(self.log) < MAX_LOG:
            entry.status, entry.answer_headers = response.status, dict(response.headers)
            entry.answer = (
                response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
            )
            self.log.append(entry)
        if fault is not None and fault.action in ("lose", "cut") and request.transport is not None:
            request.transport.abort()
        return response

    def not_found(self, status: int) -> web.Response:
        """What the vendor answers for an address that it does not have."""
        return web.json_response({"error": "not found"}, status=status)

    def _fault(self, what: str) -> Fault | None:
        for fault in self.faults:
            if re.search(fault.match, what):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    async def _answer(self, request: web.Request, handler: Handler, fault: Fault | None) -> web.StreamResponse:
        match fault.action if fault else None:
            case "status":
                assert fault is not None
                headers = {"Content-Type": "application/json", **fault.headers}
                return web.Response(status=fault.status, headers=headers, body=fault.body.encode())
            case "say":
                assert fault is not None
                await handler(request)
                headers = {"Content-Type": "application/json", **fault.headers}
                return web.Response(status=fault.status, headers=headers, body=fault.body.encode())
            case "then":
                assert fault is not None
                assert fault.then is not None
                whole = await handler(request)
                fault.then()
                return whole
            case "cut":
                return web.Response(status=500)
            case "html":
                return web.Response(text="<!doctype html><title>Sign in</title>", content_type="text/html")
            case "empty":
                return web.Response(status=200)
            case "truncate":
                whole = await handler(request)
                body = whole.body if isinstance(whole, web.Response) and isinstance(whole.body, bytes) else b"{"
                return web.Response(body=body[: max(1, len(body) // 2)], content_type="application/json")
            case "delay":
                assert fault is not None
                await asyncio.sleep(fault.seconds)
        return await handler(request)

    # -- control -----------------------------------------------------------------------------------------------------

    async def _get_log(self, request: web.Request) -> web.Response:
        rows = [
            {
                "method": e.method,
                "path": e.path,
                "query": e.query,
                "status": e.status,
                "body": e.body.decode("utf-8", "replace"),
            }
            for e in self.log
        ]
        return json_response(rows)

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            faults = [Fault(**f) for f in orjson.loads(await request.read())]
            for f in faults:
                re.compile(f.match)
        except (ValueError, TypeError, re.error) as e:
            return json_response(
                {"error": f'what goes wrong is JSON: [{{"match": ..., "action": ...}}] ({e})'}, status=400
            )
        unknown = [f.action for f in faults if f.action not in ACTIONS]
        if unknown:
            return json_response(
                {"error": f"there is no action {unknown[0]!r}; there are {', '.join(ACTIONS)}"}, status=400
            )
        self.faults += faults
        return json_response({"faults": len(self.faults)})

    async def _post_clock(self, request: web.Request) -> web.Response:
        self.advance(float(orjson.loads(await request.read())["advance"]))
        return json_response({"now": self.now().astimezone(UTC).isoformat()})

    async def _post_load(self, request: web.Request) -> web.Response:
        try:
            kinds = dict(orjson.loads(await request.read()))
        except (ValueError, TypeError):
            return json_response({"error": 'what is loaded is JSON: {"kind": [records]}'}, status=400)
        for kind, records in kinds.items():
            try:
                self.load(kind, records)
            except KeyError as e:
                return json_response({"error": f"{kind}: there is no such kind, or a record lacks {e}"}, status=400)
            except (LookupError, ValueError, TypeError, AttributeError) as e:  # likewise, in its own words
                return json_response({"error": str(e)}, status=400)
        return json_response({kind: len(records) for kind, records in kinds.items()})

    async def _get_dump(self, request: web.Request) -> web.Response:
        kind = request.query.get("kind", "")
        try:
            return json_response(self.dump(kind))
        except LookupError:
            said = f"there is no kind {kind!r}" if kind else "say which: /_sandbox/dump?kind=..."
            return json_response({"error": said}, status=400)

    async def _post_reset(self, request: web.Request) -> web.Response:
        self.reset()
        self.log.clear()
        self.faults.clear()
        return json_response({})


def json_response(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer, by orjson."""
    return web.Response(body=orjson.dumps(data), status=status, headers=headers, content_type="application/json")
