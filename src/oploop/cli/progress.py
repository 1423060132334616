"""Progress of long work, on stderr: a moving line on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from oploop.cli.out import Out, cut

if TYPE_CHECKING:
    from rich.status import Status

    from oploop.workspace import Event

#: Seconds between plain lines where there is no terminal.
EVERY = 15.0
#: How many things under way are named at once.
NAMED = 4


class Progress:
    """Shows a run's events; a context manager. Nothing is shown with --quiet."""

    def __init__(self, out: Out, monotonic: Callable[[], float], first: str = "") -> None:
        self._out, self._monotonic, self._first = out, monotonic, first
        self._live = sys.stderr.isatty() and not out.quiet
        self._status: Status | None = None
        self._stage, self._ticks = first, dict[str, str]()
        self._said = monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Progress:
        if self._live:
            from rich.console import Console
            from rich.status import Status

            self._status = Status(self._first, console=Console(stderr=True), spinner="dots")
            self._status.start()
        elif not self._out.quiet:
            threading.Thread(target=self._keep_saying, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        if self._status is not None:
            self._status.stop()

    def _keep_saying(self) -> None:
        """A plain line also where nothing happens for long: an app that does not answer."""
        while not self._ended.wait(EVERY / 3):
            self._show()

    def tell(self, event: Event) -> None:
        """Take in what happens."""
        if event.kind == "start":
            self._stage, self._ticks = event.stage, {}
        elif event.kind == "tick":
            name = event.text.split(" ", 1)[0]
            self._ticks.pop(name, None)
            self._ticks[name] = event.text
        elif event.kind == "note":
            with self.paused():
                self._out.note(event.text)
        self._show()

    def say(self, text: str) -> None:
        """What is under way, where there are no events."""
        self._stage, self._ticks = text, {}
        self._show()

    def _show(self) -> None:
        text = f"{self._stage:<9}{' · '.join(list(self._ticks.values())[-NAMED:])}"
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(cut(text, self._status.console.width - 4)))
        elif text.strip() and self._monotonic() - self._said >= EVERY:
            self._said = self._monotonic()
            self._out.note(f"… {text.rstrip()}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the moving line away, so that something can be printed."""
        if self._status is None:
            yield
            return
        self._status.stop()
        try:
            yield
        finally:
            self._status.start()
