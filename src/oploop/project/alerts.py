"""`alerts` of `oploop.yml`: who is told of a run, where, and of what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.project.values import Read, require, take, text, texts
from oploop.project.yaml import Block, Items, kind


class On(StrEnum):
    """What of a run is told."""

    FAILED = "failed"  #: that it, or a sync of it, failed or was stopped
    HELD = "held"  #: that rows are held
    DIGEST = "digest"  #: in any case: sync by sync, what was sent, held, stopped


@dataclass(frozen=True, slots=True)
class Alert:
    """One entry: `to` is an app of the project, `channel` a place in it."""

    to: str
    channel: str
    on: tuple[On, ...]
    place: Place


def events(value: Any, place: Place, key: str) -> tuple[On, ...]:
    found = []
    for word in texts(value, place, key):
        if word not in set(On):
            raise FixConfig(f"{key} cannot be {word!r}", mend=did_you_mean(word, [o.value for o in On]), place=place)
        found.append(On(word))
    return tuple(found)


ALERT_KEYS: dict[str, Read] = {"to": text, "channel": text, "on": events}


def alerts(value: Any, place: Place, key: str) -> tuple[Alert, ...]:
    """The list of alerts."""
    if not isinstance(value, Items):
        mend = 'write `alerts: [{to: slack, channel: "#ops", on: [failed]}]`'
        raise FixConfig(f"{key} holds {kind(value)} where a list belongs", mend=mend, place=place)
    found = []
    for item, at in zip(value, value.places, strict=True):
        if not isinstance(item, Block):
            raise FixConfig(f"an alert is {kind(item)}", mend='write it as {to: slack, channel: "#ops"}', place=at)
        taken = take(item, ALERT_KEYS, "an alert")
        require(item, "an alert", "to", "channel")
        found.append(Alert(taken["to"], taken["channel"], taken.get("on", (On.FAILED,)), at))
    return tuple(found)


def check_apps(found: Collection[Alert], apps: Collection[str]) -> None:
    """FixConfig, with the place, for an alert to an app that the project does not have."""
    for alert in found:
        if alert.to not in apps:
            mend = did_you_mean(alert.to, apps)
            raise FixConfig(f"there is no app {alert.to!r} to alert by", mend=mend, place=alert.place)
