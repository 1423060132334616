"""After a first load: a plan of nothing, and 1% changed, read, planned and delivered; beside the peer.

The peer plans by running: its rows and its snapshot stand in Postgres (see peer.py), ours in DuckDB. It does not read
its target, so that what people change there is not seen; `oploop run` does, and its time includes that read.
"""

from __future__ import annotations

import statistics

import duckdb
import psycopg

from bench.loaded import ROWS, Loaded, loaded
from bench.peer import VERSION, Peer, peer
from bench.table import Row, bar, median_of

RUNS = 3


def plan_unchanged() -> list[Row]:
    """Whole process, nothing changed."""
    found = loaded()
    ours = median_of(RUNS, lambda: found.oploop("plan", "--env", "prod"))
    what = f"oploop plan of {ROWS:,} rows x 10, nothing changed, whole process"
    with peer(found.dsn, ROWS, delivered=True) as other:
        if isinstance(other, str):
            return [Row(what, f"{ours:.2f} s", other, "")]
        theirs = median_of(RUNS, other.run)
    return [Row(what, f"{ours:.2f} s", f"drt-core {VERSION} {theirs:.2f} s", bar(theirs / ours, at_least=3))]


def changed_1pct() -> list[Row]:
    """1% changed, each time other values: `oploop run`, and what its stages take."""
    found = loaded()
    ours, stages = sorted((_changed(found) for _ in range(RUNS)), key=lambda run: run[0])[RUNS // 2]
    what = f"1% of {ROWS:,} rows changed: oploop run, whole process"
    with peer(found.dsn, ROWS, delivered=True) as other:
        if isinstance(other, str):
            return [Row(what, f"{ours:.2f} s", other, ""), _stages(stages)]
        theirs = statistics.median(_changed_there(other) for _ in range(RUNS))
    beside = f"drt-core {VERSION} {theirs:.2f} s"
    return [Row(what, f"{ours:.2f} s", beside, bar(theirs / ours, at_least=3)), _stages(stages)]


def _stages(stages: dict[str, float]) -> Row:
    """What of it is planning and delivering, and what the rest, which the peer does not do."""
    sent = stages["plan"] + stages["deliver"]
    rest = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items() if name not in ("plan", "deliver"))
    return Row("  of it planned and delivered", f"{sent:.2f} s", rest, "")


def _changed(found: Loaded) -> tuple[float, dict[str, float]]:
    with duckdb.connect(str(found.folder / "w.duckdb")) as db:
        # else it would join here what our runs put off (see `Warehouse.put_off`)
        db.execute("SET max_vacuum_tasks = 0")
        [(least,)] = db.execute(
            "UPDATE mart.m SET f9 = f9 + 1000000 WHERE id % 100 = 0; SELECT min(f9) FROM mart.m WHERE id % 100 = 0"
        ).fetchall()
    took = found.run()
    with psycopg.connect(found.dsn) as pg:
        [(moved,)] = pg.execute("SELECT count(*) FROM things WHERE f9 >= %s", (least,)).fetchall()
    assert moved == -(-ROWS // 100), f"{moved} updated"
    return took


def _changed_there(other: Peer) -> float:
    other.change_a_hundredth()
    took = other.run()
    with psycopg.connect(other.dsn) as pg:
        [(differ,)] = pg.execute("SELECT count(*) FROM source_m s JOIN peer_things t USING (id) WHERE s.f9 <> t.f9")
    assert differ == 0, f"{differ} not updated"
    return took
