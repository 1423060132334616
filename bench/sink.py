"""A bare local sink for JSON over HTTP: `python -m bench.sink`, in a process of its own.

It takes anything and answers at once. With a body of `{"records": [...]}` the answer has a result for each; a record
whose `f5` is -1 is bad: told among the results on `/each`, refused with the whole call on `/whole` and `/one`.
`GET /calls` tells how many writes came since it was last asked.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

GOOD, BAD = b"200 OK", b"422 Unprocessable Entity"


class Sink(asyncio.Protocol):
    """One connection: requests with a Content-Length, answered in order."""

    calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 : at + 35].split(b"\r", 1)[0]) if at >= 0 else 0
            if len(self._held) < end + 4 + length:
                return
            body, self._held = self._held[end + 4 : end + 4 + length], self._held[end + 4 + length :]
            status, said = self._answer(head, body)
            self._transport.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(said), said))

    def _answer(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        if head.startswith(b"get"):
            calls, Sink.calls = Sink.calls, 0
            return GOOD, b'{"calls":%d}' % calls
        Sink.calls += 1
        if b" /take " in head:
            return GOOD, b"{}"
        records = orjson.loads(body).get("records", [])
        bad = [r.get("f5") == -1 for r in records]
        if b" /each " in head:
            return GOOD, orjson.dumps({"results": [{"error": "f5 is -1"} if b else {"status": "ok"} for b in bad]})
        return (BAD, b'{"error":"f5 is -1"}') if any(bad) else (GOOD, b"{}")


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def sink() -> Iterator[str]:
    """A running sink's address."""
    command = [sys.executable, "-m", "bench.sink"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


if __name__ == "__main__":
    asyncio.run(serve())
