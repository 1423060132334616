"""The day's quota of an account: as the app tells it, as it is counted down, shared, kept for others, and forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oploop.activate.plan import Estimate
from oploop.apps import registry
from oploop.apps.budget import Budget, DayLeft, DayQuota
from oploop.apps.transport import Answer, Policy, Request, Transport
from oploop.cli.show_plan import cost_line
from oploop.errors import FixConfig, QuotaSpent
from oploop.project import load_project
from oploop.runtime import Runtime
from tests.unit.activate.script import Clock

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


class Telling(Policy):
    """A vendor whose answers tell the calls of the day."""

    def day(self, answer: Answer) -> DayQuota | None:
        used, _, limit = answer.headers.get("sforce-limit-info", "").rpartition("=")[2].partition("/")
        return DayQuota(int(limit), int(limit) - int(used)) if limit else None


def transport(used: list[str], **more: float) -> Transport:
    """One whose answers say so, one after the other; an empty one says nothing."""
    runtime = Clock().runtime()

    async def sender(request: Request) -> Answer:
        said = used.pop(0)
        return Answer(200, {"sforce-limit-info": f"api-usage={said}"} if said else {}, b"{}", request)

    budget = Budget(runtime, calls=100)
    budget.keep_daily = more.get("keep", 0.0)
    return Transport("http://127.0.0.1:9", runtime=runtime, policy=Telling(), budget=budget, sender=sender)


async def test_what_is_left_is_as_told_and_less_the_calls_since() -> None:
    wire = transport(["78800/140000", "", "78900/140000"])
    assert wire.budget is not None
    assert wire.budget.day_left() is None, "nobody has told"
    left = []
    for _ in range(3):
        await wire.request("GET", "x")
        day = wire.budget.day_left()
        assert day is not None
        left.append(day.remaining)
    assert left == [61_200, 61_199, 61_100]


async def test_no_more_is_begun_than_leaves_what_is_kept() -> None:
    wire = transport(["70/100"], keep=0.2)
    assert wire.budget is not None
    wire.budget.refuse_beyond_day(1_000)  # as nothing is known
    await wire.request("GET", "x")
    wire.budget.refuse_beyond_day(10)
    with pytest.raises(QuotaSpent, match=r"30 of the day's 100 calls are left, 20 of them for others"):
        wire.budget.refuse_beyond_day(11)
    wire.budget.keep_daily = 0.0
    wire.budget.refuse_beyond_day(11)


def at(budget: Budget, later: timedelta) -> Budget:
    budget._runtime = replace(budget._runtime, now=lambda: NOON + later)
    return budget


def test_what_was_told_counts_for_a_while_and_is_shown_for_a_day() -> None:
    budget = Budget(Runtime(now=lambda: NOON), calls=10)
    budget.keep_daily = 0.5
    budget.learn_day(DayQuota(100, 40))
    with pytest.raises(QuotaSpent):
        budget.refuse_beyond_day(1)
    at(budget, timedelta(minutes=16)).refuse_beyond_day(1)  # the next call will tell anew
    assert at(budget, timedelta(hours=23)).day_left() == DayLeft(100, 40, 50, NOON.timestamp())
    assert at(budget, timedelta(hours=24)).day_left() is None
    at(budget, timedelta()).learn_day(DayQuota(100, 40, reset=60.0))
    assert at(budget, timedelta(seconds=61)).day_left() is None


async def test_processes_share_it_also_after_the_machine_was_started_anew(tmp_path: Path) -> None:
    mine, theirs = (Budget(Runtime(now=lambda: NOON), calls=10) for _ in range(2))
    for budget in (mine, theirs):
        budget.share_through(tmp_path, "account")
    mine.learn_day(DayQuota(100, 40), under_way=3)
    await theirs.take()
    assert mine.day_left() == DayLeft(100, 36, 0, NOON.timestamp())
    told = (tmp_path / "account").read_bytes()
    (tmp_path / "account").write_bytes(b'["another start"' + told[told.index(b",") :])
    assert mine.day_left() == DayLeft(100, 36, 0, NOON.timestamp())
    for budget in (mine, theirs):
        budget.close()


def test_it_is_kept_only_where_the_app_tells_it(tmp_path: Path) -> None:
    (tmp_path / "oploop.yml").write_text(
        "name: acme\nmodels: {engine: none}\napps:\n  stripe: {api_key: '${KEY}', budget: {keep_daily: 20%}}\n"
    )
    block = load_project(tmp_path, {"KEY": "sk_test_x"}).apps["stripe"]
    with pytest.raises(FixConfig, match=r"oploop.yml:4: stripe tells no daily quota") as e:
        registry.make_app(block, Runtime())
    assert e.value.mend is not None
    assert Telling().tells_day()


@pytest.mark.parametrize(
    ("day", "line"),
    [
        (None, "cost    2 calls, ~3.0 s"),
        (DayLeft(140_000, 61_200, 0, 0.0), "cost    2 calls, ~3.0 s · quota left today 61,200 of 140,000"),
        (
            DayLeft(140_000, 28_001, 28_000, 0.0),
            "cost    2 calls, ~3.0 s · quota left today 28,001 of 140,000, 28,000 kept for others"
            " · 1 call at the most, the rest is deferred",
        ),
    ],
)
def test_the_plan_says_what_is_left_today(day: DayLeft | None, line: str) -> None:
    assert cost_line(Estimate(2, 3.0, day)) == line
