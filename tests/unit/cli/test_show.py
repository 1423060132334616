"""How values, times and tables are written."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from oploop.cli import progress, show
from oploop.cli.out import Out, columns, cut, width
from oploop.cli.show_run import last_line
from oploop.cli.show_trace import _source
from oploop.report import RunReport, SyncReport
from oploop.trace import SourceRows

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "empty"),
        ("", '""'),
        (True, "true"),
        (1.0, "1"),
        (0.12345, "0.1235"),
        (Decimal("12.50"), "12.5"),
        (-0.00001, "0"),
        (["a", "b"], "a, b"),
        ([], "none"),
        ([{"id": "a-1", "price": 10.5}], '{"id":"a-1","price":10.5}'),
        ({"at": NOW}, '{"at":"2026-03-04T12:00:00+00:00"}'),
        (date(2026, 1, 2), "2026-01-02"),
        (NOW, "2026-03-04 12:00"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred\x1b[0m", " [31mred [0m"),
        ("abc\u202egpj.exe", "abc gpj.exe"),
    ],
)
def test_values(value: Any, shown: str) -> None:
    assert show.value(value) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "just now"), (60, "1 min ago"), (240, "4 min ago"), (7200, "2 h ago"), (3 * 86400, "3 days ago")],
)
def test_ago(seconds: int, said: str) -> None:
    assert show.ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_a_time_of_today_needs_no_date() -> None:
    assert show.clock(NOW.replace(hour=6, minute=2), NOW) == "06:02"
    assert show.clock(NOW - timedelta(days=1), NOW) == "2026-03-03 12:00"


def test_columns_line_up_whatever_the_script() -> None:
    lines = columns([("東京", "1"), ("Ann", "1,000"), ("e\u0301", "2")], right=[1])
    assert len({width(line) for line in lines}) == 1
    assert lines[0].endswith("    1")


def test_cut_counts_wide_letters_twice() -> None:
    assert cut("東京都庁", 5) == "東京…"
    assert cut("short", 5) == "short"


@pytest.mark.parametrize(("part", "whole", "said"), [(0, 0, "0%"), (57, 1000, "5.7%"), (640, 1000, "64%")])
def test_percent(part: int, whole: int, said: str) -> None:
    assert show.percent(part, whole) == said


def test_rows_in_no_order_are_not_called_the_newest() -> None:
    some = SourceRows("staging.plans", "id = 1", 5, ["name"], [["a"], ["b"]], ordered=False)
    out = Out()
    assert "5 rows, some 2" in _source(out, some)[0]
    assert "5 rows, newest 2" in _source(out, replace(some, ordered=True))[0]


def test_what_takes_long_is_said_also_where_nothing_happens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.03)
    with progress.Progress(Out(), time.monotonic, "asking the apps"):
        time.sleep(0.5)
    said = capsys.readouterr().err.splitlines()
    assert said
    assert set(said) == {"… asking the apps"}
    with progress.Progress(Out(quiet=True), time.monotonic, "asking the apps"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_each_sync_of_a_run_is_counted_once() -> None:
    report = RunReport("r1", "prod")
    report.syncs = [SyncReport("a", "app.a", status="interrupted"), SyncReport("b", "app.b", status="nothing")]
    report.syncs += [SyncReport("c", "app.c", status="failed"), SyncReport("d", "app.d", not_equal=["k"])]
    assert "  1 sync ok, 1 not as saved, 1 interrupted, 1 failed, " in last_line(Out(), report)
