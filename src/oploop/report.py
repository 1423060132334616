"""What a run did, as data: what `-o json` prints, what `status` keeps, what the command line renders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from oploop.activate.diff import SENT
from oploop.activate.plan import SyncPlan
from oploop.errors import OploopError
from oploop.model.base import ModelResult, ModelStatus
from oploop.verify import STATUSES, ReadBack

if TYPE_CHECKING:  # a plan needs neither
    from oploop.activate.delivered import Delivery
    from oploop.activate.undo import Left
    from oploop.extract import StreamResult

#: What becomes of rows that are not sent, beside those that are held.
ASIDE = ("kept", "missing", "gone", "waiting", "parked", "left", "seen")
SyncStatus = Literal["ok", "stopped", "failed", "planned", "nothing", "paused", "interrupted"]


@dataclass(slots=True)
class SyncReport:
    """One sync in a run: its plan, its delivery, the read-back right after, and why it stopped if it did."""

    sync: str
    object: str
    status: SyncStatus = "planned"
    plan: SyncPlan | None = None
    delivery: Delivery | None = None
    read_back: ReadBack | None = None
    stopped: list[str] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)  #: what would let it pass once, for the message
    error: OploopError | None = None
    left_reasons: list[tuple[str, int]] = field(default_factory=list)  #: of an undo: why something is left, how often
    left: list[Left] = field(default_factory=list)  #: of an undo: the first so many of these
    paused: str | None = None  #: why it sends nothing although nothing stops it
    not_equal: list[str] = field(default_factory=list)  #: `apply`: keys whose change is no longer the saved one
    saved: bool = False  #: `apply`: only what somebody has looked at is sent

    @property
    def ok(self) -> bool:
        return self.status in ("ok", "planned", "nothing", "paused", "interrupted") and not self.not_equal

    @property
    def not_begun(self) -> int:
        """Changes of an interrupted or broken-off delivery that stay for the next run."""
        if self.plan is None or self.status not in ("interrupted", "failed"):
            return 0
        sent = self.delivery
        return self.plan.changes - (sent.outcomes.total() + sent.left if sent is not None else 0)

    @property
    def deferred(self) -> int:
        """Changes that the quota left for a later run."""
        return (
            self.delivery.deferred_of(self.plan.changes) if self.plan is not None and self.delivery is not None else 0
        )

    def stop(self, why: str) -> None:
        """Keep it from being sent."""
        self.stopped.append(why)
        self.status = "stopped"

    def as_json(self) -> dict[str, Any]:
        """One sync of the JSON of `oploop run -o json`."""
        plan, sent = self.plan, self.delivery
        out: dict[str, Any] = {
            "sync": self.sync,
            "object": self.object,
            "status": self.status,
            "planned": {status: plan.diff.count(status) if plan else 0 for status in SENT},
            "held": plan.held if plan else 0,
            **{status: plan.diff.count(status) if plan else 0 for status in ASIDE},
            "delivered": sent.delivered if sent else 0,
            "rejected": sent.rejected if sent else 0,
            "unknown": sent.unknown if sent else 0,
            "failed": sent.failed if sent else 0,
            "left_meanwhile": sent.left if sent else 0,
            "not_begun": self.not_begun,
            "deferred": self.deferred,
            "calls": sent.calls if sent else 0,
            "seconds": sent.seconds if sent else 0.0,
        }
        if self.read_back is not None:
            out["read_back"] = {s: self.read_back.count(s) for s in STATUSES}
        if self.stopped:
            out["stopped"] = self.stopped
        if self.paused is not None:
            out["paused"] = self.paused
        if self.left_reasons:
            out["not_undone_reasons"] = [{"reason": r, "count": n} for r, n in self.left_reasons]
            out["not_undone"] = [{"key": x.key, "field": x.field, "reason": x.reason} for x in self.left]
        if sent is not None and sent.errors:
            out["errors"] = list(sent.errors)
        if self.error is not None:
            out["error"] = str(self.error)
        if self.not_equal:
            out["not_equal"] = self.not_equal
        return out


@dataclass(slots=True)
class StageReport:
    """How long a stage took and whether it went well."""

    stage: str
    status: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {"stage": self.stage, "status": self.status, "seconds": round(self.seconds, 3)}


@dataclass(slots=True)
class RunReport:
    """A whole run."""

    run_id: str
    environment: str
    stages: list[StageReport] = field(default_factory=list)
    extracted: list[StreamResult] = field(default_factory=list)
    models: list[ModelResult] = field(default_factory=list)
    unit_tests: int = 0  #: of the models; all have passed, or nothing would have been built
    verified: list[ReadBack] = field(default_factory=list)
    syncs: list[SyncReport] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)  #: deliveries of runs that died, taken into the ledger now
    seconds: float = 0.0
    sends: bool = True  #: False: this environment only plans
    undoes: tuple[str, ...] = ()  #: the runs that it took back
    interrupted: int | None = None  #: the signal that asked the run to stop

    @property
    def status(self) -> str:
        bad = [s for s in self.extracted if s.error is not None]
        failed = [m for m in self.models if m.status is ModelStatus.FAILED]
        rejected = [
            s for s in self.syncs if s.delivery and (s.delivery.rejected or s.delivery.unknown or s.delivery.failed)
        ]
        if self.interrupted is not None:
            return "interrupted"
        if bad or failed or rejected or any(s.status == "failed" for s in self.syncs):
            return "failed"
        return "stopped" if any(not s.ok for s in self.syncs) else "ok"

    @property
    def exit_code(self) -> int:
        if self.interrupted is not None:
            return 128 + self.interrupted
        return 0 if self.status == "ok" else 1

    def as_json(self) -> dict[str, Any]:
        """The JSON of `oploop run -o json`."""
        return {
            "run_id": self.run_id,
            "environment": self.environment,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "stages": [s.as_json() for s in self.stages],
            "extracted": {f"{s.app}.{s.stream}": stream_json(s) for s in self.extracted},
            "models": [model_json(m) for m in self.models],
            "unit_tests": self.unit_tests,
            "verified": [
                {"sync": v.sync, "run_id": v.run_id, **{s: v.count(s) for s in STATUSES}, "waiting": v.waiting}
                for v in self.verified
                if v.run_id is not None
            ],
            "syncs": [s.as_json() for s in self.syncs],
            "recovered": self.recovered,
            **({"undoes": list(self.undoes)} if self.undoes else {}),
        }


def read_back_text(verified: Sequence[ReadBack]) -> str | None:
    """What the apps hold now of what the last runs sent, in words; None where nothing was looked at."""
    looked = [v for v in verified if v.run_id is not None]
    if not looked:
        return None
    total: Counter[str] = Counter()
    for v in looked:
        total.update(v.counts)
    parts = [f"{total[s]:,} {s}" for s in ("confirmed", "drifted", "gone")]
    parts += [f"{total[s]:,} {s}" for s in ("altered", "ignored") if total[s]]
    waiting = sum(v.waiting for v in looked)
    return ", ".join(parts + ([f"{waiting:,} not seen yet"] if waiting else []))


def stream_json(s: StreamResult) -> dict[str, Any]:
    """One stream of `extracted`."""
    out: dict[str, Any] = {"rows": s.rows, "deleted": s.deleted, "seconds": round(s.seconds, 3)}
    if s.error is not None:
        out["error"] = str(s.error)
    return out


def model_json(m: ModelResult) -> dict[str, Any]:
    """One model of `models`."""
    checks = [
        {"check": c.name, "ok": c.ok, "blocking": c.blocking, "rows": c.rows, "message": c.message} for c in m.checks
    ]
    out: dict[str, Any] = {"model": m.model, "status": m.status.value, "checks": checks}
    if m.message:
        out["message"] = m.message
    return out
