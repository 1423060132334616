"""One turn of the loop in a process of its own, to be killed: `python -m tests.fault.turn FOLDER`; its variables are in the environment."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from oploop import loop
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.workspace import Workspace


async def main(folder: str) -> int:
    project = load_project(Path(folder))
    async with Workspace(project, "prod", Runtime(), "killed") as ws:
        return (await loop.run(ws, loop.Options(yes=True, first_run=True))).exit_code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
