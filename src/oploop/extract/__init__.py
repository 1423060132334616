"""Reading apps into raw tables: Reader + cursor -> Batches -> staging -> merge by version.

What moves rows is loaded when it is first named: a plan asks only how far the reads are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oploop.extract.cursors import StreamState, stream_states
from oploop.extract.nouns import StreamProgress, StreamRequest, StreamResult, StreamStatus

if TYPE_CHECKING:
    from oploop.extract.load import load_fetched
    from oploop.extract.raw import ensure_raw_table
    from oploop.extract.run import extract

_MOVES = {"ensure_raw_table": "raw", "extract": "run", "load_fetched": "load"}


def __getattr__(name: str) -> Any:
    if name not in _MOVES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MOVES[name]}"), name)


__all__ = [
    "StreamProgress",
    "StreamRequest",
    "StreamResult",
    "StreamState",
    "StreamStatus",
    "ensure_raw_table",
    "extract",
    "load_fetched",
    "stream_states",
]
