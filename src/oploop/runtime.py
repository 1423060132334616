"""What a run takes from the world outside: clock, sleep, ids, chance, threads.

`loop` makes one Runtime and hands it to everything, so that a whole run can be simulated and replayed
from a seed. No other module may call `time`, `datetime.now`, `asyncio.sleep`, `random` or a ULID maker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from oploop.errors import RetryLater


def _new_id() -> str:
    from ulid import ULID

    return str(ULID())


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _nap(seconds: float) -> None:
    """Sleep, and let a Ctrl-C that came meanwhile end the work: asyncio only marks the task that is at work as cancelled,
    which it would not see before it awaits something."""
    time.sleep(seconds)
    with contextlib.suppress(RuntimeError):  # no event loop is running
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError


#: Seconds that calls in flight have to end, once a run was asked to stop.
GRACE = 25.0


class Interrupted(RetryLater):
    """A person, or the machine, asked the run to stop; what was not begun stays for the next run."""

    def __init__(self) -> None:
        super().__init__("interrupted")


class Stop:
    """Whether the run was asked to end: nothing new begins then, and what is under way has `GRACE` seconds."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def asked(self) -> bool:
        return self.signal is not None

    def ask(self, number: int = signal.SIGINT) -> None:
        """Ask, from the loop's own thread. A second time it ends at once, as if it had been killed."""
        self.signal = number
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Return when it is asked."""
        if not self.asked:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)


@contextlib.contextmanager
def heeding_signals(stop: Stop, told: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Take Ctrl-C and SIGTERM as a wish to stop, while the loop runs; the second one is obeyed as usual, at once.

    `told` is called when the wish comes.
    """
    loop = asyncio.get_running_loop()
    taken: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def left() -> None:
        for each in taken:
            loop.remove_signal_handler(each)
        if signal.SIGTERM in taken:  # asyncio leaves the system's own, which ends the process with all left open
            signal.signal(signal.SIGTERM, before)
        taken.clear()

    def asked(number: int) -> None:
        left()
        stop.ask(number)
        told()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread, or no Unix
            loop.add_signal_handler(number, asked, number)
            taken.append(number)
    try:
        yield
    finally:
        left()


@contextlib.contextmanager
def term_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does: what is open is closed, in order, and said."""
    if os.name != "posix":
        yield
        return

    def ended(number: int, frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, ended)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def interrupted_at_once() -> Iterator[None]:
    """Let Ctrl-C break off what blocks the loop's own thread: asyncio would cancel the task, which only hears of it afterwards."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class Vault(Protocol):
    """Where secrets are kept from run to run, encrypted, by names that tell nothing of them."""

    def get(self, name: str) -> str | None:
        """What was put there; None if nothing readable is."""

    def put(self, name: str, value: str) -> None:
        """Keep a value; it is on disk when this returns."""

    def claim(self, name: str, command: str) -> bool:
        """Hold a name for this process, so that only one renews what is there; False when somebody else does."""

    def release(self, name: str) -> None:
        """Give it up."""


class WireTrace(Protocol):
    """Writes down what goes over the wire, by wrapping what sends it (`oploop.apps.tracing`)."""

    def over(self, sender: Any, runtime: Runtime) -> Any: ...


#: Rounds of the loop in which what has come is taken in, told to whoever waits for it, and answered by a next request.
ROUNDS = 3


async def others_first() -> None:
    """Let go on what else is ready: what has come from the network, first of all. No time passes.

    After one round something may have been taken in, and nothing been asked for yet. Where nothing has come, one is enough:
    a round takes as long as some records. What waits for the next round asyncio does not tell; other loops have their rounds.
    """
    ready = getattr(asyncio.get_running_loop(), "_ready", True)
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
        if not ready:
            return


@dataclass(frozen=True, slots=True)
class HttpWay:
    """How an account's requests go out. `proxy`: its address, in place of the environment's; `ca`: a file of authorities that
    are trusted beside the public ones; `timeout`: seconds that an answer may take, where a call needs no longer."""

    proxy: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """Clock (aware UTC datetimes), monotonic seconds, async sleep (seconds), new ids (ULIDs: sortable by time)."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    nap: Callable[[float], None] = _nap  #: a sleep in which nothing else goes on: of who waits for the warehouse itself
    new_id: Callable[[], str] = _new_id
    random: random.Random = field(default_factory=random.Random)
    stop: Stop = field(default_factory=Stop)
    budgets: Path | None = None  #: where processes share the accounts' rate budgets; None: each has its own
    http: HttpWay = HttpWay()
    trace: WireTrace | None = None  #: writes down what goes over the wire
    vault: Vault | None = None  #: where tokens are kept; None: each app object asks for its own
    #: (scheme, host, port) of servers that have answered
    reached: set[tuple[str, str, int]] = field(default_factory=set)

    async def pause(self, seconds: float) -> None:
        """Sleep before something new is begun; Interrupted, at once, when the run is to stop."""
        if not self.stop.asked:
            asked, slept = asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(self.sleep(seconds))
            try:
                await asyncio.wait((asked, slept), return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                slept.cancel()
        if self.stop.asked:
            raise Interrupted
