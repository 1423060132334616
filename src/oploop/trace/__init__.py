"""Why a record of an app holds its values: fields, model, source rows, ledger. Reads the warehouse; changes nothing."""

from __future__ import annotations

from oploop.trace.nouns import Past, SourceRows, Trace, TracedField, TracedSync
from oploop.trace.record import key_of, trace

__all__ = ["Past", "SourceRows", "Trace", "TracedField", "TracedSync", "key_of", "trace"]
