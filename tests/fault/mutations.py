"""The engine broken on purpose, in one place at a time: does the simulation see it?

python -m tests.fault.mutations                   which seed, from 0 on (10,000 for what only wider worlds have), finds each
python -m tests.fault.mutations --write           the same, noted in mutations.json and docs/how-it-is-proved.md
python -m tests.fault.mutations --only NAME --seed 7    one, with the trace
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from oploop.activate import (
    awaited,
    conflicts,
    diff,
    finishing,
    folding,
    found,
    jobs,
    leaving,
    ledger,
    smooth,
    spreading,
    sql,
    volumes,
)
from oploop.activate import deliver as delivering
from oploop.activate.deliver import Deliverer
from oploop.activate.journal import Journal
from oploop.apps.transport import Transport
from oploop.extract import cursors, load, merge
from oploop.extract.load import Loader
from oploop.project import Conflict, Mode, OnLeave
from oploop.records import Op, Operation, Outcome, Receipt, Replay, Step
from oploop.state import JournalStep
from tests.fault import directed
from tests.fault.sim import check, schedule
from tests.fault.sim import world as worlds
from tests.fault.sim.app import SimApp
from tests.fault.sim.ground import Files, Ground
from tests.fault.sim.world import World
from tests.fault.soak import IN_MEMORY

HERE = Path(__file__).parent
NOTED = HERE / "mutations.json"
PAGE = HERE.parent.parent / "docs" / "how-it-is-proved.md"
BEGIN, END = "<!-- mutations -->", "<!-- /mutations -->"
#: Seeds that are tried before a mutation counts as not found.
MOST = 300

Break = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way in which the engine is wrong."""

    name: str
    says: str
    broken: Break
    bites: Callable[[World], bool] = lambda world: True  #: other worlds need not be played to know that they hold
    start: int = 0  #: the first seed that is tried

    @property
    def directed(self) -> str | None:
        """A schedule of `directed.py` that shows it, where those of chance seldom do."""
        return DIRECTED.get(self.name)


@dataclass(frozen=True, slots=True)
class Found:
    """The seed whose schedule shows it, or the name of one written by hand, and the check that does."""

    seed: int | str
    check: str
    message: str


# -- ways to break something ------------------------------------------------------------------------------------------


def _instead(owner: Any, name: str, new: Any) -> Break:
    return lambda: patch.object(owner, name, new)


@contextlib.contextmanager
def _all_of(*breaks: Break) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for b in breaks:
            stack.enter_context(b())
        yield


# -- the journal and its fold -----------------------------------------------------------------------------------------


_record = Journal.record


async def _only_receipts(self: Journal, step: JournalStep) -> None:
    if step.ended_at is not None:
        await _record(self, step)


async def _no_exceptions(self: Journal, step: JournalStep) -> None:
    await _record(self, replace(step, exceptions=[]))


async def _no_ids(self: Journal, step: JournalStep) -> None:
    await _record(self, replace(step, ids=[]))


def _taken_as_sent(n: int, s: JournalStep) -> tuple[object, ...]:
    return _step_row(n, replace(s, outcome=s.outcome or Outcome.OK))


_step_row = spreading._step_row


def _piecemeal() -> AbstractContextManager[Any]:
    """A fold whose statements are committed one by one."""
    real = folding.fold

    def fold(warehouse: Any, *args: Any) -> None:
        with patch.object(type(warehouse), "transaction", lambda self: contextlib.nullcontext()):
            real(warehouse, *args)

    return patch.object(folding, "fold", fold)


def _nothing_lost(*args: Any) -> list[JournalStep]:
    return []


def _no_rejections(warehouse: Any, begun: Any, now: Any) -> None:
    _park(warehouse, begun, now)
    warehouse.execute("DELETE FROM oploop.parked WHERE reason = 'rejected'")


_park = folding._park

# -- deliveries -------------------------------------------------------------------------------------------------------


def _steps_by_content(self: Deliverer) -> Iterator[Step]:
    for step in _steps(self):
        text = repr([(c.key, c.fields) for c in step.changes])
        yield replace(step, id=hashlib.sha256(text.encode()).hexdigest()[:12])


_steps = Deliverer.steps


async def _in_order(self: Any, step: Step) -> Sequence[Receipt]:
    receipts = await self._real_send(step)
    return [replace(r, number=c.number) for r, c in zip(receipts, step.changes, strict=False)]


def _by_place() -> AbstractContextManager[Any]:
    return _all_of(
        lambda: patch.object(SimApp, "_real_send", SimApp.send, create=True),
        lambda: patch.object(SimApp, "send", _in_order),
    )


async def _always_again(self: Transport, method: str, path: str, **more: Any) -> Any:
    return await _request(self, method, path, **{**more, "idempotent": True})


_request = Transport.request

# -- what a read tells ------------------------------------------------------------------------------------------------


def _no_lag() -> AbstractContextManager[Any]:
    """Reads count as if they showed all that was done before they began."""
    real = diff.look

    def look(*args: Any, **more: Any) -> Any:
        return replace(real(*args, **more), lag=0.0)

    return _all_of(
        lambda: patch.object(diff, "look", look),
        lambda: patch.object(diff, "_vouched", lambda w, app, stream: diff._read_began(w, app, stream)),
    )


