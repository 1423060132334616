"""How Segment's tracking API behaves: basic auth by write key, batches by bytes, 200 for nearly everything.

Source: segment.com/docs/connections/sources/catalog/libraries/server/http-api.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import SecretStr

from oploop import __version__
from oploop.apps.credentials import basic
from oploop.apps.documents import zulu
from oploop.apps.segment.objects import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, event_of
from oploop.apps.sending import Sent, in_calls, in_turn, prepared
from oploop.apps.transport import (
    Answer,
    Budget,
    NotTheApi,
    Policy,
    Refused,
    Transport,
    Verdict,
    retry_after,
)
from oploop.records import Outcome, Receipt, Step
from oploop.runtime import Runtime

CALLS_PER_SECOND = 1000  #: what Segment asks a workspace to stay under

_LIBRARY = {"name": "oploop", "version": __version__}


class SegmentPolicy(Policy):
    """Segment's hints: 429 with `Retry-After` and `X-RateLimit-Reset`, both in seconds."""

    credentials = "write_key"
    words, code, with_status = ("message",), "code", True

    def verdict(self, answer: Answer) -> Verdict:
        if answer.status == 429:
            reset = retry_after({"retry-after": answer.headers.get("x-ratelimit-reset", "")})
            return Verdict(True, retry_after(answer.headers) or reset, done=False)
        return super().verdict(answer)


def transport(base_url: str, write_key: SecretStr, runtime: Runtime) -> Transport:
    """The account's way to Segment."""
    return Transport(
        base_url,
        runtime=runtime,
        headers=basic(write_key.get_secret_value()),
        policy=SegmentPolicy(),
        budget=Budget(runtime, calls=CALLS_PER_SECOND),
        gzip=True,
    )


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
        """The step in as few calls as its bytes allow; see `in_turn`. OK means accepted: Segment tells no more than that. Sent
        again, a step does no harm: its messageIds are known."""
        good, receipts = prepared(step.changes, lambda change: event_of(step, change, _LIBRARY))
        room = MAX_BATCH_BYTES - len(self._envelope([])) + len(b"[]")
        calls = list(in_calls(good, most=MAX_BATCH_EVENTS, size=room))
        return receipts + await in_turn(calls, self._post)

    def _envelope(self, events: Iterable[bytes]) -> bytes:
        sent_at = zulu(self._runtime.now(), "milliseconds").encode()
        return b'{"batch":[' + b",".join(events) + b'],"sentAt":"' + sent_at + b'"}'

    async def _post(self, call: Sequence[Sent[bytes]]) -> list[Receipt]:
        body = self._envelope(event for _, event in call)
        answer = await self._transport.request("POST", "v1/batch", body=body, content_type="application/json")
        version = _accepted(answer).date_micros()
        return [Receipt(change.number, Outcome.OK, version=version) for change, _ in call]


def _accepted(answer: Answer) -> Answer:
    """The answer if it says `{"success": true}`. A login page is NotTheApi; a broken answer is a lost one."""
    if answer.body.lstrip()[:1] == b"<":
        raise NotTheApi(answer)
    body = answer.written(dict, "success")
    if body["success"] is not True:
        raise Refused(answer, f"Segment did not accept the batch: {str(body)[:200]}")
    return answer
