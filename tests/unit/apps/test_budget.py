"""One budget per account for all processes of the machine: what the shared file remembers, and what it survives."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import pytest
from bench.limit import measure

from oploop.apps import purse
from oploop.apps.budget import Budget, Quota
from oploop.apps.transport import Transport
from oploop.runtime import Runtime


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def runtime(self) -> Runtime:
        return Runtime(monotonic=lambda: self.seconds, sleep=self.sleep)


def shared(clock: Clock, folder: Path, calls: int, window: float = 60.0) -> Budget:
    budget = Budget(clock.runtime(), calls=calls, window=window)
    budget.share_through(folder, "account")
    return budget


async def test_two_that_share_it_make_no_more_calls_than_one_may(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = shared(clock, tmp_path, 10), shared(clock, tmp_path, 10)
    for _ in range(5):
        await mine.take()
        await theirs.take()
    assert clock.seconds == 1000
    await mine.take()
    assert 1060 <= clock.seconds < 1061
    mine.close()
    theirs.close()


async def test_calls_taken_together_are_never_more_than_allowed(tmp_path: Path) -> None:
    clock = Clock()
    budgets = [shared(clock, tmp_path, 500, window=1.0) for _ in range(3)]
    went: list[float] = []
    while clock.seconds < 1004:
        for budget in budgets:
            await budget.take()
            went.append(clock.seconds)
            clock.seconds += 0.0001
    for i, start in enumerate(went):
        assert sum(1 for t in went[i : i + 600] if t < start + 1) <= 500
    assert len(went) >= 0.95 * 500 * 4
    for budget in budgets:
        budget.close()


async def test_a_pause_of_one_holds_the_others(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = shared(clock, tmp_path, 10), shared(clock, tmp_path, 10)
    mine.pause(42)
    await theirs.take()
    assert clock.seconds == 1042
    mine.close()
    theirs.close()


async def test_other_limits_of_the_account_are_shared_apart(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = shared(clock, tmp_path, 10), shared(clock, tmp_path, 10)
    a, b = (x.beside("cursor exports", calls=1, window=60.0) for x in (mine, theirs))
    await a.take()
    await mine.take()
    assert clock.seconds == 1000
    await b.take()
    assert clock.seconds >= 1060
    for budget in (mine, theirs, a, b):
        budget.close()


@pytest.mark.parametrize("left", [b"", b"[1,", b"{}", b'["another start of the machine",[[9e9,500]],9e9,0.1,9e9]'])
async def test_a_file_that_says_nothing_holds_nobody(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "account").write_bytes(left)
    clock = Clock()
    budget = shared(clock, tmp_path, 10)
    for _ in range(10):
        await budget.take()
    assert clock.seconds == 1000
    budget.close()


async def test_a_file_that_was_tidied_away_is_made_anew_by_all(tmp_path: Path) -> None:
    clock = Clock()
    mine, theirs = shared(clock, tmp_path, 1), shared(clock, tmp_path, 1)
    (tmp_path / "account").unlink()
    await mine.take()
    await theirs.take()
    assert clock.seconds >= 1060
    mine.close()
    theirs.close()


async def test_an_app_that_tells_no_limit_is_called_less_after_a_refusal_and_by_and_by_as_before() -> None:
    clock = Clock()
    budget = Budget(clock.runtime(), calls=100)

    async def in_ten_seconds() -> int:
        calls, began = 0, clock.seconds
        while clock.seconds < began + 10:
            await budget.take()
            calls += 1
        return calls

    full = await in_ten_seconds()
    for _ in range(4):  # under way together, refused together: that is one sign
        budget.refused(1.0)
    cut = await in_ten_seconds()
    assert 0.8 * full < cut < 0.97 * full
    clock.seconds += 30
    assert await in_ten_seconds() > 0.98 * full


async def test_an_app_that_tells_its_limit_is_believed() -> None:
    clock = Clock()
    budget = Budget(clock.runtime(), calls=10, window=60.0)
    budget.learn(Quota(limit=50, remaining=3, reset=20), under_way=3)  # others use the account: none is left for us
    await budget.take()
    assert clock.seconds == 1020
    budget.refused(1.0)
    for _ in range(49):
        await budget.take()
    assert clock.seconds == 1021, "the rate is as told, whatever was refused"


def test_the_folder_is_private_and_tidied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = purse.machine_folder()
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    old, new = folder / "old", folder / "new"
    for file in (old, new):
        file.touch()
    then = time.time() - purse.STALE - 60
    os.utime(old, (then, then))
    assert purse.machine_folder() == folder
    assert [p.name for p in folder.iterdir()] == ["new"]


def test_no_folder_where_none_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    assert purse.machine_folder() is None


def test_an_account_is_named_by_its_address_and_credentials_without_telling_them() -> None:
    def named(url: str, key: str) -> str:
        return Transport(url, runtime=Runtime(), headers={"Authorization": key, "Accept": "x"}).account()

    one = named("https://acme.example/api", "Bearer hunter2hunter2")
    assert one == named("https://acme.example/other", "Bearer hunter2hunter2")
    assert one != named("https://acme.example/api", "Bearer hunter3hunter3")
    assert one != named("https://emca.example/api", "Bearer hunter2hunter2")
    assert "hunter" not in one


async def test_two_processes_use_nearly_all_of_an_enforced_limit_and_are_hardly_refused() -> None:
    used, refused = await measure(410)
    assert used >= 0.95
    assert refused < 0.001


@pytest.mark.parametrize("seed", range(20))
async def test_how_long_calls_will_take_counts_those_that_were_made_in_the_present_window(
    seed: int, tmp_path: Path
) -> None:
    chance, clock = random.Random(seed), Clock()
    budget = shared(clock, tmp_path, 20) if seed % 2 else Budget(clock.runtime(), calls=20, window=60.0)
    for _ in range(chance.randint(0, 50)):
        clock.seconds += chance.choice((0.0, 0.5, 9.0))
        await budget.take()
    if seed % 5 == 0:
        budget.pause(17.0)
    wanted = chance.choice((1, 7, 20, 21, 67))
    said, began = budget.seconds_for(wanted), clock.seconds
    for _ in range(wanted):
        await budget.take()
    assert said == pytest.approx(clock.seconds - began, abs=1.0), "a window's 250th part a window, and its milliseconds"
    assert budget.seconds_for(0) == 0
    budget.close()
