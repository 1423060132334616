"""One sandbox of the demo as a process of its own: `python -m oploop.demo.serve zendesk --port 8802 --store FILE`.

Says one line of JSON when it is ready, {"url": ...}, or why it is not, {"error": ...}; then serves until its standard
input ends, so that it never outlives the process that started it, and puts what it holds into its store.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gzip
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from oploop.apps.sandbox import Sandbox

#: What each sandbox holds, in the order in which records need each other. Segment's events are in its log files.
KINDS: Mapping[str, tuple[str, ...]] = {
    "stripe": ("products", "prices", "customers", "subscriptions", "invoices", "charges", "refunds"),
    "zendesk": ("ticket_fields", "user_fields", "organization_fields", "organizations", "users", "tickets"),
    "segment": (),
}


def _stripe(logs: Path | None) -> Sandbox:
    from oploop.apps.stripe.sandbox import StripeSandbox

    return StripeSandbox(keep_log=False)


def _zendesk(logs: Path | None) -> Sandbox:
    from oploop.apps.zendesk.sandbox import ZendeskSandbox

    return ZendeskSandbox(keep_log=False)


def _segment(logs: Path | None) -> Sandbox:
    from oploop.apps.segment.sandbox import SegmentSandbox

    return SegmentSandbox(logs=logs, keep_log=False)


MAKE: Mapping[str, Callable[[Path | None], Sandbox]] = {"stripe": _stripe, "zendesk": _zendesk, "segment": _segment}


def main() -> None:
    """Parse the command line, serve, keep the store."""
    parser = argparse.ArgumentParser(prog="oploop.demo.serve")
    parser.add_argument("app", choices=MAKE)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ahead", type=float, default=0.0, help="seconds by which its clock is ahead")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--logs", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    sandbox = MAKE[args.app](args.logs)
    sandbox.advance(args.ahead)
    try:
        restore(sandbox, args.app, args.store)
        asyncio.run(_serve(sandbox, args.port))
        keep(sandbox, args.app, args.store)
    except (OSError, ValueError, LookupError) as e:
        taken = isinstance(e, OSError) and e.errno == errno.EADDRINUSE
        _say({"error": f"port {args.port} is in use" if taken else " ".join(str(e).split())})
        sys.exit(1)


async def _serve(sandbox: Sandbox, port: int) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_await_end, args=(loop, over), daemon=True).start()
    serving = asyncio.create_task(sandbox.serve(port, ready=lambda url: _say({"url": url})))
    watching = asyncio.create_task(over.wait())
    await asyncio.wait((watching, serving), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving  # it could not begin: raises why
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    sandbox.stop()  # leaves nothing unwritten


def _await_end(loop: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    """Until the standard input ends. Not by sys.stdin, whose lock a thread must not hold when Python ends."""
    while os.read(0, 4_096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(over.set)


def _say(what: dict[str, str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # who started us has gone: we end with our input
        sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
        sys.stdout.flush()


def restore(sandbox: Sandbox, app: str, store: Path) -> None:
    """Load what an earlier process kept, if there is such."""
    if not store.exists():
        return
    kept: dict[str, list[dict[str, Any]]] = orjson.loads(gzip.decompress(store.read_bytes()))
    for kind in KINDS[app]:
        if kept.get(kind):
            sandbox.load(kind, kept[kind])


def keep(sandbox: Sandbox, app: str, store: Path) -> None:
    """Put what the sandbox holds into its store: whole, or as it was."""
    kept = {kind: sandbox.dump(kind) for kind in KINDS[app]}
    store.parent.mkdir(parents=True, exist_ok=True)
    part = store.with_suffix(".part")
    part.write_bytes(gzip.compress(orjson.dumps(kept), 1))
    part.replace(store)


if __name__ == "__main__":
    main()
