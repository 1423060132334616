"""One turn of the loop that kills its process around the first commit of a step: `python -m ... FOLDER DSN WHEN`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from oploop import loop
from oploop.apps.sql import delivery
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.workspace import Workspace

#: Only one step at a time, so that it is known how many are committed.
_one = threading.Lock()


async def main(folder: str, dsn: str, when: str) -> None:
    transact = delivery.TableWriter._transact

    def then_die(self: Any, connection: Any, *args: Any) -> Any:
        with _one:
            receipts = transact(self, connection, *args)
            if when == "after":
                connection.commit()
            os.kill(os.getpid(), signal.SIGKILL)
        return receipts

    delivery.TableWriter._transact = then_die  # type: ignore[method-assign]
    project = load_project(Path(folder), {"CRM_DSN": dsn})
    async with Workspace(project, "prod", Runtime(), "killed") as ws:
        await loop.run(ws, loop.Options(yes=True))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
