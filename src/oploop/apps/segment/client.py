"""How Segment's tracking API behaves: basic auth by write key, batches by bytes, 200 for nearly everything.

Source: segment.com/docs/connections/sources/catalog/libraries/server/http-api.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from oploop import __version__
from oploop.apps.segment.objects import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, event_of, iso
from oploop.apps.transport import (
    Answer,
    Budget,
    LostAnswer,
    NotTheApi,
    Policy,
    Refused,
    Transport,
    Verdict,
    retry_after,
)
from oploop.errors import OploopError
from oploop.records import Outcome, Receipt, Step
from oploop.runtime import Runtime

CALLS_PER_SECOND = 1000  #: what Segment asks a workspace to stay under

_LIBRARY = {"name": "oploop", "version": __version__}


class SegmentPolicy(Policy):
    """Segment's hints: 429 with `Retry-After` and `X-RateLimit-Reset`, both in seconds."""

    credentials = "write_key"

    def verdict(self, answer: Answer) -> Verdict:
        if answer.status == 429:
            reset = retry_after({"retry-after": answer.headers.get("x-ratelimit-reset", "")})
            return Verdict(True, retry_after(answer.headers) or reset, done=False)
        return super().verdict(answer)

    def error(self, answer: Answer) -> tuple[str, str | None]:
        body = answer.said()
        message = body.get("message")
        return (f"HTTP {answer.status}: {message}", body.get("code")) if message else super().error(answer)


def transport(base_url: str, write_key: str, runtime: Runtime) -> Transport:
    """The account's way to Segment."""
    user = base64.b64encode(f"{write_key}:".encode()).decode()
    return Transport(
        base_url,
        runtime=runtime,
        headers={"Authorization": f"Basic {user}"},
        policy=SegmentPolicy(),
        budget=Budget(runtime, calls=CALLS_PER_SECOND),
        gzip=True,
    )


@dataclass(slots=True)
class _Line:
    number: int  #: of its change
    event: bytes


class TrackingClient:
    """Sends steps to `/v1/batch`."""

    def __init__(self, transport: Transport, runtime: Runtime) -> None:
        self._transport = transport
        self._runtime = runtime

    async def ping(self) -> None:
        """Ask whether this is Segment, by a batch without events. Raises NotTheApi and the like if it is not."""
        answer = await self._transport.request(
            "POST", "v1/batch", body=b'{"batch":[]}', content_type="application/json", idempotent=True, ok=(400,)
        )
        if not isinstance(answer.json(), dict):
            raise NotTheApi(answer)

    async def send(self, step: Step) -> list[Receipt]:
        """The step in as few calls as its bytes allow. OK means accepted: Segment tells no more than that.

        Raises what the transport raises if nothing of the step was done; once a call got through, or an answer was
        lost, what becomes of the others stands in the receipts. Sent again, a step does no harm: its messageIds are known.
        """
        receipts: list[Receipt] = []
        lines: list[_Line] = []
        for change in step.changes:
            event, reason = event_of(step, change, _LIBRARY)
            if event is None:
                receipts.append(Receipt(change.number, Outcome.REJECTED, error=reason))
            else:
                lines.append(_Line(change.number, event))
        batches = list(split_by_bytes(lines))
        for i, batch in enumerate(batches):
            try:
                answer = await self._post(batch)
            except LostAnswer as e:
                receipts += _all(batch, Outcome.UNKNOWN, e)
                receipts += _rest(batches[i + 1 :], e)
                break
            except OploopError as e:
                if i == 0:
                    raise
                receipts += _rest(batches[i:], e)
                break
            else:
                version = answer.date_micros()
                receipts += [Receipt(line.number, Outcome.OK, version=version) for line in batch]
        return receipts

    async def _post(self, batch: Sequence[_Line]) -> Answer:
        body = b'{"batch":[' + b",".join(line.event for line in batch)
        body += b'],"sentAt":"' + iso(self._runtime.now()).encode() + b'"}'
        return _accepted(await self._transport.request("POST", "v1/batch", body=body, content_type="application/json"))


def _accepted(answer: Answer) -> Answer:
    """The answer if it says `{"success": true}`. A login page is NotTheApi; a broken answer is a lost one."""
    try:
        body = answer.json()
    except NotTheApi as e:
        if answer.body.lstrip()[:1] == b"<":
            raise
        raise LostAnswer(f"the answer is cut off: {e.message}") from None
    if not isinstance(body, dict) or body.get("success") is not True:
        raise Refused(answer, f"Segment did not accept the batch: {str(body)[:200]}")
    return answer


def split_by_bytes(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """As few batches as bytes and count allow, in order."""
    batch: list[_Line] = []
    size = 0
    for line in lines:
        more = len(line.event) + 1
        if batch and (size + more > MAX_BATCH_BYTES or len(batch) >= MAX_BATCH_EVENTS):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += more
    if batch:
        yield batch


def _all(batch: Sequence[_Line], outcome: Outcome, e: OploopError) -> list[Receipt]:
    return [Receipt(line.number, outcome, error=e.message) for line in batch]


def _rest(batches: Sequence[Sequence[_Line]], e: OploopError) -> list[Receipt]:
    """Batches that were not sent."""
    return [r for batch in batches for r in _all(batch, Outcome.RETRY, e)]
