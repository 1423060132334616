"""`alerts` and templates as they are read from the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from oploop.errors import FixConfig
from oploop.project import load_project
from oploop.project.alerts import On
from oploop.project.templates import Part, parts

HEAD = "name: acme\nmodels: {engine: none}\napps: {slack: {token: t}}\n"


def project(folder: Path, alerts: str) -> object:
    (folder / "oploop.yml").write_text(HEAD + alerts)
    return load_project(folder, {})


def test_alerts_tell_of_failures_unless_they_say_of_what(tmp_path: Path) -> None:
    found = project(tmp_path, 'alerts: [{to: slack, channel: "#ops"}, {to: slack, channel: C1, on: [held, digest]}]')
    assert [(a.channel, a.on) for a in found.alerts] == [  # type: ignore[attr-defined]
        ("#ops", (On.FAILED,)),
        ("C1", (On.HELD, On.DIGEST)),
    ]


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ("alerts: {to: slack}", "oploop.yml:4: alerts holds a map where a list belongs"),
        ("alerts: [slack]", "an alert is"),
        ("alerts: [{to: slack}]", "'channel'"),
        ('alerts: [{to: slak, channel: "#a"}]', "no app 'slak' to alert by — did you mean 'slack'"),
        ('alerts: [{to: slack, channel: "#a", on: fail}]', "did you mean 'failed'"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, alerts: str, said: str) -> None:
    with pytest.raises(FixConfig) as e:
        project(tmp_path, alerts)
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_a_template_is_text_and_columns() -> None:
    assert parts("a {b c} {{d}} {e}") == [
        Part("a "), Part("b c", True), Part(" "), Part("{"), Part("d"), Part("}"), Part(" "), Part("e", True)
    ]  # fmt: skip
    for wrong in ("{", "a } b", "{}", "{ }"):
        with pytest.raises(ValueError):
            parts(wrong)
