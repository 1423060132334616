"""The simulated app as oploop sees it: an App like any other, over the real Transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from oploop.apps.arrow import table_from_records
from oploop.apps.base import Account, App, micros
from oploop.apps.transport import Answer, LostAnswer, NotTheApi, Policy, Sender, Transport
from oploop.records import Batch, Cursor, Deletes, Field, Op, Outcome, ReadOptions, Receipt, Replay, Step, Stream
from oploop.runtime import Runtime
from tests.fault.sim.world import APP, OBJECT, World


class SimPolicy(Policy):
    """The default rules; a refusal says why."""

    def error(self, answer: Answer) -> tuple[str, str | None]:
        return str(answer.json().get("error", answer.status)), None


class SimApp(App):
    """One object, one stream, batches and singles."""

    type = "simulated"
    title = "Simulated"

    def __init__(self, world: World, runtime: Runtime, sender: Sender) -> None:
        super().__init__(APP, None, runtime)
        self.world = world
        self.objects = {OBJECT: world.object}
        self.streams: Mapping[str, Stream] = {OBJECT: world.stream} if world.stream is not None else {}
        self.wire = Transport("http://127.0.0.1:9", runtime=runtime, sender=sender, policy=SimPolicy())
        self.transport = self.wire

    async def check(self) -> Account:
        return Account("simulated")

    async def describe(self, object_name: str) -> Mapping[str, Field]:
        return self.world.object.fields

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """All records page by page, from the cursor on if the last read broke off."""
        after = (cursor or {}).get("after", "")
        while True:
            began = self.runtime.now()
            answer = await self.wire.request("GET", "records", params={"after": after})
            page = answer.json()
            after, more = page["next"], page["next"] is not None
            resumable = self.streams[stream].deletes is Deletes.MARKED
            position = {"after": after} if more and resumable else None
            yield self._batch(page["records"], began, cursor=position, complete=not more)
            if not more:
                return

    def _batch(
        self, records: Sequence[dict[str, Any]], began: Any, *, version: int | None = None, **more: Any
    ) -> Batch:
        assert self.world.stream is not None
        if self.world.stream.deletes is Deletes.ABSENCE and version is None:
            records = [r for r in records if not r["deleted"]]
        table = table_from_records(
            self.world.stream,
            [{k: v for k, v in r.items() if k not in ("version", "deleted")} for r in records],
            versions=[max(r["version"], version or 0) for r in records],
            extracted_at=began,
            deleted=[r["deleted"] for r in records],
        )
        return Batch(OBJECT, table, **more)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        began = self.runtime.now()
        answer = await self.wire.request("GET", "records", params={"ids": ",".join(remote_ids)})
        return self._batch(answer.json()["records"], began, version=answer.date_micros() or 0)

    async def send(self, step: Step) -> list[Receipt]:
        operation = self.world.object.operations[step.op]
        items = [
            {
                "n": c.number,
                "id": c.remote_id,
                "key": c.key["code"],
                "fields": dict(c.fields),
                "intent": f"{step.id}:{c.number}",
            }
            for c in step.changes
        ]
        answer = await self.wire.request(
            "POST",
            "records",
            json={"op": step.op.value, "items": items},
            idempotent=operation.replay in (Replay.SAFE, Replay.KEY),
        )
        try:
            results = answer.json()["results"]
        except NotTheApi as e:  # it may have been done
            raise LostAnswer(str(e)) from None
        return [self._receipt(r, answer) for r in results]

    def _receipt(self, r: dict[str, Any], answer: Answer) -> Receipt:
        if "error" in r:
            outcome = Outcome.RETRY if r.get("later") else Outcome.REJECTED
            return Receipt(r["n"], outcome, error=r["error"])
        clocked = self.world.behaviour.clocked
        version = {"record": r["version"], "date": answer.date_micros()}.get(clocked)
        return Receipt(r["n"], Outcome.OK, r.get("id"), version=version)


__all__ = ["Op", "SimApp", "micros"]
