"""Reading apps into raw tables: Reader + cursor -> Batches -> staging -> merge by version."""

from oploop.extract.cursors import StreamState, stream_states
from oploop.extract.load import load_fetched
from oploop.extract.nouns import StreamProgress, StreamRequest, StreamResult, StreamStatus
from oploop.extract.raw import ensure_raw_table
from oploop.extract.run import extract

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
