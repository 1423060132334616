"""Comments on tickets: each is an update of its ticket, and is made once.

Source: developer.zendesk.com, API reference: ticket comments ("to add a comment, update the ticket"), update many tickets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oploop.apps.documents import at
from oploop.apps.sending import Sent, in_turn, refused
from oploop.apps.transport import Answer, LostAnswer, Refused
from oploop.apps.zendesk.client import Client
from oploop.apps.zendesk.writer import is_failure, refused_in_job
from oploop.records import Change, Outcome, Receipt, Step

SINGLES = 2  #: up to so many comments go as single calls: a job costs two


class Comments:
    """Adds comments."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, step: Step) -> list[Receipt]:
        """One job, or a few single calls. A job takes a ticket once: its other comments go after it, in order."""
        return await in_turn(_calls(step.changes), self._call, apart=True)

    async def _call(self, comments: Sequence[Sent[int]]) -> list[Receipt]:
        return await self._job(comments) if len(comments) > 1 else [await self._single(*comments[0])]

    async def _job(self, comments: Sequence[Sent[int]]) -> list[Receipt]:
        tickets = [{"id": ticket, "comment": comment_of(c)} for c, ticket in comments]
        status, version = await self._client.job("PUT", "tickets/update_many", json={"tickets": tickets})
        results = status.get("results")
        told = [r for r in results if isinstance(r, Mapping)] if isinstance(results, list) else []
        by_ticket = {str(r["id"]): r for r in told if r.get("id") is not None}
        by_place = {r["index"]: r for r in told if isinstance(r.get("index"), int)}
        return [_receipt(c, by_ticket.get(str(t)) or by_place.get(i), version) for i, (c, t) in enumerate(comments)]

    async def _single(self, change: Change, ticket: int) -> Receipt:
        body = {"ticket": {"comment": comment_of(change)}}
        try:
            answer = await self._client.write("PUT", f"tickets/{ticket}", json=body)
        except Refused as e:
            return refused(change, e)
        return Receipt(change.number, Outcome.OK, _comment_id(answer), version=answer.date_micros())


def _calls(changes: Sequence[Change]) -> list[list[Sent[int]]]:
    """The changes, each with its ticket, call by call: a job has no ticket twice, and is worth it from three comments on."""
    rounds: list[list[Sent[int]]] = []
    seen: Counter[int] = Counter()
    for change in changes:
        ticket = int({**change.key, **change.fields}["ticket_id"])
        if seen[ticket] == len(rounds):
            rounds.append([])
        rounds[seen[ticket]].append((change, ticket))
        seen[ticket] += 1
    return [call for r in rounds for call in ([r] if len(r) > SINGLES else [[c] for c in r])]


def comment_of(change: Change) -> dict[str, Any]:
    """The comment's body as Zendesk takes it."""
    return {k: change.fields[k] for k in ("body", "public", "author_id") if change.fields.get(k) is not None}


def _receipt(change: Change, result: Mapping[str, Any] | None, version: int | None) -> Receipt:
    if result is None:
        return Receipt(change.number, Outcome.UNKNOWN, error="the job ended without a result for this comment")
    if is_failure(result):
        outcome, text = refused_in_job(result)
        return Receipt(change.number, outcome, error=text)
    return Receipt(change.number, Outcome.OK, version=version)


def _comment_id(answer: Answer) -> str | None:
    """The comment's own id, from the audit that the answer shows; LostAnswer for one that shows no ticket, or an audit without it."""
    events = at(answer.written(dict, "ticket.id"), "audit.events")
    made = [e.get("id") for e in events or () if e.get("type") == "Comment"]
    if events is not None and not made:
        raise LostAnswer("the ticket was updated, but the answer's audit has no comment")
    return str(made[0]) if made and made[0] is not None else None
