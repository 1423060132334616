"""A process that dies at any point of an extraction: the next one loses nothing and doubles nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from oploop.extract import StreamStatus, extract, stream_states
from tests.postgres import Cluster
from tests.unit.extract.crash import DIED, PAGES, database, opened, pages
from tests.unit.extract.listed import Clock, ListedApp

POINTS = (
    "mid-read",
    "staged-not-merged",
    "merged-no-cursor",
    "cursor-not-committed",
    "committed",
)


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def crashed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder, and the server's address if it is one, that extractions which died have left."""
    folder, server = tmp_path_factory.mktemp("crashed"), ""
    if request.param == "postgres":
        cluster: Cluster = request.getfixturevalue("cluster")
        for point in ("warm-up", *POINTS):
            cluster.made(database("", point).removeprefix("/"))
        server = cluster.dsn("").removesuffix("/")
    points = [p for p in POINTS if not (server and p == "package-not-loaded")]
    command = [sys.executable, "-m", "tests.unit.extract.crash", str(folder), server or "-", *points]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60)
    assert done.stdout.split("\n")[:-1] == [f"{point} {DIED}" for point in points], done.stderr
    return folder, server


@pytest.mark.parametrize("point", POINTS)
async def test_nothing_is_lost_or_doubled(crashed: tuple[Path, str], point: str) -> None:
    folder, server = crashed
    if server and point == "package-not-loaded":
        return  # there are no packages
    clock = Clock()
    clock.tick(3600)
    app = ListedApp(clock, {"charges": pages})
    warehouse = opened(folder, server, point)
    try:
        before = stream_states(warehouse)
        [result] = await extract([app.request()], warehouse, clock.runtime(), chunk_rows=4)
        assert result.status is StreamStatus.OK, result.error
        rows = warehouse.rows("SELECT id, amount FROM raw_shop.charges ORDER BY id")
        wanted = [("r-1", 0), *((f"r{n}", (n + 1) * 100) for n in range(PAGES - 1)), (f"r{PAGES - 1}", PAGES - 1)]
        assert rows == sorted(wanted)
        if point != "mid-read":  # there, how much was loaded before is a matter of threads
            assert app.asked[0] is not None
        if before:
            assert before["shop", "charges"].reading
            assert result.read_began == before["shop", "charges"].read_began
            assert app.asked == [before["shop", "charges"].cursor]
        state = stream_states(warehouse)["shop", "charges"]
        assert (state.cursor, state.reading) == ({"at": PAGES}, False)
        assert not [t for t in warehouse.tables() if t.startswith("oploop_staging")]
    finally:
        warehouse.close()
