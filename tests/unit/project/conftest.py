"""A project on disk, as a user has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

OPLOOP = """\
name: acme
apps:
  stripe:
    api_key: ${STRIPE_API_KEY}
    read: [customers, charges]
  zendesk: {subdomain: acme}
"""

SYNC = """\
model: mart.ticket_priority
to: zendesk.tickets
key: {id: ticket_id}
fields:
  priority: priority
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a project: `write(oploop, name=text)` puts `text` into `syncs/name.yml`. Returns the folder."""

    def make(oploop: str = OPLOOP, **syncs: str) -> Path:
        (tmp_path / "oploop.yml").write_text(oploop, encoding="utf-8")
        (tmp_path / "syncs").mkdir(exist_ok=True)
        for name, text in syncs.items():
            (tmp_path / "syncs" / f"{name}.yml").write_text(text, encoding="utf-8")
        return tmp_path

    return make
