"""Bulk API 2.0 of the stand-in org: ingest and query jobs.

Source: Bulk API 2.0 and Bulk API Developer Guide (create a job, upload, close, job info, results; Sforce-Locator). A job is
worked at when it is closed, and shows as done after it was asked for `polls` times.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.salesforce.sandbox_org import Org, Refusal, Unreadable
from oploop.apps.salesforce.sandbox_soql import BadQuery, run
from oploop.apps.sandbox import json_response

#: Rows of a result page, if not asked otherwise.
PAGE = 50_000


@dataclass
class Job:
    """A job and what came of it: rows as (columns sent, result)."""

    info: dict[str, Any]
    data: str = ""
    done: list[tuple[dict[str, str], str, bool]] = field(default_factory=list)
    failed: list[tuple[dict[str, str], str, str]] = field(default_factory=list)
    unprocessed: list[dict[str, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    asked: int = 0


class Jobs:
    """The jobs of an org. `abort_after`: so many records of the next ingest job, after which it fails."""

    def __init__(self, org: Org, version: str) -> None:
        self._org, self._version = org, version
        self.jobs: dict[str, Job] = {}
        self.polls = 1
        self.abort_after: int | None = None

    def routes(self, base: str) -> list[web.RouteDef]:
        one = base + "/jobs/{kind:ingest|query}/{id}"
        return [
            web.post(f"{base}/jobs/ingest", self.make),
            web.post(f"{base}/jobs/query", self.make_query),
            web.get(one, self.show),
            web.patch(one, self.change),
            web.delete(one, self.remove),
            web.put(f"{base}/jobs/ingest/{{id}}/batches", self.upload),
            web.put(f"{base}/jobs/ingest/{{id}}/batches/", self.upload),
            web.get(f"{base}/jobs/ingest/{{id}}/{{what}}", self.results),
            web.get(f"{base}/jobs/ingest/{{id}}/{{what}}/", self.results),
            web.get(f"{base}/jobs/query/{{id}}/results", self.rows),
        ]

    def _new(self, told: Mapping[str, Any], state: str) -> Job:
        job_id, stamp = f"7505g{len(self.jobs):010d}AAA", self._org.stamp().replace("+00:00", ".000+0000")
        info = {
            "id": job_id,
            "createdById": self._org.me,
            "createdDate": stamp,
            "systemModstamp": stamp,
            "state": state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(self._version),
            "lineEnding": "LF",
            "columnDelimiter": "COMMA",
            **told,
        }
        self.jobs[job_id] = Job(info)
        return self.jobs[job_id]

    def _job(self, request: web.Request) -> Job:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            raise Missing
        return job

    # -- ingest ------------------------------------------------------------------------------------------------------

    async def make(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        name, operation, by = asked.get("object"), asked.get("operation"), asked.get("externalIdFieldName")
        if name not in self._org.records:
            raise Unreadable("INVALIDENTITY", f"Entity '{name}' is not supported by the Bulk API.")
        if operation not in ("insert", "update", "upsert", "delete", "hardDelete"):
            raise Unreadable("INVALIDJOB", f"InvalidJob : Unknown operation {operation}")
        if operation == "upsert" and not (by and self._org.fields[name].get(by, {}).get("externalId")):
            raise Unreadable(
                "INVALIDJOB", f"InvalidJob : Field name provided, {by} does not match an External ID for {name}"
            )
        job = self._new({k: v for k, v in asked.items() if v is not None}, "Open")
        url = f"services/data/v{self._version}/jobs/ingest/{job.info['id']}/batches"
        job.info |= {"jobType": "V2Ingest", "contentUrl": url}
        return json_response(job.info)

    async def upload(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.info["state"] != "Open":
            raise Unreadable("INVALIDJOBSTATE", f"Job state {job.info['state']} is not valid for an upload")
        job.data = (await request.read()).decode()
        return web.Response(status=201)

    async def change(self, request: web.Request) -> web.Response:
        job, state = self._job(request), orjson.loads(await request.read()).get("state")
        if state == "UploadComplete" and job.info["state"] == "Open":
            job.info["state"] = "UploadComplete"
            self._work(job)
        elif state == "Aborted" and job.info["state"] not in ("JobComplete", "Failed"):
            job.info["state"] = "Aborted"
        else:
            raise Unreadable("INVALIDJOBSTATE", f"Job state {job.info['state']} cannot become {state}")
        return json_response(job.info)

    def _work(self, job: Job) -> None:
        name, rows = job.info["object"], list(csv.DictReader(io.StringIO(job.data)))
        job.columns = list(rows[0]) if rows else []
        unknown = [c for c in job.columns if c != "Id" and c not in self._org.fields[name]]
        if unknown:
            job.info["errorMessage"] = f"InvalidBatch : Field name not found : {unknown[0]}"
            return
        for number, row in enumerate(rows):
            if self.abort_after is not None and number >= self.abort_after:
                job.unprocessed = rows[number:]
                job.info["errorMessage"] = "TooManyRetries : the job was retried too often"
                self.abort_after = None
                break
            try:
                job.done.append((row, *self._apply(job.info, row)))
            except Unreadable as e:
                job.failed.append((row, row.get("Id", ""), f"{e.args[0]}:{e.args[1]}:--"))
            except Refusal as e:
                job.failed.append((row, row.get("Id", ""), f"{e.code}:{e.message}:{' '.join(e.fields)} --"))

    def _apply(self, info: Mapping[str, Any], row: Mapping[str, str]) -> tuple[str, bool]:
        name, operation = info["object"], info["operation"]
        sent = {k: None if v == "#N/A" else v for k, v in row.items() if v != "" and k != "Id"}
        match operation:
            case "insert":
                return self._org.insert(name, sent), True
            case "upsert":
                return self._org.upsert(name, info["externalIdFieldName"], sent)
            case "update":
                return self._org.update(name, row.get("Id", ""), sent), False
            case _:
                return self._org.delete(name, row.get("Id", "")), False

    async def show(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.info["state"] in ("UploadComplete", "InProgress"):
            job.asked += 1
            failed = "errorMessage" in job.info
            job.info["state"] = "InProgress" if job.asked <= self.polls else "Failed" if failed else "JobComplete"
        counts = {
            "numberRecordsProcessed": len(job.done) + len(job.failed) + len(job.rows),
            "numberRecordsFailed": len(job.failed),
            "retries": 0,
            "totalProcessingTime": 100,
        }
        return json_response({**job.info, **counts})

    async def results(self, request: web.Request) -> web.Response:
        job, what = self._job(request), request.match_info["what"]
        if job.info["state"] not in ("JobComplete", "Failed", "Aborted"):
            raise Unreadable("INVALIDJOBSTATE", f"Results of a job in state {job.info['state']} are not there yet")
        match what:
            case "successfulResults":
                rows = [[i, str(made).lower(), *row.values()] for row, i, made in job.done]
                return _csv(["sf__Id", "sf__Created", *job.columns], rows)
            case "failedResults":
                return _csv(["sf__Id", "sf__Error", *job.columns], [[i, e, *row.values()] for row, i, e in job.failed])
            case "unprocessedrecords":
                return _csv(job.columns, [list(row.values()) for row in job.unprocessed])
        raise Missing

    async def remove(self, request: web.Request) -> web.Response:
        del self.jobs[self._job(request).info["id"]]
        return web.Response(status=204)

    # -- query -------------------------------------------------------------------------------------------------------

    async def make_query(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        try:
            answered = run(self._org, asked["query"], all_rows=asked["operation"] == "queryAll")
        except BadQuery as e:
            raise Unreadable(*e.args) from None
        job = self._new(
            {"operation": asked["operation"], "object": answered.name, "jobType": "V2Query"}, "UploadComplete"
        )
        job.rows, job.columns = answered.rows, answered.fields
        return json_response(job.info)

    async def rows(self, request: web.Request) -> web.Response:
        job = self._job(request)
        if job.info["state"] != "JobComplete":
            raise Unreadable("INVALIDJOBSTATE", f"Results of a job in state {job.info['state']} are not there yet")
        start, size = int(request.query.get("locator", "0")), int(request.query.get("maxRecords", PAGE))
        page, end = job.rows[start : start + size], start + size
        answer = _csv(job.columns, [[_cell(r[c]) for c in job.columns] for r in page])
        answer.headers["Sforce-Locator"] = str(end) if end < len(job.rows) else "null"
        answer.headers["Sforce-NumberOfRecords"] = str(len(page))
        return answer


class Missing(Exception):
    """No such job, record or address."""


def _csv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> web.Response:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return web.Response(body=out.getvalue().encode(), content_type="text/csv")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("+00:00", ".000Z") if isinstance(value, str) and value.endswith("+00:00") else str(value)
