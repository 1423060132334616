"""A step as calls: what each record becomes, how many calls they take, and receipts for what one of them met.

good, receipts = prepared(step.changes, body_of)          what the app would not take (see `as_text`) is refused here
calls = in_calls(good, most=2000, size=10_000_000)        as few as count and bytes allow
receipts += await in_turn(calls, send)                    what one call meets does not hide the others
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import orjson

from oploop.apps.jsonvalues import plain
from oploop.apps.policy import Answer, LostAnswer, Refused
from oploop.errors import OploopError
from oploop.records import Change, Op, Outcome, Receipt

T = TypeVar("T")
#: A change, and what is sent for it.
Sent: TypeAlias = tuple[Change, T]

#: Statuses of a refusal by which a wish to take a record away is fulfilled.
GONE = (404, 410)


def prepared(changes: Iterable[Change], make: Callable[[Change], T]) -> tuple[list[Sent[T]], list[Receipt]]:
    """What `make` makes of each change; and a refusal of each of which it says, by a ValueError, why the app would not take it."""
    good: list[Sent[T]] = []
    refused: list[Receipt] = []
    for change in changes:
        try:
            good.append((change, make(change)))
        except ValueError as e:
            refused.append(Receipt(change.number, Outcome.REJECTED, change.remote_id, str(e)))
    return good, refused


def as_text(record: Any, most: int, app: str, when: Callable[[datetime], str] = datetime.isoformat) -> bytes:
    """A record's JSON, for `prepared`: ValueError where it has none, or where it has more bytes than `app` takes of one. `when`:
    how the app writes an instant."""
    try:
        text = orjson.dumps(record, default=lambda value: plain(value, when), option=orjson.OPT_PASSTHROUGH_DATETIME)
    except (TypeError, orjson.JSONEncodeError) as e:
        raise ValueError(f"cannot be written as JSON: {e}") from None
    if len(text) > most:
        raise ValueError(f"it has {len(text):,} bytes; {app} takes {most:,}")
    return text


def in_calls(sent: Iterable[Sent[bytes]], *, most: int, size: int) -> Iterator[list[Sent[bytes]]]:
    """JSON texts in as few calls as allow `most` of them and a list of `size` bytes in each, in order."""
    call: list[Sent[bytes]] = []
    held = 1  # the list's bytes: a bracket, and behind each text a comma or the other one
    for change, text in sent:
        more = len(text) + 1
        if call and (held + more > size or len(call) >= most):
            yield call
            call, held = [], 1
        call.append((change, text))
        held += more
    if call:
        yield call


async def in_turn(
    calls: Sequence[Sequence[Sent[T]]],
    send: Callable[[Sequence[Sent[T]]], Awaitable[Sequence[Receipt]]],
    *,
    apart: bool = False,
) -> list[Receipt]:
    """Receipts of calls that go out one after the other.

    What `send` raises is raised as long as nothing was done. Once a call got through, or an answer was lost, receipts tell of
    the others: unknown what was lost, to be sent again what was not sent. After a failure no more calls are made, unless they
    have nothing to do with each other (`apart`).
    """
    receipts: list[Receipt] = []
    for i, call in enumerate(calls):
        left = [call] if apart else calls[i:]
        try:
            receipts += await send(call)
            continue
        except LostAnswer as e:
            receipts += [Receipt(c.number, Outcome.UNKNOWN, c.remote_id, e.message) for c, _ in call]
            receipts += [Receipt(c.number, Outcome.RETRY, c.remote_id, e.message) for c, _ in _all(left[1:])]
        except OploopError as e:
            if not receipts:
                raise
            receipts += [Receipt(c.number, Outcome.RETRY, c.remote_id, e.message) for c, _ in _all(left)]
        if not apart:
            break
    return receipts


def _all(calls: Iterable[Sequence[Sent[T]]]) -> Iterator[Sent[T]]:
    return (sent for call in calls for sent in call)


#: What a change is when the parts of it ended differently: the first of these.
_WORST = (Outcome.UNKNOWN, Outcome.RETRY, Outcome.DEFERRED, Outcome.CHANGED, Outcome.REJECTED, Outcome.OK)


def worst(receipts: Iterable[Receipt]) -> list[Receipt]:
    """One receipt for each change, where some took several records or calls: that of the part which ended worst."""
    found: dict[int, Receipt] = {}
    for receipt in receipts:
        known = found.setdefault(receipt.number, receipt)
        if _WORST.index(receipt.outcome) < _WORST.index(known.outcome):
            found[receipt.number] = receipt
    return list(found.values())


def told(
    changes: Iterable[Change],
    failed: Mapping[int, str],
    answer: Answer,
    remote: Callable[[Change], str | None] = attrgetter("remote_id"),
) -> list[Receipt]:
    """Receipts of a call that took all changes but those which its answer names by their place, from 0 on, and why. `remote`: the
    app's id of a record that it took."""
    version = answer.date_micros()
    return [
        Receipt(change.number, Outcome.REJECTED, change.remote_id, failed[i])
        if i in failed
        else Receipt(change.number, Outcome.OK, remote(change), version=version)
        for i, change in enumerate(changes)
    ]


def refused(change: Change, e: Refused) -> Receipt:
    """What a refusal means for its one record: no. But that a record is gone which was to be taken away is as it was wanted."""
    if change.op in (Op.REMOVE, Op.ARCHIVE) and e.status in GONE:
        return Receipt(change.number, Outcome.OK, change.remote_id, version=e.answer.date_micros())
    return Receipt(change.number, Outcome.REJECTED, change.remote_id, str(e))


__all__ = ["GONE", "Sent", "as_text", "in_calls", "in_turn", "prepared", "refused", "told", "worst"]
