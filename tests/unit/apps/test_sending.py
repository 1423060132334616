"""A step as calls, and what becomes of each change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from oploop.apps.policy import Answer, LostAnswer, Refused, Request
from oploop.apps.sending import Sent, as_text, in_calls, in_turn, prepared, refused, told, worst
from oploop.errors import OploopError, RetryLater
from oploop.records import Change, Op, Outcome, Receipt


def change(number: int, op: Op = Op.UPDATE) -> Change:
    return Change(number, op, {}, {}, remote_id=f"r{number}")


def sent(*numbers: int) -> list[Sent[bytes]]:
    return [(change(n), b"x" * n) for n in numbers]


class App:
    """Takes calls, but for those (by their first change) that fail."""

    def __init__(self, **fails: OploopError) -> None:
        self.fails = {int(n.removeprefix("at")): e for n, e in fails.items()}
        self.calls: list[list[int]] = []

    async def send(self, call: Sequence[Sent[bytes]]) -> list[Receipt]:
        self.calls.append([c.number for c, _ in call])
        if call[0][0].number in self.fails:
            raise self.fails[call[0][0].number]
        return [Receipt(c.number, Outcome.OK) for c, _ in call]


def outcomes(receipts: Sequence[Receipt]) -> dict[int, Outcome]:
    return {r.number: r.outcome for r in receipts}


def test_what_cannot_be_sent_is_refused_with_its_reason_and_the_rest_goes_on() -> None:
    def make(c: Change) -> int:
        if c.number == 2:
            raise ValueError("two is too many")
        return c.number * 10

    good, bad = prepared(map(change, (1, 2, 3)), make)
    assert [(c.number, made) for c, made in good] == [(1, 10), (3, 30)]
    assert bad == [Receipt(2, Outcome.REJECTED, "r2", "two is too many")]


def test_as_few_calls_as_count_and_bytes_allow() -> None:
    lines = sent(3, 3, 3, 9, 1)
    by_count = [[len(text) for _, text in call] for call in in_calls(lines, most=2, size=100)]
    assert by_count == [[3, 3], [3, 9], [1]]
    by_size = [[len(text) for _, text in call] for call in in_calls(lines, most=9, size=10)]
    assert by_size == [[3, 3], [3], [9], [1]]  # [xxx,xxx] has 9 bytes; one that is too large goes alone
    assert list(in_calls([], most=2, size=9)) == []


async def test_calls_go_in_turn() -> None:
    app = App()
    assert outcomes(await in_turn([sent(1, 2), sent(3)], app.send)) == dict.fromkeys((1, 2, 3), Outcome.OK)
    assert app.calls == [[1, 2], [3]]


async def test_what_the_first_call_meets_is_raised_as_nothing_was_done() -> None:
    app = App(at1=RetryLater("no"))
    with pytest.raises(RetryLater):
        await in_turn([sent(1), sent(2)], app.send)
    assert app.calls == [[1]]
    assert outcomes(await in_turn([sent(1)], App(at1=LostAnswer("gone")).send)) == {1: Outcome.UNKNOWN}


async def test_what_a_later_call_meets_does_not_hide_what_was_done() -> None:
    app = App(at2=RetryLater("no"))
    ok, again = Outcome.OK, Outcome.RETRY
    assert outcomes(await in_turn([sent(1), sent(2), sent(3)], app.send)) == {1: ok, 2: again, 3: again}
    assert app.calls == [[1], [2]]


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_lost_answer_is_unknown_and_what_was_not_sent_is_sent_again(lost: int) -> None:
    app = App(**{f"at{lost}": LostAnswer("gone")})
    found = outcomes(await in_turn([sent(1), sent(2), sent(3)], app.send))
    assert found[lost] is Outcome.UNKNOWN
    assert [found[n] for n in range(lost + 1, 4)] == [Outcome.RETRY] * (3 - lost)
    assert app.calls[-1] == [lost]


async def test_calls_that_have_nothing_to_do_with_each_other_go_on() -> None:
    app = App(at2=LostAnswer("gone"), at3=RetryLater("no"))
    found = outcomes(await in_turn([sent(1), sent(2), sent(3), sent(4)], app.send, apart=True))
    assert found == {1: Outcome.OK, 2: Outcome.UNKNOWN, 3: Outcome.RETRY, 4: Outcome.OK}


@pytest.mark.parametrize(
    ("op", "status", "outcome"),
    [
        (Op.REMOVE, 404, Outcome.OK),
        (Op.ARCHIVE, 410, Outcome.OK),
        (Op.UPDATE, 404, Outcome.REJECTED),
        (Op.REMOVE, 422, Outcome.REJECTED),
    ],
)
def test_that_a_record_is_gone_which_was_to_go_is_no_refusal(op: Op, status: int, outcome: Outcome) -> None:
    answer = Answer(status, {"date": "Fri, 31 Jan 2025 12:00:00 GMT"}, b"", Request("DELETE", "http://x"))
    receipt = refused(change(1, op), Refused(answer, "no such record"))
    assert (receipt.outcome, receipt.remote_id) == (outcome, "r1")
    assert (receipt.error is None) == (outcome is Outcome.OK)
    assert (receipt.version is not None) == (outcome is Outcome.OK)


def test_a_change_of_several_parts_is_what_the_worst_of_them_is() -> None:
    parts = [
        (1, Outcome.OK),
        (2, Outcome.OK),
        (1, Outcome.REJECTED),
        (2, Outcome.OK),
        (1, Outcome.OK),
        (3, Outcome.RETRY),
    ]
    found = worst([Receipt(n, outcome) for n, outcome in [*parts, (3, Outcome.UNKNOWN)]])
    assert [(r.number, r.outcome) for r in found] == [
        (1, Outcome.REJECTED),
        (2, Outcome.OK),
        (3, Outcome.UNKNOWN),
    ]
    for outcome in Outcome:
        assert worst([Receipt(1, outcome), Receipt(1, Outcome.OK)]) == [Receipt(1, outcome)]


def test_a_records_text_has_instants_as_the_app_writes_them_and_numbers_as_json_has_them() -> None:
    at = datetime(2025, 1, 31, 12, tzinfo=UTC)
    record = {"n": Decimal("2"), "x": Decimal("2.5"), "at": [at], "day": at.date(), "time": at.time(), "s": {"a"}}
    text = as_text(record, 1000, "Acme", lambda instant: f"{instant:%H}h")
    assert text == b'{"n":2,"x":2.5,"at":["12h"],"day":"2025-01-31","time":"12:00:00","s":["a"]}'


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"x": "\ud800"}, "cannot be written as JSON"),
        ({"x": 2**70}, "cannot be written as JSON"),
        ({"x": object()}, "cannot be written as JSON"),
        ({"x": "é" * 6}, "it has 20 bytes; Acme takes 19"),
    ],
)
def test_a_record_that_the_app_would_not_take_is_refused_unsent(record: object, says: str) -> None:
    good, receipts = prepared([change(1)], lambda _: as_text(record, 19, "Acme"))
    assert good == []
    assert [(r.outcome, r.remote_id) for r in receipts] == [(Outcome.REJECTED, "r1")]
    assert says in (receipts[0].error or "")


def test_a_call_took_all_but_those_that_its_answer_names() -> None:
    answer = Answer(200, {"date": "Fri, 31 Jan 2025 12:00:00 GMT"}, b"", Request("POST", "http://x"))
    receipts = told([change(5), change(6), change(7)], {1: "no"}, answer)
    assert [(r.number, r.outcome, r.remote_id, r.error) for r in receipts] == [
        (5, Outcome.OK, "r5", None),
        (6, Outcome.REJECTED, "r6", "no"),
        (7, Outcome.OK, "r7", None),
    ]
    assert receipts[0].version == answer.date_micros()
    assert [r.remote_id for r in told([change(5)], {}, answer, lambda c: f"new{c.number}")] == ["new5"]
