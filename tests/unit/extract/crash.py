"""Extractions that die: `python -m tests.unit.extract.crash FOLDER POINT...` runs one in a process of its own for each
point; what it leaves stands in FOLDER/POINT."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from oploop.extract import extract, load, run, staging
from oploop.records import Cursor
from oploop.warehouse import open_warehouse
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
    import dlt

    match point:
        case "mid-read":
            return dying_reader
        case "package-not-loaded":
            dlt.Pipeline.load = at(2, dlt.Pipeline.load)  # type: ignore[method-assign]
        case "staged-not-merged":
            staging.Staging.load = at(2, staging.Staging.load, after=True)  # type: ignore[method-assign]
        case "merged-no-cursor":
            load.cursors.store_cursor = at(2, load.cursors.store_cursor)
        case "cursor-not-committed":
            load.cursors.store_cursor = at(2, load.cursors.store_cursor, after=True)
        case "committed":
            run._note = at(2, run._note)
    return pages


def crash(folder: Path, point: str) -> None:
    script = prepare(point)
    clock = Clock()
    app = ListedApp(clock, {"charges": script})
    warehouse = open_warehouse(folder / point / "w.duckdb", read_only=False, runtime=clock.runtime())
    asyncio.run(extract([app.request()], warehouse, clock.runtime(), folder / point / "work", chunk_rows=4))
    warehouse.close()


def main() -> None:
    folder = Path(sys.argv[1])
    crash(folder, "warm-up")  # what a first load imports is imported once: each point gets a fork of this process
    children: dict[str, int] = {}
    for point in sys.argv[2:]:
        children[point] = os.fork()
        if children[point] == 0:
            crash(folder, point)
            os._exit(1)
    for point, child in children.items():
        print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
