"""The simulated app's server: its truth, its own log, and all that can happen to a call on its way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import format_datetime
from operator import itemgetter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from oploop.apps.transport import Answer, ConnectError, CutError, Request
from oploop.records import Op
from tests.fault.sim.clock import T0, Clock, timedelta
from tests.fault.sim.storage import Crash, Points
from tests.fault.sim.truth import US, Record, Truth, Written
from tests.fault.sim.wide import REFS
from tests.fault.sim.world import BAD, World, draw_value


@dataclass(slots=True)
class Weather:
    """How likely each mishap is for a call; `limit`: calls a second, beyond which it says 429."""

    mishaps: dict[str, float] = field(default_factory=dict)
    slow: float = 0.0
    item_lock: float = 0.0  #: one record of a batch is locked just now
    unnamed: float = 0.0  #: the answer leaves a record out
    meddle: float = 0.0  #: calls just before which somebody edits one of their records
    unread: float = 0.0  #: pages of listings that do not come, while all else does
    unheard: float = 0.0  #: questions after jobs that are not answered, while all else is


@dataclass(slots=True)
class Job:
    """Records that are made together, some time after the job was started."""

    op: str
    items: list[dict[str, Any]]
    turn: int = 0
    began: float | None = None
    ready: float | None = None  #: when it is done; None: it was not started
    results: list[dict[str, Any]] | None = None
    dropped: bool = False


CALM = Weather()


class Server(Truth):
    """The app: what calls do to what it holds. Called as a `transport.Sender`."""

    def __init__(self, world: World, clock: Clock, points: Points, note: Callable[[str], None]) -> None:
        super().__init__(world, clock, note)
        self.points = points
        self.rng = random.Random(f"server {world.seed}")
        self.received: list[tuple[int, str, dict[str, Any]]] = []  #: (turn, op, item) of all that reached it
        self.applied: set[str] = set()  #: intents that were done
        self.refused: set[str | None] = set()  #: keys of records that were refused, alone
        self.keys: dict[str, tuple[float, dict[str, Any]]] = {}
        self.weather = CALM
        self.burst = 0
        self._runs: list[tuple[str, int]] = []  #: (the last id before it, the run)
        self.meets: Callable[[Request], str | None] | None = None  #: what calls meet in a directed schedule
        self.hint: int | None = None  #: the seconds of its hints there
        self.behind: float | None = None  #: how far behind its listings are there, as a share of the lag
        self.jobs: dict[str, Job] = {}
        self._arriving: list[Callable[[], Any]] = []

    def live(self) -> list[Record]:
        self._work()
        return super().live()

    # -- a call's way ------------------------------------------------------------------------------------------------

    async def __call__(self, request: Request) -> Answer:
        self.points.reach(f"before {request.method} {urlsplit(request.url).path}")
        mishap = self._mishap() if self.meets is None else self.meets(request)
        listing = request.method == "GET" and "after" in request.url
        if self.weather.unheard and "?job=" in request.url and self.rng.random() < self.weather.unheard:
            mishap = "refused"
            self.happened["a job cannot be asked after"] += 1
        if self.weather.unread and listing and self.rng.random() < self.weather.unread:
            mishap = "refused"
        slow = self.rng.uniform(2, 59) if self.rng.random() < self.weather.slow else self.rng.uniform(0.01, 0.4)
        self.happened["a slow answer"] += slow > 1
        if mishap:
            self.happened[mishap] += 1
            self.happened["a read breaks off half-way"] += listing and "after=&" not in f"{request.url}&"
            self.note(f"call {request.method} {urlsplit(request.url).path} meets {mishap}")
        if mishap == "unreachable":
            await asyncio.sleep(slow)
            raise ConnectError("connection refused")
        arrive = self._arrival(request, mishap)
        self._arriving.append(arrive)
        await asyncio.sleep(slow / 2)
        self.points.alive()
        if arrive in self._arriving:
            self._arriving.remove(arrive)
        answer = arrive()
        await asyncio.sleep(slow / 2)
        if mishap in ("lost", "cut", "timeout"):
            await asyncio.sleep(60 if mishap == "timeout" else 0)
            self.points.reach("after a call without an answer")
            raise CutError("connection reset" if mishap != "timeout" else "timed out")
        self.points.reach("after a call")
        return answer

    def after_death(self) -> None:
        """What was on its way when the process died arrives, or does not."""
        for arrive in self._arriving:
            if self.rng.random() < 0.5:
                self.happened["a dead process's call arrives"] += 1
                arrive()
        self._arriving.clear()

    def _arrival(self, request: Request, mishap: str | None) -> Callable[[], Answer]:
        def arrive() -> Answer:
            items = orjson.loads(request.body or b"{}").get("items", [])
            if mishap == "refused" and any(i["intent"] in self.applied for i in items):
                return self._do(request)  # what an app took once it does not call wrong the second time
            if mishap == "refused":
                self._note_refused(items)
            if mishap in ("cut", "429", "429 hint", "500", "503 hint", "refused", "login"):
                return self._mishap_answer(request, mishap)
            done = self._do(request)
            if mishap == "500 done":
                return self._answer(request, 500, {"error": "internal"})
            if mishap == "garbled":
                return Answer(200, self._headers(), b"<html>", request)
            return done

        return arrive

    def _mishap(self) -> str | None:
        if self.burst > 0:
            self.burst -= 1
            return "500"
        dice = self.rng.random()
        for name, share in self.weather.mishaps.items():
            dice -= share
            if dice < 0:
                if name == "burst":
                    self.burst = self.rng.randint(2, 9)
                    self.happened["burst"] += 1
                    return "500"
                return name
        return None

    def _mishap_answer(self, request: Request, mishap: str) -> Answer:
        hint = {"retry-after": str(self.hint or self.rng.choice((1, 20, 120)))}
        match mishap:
            case "429":
                return self._answer(request, 429, {})
            case "429 hint":
                return self._answer(request, 429, {}, hint)
            case "503 hint":
                return self._answer(request, 503, {}, hint)
            case "refused":
                return self._answer(request, 422, {"error": "not like this"})
            case "login":
                return self._answer(request, 401, {"error": "who are you"})
            case _:
                return self._answer(request, 500, {"error": "internal"})

    def _headers(self) -> dict[str, str]:
        return {"date": format_datetime(T0 + timedelta(seconds=int(self.clock.seconds)), usegmt=True)}

    def _answer(self, request: Request, status: int, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return Answer(status, {**self._headers(), **(headers or {})}, orjson.dumps(body), request)

    # -- what it can do ----------------------------------------------------------------------------------------------

    def _do(self, request: Request) -> Answer:
        asked = {k: v[0] for k, v in parse_qs(urlsplit(request.url).query).items()}
        self._work()
        if "do" in asked:
            return self._answer(request, 200, self._job(asked["do"], orjson.loads(request.body or b"{}")))
        if "job" in asked:
            job = self.jobs[asked["job"]]
            return self._answer(request, 200, {"state": self._state(job), "results": job.results})
        if request.method == "POST":
            return self._write(request, orjson.loads(request.body or b"{}"))
        if "ids" in asked:
            return self._answer(request, 200, {"records": self._shown(asked["ids"].split(","), 0.0)})
        return self._answer(request, 200, self._page(asked))

    def _job(self, do: str, body: dict[str, Any]) -> dict[str, Any]:
        """A job is made, started, or dropped before it was started."""
        if do == "job":
            name = f"j{len(self.jobs) + 1}"
            self.jobs[name] = Job(body["op"], body["items"])
            return {"job": name}
        job = self.jobs[body["job"]]
        job.dropped = job.dropped or do == "drop"
        if do == "start" and job.ready is None and not job.dropped:
            job.began = self.clock.seconds
            job.ready, job.turn = self.clock.seconds + self.rng.choice((0.0, 20.0, 100.0, 700.0, 5000.0)), self.turn
            self.received += [(self.turn, job.op, item) for item in job.items]
            self.happened["slow job"] += job.ready > self.clock.seconds
        return {"job": body["job"]}

    def _state(self, job: Job) -> str:
        if job.ready is None:
            return "open"
        if job.results is None:
            return "works"
        return "done" if self.clock.seconds - job.ready <= self.world.behaviour.job_kept else "forgotten"

    def at_work(self) -> bool:
        """Whether some job is not over. Those whose time has come are, also where nobody asks this app for anything any more."""
        self._work()
        return any(self._state(job) == "works" for job in self.jobs.values())

    def _work(self) -> None:
        """Do the jobs whose time has come, each as of then, though nobody looked; they were sent by the turn that started them."""
        due = [(job.ready, job) for job in self.jobs.values() if job.ready is not None and job.results is None]
        for ready, job in sorted(due, key=itemgetter(0)):
            if ready > self.clock.seconds:
                break
            now = self.turn, self.clock.seconds
            self.turn, self.clock.seconds = job.turn, ready
            job.results = [self._one(job.op, item) for item in job.items]
            self.rng.shuffle(job.results)
            self.turn, self.clock.seconds = now

    def _page(self, asked: dict[str, str]) -> dict[str, Any]:
        """A page of the listing by id; each record as it was at some moment within the lag."""
        if self.world.behaviour.history:
            return self._page_of_changes(asked)
        ids = sorted(i for i in self.records if i > asked.get("after", ""))
        page = ids[: self.world.behaviour.page]
        shown = self._shown(page, self.world.behaviour.lag)
        return {"records": shown, "next": page[-1] if len(ids) > len(page) else None}

    def _page_of_changes(self, asked: dict[str, str]) -> dict[str, Any]:
        """A page of all that records ever were, the newest first."""
        past = [(f"{v:016}:{r.id}", r.id, v, now) for r in self.records.values() for _, v, now in r.past]
        left = sorted((p for p in past if p[0] < (asked.get("after") or "~")), reverse=True)
        page = left[: self.world.behaviour.page]
        shown = [{"id": id, "version": v, "deleted": now is None, **(now or {})} for _, id, v, now in page]
        if self.stamped:
            shown = [{**r, "stamp": str(r["version"])} for r in shown]
        return {"records": shown, "next": page[-1][0] if len(left) > len(page) else None}

    @property
    def stamped(self) -> bool:
        """Whether its records tell their state by a field of its own."""
        update = self.world.object.operations.get(Op.UPDATE)
        return update is not None and update.condition is not None and update.condition.stamp is not None

    def _shown(self, ids: list[str], lag: float) -> list[dict[str, Any]]:
        shown = []
        for id in ids:
            behind = (self.rng.choice((0.0, 0.3, 0.999)) if self.behind is None else self.behind) * lag
            found = self.records[id].as_of(self.clock.seconds - behind) if id in self.records else None
            if found is None or found[1] is not self.records[id].now:
                self.happened["a read is behind"] += id in self.records
            if found is not None:
                version, values = found
                stamp = {"stamp": str(version)} if self.stamped else {}
                shown.append({"id": id, "version": version, "deleted": values is None, **(values or {}), **stamp})
        return shown

    def begins(self, turn: int) -> None:
        """A run of ours begins: calls with ids that are made from now on are its."""
        self.turn = turn
        self._runs.append((self.clock.last_id, turn))

    def _write(self, request: Request, body: dict[str, Any]) -> Answer:
        """A call is of the run that journalled it, also when a later one makes it once more."""
        now, step = self.turn, str(body["items"][0]["intent"]).split(":")[0]
        self.turn = max((turn for last, turn in self._runs if last < step), default=now)
        try:
            return self._written(request, body)
        finally:
            self.turn = now

    def _written(self, request: Request, body: dict[str, Any]) -> Answer:
        op, items = body["op"], body["items"]
        self.received += [(self.turn, op, item) for item in items]
        if self.weather.meddle and self.rng.random() < self.weather.meddle:
            self._meddle(items)
        if self.world.behaviour.whole and len(items) > 1 and any(_bad(i) for i in items):
            self.happened["a batch is refused whole"] += 1
            return self._answer(request, 422, {"error": "a record is bad"})
        self._note_refused([i for i in items if _bad(i)][:1])
        if len(items) == 1 and _bad(items[0]) and self.rng.random() < 0.5:
            return self._answer(request, 422, {"error": "the record is bad"})
        results = [self._one(op, item) for item in items]
        if len(results) > 1:
            results = [r for r in results if self.rng.random() >= self.weather.unnamed]
        self.happened["a record is not named"] += len(results) < len(items)
        self.happened["a part of a batch fails"] += 0 < sum("error" in r for r in results) < len(results)
        in_order = list(results)
        self.rng.shuffle(results)
        self.happened["answers out of order"] += results != in_order
        return self._answer(request, 200, {"results": results})

    def _meddle(self, items: list[dict[str, Any]]) -> None:
        """Somebody edits one of the records just before we do."""
        item = self.rng.choice(items)
        record = self.records.get(item.get("id") or "")
        name = self.rng.choice(self.world.fields)
        if record is not None and record.now is not None and name not in REFS:
            self.happened["people edit between look and write"] += 1
            self.person_edits(record.id, {name: draw_value(self.rng, name)})

    def _note_refused(self, items: list[dict[str, Any]]) -> None:
        if len(items) == 1:
            self.refused.add(self.world.key(items[0]["key"]))

    def _one(self, op: str, item: dict[str, Any]) -> dict[str, Any]:
        intent, n = item["intent"], item["n"]
        kept = self.keys.get(intent)
        if kept is not None and self.clock.seconds - kept[0] <= self.world.behaviour.forget:
            self.happened["a call is known by its key"] += 1
            return kept[1]
        if _bad(item):
            self._note_refused([item])
            return {"n": n, "error": "the record is bad"}
        if self.rng.random() < self.weather.item_lock:
            self.happened["a record is locked"] += 1
            return {"n": n, "error": "locked", "later": True}
        record = self._find(op, item)
        gone = self.records.get(item.get("id") or "")
        if record is None and gone is not None and op in ("remove", "archive"):  # it is as was wanted
            record = gone
        if record is None and op in ("update", "remove", "archive"):
            self._note_refused([item])
            return {"n": n, "error": "no such record"}
        if item.get("as_read") and record is not None and _changed(record, item["as_read"]):
            self.happened["an update is refused, as the record was changed"] += 1
            return {"n": n, "changed": True}
        if op in ("remove", "archive"):
            assert record is not None
            self.delete(record, US, item["key"], op)
        else:
            record = record or self.new(item["fields"], US)
            new = not record.past
            self.put(record, item["fields"], US, "create" if new else "update", item["key"])
        self.applied.add(intent)
        result = {"n": n, "version": record.version}
        if self.world.behaviour.tells_ids:
            result["id"] = record.id
        if body_keeps(self.world, op):
            self.keys[intent] = (self.clock.seconds, result)
        return result

    def _find(self, op: str, item: dict[str, Any]) -> Record | None:
        if op == "upsert":
            wanted = self.world.key(item["key"])
            found = [r for r in self.live() if self.world.key((r.now or {}).get("code")) == wanted]
            return found[0] if found else None
        record = self.records.get(item.get("id") or "")
        if record is None and self.world.stream is None and op != "create":  # known by its key alone
            made = [w.id for w in self.log if w.who == US and w.key == self.world.key(item["key"])]
            record = self.records[made[-1]] if made else None
        return record if record is not None and record.now is not None else None


def _sorted(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def body_keeps(world: World, op: str) -> bool:
    """Whether the app remembers an idempotency key of this operation."""
    operation = next((o for name, o in world.object.operations.items() if name.value == op), None)
    return operation is not None and operation.ttl is not None


__all__ = ["CALM", "US", "Crash", "Record", "Server", "Weather", "Written"]


def _changed(record: Record, as_read: dict[str, Any]) -> bool:
    """Whether a record is no longer as it was read."""
    if "stamp" in as_read:
        return str(record.version) != as_read["stamp"]
    return any(_sorted((record.now or {}).get(k)) != _sorted(v) for k, v in as_read.items())


def _bad(item: dict[str, Any]) -> bool:
    return any(isinstance(v, str) and BAD in v for v in item["fields"].values())
