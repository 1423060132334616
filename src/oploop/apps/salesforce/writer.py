"""Changes to API calls, and answers to receipts: up to 200 records a call, larger steps as a Bulk API 2.0 job.

Sources: REST API Developer Guide, sObject Collections; Bulk API 2.0 guide, ingest jobs; status codes of the Object Reference.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from email.utils import format_datetime
from typing import Any, TypeAlias

from oploop.apps.documents import zulu
from oploop.apps.formats import csv_of
from oploop.apps.jsonvalues import plain
from oploop.apps.salesforce.catalog import BATCH, STAMP, Table
from oploop.apps.salesforce.client import PASSING, Client, before, error_text
from oploop.apps.salesforce.jobs import ended
from oploop.apps.sending import Sent, in_turn, prepared
from oploop.apps.transport import Answer, LostAnswer, Refused
from oploop.errors import FixConfig, OploopError, SkipRecord
from oploop.records import Change, Op, Outcome, Receipt, Step

#: Bytes of one job's data: 150 MB as Salesforce counts, after it made base64 of them.
MAX_JOB_BYTES = 100_000_000
#: Of a record that is to be removed: it is gone already.
GONE = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "NOT_FOUND"})
OPERATIONS = {Op.CREATE: "insert", Op.UPDATE: "update", Op.UPSERT: "upsert", Op.REMOVE: "delete"}
#: Of a change that a job says nothing of; of all those of one that is long over.
NO_RESULT = "the job has no result for this record"
FORGOTTEN = "Salesforce does not know its job any more"
#: Why a conditional update was not made.
CHANGED = "changed in Salesforce since it was read"
#: The record that is sent for a change.
Record: TypeAlias = dict[str, Any]
#: Seconds that a later run waits for a job whose end nobody heard.
SETTLING = 60.0


class Writer:
    """Delivers steps."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, table: Table, step: Step) -> list[Receipt]:
        """See App.send."""
        by = _external_id(table, step) if step.op is Op.UPSERT else None
        good, receipts = prepared(step.changes, lambda change: record_of(table, change))
        if step.conditional:
            return receipts + [await self._unmodified(table, change, body) for change, body in good]
        if len(good) > BATCH:
            return receipts + await self._job(table, step, by, good)
        calls = list(_once_each(good, by))
        if len(calls) == 1:  # unless a key stands in it twice
            return receipts + await self._collection(table, step.op, by, calls[0])
        return receipts + await in_turn(calls, lambda call: self._collection(table, step.op, by, call))

    async def _unmodified(self, table: Table, change: Change, body: Mapping[str, Any]) -> Receipt:
        """An update of a record that nobody has changed since it was read, to the second."""
        stamp, began = change.as_read.get(STAMP), self._client.runtime.monotonic()
        since = format_datetime(datetime.fromisoformat(stamp).astimezone(UTC), usegmt=True) if stamp else None
        sent = {k: v for k, v in body.items() if k != "id"}
        headers = {"If-Unmodified-Since": since} if since is not None else {}
        path = f"sobjects/{table.name}/{change.remote_id}"
        try:  # not repeated: the second time it would meet what the first one did
            answer = await self._client.call("PATCH", path, sent, harmless=False, headers=headers)
        except Refused as e:
            if e.status == 412:
                return Receipt(change.number, Outcome.CHANGED, change.remote_id, CHANGED)
            return _refusal(change, [e.code or ""], e.message, None)
        version = before(answer, self._client.runtime.monotonic() - began)
        return Receipt(change.number, Outcome.OK, change.remote_id, version=version)

    # -- up to 200 records -------------------------------------------------------------------------------------------

    async def _collection(self, table: Table, op: Op, by: str | None, part: Sequence[Sent[Record]]) -> list[Receipt]:
        path, began = "composite/sobjects", self._client.runtime.monotonic()
        if op is Op.REMOVE:
            asked = {"ids": ",".join(str(c.remote_id) for c, _ in part), "allOrNone": "false"}
            answer = await self._client.call("DELETE", path, params=asked, harmless=True)
        else:
            records = [{"attributes": {"type": table.name}, **body} for _, body in part]
            method = "POST" if op is Op.CREATE else "PATCH"
            path = f"{path}/{table.name}/{by}" if by is not None else path
            body = {"allOrNone": False, "records": records}
            answer = await self._client.call(method, path, body, harmless=op is not Op.CREATE)
        results = answer.written(list)
        if len(results) != len(part):
            raise LostAnswer(f"Salesforce answered {len(part)} records with {len(results)} results")
        version = before(answer, self._client.runtime.monotonic() - began)
        return [_receipt(change, result, version) for (change, _), result in zip(part, results, strict=True)]

    # -- more, as a job ----------------------------------------------------------------------------------------------

    async def _job(self, table: Table, step: Step, by: str | None, good: Sequence[Sent[Record]]) -> list[Receipt]:
        """A job is nothing until it is closed, so only what happens from then on can be lost; by then its id is journalled."""
        asked = {"object": table.name, "operation": OPERATIONS[step.op], "contentType": "CSV", "lineEnding": "LF"}
        if by is not None:
            asked["externalIdFieldName"] = by
        rows = [row_of(change, body) for change, body in good]
        names = names_of(rows)
        data = csv_of(names, ([_cell(row[n]) if n in row else "" for n in names] for row in rows), "\n")
        if len(data) > MAX_JOB_BYTES:
            raise SkipRecord(f"a job of {len(data):,} bytes; Salesforce takes {MAX_JOB_BYTES:,}")
        client = self._client
        job = (await client.call("POST", "jobs/ingest", asked, harmless=True)).json()
        path = f"jobs/ingest/{job['id']}"
        await client.call("PUT", f"{path}/batches", body=data, content_type="text/csv", harmless=True)
        if step.note is not None:
            await step.note(str(job["id"]))
        await self._close(path)
        try:
            state, results = await ended(client, path), await self._results(path)
        except OploopError as e:
            raise LostAnswer(f"Salesforce's job {job['id']} was begun, but cannot be asked after: {e.message}") from e
        if state["state"] != "JobComplete" and not int(state.get("numberRecordsProcessed") or 0):
            why = str(state.get("errorMessage") or state["state"])
            raise Refused(results[0][1], f"Salesforce's job ended as {state['state']}: {why}")
        waiting = [
            (change, tuple(_cell(row[n]) if n in row else "" for n in names))
            for (change, _), row in zip(good, rows, strict=True)
        ]
        receipts, left = _matched(waiting, names, results, _made(job, step.op))
        unsure = Outcome.UNKNOWN if step.op is Op.CREATE else Outcome.RETRY
        return receipts + [Receipt(c.number, unsure, c.remote_id, NO_RESULT) for c in left]

    async def settle(self, op: Op, job_id: str, changes: Sequence[Change]) -> list[Receipt]:
        """See App.settle: what a job did; one that was never closed did nothing, and shall not."""
        path = f"jobs/ingest/{job_id}"
        try:
            state = (await self._client.get(path)).json()
        except Refused as e:
            if e.status != 404:
                raise
            return [Receipt(c.number, Outcome.UNKNOWN, c.remote_id, FORGOTTEN) for c in changes]
        if state["state"] == "Open":
            await self._client.call("PATCH", path, {"state": "Aborted"}, harmless=True)
            return [Receipt(c.number, Outcome.RETRY, c.remote_id, "its job was never begun") for c in changes]
        state = await ended(self._client, path, patience=SETTLING)
        known = op in (Op.UPDATE, Op.REMOVE)
        names = ["Id"] if known else list(changes[0].key)
        waiting = [
            (c, (str(c.remote_id),) if known else tuple(_cell(written(c.key[n])) for n in names)) for c in changes
        ]
        receipts, left = _matched(waiting, names, await self._results(path), _made(state, op))
        idle = state["state"] != "JobComplete" and not int(state.get("numberRecordsProcessed") or 0)
        outcome = Outcome.RETRY if idle else Outcome.UNKNOWN
        return receipts + [Receipt(c.number, outcome, c.remote_id, NO_RESULT) for c in left]

    async def _results(self, path: str) -> list[tuple[str, Answer]]:
        get, csv_only = self._client.transport.request, {"Accept": "text/csv"}
        kinds = ("successfulResults", "failedResults", "unprocessedrecords")
        return [(k, await get("GET", self._client.path(f"{path}/{k}/"), headers=csv_only)) for k in kinds]

    async def _close(self, path: str) -> None:
        """Tell that the data is whole: from here on it is worked at. An answer that was lost is made up for by asking."""
        try:
            await self._client.call("PATCH", path, {"state": "UploadComplete"}, harmless=False)
        except LostAnswer:
            try:
                state = (await self._client.get(path)).json()["state"]
                if state == "Open":
                    await self._client.call("PATCH", path, {"state": "UploadComplete"}, harmless=False)
            except OploopError as e:  # the first one may be on its way
                raise LostAnswer(f"Salesforce does not tell whether the job at {path} was begun: {e.message}") from e


