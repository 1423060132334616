"""What an app fails on itself, as it is told: it must not stop the others, and its author must find the place."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from oploop.errors import OploopError

#: So much is told of what an app's own mistake says, which may quote all that it was sent.
WORDS = 300


def defect(doing: str, e: Exception) -> OploopError:
    """That an app failed by a mistake of its own, at what ("sending to crm"), and where."""
    at = traceback.extract_tb(e.__traceback__)[-1]
    where = f"{Path(at.filename).parent.name}/{Path(at.filename).name}:{at.lineno}"
    found = OploopError(
        f"{doing} failed: {type(e).__name__}: {' '.join(str(e).split())[:WORDS]} ({where})",
        mend="this is a defect of the app, maybe at an answer that it did not expect; see --trace-http",
    )
    found.__cause__ = e
    return found


@contextlib.contextmanager
def named(doing: str) -> Iterator[None]:
    """Raises an app's own mistake as what it is (see `defect`), its other errors as they are."""
    try:
        yield
    except OploopError:
        raise
    except Exception as e:
        raise defect(doing, e) from e