def _any_read_is_news() -> AbstractContextManager[Any]:
    """A version before that of our own write counts as news to it."""
    real = sql.superseded

    def superseded(known: sql.Known) -> str:
        return real(known).replace("__version >= __receipt AND ", "")

    return patch.object(sql, "superseded", superseded)


def _always_complete(self: Loader, part: Any) -> int:
    part.batches[-1] = replace(part.batches[-1], complete=True)
    return _note(self, part)


_note = Loader._note


def _absent_at_once(warehouse: Any, app: str, stream: Any, began: Any) -> int:
    return _mark_absent(warehouse, app, replace(stream, lag=0.0), began)


_mark_absent = merge.mark_absent


def _held_as_left() -> AbstractContextManager[Any]:
    real = leaving._left_base

    def base(*args: Any) -> str:
        text = real(*args).replace("FROM model m WHERE ", "FROM judged m WHERE m.__bad = 0 AND ")
        return text.replace("FROM base b WHERE ", "FROM judged b WHERE b.__bad = 0 AND ")

    return patch.object(leaving, "_left_base", base)


def _lags(world: World) -> bool:
    return world.behaviour.lag > 0 and world.stream is not None


def _tugs(world: World) -> bool:
    deaf = {name for name, quirk in world.behaviour.quirks.items() if quirk == "deaf"}
    return any(m.field in deaf and (m.conflict or world.sync.conflict) is Conflict.OURS for m in world.sync.fields)


def _leaves(world: World) -> bool:
    return world.sync.on_leave is not OnLeave.KEEP or world.sync.mode is Mode.MIRROR


def _known_for_minutes(world: World) -> bool:
    """Records cannot be read, and keys are soon forgotten."""
    create = world.object.operations.get(Op.CREATE)
    by_key = create is not None and create.replay is Replay.KEY
    return world.stream is None and by_key and world.behaviour.forget < 3600


#: What seldom shows by chance, and the schedule written by hand that shows it.
DIRECTED = {
    "piecemeal-fold": "dies anywhere in a fold",
    "key-for-ever": "a key is forgotten meanwhile",
    "key-by-content": "there and back",
    "absent-at-once": "a new record is listed late",
    "half-is-whole": "a listing breaks off",
    "any-version": "an old change comes last",
    "older-is-news": "a listing is behind",
    "clock-set-back": "the clock is set back",
    "unconditional": "somebody comes between",
    "job-is-over": "a job goes on unheard",
    "job-again": "a job changes records late",
    "waits-unsaid": "two wait for each other",
}
MUTATIONS = [
    Mutation("no-intent", "calls are made before they are in the journal", _instead(Journal, "record", _only_receipts)),
    Mutation(
        "intent-is-receipt",
        "a call that was begun counts as done, without its receipt",
        _instead(spreading, "_step_row", _taken_as_sent),
    ),
    Mutation(
        "partial-receipt",
        "of a batch's answer what it refuses is forgotten",
        _instead(Journal, "record", _no_exceptions),
    ),
    Mutation(
        "failed-is-sent",
        "a failed change is folded as sent",
        lambda: patch.dict(spreading.STATUS, {Outcome.RETRY: "sent"}),
    ),
    Mutation(
        "smooth-anyway",
        "a delivery of which something was refused is folded as one in which all went well",
        lambda: _all_of(
            _instead(volumes, "FROM", 1),
            _instead(smooth, "_taken", lambda step, key: step.outcome is Outcome.OK),
        ),
        bites=lambda world: world.behaviour.by_code,
    ),
    Mutation("piecemeal-fold", "the fold is no transaction", _piecemeal),
    Mutation("ids-forgotten", "the ids of new records are not remembered", _instead(Journal, "record", _no_ids)),
    Mutation("lost-state", "without a journal nothing was sent", _instead(ledger, "all_unknown", _nothing_lost)),
    Mutation(
        "unknown-again",
        "a later run sends again what must not be doubled",
        _instead(Operation, "by_a_later_run", lambda operation, op: True),
    ),
    Mutation(
        "finished-late",
        "a later run makes a call once more however old its key is",
        _instead(finishing, "SURE", 1e9),
        bites=_known_for_minutes,
        start=3800,
    ),
    Mutation(
        "found-by-key",
        "a record of a lost create's key is taken for ours, whatever it holds",
        _instead(found, "_as_sent", lambda warehouse, bound: "TRUE"),
        start=10_099,
    ),
    Mutation(
        "lost-again",
        "a lost answer is sent again, whatever the object declares",
        _instead(delivering, "_harmless", lambda operation: True),
    ),
    Mutation(
        "wire-again",
        "the transport repeats writes that may have been done",
        _instead(Transport, "request", _always_again),
    ),
    Mutation(
        "key-for-ever",
        "idempotency keys count as known for ever",
        _instead(delivering, "_remembered", lambda operation: float("inf")),
    ),
    Mutation(
        "key-by-content",
        "idempotency keys name the content, not the intent",
        _instead(Deliverer, "steps", _steps_by_content),
    ),
    Mutation("by-place", "an answer's parts are taken in the order of the call", _by_place),
    Mutation("not-parked", "rejected changes are not parked", _instead(folding, "_park", _no_rejections)),
    Mutation(
        "no-tug-of-war",
        "a tug-of-war is never parked",
        _instead(conflicts, "park_tugs", lambda *args: None),
        bites=_tugs,
    ),
    Mutation("no-lag", "the lag of reads is not minded", _no_lag, bites=_lags),
    Mutation(
        "absent-at-once",
        "a complete read marks what it need not show yet",
        _instead(load, "mark_absent", _absent_at_once),
    ),
    Mutation("half-is-whole", "a read that broke off counts as complete", _instead(Loader, "_note", _always_complete)),
    Mutation(
        "any-version",
        "an older version of a record overwrites a newer",
        _instead(merge, "_not_older", lambda job: "TRUE"),
    ),
    Mutation("older-is-news", "a record as it was before our write counts as changed after it", _any_read_is_news),
    Mutation(
        "clock-set-back",
        "reads of the future go on counting when the clock was set back",
        _instead(cursors, "forget_future", lambda warehouse, now: []),
    ),
    Mutation(
        "unconditional",
        "updates are made whatever became of the record since it was read",
        _instead(delivering, "conditional", lambda *args, **more: False),
    ),
    Mutation(
        "job-is-over",
        "a job whose end nobody heard counts as over",
        _instead(jobs, "still_at_it", lambda bound: "FALSE"),
    ),
    Mutation(
        "job-again",
        "what a job may still change is sent again",
        _instead(jobs.Watched, "among", lambda self, number: "FALSE"),
    ),
    Mutation(
        "waits-unsaid",
        "rows that wait for one another wait unsaid",
        _instead(awaited, "hold", lambda *args, **more: None),
    ),
    Mutation(
        "held-is-left",
        "a held row counts as one that has left the model",
        _held_as_left,
        bites=_leaves,
        start=worlds.EXTRAS,
    ),
]