def _external_id(table: Table, step: Step) -> str:
    names = list(step.changes[0].key)
    if len(names) != 1 or names[0] not in table.external_ids:
        raise FixConfig(f"{', '.join(names)} is no external id of {table.name}, by which records could be upserted")
    return names[0]


def record_of(table: Table, change: Change) -> dict[str, Any]:
    """The fields to send for a change; ValueError with the reason when Salesforce could not take it."""
    if change.op in (Op.UPDATE, Op.REMOVE):
        if change.remote_id is None:
            raise ValueError("no id is known for it")
        if change.op is Op.REMOVE:
            return {}
    fields = table.object.fields
    wanted = dict(change.fields)
    if change.op in (Op.CREATE, Op.UPSERT):
        wanted = {**{k: v for k, v in change.key.items() if k in fields and not fields[k].read_only}, **wanted}
    body: dict[str, Any] = {"id": change.remote_id} if change.op is Op.UPDATE else {}
    for name, value in wanted.items():
        if name not in fields:
            raise ValueError(f"{table.name} has no field {name!r}")
        if name in table.create_only and change.op is Op.UPDATE:
            raise ValueError(f"{name} can be set only when a record is created")
        body[name] = written(value)
    return body


def written(value: Any) -> Any:
    """A Python value as Salesforce's JSON has it: times in UTC, several picked values with semicolons."""
    if isinstance(value, list | tuple | set | frozenset):
        return ";".join(str(v) for v in value) or None
    return value.isoformat() if isinstance(value, time) else plain(value, lambda at: zulu(at, "milliseconds"))


