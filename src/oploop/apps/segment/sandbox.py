"""A stand-in for Segment: the tracking API, and the logs that its storage destination would leave.

It answers as the documents say (200 to nearly all, 400 to what is too large or no JSON) and lands what it accepts as
gzipped line-JSON in Segment's layout, with the fields that Segment adds. What Segment drops without a word is dropped
here too, and kept in `dump("dropped")` with the reason. Source: segment.com/docs, "HTTP API source", "Spec: Common
Fields" (timestamps), "AWS S3 destination" (layout).
"""

from __future__ import annotations

import base64
import gzip
import random
import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from oploop.apps.documents import zulu
from oploop.apps.sandbox import Sandbox, json_response
from oploop.apps.segment.objects import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES, MAX_MESSAGE_ID
from oploop.apps.segment.streams import STREAMS
from oploop.runtime import Runtime

SOURCE_ID = "kGx2sandbox"
DEDUP_SECONDS = 24 * 3600
FLUSH_EVERY = 1000
LOAD_FILE_EVENTS = 12_500
_NESTED = {"track": "properties", "page": "properties", "screen": "properties", "identify": "traits", "group": "traits"}


class SegmentSandbox(Sandbox):
    """Segment on loopback. `logs`: the folder in which log files land; without one events stay in memory.

    Besides the tracking API and what every sandbox has: POST /_sandbox/flush writes what waits as a log file now.
    """

    title = "Segment"

    def __init__(
        self,
        *,
        write_key: str = "wk_test_oploop",
        logs: Path | None = None,
        runtime: Runtime | None = None,
        keep_log: bool = True,
        flush_every: int = FLUSH_EVERY,
    ) -> None:
        super().__init__(runtime=runtime, keep_log=keep_log)
        self.write_key = write_key
        self.logs = Path(logs) if logs is not None else None
        self.flush_every = flush_every
        self._waiting: list[dict[str, Any]] = []
        self._landed: list[dict[str, Any]] = []  # only without a folder
        self._seen: OrderedDict[str, datetime] = OrderedDict()
        self._dropped: list[dict[str, Any]] = []
        self._loaded = 0
        self._files = 0

    @classmethod
    def default_config(cls, url: str, logs: Path | str) -> dict[str, str]:
        """The app's block for this sandbox."""
        return {"base_url": url, "write_key": "wk_test_oploop", "logs": str(logs)}

    def routes(self) -> list[web.RouteDef]:
        """The six calls and their batch."""
        singles = [web.post(f"/v1/{kind}", self._single) for kind in STREAMS]
        return [*singles, web.post("/v1/batch", self._batch), web.post("/_sandbox/flush", self._post_flush)]

    def stop(self) -> None:
        """Stop serving, and leave nothing unwritten."""
        super().stop()
        self.flush()

    # -- the tracking API --------------------------------------------------------------------------------------------

    async def _single(self, request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > MAX_EVENT_BYTES:
            return _bad("Exceeds max message size")
        event = _parsed(body)
        if event is None:
            return _bad("malformed JSON")
        kind = request.path.rpartition("/")[2]
        self._accept(request, event, [{**event, "type": kind}])
        return json_response({"success": True})

    async def _batch(self, request: web.Request) -> web.Response:
        body = await request.read()
        if len(body) > MAX_BATCH_BYTES:
            return _bad("Exceeds max request size")
        envelope = _parsed(body)
        if envelope is None or not isinstance(envelope.get("batch"), list):
            return _bad("malformed JSON")
        events = envelope["batch"]
        if any(len(orjson.dumps(e)) > MAX_EVENT_BYTES for e in events):
            return _bad("Exceeds max message size")
        if len(events) > MAX_BATCH_EVENTS:  # 200, and dropped: as the document says
            self._drop(events, f"more than {MAX_BATCH_EVENTS} events in a batch")
        else:
            self._accept(request, envelope, events)
        return json_response({"success": True})

    def _accept(self, request: web.Request, envelope: dict[str, Any], events: list[Any]) -> None:
        key = _basic_user(request.headers.get("Authorization")) or envelope.get("writeKey")
        if key != self.write_key:  # answered 200 as well, and no source gets it
            self._drop(events, "wrong write key")
            return
        for event in events:
            reason = self._reason_to_drop(event)
            if reason is None:
                self._waiting.append(self._enriched(event, envelope))
            else:
                self._drop([event], reason)
        if len(self._waiting) >= self.flush_every:
            self.flush()

    def _reason_to_drop(self, event: Any) -> str | None:
        if not isinstance(event, dict) or event.get("type") not in STREAMS:
            return "no known type"
        if not event.get("userId") and not event.get("anonymousId"):
            return "no_user_anon_id"
        if event["type"] == "track" and not event.get("event"):
            return "no event name"
        message = event.get("messageId")
        if message is None:
            return None
        if not isinstance(message, str) or len(message) > MAX_MESSAGE_ID:
            return "messageId is too long"
        return "duplicate messageId" if self._is_repeat(message) else None

    def _is_repeat(self, message: str) -> bool:
        now = self.now()
        while self._seen and next(iter(self._seen.values())) < now - timedelta(seconds=DEDUP_SECONDS):
            self._seen.popitem(last=False)
        if message in self._seen:
            return True
        self._seen[message] = now
        return False

    def _drop(self, events: Iterable[Any], reason: str) -> None:
        self._dropped += [{"reason": reason, "event": event} for event in events]

    def _enriched(self, event: dict[str, Any], envelope: dict[str, Any]) -> dict[str, Any]:
        """The event as Segment passes it on: four timestamps, the library, where it came from."""
        received = self.now()
        sent = _instant(event.get("sentAt") or envelope.get("sentAt"))
        original = _instant(event.get("timestamp"))
        corrected = received - (sent - original) if sent and original else original or received
        context = {**_mapping(envelope.get("context")), **_mapping(event.get("context"))}
        context.setdefault("library", {"name": "unknown", "version": "unknown"})
        nested = _NESTED.get(event["type"])
        return {
            **{k: v for k, v in event.items() if k != "writeKey"},
            **({nested: event.get(nested) or {}} if nested else {}),
            "anonymousId": event.get("anonymousId"),
            "channel": "server",
            "context": context,
            "integrations": {**_mapping(envelope.get("integrations")), **_mapping(event.get("integrations"))},
            "messageId": event.get("messageId") or f"api-{self._runtime.new_id()}",
            "originalTimestamp": zulu(original or received, "milliseconds"),
            "projectId": SOURCE_ID,
            "receivedAt": zulu(received, "milliseconds"),
            "sentAt": zulu(sent, "milliseconds") if sent else None,
            "timestamp": zulu(corrected, "milliseconds"),
            "userId": event.get("userId"),
            "version": 2,
            "writeKey": self.write_key,
        }

    # -- the logs ----------------------------------------------------------------------------------------------------

    async def _post_flush(self, request: web.Request) -> web.Response:
        return json_response({"files": [str(p) for p in self.flush()]})

    def flush(self) -> list[Path]:
        """Write what waits as log files; their paths."""
        events, self._waiting = self._waiting, []
        return self._land(events, per_file=max(self.flush_every, 1))

    def _land(self, events: list[dict[str, Any]], per_file: int) -> list[Path]:
        if self.logs is None:
            self._landed += events
            return []
        days: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for event in events:
            days[_day_ms(event["receivedAt"])].append(event)
        return [
            self._write(day, part[at : at + per_file])
            for day, part in sorted(days.items())
            for at in range(0, len(part), per_file)
        ]

    def _write(self, day: int, events: list[dict[str, Any]]) -> Path:
        assert self.logs is not None
        folder = self.logs / SOURCE_ID / str(day)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{day}.{self._files:06d}.{self._runtime.new_id().lower()}.gz"
        self._files += 1
        packed = gzip.compress(b"".join(orjson.dumps(e, option=orjson.OPT_APPEND_NEWLINE) for e in events), 1, mtime=0)
        part = path.with_name(f".{path.name}.part")  # a reader never sees half a file
        part.write_bytes(packed)
        part.rename(path)
        return path

    # -- the store ---------------------------------------------------------------------------------------------------

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """Land finished events ("events": of any type; "track", "page", ...: of that type) as log files at once.

        Fields that are missing are filled in. As in life, they are a little out of order, and one in a thousand comes
        twice (in a later file, where there is one).
        """
        if kind != "events" and kind not in STREAMS:
            super().load(kind, records)
        typed = {} if kind == "events" else {"type": kind}
        events = [self._finished({**record, **typed}) for record in records]
        events.sort(key=_received)
        chance = random.Random(len(events))
        events += events[chance.randrange(1000) :: 1000] if len(events) >= 1000 else []
        for at in range(0, len(events), 200):
            part = events[at : at + 200]
            chance.shuffle(part)
            events[at : at + 200] = part
        self._land(events, LOAD_FILE_EVENTS)

    def _finished(self, event: dict[str, Any]) -> dict[str, Any]:
        self._loaded += 1
        at = event.get("timestamp") or event.get("receivedAt") or zulu(self.now(), "milliseconds")
        kind = event["type"]
        nested = _NESTED.get(kind)
        filled = {
            "anonymousId": None,
            "channel": "server",
            "context": {"library": {"name": "analytics-python", "version": "2.3.3"}},
            "integrations": {},
            "messageId": f"load-{self._loaded:08d}",
            "originalTimestamp": at,
            "projectId": SOURCE_ID,
            "receivedAt": at,
            "sentAt": at,
            "timestamp": at,
            "userId": None,
            "version": 2,
        }
        if nested:
            filled[nested] = {}
        filled.update(event)
        return filled

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """All landed and waiting events ("events", or of one type), or "dropped" ones with the reason."""
        if kind == "dropped":
            return list(self._dropped)
        if kind != "events" and kind not in STREAMS:
            return super().dump(kind)
        events = [*self._landed, *self._on_disk(), *self._waiting]
        return [e for e in events if kind in ("events", e["type"])]

    def _on_disk(self) -> list[dict[str, Any]]:
        if self.logs is None:
            return []
        paths = sorted(self.logs.glob(f"{SOURCE_ID}/*/*.gz"))
        return [orjson.loads(line) for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]

    def reset(self) -> None:
        """Empty everything, the log files too."""
        self._waiting, self._landed, self._dropped = [], [], []
        self._seen.clear()
        self._loaded = self._files = 0
        if self.logs is not None:
            shutil.rmtree(self.logs / SOURCE_ID, ignore_errors=True)


def _bad(message: str) -> web.Response:
    return json_response({"success": False, "message": message}, status=400)


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _basic_user(header: str | None) -> str | None:
    """The user name of basic auth, which is the write key."""
    if header is None or not header.startswith("Basic "):
        return None
    try:
        return base64.b64decode(header[6:], validate=True).decode().partition(":")[0]
    except ValueError:
        return None


def _instant(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at.replace(tzinfo=at.tzinfo or UTC) if at is not None else None


def _received(event: dict[str, Any]) -> str:
    return str(event["receivedAt"])


def _day_ms(received: str) -> int:
    """The UTC day of an ISO instant, in milliseconds since 1970."""
    at = _instant(received)
    seconds = int(at.timestamp()) if at is not None else 0
    return seconds // 86400 * 86_400_000
