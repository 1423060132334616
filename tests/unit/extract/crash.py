"""Extractions that die: `python -m tests.unit.extract.crash FOLDER SERVER POINT...` runs one in a process of its own for each
point; what it leaves stands in FOLDER/POINT, or, with the address of a SERVER, in its database crash_POINT."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from oploop.extract import extract, load, run
from oploop.extract.staging import Staging
from oploop.records import Cursor
from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from oploop.warehouse.postgres import open_postgres
from tests.unit.extract.listed import Clock, ListedApp, Page, Script

PAGES = 16
DIED = 77


def pages(cursor: Cursor | None) -> list[Page | BaseException]:
    """Pages of two records; the second of each comes again, newer, on the next page."""
    first = cursor["at"] if cursor else 0
    made = [
        Page(
            [{"id": f"r{n}", "amount": n, "v": 1}, {"id": f"r{n - 1}", "amount": n * 100, "v": 2}],
            {"at": n + 1},
            complete=n == PAGES - 1,
        )
        for n in range(first, PAGES)
    ]
    return list(made) or [Page(complete=True, cursor=cursor)]


def die(*_: Any, **__: Any) -> NoReturn:
    os._exit(DIED)


def dying_reader(cursor: Cursor | None) -> Any:
    """Dies when some chunks have been taken."""
    yield from pages(cursor)[: PAGES - 2]
    die()


def at(nth: int, real: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """`real`, but its nth call dies: before it does anything, or after it has done it."""
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth and not after:
            die()
        result = real(*args, **kwargs)
        if calls[0] == nth:
            die()
        return result

    return wrapped


def prepare(point: str) -> Script:
    match point:
        case "mid-read":
            return dying_reader
        case "staged-not-merged":
            Staging.load = at(2, Staging.load, after=True)  # type: ignore[method-assign]
        case "merged-no-cursor":
            load.cursors.store_cursor = at(2, load.cursors.store_cursor)
        case "cursor-not-committed":
            load.cursors.store_cursor = at(2, load.cursors.store_cursor, after=True)
        case "committed":
            run._note = at(2, run._note)
    return pages


def database(server: str, point: str) -> str:
    """The address of a point's database."""
    return f"{server}/crash_{point.replace('-', '_')}"


def opened(folder: Path, server: str, point: str) -> Warehouse:
    """What an extraction that died at a point has left."""
    if server:
        return open_postgres(database(server, point), read_only=False)
    return open_warehouse(folder / point / "w.duckdb", read_only=False, runtime=Runtime())


def crash(folder: Path, server: str, point: str) -> None:
    script = prepare(point)
    clock = Clock()
    app = ListedApp(clock, {"charges": script})
    warehouse = opened(folder, server, point)
    asyncio.run(extract([app.request()], warehouse, clock.runtime(), chunk_rows=4))
    warehouse.close()


def main() -> None:
    folder, server = Path(sys.argv[1]), sys.argv[2].removesuffix("-")
    crash(
        folder, server, "warm-up"
    )  # what a first load imports is imported once: each point gets a fork of this process
    children: dict[str, int] = {}
    for point in sys.argv[3:]:
        children[point] = os.fork()
        if children[point] == 0:
            crash(folder, server, point)
            os._exit(1)
    for point, child in children.items():
        print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
