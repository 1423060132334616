"""The real program in processes of its own, started quickly: one process has imported it all, and forks a child for each run.

`python -m tests.fault.program` is that process. It reads one order a line from its standard input, answers with the child's id,
and once the child has ended with its status. The clock of a child may be set forward, as if the machine had waited.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
#: What a run needs, so that no child has to import it again.
PRELOADED = (
    "oploop.cli.group",
    "oploop.cli.main",
    "oploop.cli.commands.run",
    "oploop.cli.progress",
    "oploop.cli.run_view",
    "oploop.loop",
    "oploop.extract.run",
    "oploop.model.none",
    "adbc_driver_postgresql.dbapi",
    "oploop.state.postgres",
    "oploop.warehouse.duckdb",
    "oploop.warehouse.postgres",
    "oploop.apps.http",
    "oploop.apps.postgres",
    "oploop.apps.segment",
    "oploop.apps.stripe",
    "oploop.apps.zendesk",
    "pandas",
    "numpy.random",
    "numpy.ma",
    "pyarrow.acero",
    "ulid",
)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, negative for the signal that killed it, and what it wrote."""

    code: int
    output: str


class Program:
    """Starts `oploop` with some words, one process at a time, and may kill it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.program"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        folder: Path,
        env: dict[str, str],
        *words: str,
        ahead: float = 0.0,
        die: Callable[[], bool] | None = None,
    ) -> Ended:
        """One run in a folder, its clock `ahead` seconds; it is killed (`kill -9`) as soon as `die` says so."""
        output = folder / "output.txt"
        order = {"folder": str(folder), "env": env, "words": words, "ahead": ahead, "output": str(output)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        while die is not None and _lives(child):
            if die():
                os.kill(child, signal.SIGKILL)  # not yet waited for, so the id is still its own
                break
            time.sleep(0.001)
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Ended(code, output.read_text(errors="replace"))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _lives(child: int) -> bool:
    """Whether it has not ended yet; one that nobody waited for is a zombie then."""
    try:
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:  # no /proc: it is told by waiting
        return True


@contextmanager
def started() -> Iterator[Program]:
    program = Program()
    try:
        yield program
    finally:
        program.close()


# -- the other side ----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a child for each order."""
    from importlib import import_module

    for name in PRELOADED:
        import_module(name)
    gc.freeze()  # no child's collector looks through it, and so makes copies of its pages
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be(json.loads(line))
        print(child, flush=True)
        sys.stdin.readline()  # the word to wait, so that its id is not another's before it is killed
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _be(order: dict[str, Any]) -> NoReturn:
    """Be the program that was asked for."""
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(order["folder"])
    os.environ.update(order["env"])
    sys.argv = ["oploop", *order["words"]]
    _set_clock(order["ahead"])
    from oploop.cli import main as cli

    try:
        cli.main()
    except SystemExit as e:
        sys.stdout.flush()
        os._exit(e.code if isinstance(e.code, int) else int(e.code is not None))
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(70)


def _set_clock(ahead: float) -> None:
    """Let this process's wall clock be so many seconds ahead."""
    from oploop import runtime

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=ahead)

    if ahead:
        runtime.datetime = Ahead  # type: ignore[misc,attr-defined]


if __name__ == "__main__":
    serve()
    os._exit(0)  # what was imported may have begun threads that would be waited for
