"""The Zendesk sandbox's background jobs: queued, worked off after a while, results in any order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oploop.apps.zendesk.sandbox_store import Refusal
from oploop.runtime import Runtime

MAX_JOBS = 30

#: What a job does with one item: the result when it went well; Refusal otherwise.
Work = Callable[[Any], dict[str, Any]]


@dataclass(slots=True)
class Job:
    """One background job, as `job_statuses` shows it."""

    id: str
    kind: str
    items: Sequence[Any]
    work: Work
    failure: str  #: the code that its failed results carry
    status: str = "queued"
    message: str | None = None
    progress: int | None = None
    results: list[dict[str, Any]] | None = None

    def show(self, origin: str) -> dict[str, Any]:
        """The job's JSON."""
        return {
            "id": self.id,
            "job_type": self.kind,
            "url": f"{origin}/api/v2/job_statuses/{self.id}.json",
            "total": len(self.items),
            "progress": self.progress,
            "status": self.status,
            "message": self.message,
            "results": self.results,
        }


@dataclass(slots=True)
class Jobs:
    """All jobs of a sandbox. `endings`: how the next jobs end instead of `completed`, and after how many items."""

    runtime: Runtime
    seconds: float
    shuffle: random.Random = field(default_factory=lambda: random.Random(7))
    all: dict[str, Job] = field(default_factory=dict)
    endings: deque[tuple[str, int]] = field(default_factory=deque)
    peak: int = 0  #: most jobs that were queued or running at once
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def clear(self) -> None:
        """Forget all jobs."""
        self.all.clear()
        self.endings.clear()
        self.peak = 0

    def submit(self, kind: str, items: Sequence[Any], work: Work, failure: str) -> Job:
        """Queue a job; Refusal (429) when 30 are queued or running already."""
        active = sum(job.status in ("queued", "working") for job in self.all.values())
        if active >= MAX_JOBS:
            raise Refusal(429, "TooManyJobs", f"No more than {MAX_JOBS} jobs may be queued or running")
        self.peak = max(self.peak, active + 1)
        job = Job(f"{len(self.all) + 1:032x}", kind, items, work, failure)
        self.all[job.id] = job
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, job: Job) -> None:
        await self.runtime.sleep(self.seconds / 2)
        job.status, job.progress = "working", 0
        await self.runtime.sleep(self.seconds / 2)
        status, until = self.endings.popleft() if self.endings else ("completed", len(job.items))
        results = [self._one(job, index, item) for index, item in enumerate(job.items[:until])]
        self.shuffle.shuffle(results)
        job.results, job.progress, job.message = results, len(results), f"{status.capitalize()} in the sandbox"
        job.status = status

    @staticmethod
    def _one(job: Job, index: int, item: Any) -> dict[str, Any]:
        try:
            result = job.work(item)
        except Refusal as e:
            code = "NotFound" if e.status == 404 else job.failure
            return {"index": index, "error": code, "details": e.sentence(), "success": False}
        return {**result, "index": index} if result.keys() == {"id"} else result