# -- finding them -----------------------------------------------------------------------------------------------------


def play(mutation: Mutation, seeds: Sequence[int]) -> Found | None:
    """The first of these seeds whose schedule shows that the engine is broken, or its directed schedule if that does."""
    with tempfile.TemporaryDirectory(prefix="oploop-mutant-", dir=IN_MEMORY) as folder, mutation.broken():
        ground = Files(Path(folder))
        try:
            if mutation.directed is not None:
                return _directed(mutation.directed, ground, Path(folder))
            for seed in seeds:
                if not mutation.bites(worlds.draw(seed)):
                    continue
                try:
                    schedule.Simulation(seed, ground, Path(folder)).play()
                except schedule.Wrong as e:
                    return Found(seed, _check(e), str(e))
        finally:
            ground.close()
    return None


def _directed(name: str, ground: Ground, folder: Path) -> Found | None:
    try:
        directed.play(name, ground, folder)
    except schedule.Wrong as e:
        return Found(name, _check(e), str(e))
    return None


def _check(e: BaseException) -> str:
    """The promise that does not hold: the check's function, or what the schedule itself says."""
    frames = [
        f for f in traceback.extract_tb(e.__traceback__) if Path(f.filename).parent == Path(check.__file__).parent
    ]
    checks = [f.name for f in frames if Path(f.filename).name.startswith("check") and f.name not in STAGES_OF_CHECK]
    return checks[0].replace("_", " ") if checks else "it becomes quiet"


STAGES_OF_CHECK = ("always", "at_the_end")


def noted() -> dict[str, Found]:
    """What was found when it was last looked for."""
    return {name: Found(**found) for name, found in orjson.loads(NOTED.read_bytes()).items()}


def table(found: dict[str, Found]) -> str:
    """The table of the docs."""
    rows = ["| the engine is broken: | seed, or schedule | found by |", "| --- | --- | --- |"]
    rows += [f"| {m.says} | {found[m.name].seed} | {found[m.name].check} |" for m in MUTATIONS if m.name in found]
    return "\n".join(rows)


def page_with(text: str, found: dict[str, Found]) -> str:
    """The docs' page with the table."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a mutation's name")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    known = noted() if NOTED.exists() else {}
    for m in MUTATIONS:
        if given.only not in (None, m.name):
            continue
        was = known[m.name].seed if m.name in known and given.seed is None else None
        first = [was] if isinstance(was, int) else []
        seeds = [given.seed] if given.seed is not None else [*first, *range(m.start, m.start + given.most)]
        found = play(m, seeds)
        print(
            f"{m.name:18} {'NOT FOUND' if found is None else f'{found.seed:>4} {found.check}: {found.message[:100]}'}",
            flush=True,
        )
        known.pop(m.name, None)
        if found is not None:
            known[m.name] = found
    if given.write:
        NOTED.write_bytes(orjson.dumps(dict(sorted(known.items())), option=orjson.OPT_INDENT_2) + b"\n")
        PAGE.write_text(page_with(PAGE.read_text(), known))


if __name__ == "__main__":
    main()
