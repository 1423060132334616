"""The demo's three sandboxes as processes: started together, filled, and ended with the demo."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import orjson

from oploop.apps.transport import Transport
from oploop.demo.company import Company
from oploop.errors import OploopError, RetryLater
from oploop.runtime import Runtime

APPS = ("stripe", "zendesk", "segment")
PORTS: Mapping[str, int] = {"stripe": 8801, "zendesk": 8802, "segment": 8803}
#: Zendesk's exports withhold the last minute: what happens between two turns is seen when two minutes have gone by.
PAUSE = 120.0
_READY, _END = 60.0, 30.0


class Sandboxes:
    """Use as an async context manager. `ports`: these and no others (a project's own); without, the usual ones if free.

    What they hold is kept in `.oploop/sandboxes` of the folder when they end.
    """

    def __init__(self, folder: Path, runtime: Runtime, ports: Mapping[str, int] | None = None) -> None:
        self.folder, self.runtime = folder, runtime
        self._ports = ports
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.urls: dict[str, str] = {}
        self.ahead = PAUSE if ports is not None else 0.0  #: kept data may be of a clock that was moved on

    async def __aenter__(self) -> Sandboxes:
        try:
            started = await asyncio.gather(*(self._start(app) for app in APPS))
        except BaseException:
            await self._end()
            raise
        self.urls = dict(zip(APPS, started, strict=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._end()

    async def _start(self, app: str) -> str:
        if self._ports is not None:
            return await self._launch(app, self._ports[app])
        try:
            return await self._launch(app, PORTS[app])
        except OploopError:
            return await self._launch(app, 0)

    async def _launch(self, app: str, port: int) -> str:
        command = [sys.executable, "-m", "oploop.demo.serve", app, "--port", str(port), "--ahead", str(self.ahead)]
        command += ["--store", str(store_of(self.folder, app)), "--logs", str(self.folder / "segment-logs")]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._processes[app] = process
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY)
        except TimeoutError:
            raise RetryLater(f"the {app} sandbox does not start within {_READY:.0f} s", mend="try again") from None
        said = orjson.loads(line) if line.strip() else {"error": "it ended at once"}
        if "url" not in said:
            await process.wait()
            raise RetryLater(
                f"the {app} sandbox does not start: {said['error']}",
                mend="is another demo running? end it, and try again",
            )
        return str(said["url"])

    async def _end(self) -> None:
        """Tell each that it is over, and wait until it has put away what it holds."""
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), _END)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._processes.clear()

    async def fill(self, company: Company) -> None:
        """Put the company into them, all three at once."""
        await asyncio.gather(*(self._fill(app, company) for app in APPS))

    async def _fill(self, app: str, company: Company) -> None:
        async with control(self.urls[app], self.runtime) as transport:
            for body in company.loads(app):
                await transport.request("POST", "_sandbox/load", json=body)

    async def let_time_pass(self, seconds: float) -> None:
        """Move the clocks of those that answer on."""
        for app in APPS:
            async with control(self.urls[app], self.runtime) as transport:
                await transport.request("POST", "_sandbox/clock", json={"advance": seconds})


class control:  # noqa: N801  used like a function
    """A transport to a sandbox, closed at the end; `headers`: whose request it is."""

    def __init__(self, url: str, runtime: Runtime, headers: Mapping[str, str] | None = None) -> None:
        self._transport = Transport(url, runtime=runtime, headers=headers)

    async def __aenter__(self) -> Transport:
        return self._transport

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._transport.aclose()


def store_of(folder: Path, app: str) -> Path:
    """Where a sandbox keeps what it holds."""
    return folder / ".oploop" / "sandboxes" / f"{app}.json.gz"
