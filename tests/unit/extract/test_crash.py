"""A process that dies at any point of an extraction: the next one loses nothing and doubles nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from oploop.extract import StreamStatus, extract, stream_states
from oploop.warehouse import open_warehouse
from tests.unit.extract.crash import DIED, PAGES, pages
from tests.unit.extract.listed import Clock, ListedApp

POINTS = (
    "mid-read",
    "package-not-loaded",
    "staged-not-merged",
    "merged-no-cursor",
    "cursor-not-committed",
    "committed",
)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crashed")
    command = [sys.executable, "-m", "tests.unit.extract.crash", str(folder), *POINTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60)
    assert done.stdout.split("\n")[:-1] == [f"{point} {DIED}" for point in POINTS], done.stderr
    return folder


@pytest.mark.parametrize("point", POINTS)
async def test_nothing_is_lost_or_doubled(crashed: Path, point: str) -> None:
    clock = Clock()
    clock.tick(3600)
    app = ListedApp(clock, {"charges": pages})
    warehouse = open_warehouse(crashed / point / "w.duckdb", read_only=False, runtime=clock.runtime())
    try:
        before = stream_states(warehouse)
        [result] = await extract([app.request()], warehouse, clock.runtime(), crashed / point / "work", chunk_rows=4)
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
