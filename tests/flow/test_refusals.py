"""What a turn refuses, and stops at, before anything is sent: credentials, two owners of a field, names that are not there."""

from __future__ import annotations

from collections import ChainMap
from types import MappingProxyType
from typing import NoReturn

import pytest

from oploop.apps.named import Lazy, Named
from oploop.apps.sandbox import Fault
from oploop.errors import FixConfig
from oploop.stages.streams import refuse_misspelt
from tests.flow.conftest import PROJECT, SYNC, Desk
from tests.flow.test_turns import RANKED


@pytest.fixture
def dsn() -> str:
    """A file: of what is refused here nothing gets as far as the warehouse."""
    return ""


async def test_wrong_credentials_stop_before_anything_changes(desk: Desk) -> None:
    await desk.model(RANKED)
    text = (desk.folder / "oploop.yml").read_text().replace("${ZENDESK_API_TOKEN}", "wrong")
    (desk.folder / "oploop.yml").write_text(text)
    with pytest.raises(FixConfig, match="api_token") as e:
        await desk.turn()
    assert e.value.place is not None
    assert e.value.place.file.endswith("oploop.yml")
    assert not await desk.rows("SELECT * FROM information_schema.tables WHERE table_schema LIKE 'raw%'")


def test_a_misspelt_stream_is_refused_without_a_call_unless_only_the_account_knows(desk: Desk) -> None:
    def asked(*_: object) -> NoReturn:
        raise AssertionError("the account was asked")

    (desk.folder / "oploop.yml").write_text(PROJECT + "    read: [tikets]\n")
    ws = desk.workspace()
    app = ws.app("zendesk")
    own = app.streams
    for known in (own, MappingProxyType(own), ChainMap({}, dict(own)), Named(own, lambda _: None)):
        app.streams = known
        with pytest.raises(FixConfig, match="zendesk has no stream 'tikets' — did you mean 'tickets'"):
            refuse_misspelt(ws)
    app.streams = Lazy(asked, asked, asked)
    refuse_misspelt(ws)


@pytest.mark.parametrize("action", ["html", "truncate", "empty"])
async def test_an_answer_that_is_no_answer_is_a_mistake_of_configuration(desk: Desk, action: str) -> None:
    await desk.model(RANKED)
    desk.sandbox.faults.append(Fault("GET /api/v2/users/me", action, times=99))
    with pytest.raises(FixConfig) as e:
        await desk.turn()
    assert e.value.exit_code == 2
    assert "\n" not in str(e.value)
    assert desk.writes() == []


async def test_two_syncs_on_one_field_are_refused(desk: Desk) -> None:
    desk.sync(SYNC, "second")
    await desk.model(RANKED)
    with pytest.raises(FixConfig, match="also written by sync"):
        await desk.turn()
    assert desk.writes() == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fields: [priority]", "fields: {prioritty: priority}", "did you mean 'priority'"),
        ("fields: [priority]", "fields: {priority: prio}", "did you mean 'priority'"),
        ("zendesk.tickets", "zendesk.ticket", "did you mean 'tickets'"),
        ("mart.tickets", "mart.tickts", "did you mean 'mart.tickets'"),
        ("{id: ticket_id}", "{priority: ticket_id}", "cannot identify"),
        ("fields: [priority]", "fields: [priority]\nwhere: scor > 3", "where: .*scor"),
        ("fields: [priority]", "fields: {priority: {sql: upper(prio)}}", "fields: .*prio"),
    ],
)
async def test_what_a_sync_names_must_be_there(desk: Desk, old: str, new: str, says: str) -> None:
    await desk.model(RANKED)
    desk.sync(SYNC.replace(old, new))
    with pytest.raises(FixConfig, match=says) as e:
        await desk.turn()
    assert e.value.place is not None
    assert e.value.place.line is not None
    assert desk.writes() == []


@pytest.mark.parametrize("key", ["when: manual"])
async def test_what_nothing_acts_on_yet_is_refused_and_not_passed_over(desk: Desk, key: str) -> None:
    desk.sync(SYNC + key + "\n")
    await desk.model(RANKED)
    with pytest.raises(FixConfig, match="not there yet"):
        await desk.turn()
