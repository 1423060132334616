"""`kill -9` at points drawn from a seed, while the app loses answers: nothing lost, nothing doubled, the ledger right.

The real program (`oploop run`, its command line and all) against the real sandboxes over HTTP. Each case is killed several
times; then it runs until quiet, its clock and the app's moved on between runs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from oploop.apps.sandbox import Fault, Sandbox
from tests.fault.houses import Files, House, Server
from tests.fault.program import Ended, Program, started
from tests.fault.shops import BY_KEY, SHOPS, WRITES, Shop, table_shop, write_project
from tests.postgres import Cluster

#: Cases of each shop, and how often each is killed: 56 kills.
SEEDS, KILLS = 2, 4
#: Seconds by which the clocks move between runs: more than any lag and settle time.
WAIT = 1000.0
PATIENCE = 8
DONE = ("sent", "confirmed", "altered", "drifted", "ignored", "gone")


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with started() as running:
        yield running


class Case:
    """One shop, killed and killed again."""

    def __init__(
        self,
        kind: str,
        seed: int,
        folder: Path,
        program: Program,
        sandbox: Sandbox,
        shop: Shop | None = None,
        house: House | None = None,
    ) -> None:
        self.kind, self.folder, self.program, self.sandbox = kind, folder, program, sandbox
        self.shop, self.house = shop or SHOPS[kind], house or Files(folder)
        self.rng = random.Random(f"{kind} {seed}")
        self.version, self.ahead, self.kills = 0, 0.0, 0
        self.model: dict[str, str] = {}
        self.story: list[str] = []

    def move(self) -> None:
        """Another version of the model: names move, rows come, some leave."""
        self.version += 1
        count = self.shop.rows + self.version * 3
        self.model = {f"c{i}@x": f"P {i} v{self.version if self.shop.moves else 0}" for i in range(count)}
        if self.shop.leaves:
            for i in self.rng.sample(range(count), 2):
                self.model.pop(f"c{i}@x")
        self.house.write_model(self.model)

    def wait(self) -> None:
        """Time passes. No app works at what it was sent for longer than that: on a busy machine it shall have done it before."""
        self.shop.rests(self.sandbox)
        self.ahead += WAIT
        self.sandbox.advance(WAIT)

    def run(self, die: Callable[[], bool] | None = None) -> Ended:
        budgets = (
            self.folder / f"budgets{len(self.story)}"
        )  # the account's quota is counted by a clock that is not moved
        budgets.mkdir()
        env = {**self.shop.env, **self.house.env, "XDG_RUNTIME_DIR": str(budgets)}
        words = ("run", "--env", "prod", "--yes", "--first-run", "--backfill")
        ended = self.program.run(self.folder, env, *words, ahead=self.ahead, die=die)
        self.story.append(f"+{self.ahead:.0f} s: {ended.code}\n{ended.output}")
        assert "Traceback" not in ended.output, ended.output
        return ended

    def killed(self) -> None:
        """One run that is killed at a point of chance, however often that takes."""
        most = 3 + max(1, len(self.writes()))
        for attempt in range(6):
            self.move()
            self.faults()
            if self.run(self.moment(max(1, most >> attempt))).code == -9:
                self.kills += 1
                self.shop.after_death(self.sandbox)
                return
            self.wait()
        raise AssertionError("never in time to be killed")

    def moment(self, most: int) -> Callable[[], bool]:
        """When it is to die: some time after so many calls, or writing calls, or steps in the journal."""
        rng = self.rng
        what = rng.choice(
            (self.sandbox.log.__len__, lambda: len(self.writes()), lambda: len(self.writes()), self.house.steps)
        )
        wanted = what() + rng.randint(1, most)
        delay = rng.choice((0.0, 0.0, 0.002, 0.01, 0.03))
        if self.shop.at_once:
            what, wanted = self.house.steps, self.house.steps() + 1

        def die() -> bool:
            if what() < wanted:
                return False
            time.sleep(delay)
            return True

        self.story.append(f"to be killed when {wanted} are seen, and {delay} s more")
        return die

    def writes(self) -> list[Any]:
        return [e for e in self.sandbox.log if e.method in WRITES and not self.shop.is_question(e)]

    def faults(self) -> None:
        """Answers that will be lost, calls that will be cut off."""
        self.sandbox.faults.clear()
        for _ in range(self.rng.randint(0, 3)):
            action = self.rng.choice(("lose", "lose", "lose", "cut", "truncate", "status", "delay"))
            match = self.rng.choice(("^(POST|PUT|PATCH|DELETE) ", "^(POST|PUT|PATCH) ", "job_statuses", "^GET "))
            fault = Fault(match, action, status=self.rng.choice((500, 503)), seconds=0.05, skip=self.rng.randint(0, 8))
            self.sandbox.faults.append(fault)
            self.story.append(f"{fault}")

    def quieten(self) -> None:
        """No more mishaps: until two runs running send nothing."""
        self.sandbox.faults.clear()
        quiet = 0
        for _ in range(PATIENCE):
            self.wait()
            before = len(self.writes())
            ended = self.run()
            assert ended.code in (0, 1), ended.output
            quiet = quiet + 1 if len(self.writes()) == before else 0
            if quiet == 2:
                assert ended.code == 0, ended.output
                return
        raise AssertionError("it still sends")

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        rows = self.house.rows
        unknown = {k for (k,) in rows("SELECT key FROM oploop.parked WHERE reason = 'unknown'")}
        assert not unknown or self.shop.may_stay_unknown, f"nobody should have to decide about {sorted(unknown)[:5]}"
        others = rows("SELECT key, reason FROM oploop.parked WHERE reason NOT IN ('unknown')")
        assert not others, f"parked without a reason: {others[:5]}"
        held = self.shop.held(self.sandbox)
        wrong = {k: held.get(k) for k, v in self.model.items() if k not in unknown and held.get(k) != self.shown(v, k)}
        assert not wrong, f"the app is not as the model: {dict(list(wrong.items())[:5])}"
        if self.shop.leaves:
            ours = {k for (k,) in rows(f"SELECT key FROM oploop.changes WHERE op = 'create' AND status IN {DONE}")}
            left = (set(held) - set(self.model)) & ours  # what was made without an answer is not known to be ours
            assert not left, f"left, and still there: {sorted(left)[:5]}"
        self.check_ledger(held, unknown)
        self.check_nothing_left_over()

    def shown(self, name: str, code: str) -> str:
        return name if self.shop.moves else code

    def check_ledger(self, held: dict[str, Any], unknown: set[str]) -> None:
        """Made as often as the ledger says, and what it says was done was done."""
        log = self.house.rows("SELECT key, op, status FROM oploop.changes")
        listed = Counter(k for k, op, s in log if op == "create" and s in DONE)
        perhaps = Counter(k for k, op, s in log if op == "create" and s == "unknown")
        taken = Counter(k for k, op, s in log if op == "remove" and s in (*DONE, "unknown"))
        made = self.shop.made(self.sandbox)
        for key, n in made.items():
            assert n <= 1 + taken[key], f"{key} was made {n} times, taken away {taken[key]} times"
            assert n <= listed[key] + perhaps[key], (
                f"{key} was made {n} times, the ledger has {listed[key]}, {perhaps[key]}"
            )
        for key, n in listed.items():
            assert made[key] >= n, f"the ledger has {key} made {n} times, the app {made[key]} times"
        assert set(held) <= set(made)
        assert unknown <= set(perhaps), "what is parked as unknown is listed so"

    def check_nothing_left_over(self) -> None:
        rows = self.house.rows
        assert rows("SELECT run_id FROM oploop.deliveries") == []
        tables = "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        assert rows(f"{tables} AND table_name LIKE 'plan%'") == []
        assert self.house.steps() == 0


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kind", SHOPS)
def test_killed_anywhere(kind: str, seed: int, tmp_path: Path, program: Program) -> None:
    shop = SHOPS[kind]
    sandbox = shop.sandbox()
    with sandbox.running() as url:
        write_project(shop, kind, tmp_path, url, Files.block)
        play(Case(kind, seed, tmp_path, program, sandbox))


@pytest.mark.parametrize("kind", ["zendesk users", "http never"])
def test_killed_anywhere_with_all_that_is_kept_in_a_server(
    kind: str, tmp_path: Path, program: Program, cluster: Cluster
) -> None:
    shop, house = SHOPS[kind], Server(cluster.made(f"house_{kind.replace(' ', '_')}"))
    sandbox = shop.sandbox()
    with closing(house), sandbox.running() as url:
        write_project(shop, kind, tmp_path, url, house.block)
        play(Case(kind, 0, tmp_path, program, sandbox, house=house))


def test_killed_anywhere_over_a_table_of_postgres(tmp_path: Path, program: Program, cluster: Cluster) -> None:
    shop = table_shop(cluster.made("killed"))
    table = shop.sandbox()
    try:
        write_project(shop, "postgres", tmp_path, "", Files.block)
        play(Case("postgres", 0, tmp_path, program, table, shop))
    finally:
        table.close()  # type: ignore[attr-defined]


def test_killed_again_and_again_while_it_makes_calls_once_more(tmp_path: Path, program: Program) -> None:
    """Creates that a key tells apart, and that nobody can read: the runs that make those of a dead one once more die too."""
    sandbox = BY_KEY.sandbox()
    with sandbox.running() as url:
        write_project(BY_KEY, "http", tmp_path, url, Files.block)
        case = Case("http", 0, tmp_path, program, sandbox, BY_KEY)
        case.move()
        keys: list[Counter[str]] = []
        for _ in range(3):
            sandbox.faults[:] = [Fault("^POST ", "delay", seconds=0.05, times=1000)]
            wanted = len(case.writes()) + 2
            ended = case.run(lambda wanted=wanted: len(case.writes()) >= wanted)  # type: ignore[misc]
            assert ended.code == -9, ended.output
            BY_KEY.rests(sandbox)
            keys.append(Counter(e.headers["Idempotency-Key"] for e in case.writes()))
        assert 2 <= len(keys[0]) < len(case.model), "it died in the middle"
        assert keys[0].keys() == keys[2].keys(), "nothing else is sent before it is known what became of those"
        assert keys[0].total() < keys[1].total() < keys[2].total(), "each of them died at that"
        case.quieten()
        case.check()
        told = "SELECT status, count(*) FROM oploop.changes GROUP BY 1"
        assert dict(case.house.rows(told)) == {"sent": len(case.model)}, "nobody has to say what became of any"


def play(case: Case) -> None:
    """Killed, killed again, run until quiet, looked at."""
    try:
        for _ in range(KILLS):
            case.killed()
        case.quieten()
        case.check()
    except AssertionError as e:
        story = case.folder / "story.txt"
        story.write_text("\n".join(case.story))
        raise AssertionError(f"{str(e).splitlines()[0]}; its story: {story}") from e
    assert case.kills == KILLS