def _once_each(good: Sequence[Sent[Record]], by: str | None) -> Iterator[list[Sent[Record]]]:
    """The records in as few calls as let no external id stand in one twice, which Salesforce refuses for both."""
    rest = list(good)
    while rest:
        seen: set[Any] = set()
        part: list[Sent[Record]] = []
        later: list[Sent[Record]] = []
        for change, body in rest:
            who = change.number if by is None else str(body.get(by)).strip().lower()
            (later if who in seen else part).append((change, body))
            seen.add(who)
        yield part
        rest = later


def _receipt(change: Change, result: Mapping[str, Any], version: int | None) -> Receipt:
    if result.get("success"):
        return Receipt(change.number, Outcome.OK, str(result.get("id") or change.remote_id or ""), version=version)
    errors = [e for e in result.get("errors") or () if isinstance(e, Mapping)]
    codes = [str(e.get("statusCode") or e.get("errorCode") or "") for e in errors]
    text = "; ".join(map(error_text, errors)) or "refused without a reason"
    return _refusal(change, codes, text, version)


def _refusal(change: Change, codes: Sequence[str], text: str, version: int | None) -> Receipt:
    if change.op is Op.REMOVE and codes and all(c in GONE for c in codes):
        return Receipt(change.number, Outcome.OK, change.remote_id, version=version)
    passing = [c for c in codes if c in PASSING or (c == "DUPLICATE_VALUE" and change.op is Op.UPSERT)]
    # an upsert that met another of the same key in its making finds the record the next time
    outcome = Outcome.RETRY if codes and len(passing) == len(codes) else Outcome.REJECTED
    return Receipt(change.number, outcome, change.remote_id, text)


def error_of_job(text: str) -> tuple[str, str]:
    """(code, words) of a job's error: CODE:words:fields --"""
    found = re.fullmatch(r"([A-Z0-9_]+):(.*?)(?::[\w\s,]*)?(?:--)?", text.strip(), re.DOTALL)
    return (found[1], f"{found[1]}: {found[2]}") if found is not None else ("", text or "refused without a reason")


def _cell(value: Any) -> str:
    """A value as a job takes it: #N/A empties a field, where nothing leaves it as it is."""
    if value is None or value == "":
        return "#N/A"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def row_of(change: Change, body: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a job's row: its id, where it has one, beside its fields."""
    known = {"Id": change.remote_id} if change.op in (Op.UPDATE, Op.REMOVE) else {}
    return known | {k: v for k, v in body.items() if k != "id"}


def names_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(n for row in rows for n in row))


def _made(job: Mapping[str, Any], op: Op) -> int | None:
    """The org's clock when a job was made: what it wrote is no older. A removed record has no time that could be compared."""
    return None if op is Op.REMOVE else round(datetime.fromisoformat(str(job["createdDate"])).timestamp() * 1e6)


def _matched(
    waiting: Iterable[tuple[Change, tuple[str, ...]]],
    names: Sequence[str],
    results: Iterable[tuple[str, Answer]],
    version: int | None,
) -> tuple[list[Receipt], list[Change]]:
    """A receipt for each change that a job has a result for, and the changes that it has none for.

    Results come in any order and repeat what was sent, by which they are told apart; `names`: the columns to go by.
    """
    open_: dict[tuple[str, ...], list[Change]] = {}
    for change, who in waiting:
        open_.setdefault(who, []).append(change)
    receipts: list[Receipt] = []
    for kind, answer in results:
        for result in _rows_of(answer):
            changes = open_.get(tuple(result.get(n) or "" for n in names))
            if changes:
                receipts.append(_job_receipt(changes.pop(0), kind, result, version))
    return receipts, [c for left in open_.values() for c in left]


def _rows_of(answer: Answer) -> list[dict[str, str]]:
    """The results in an answer. LostAnswer where it cannot be read, as nobody knows what the job did."""
    try:
        return list(csv.DictReader(io.StringIO(answer.body.decode())))
    except (UnicodeDecodeError, csv.Error) as e:
        raise LostAnswer(f"the results of a job of Salesforce's cannot be read: {e}") from None


def _job_receipt(change: Change, kind: str, result: Mapping[str, str], version: int | None) -> Receipt:
    if kind == "successfulResults":
        return Receipt(change.number, Outcome.OK, result.get("sf__Id") or change.remote_id, version=version)
    if kind == "failedResults":
        code, text = error_of_job(result.get("sf__Error") or "")
        return _refusal(change, [code], text, version)
    return Receipt(change.number, Outcome.RETRY, change.remote_id, "the job ended before it came to this record")
