"""The simulated app as oploop sees it: an App like any other, over the real Transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from oploop.activate.deliver import version_of
from oploop.apps.arrow import table_from_records
from oploop.apps.base import Account, App, micros
from oploop.apps.columns import Taken
from oploop.apps.transport import Answer, LostAnswer, NotTheApi, Policy, Sender, Transport
from oploop.errors import OploopError, RetryLater
from oploop.records import (
    Batch,
    Change,
    Cursor,
    Deletes,
    Field,
    Op,
    Outcome,
    ReadOptions,
    Receipt,
    Replay,
    Step,
    Stream,
)
from oploop.runtime import Runtime
from tests.fault.sim.world import APP, World


class SimPolicy(Policy):
    """The default rules; a refusal says why."""

    def error(self, answer: Answer) -> tuple[str, str | None]:
        return str(answer.json().get("error", answer.status)), None


class SimApp(App):
    """An object and its stream, perhaps another one, batches, singles and jobs."""

    type = "simulated"
    title = "Simulated"

    def __init__(self, world: World, runtime: Runtime, sender: Sender) -> None:
        super().__init__(APP, None, runtime)
        self.worlds = {w.name: w for w in world.all}
        self.objects = {w.name: w.object for w in world.all}
        self.streams: Mapping[str, Stream] = {w.name: w.stream for w in world.all if w.stream is not None}
        self.wire = Transport("http://127.0.0.1:9", runtime=runtime, sender=sender, policy=SimPolicy())
        self.transport = self.wire

    async def check(self) -> Account:
        return Account("simulated")

    async def describe(self, object_name: str) -> Mapping[str, Field]:
        return self.objects[object_name].fields

    async def read(self, stream: str, cursor: Cursor | None, options: ReadOptions) -> AsyncIterator[Batch]:
        """All records page by page, from the cursor on if the last read broke off."""
        after = (cursor or {}).get("after", "")
        while True:
            began = self.runtime.now()
            answer = await self.wire.request("GET", stream, params={"after": after})
            page = answer.json()
            after, more = page["next"], page["next"] is not None
            resumable = self.streams[stream].deletes is Deletes.MARKED
            position = {"after": after} if more and resumable else None
            yield self._batch(stream, page["records"], began, cursor=position, complete=not more)
            if not more:
                return

    def _batch(
        self, name: str, records: Sequence[dict[str, Any]], began: Any, *, version: int | None = None, **more: Any
    ) -> Batch:
        stream = self.streams[name]
        if stream.deletes is Deletes.ABSENCE and version is None:
            records = [r for r in records if not r["deleted"]]
        table = table_from_records(
            stream,
            [{k: v for k, v in r.items() if k not in ("version", "deleted")} for r in records],
            versions=[max(r["version"], version or 0) for r in records],
            extracted_at=began,
            deleted=[r["deleted"] for r in records],
        )
        return Batch(name, table, **more)

    async def fetch(self, object_name: str, remote_ids: Sequence[str]) -> Batch:
        began = self.runtime.now()
        answer = await self.wire.request("GET", object_name, params={"ids": ",".join(remote_ids)})
        return self._batch(object_name, answer.json()["records"], began, version=answer.date_micros() or 0)

    async def send(self, step: Step) -> Sequence[Receipt]:
        world = self.worlds[step.object]
        operation = world.object.operations[step.op]
        items = [
            {
                "n": c.number,
                "id": c.remote_id,
                "key": c.key["code"],
                "fields": dict(c.fields),
                "intent": f"{step.id}:{c.number}",
                "as_read": dict(c.as_read) if step.conditional else None,
            }
            for c in step.changes
        ]
        body = {"op": step.op.value, "items": items}
        if step.op in world.behaviour.jobs:
            return await self._send_job(world, step, body)
        # a conditional call that was done would be refused the second time
        harmless = operation.replay in (Replay.SAFE, Replay.KEY) and not step.conditional
        answer = await self.wire.request("POST", world.name, json=body, idempotent=harmless)
        try:
            results = answer.json()["results"]
        except NotTheApi as e:  # it may have been done
            raise LostAnswer(str(e)) from None
        receipts = [self._receipt(world, r, answer) for r in results]
        by_number = {r.number: r for r in receipts if r.outcome is Outcome.OK}
        if all(
            c.remote_id is None and c.number in by_number and by_number[c.number].remote_id == c.key["code"]
            for c in step.changes
        ):
            return Taken(step.changes, version_of(receipts), "code")
        return receipts

    async def _send_job(self, world: World, step: Step, body: dict[str, Any]) -> list[Receipt]:
        """A job does nothing before it is started, and its id is journalled by then."""
        made = await self.wire.request("POST", world.name, params={"do": "job"}, json=body, idempotent=True)
        job = made.json()["job"]
        assert step.note is not None
        await step.note(job)
        try:
            await self.wire.request("POST", world.name, params={"do": "start"}, json={"job": job}, idempotent=True)
            return await self._results(world, job)
        except OploopError as e:
            raise LostAnswer(f"job {job} was begun, but cannot be asked after: {e}") from e

    async def _results(self, world: World, job: str) -> list[Receipt]:
        """What a job did, once it is over; RetryLater when that takes longer than anybody waits."""
        for _ in range(20):
            answer = await self.wire.request("GET", world.name, params={"job": job})
            told = answer.json()
            if told["state"] == "done":
                return [self._receipt(world, r, answer) for r in told["results"]]
            await self.runtime.sleep(30.0)
        raise RetryLater(f"job {job} does not end")

    async def settle(self, object_name: str, op: Op, note: str, changes: Sequence[Change]) -> list[Receipt]:
        world = self.worlds[object_name]
        told = (await self.wire.request("GET", world.name, params={"job": note})).json()
        if told["state"] == "works":
            raise RetryLater(f"job {note} is still at work")
        if told["state"] == "forgotten":
            return [Receipt(c.number, Outcome.UNKNOWN, error="the app does not know the job any more") for c in changes]
        if told["state"] == "open":
            await self.wire.request("POST", world.name, params={"do": "drop"}, json={"job": note}, idempotent=True)
            return [Receipt(c.number, Outcome.RETRY, error="the run died before its job began") for c in changes]
        return await self._results(world, note)

    def _receipt(self, world: World, r: dict[str, Any], answer: Answer) -> Receipt:
        if "changed" in r:
            return Receipt(r["n"], Outcome.CHANGED, error="changed since it was read")
        if "error" in r:
            outcome = Outcome.RETRY if r.get("later") else Outcome.REJECTED
            return Receipt(r["n"], outcome, error=r["error"])
        version = {"record": r["version"], "date": answer.date_micros()}.get(world.behaviour.clocked)
        return Receipt(r["n"], Outcome.OK, r.get("id"), version=version)


__all__ = ["Op", "SimApp", "micros"]
