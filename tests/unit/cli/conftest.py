"""One Zendesk for a test, with tickets, and a project that writes to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from tests.unit.cli.support import fill, run, write_model, write_project


@pytest.fixture
def zendesk() -> Iterator[ZendeskSandbox]:
    sandbox = ZendeskSandbox()
    fill(sandbox)
    with sandbox.running():
        yield sandbox


@pytest.fixture
def project(tmp_path: Path, zendesk: ZendeskSandbox) -> Path:
    """A project that nothing has been done in."""
    return write_project(tmp_path / "acme", zendesk.url)


@pytest.fixture
def read(project: Path) -> Path:
    """The project after an extract, with its model in place."""
    assert run("extract", folder=project).code == 0
    write_model(project)
    return project
