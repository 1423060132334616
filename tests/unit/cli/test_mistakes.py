"""A mistake is one line on stderr: what, where, how to mend it; the exit code tells whose it is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from oploop.cli.command import Cli, guarded
from oploop.cli.out import Out
from oploop.errors import FixConfig, Place, RetryLater, did_you_mean
from tests.unit.cli.support import SYNC, process, run, write_project

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["pln"], "there is no command 'pln' — did you mean 'plan'?"),
        (["plan", "--al"], "no such option '--al'"),
        (["plan", "--qqq"], "no such option '--qqq' — see oploop plan --help"),
        (["plan", "--selct", "x"], "no such option '--selct' — did you mean '--select'?"),
        (["plan", "--enviroment", "prod"], "did you mean '--env'? (oploop plan --help lists all)"),
        (["--env", "prod", "plan"], "options stand behind the command: oploop plan --env ..."),
        (["plan", "--limit", "0"], "invalid value for '--limit'"),
        (["trace", "zendesk.tickets"], "missing argument 'KEY-OR-URL'"),
        (["plan", "--env"], "option '--env' requires an argument — see oploop plan --help"),
        (["new"], "missing argument 'sync'"),
        (["plan", "--env", "nope"], "there is no environment 'nope'"),
        (["plan", "--select", "ticket_prio"], "did you mean 'ticket_priority'?"),
        (["plan", "--allow", "ticket_priority:chnges"], "did you mean 'changes'?"),
        (
            ["plan", "--allow", "first"],
            "'first' is not SYNC:WHAT — write it like SYNC:first; there are first, first-run,",
        ),
        (["plan", "--allow", "ticket_priority"], "write it like ticket_priority:first; there are"),
        (
            ["run", "--exclude", "ticket_prio"],
            "--exclude 'ticket_prio' means no sync — did you mean 'ticket_priority'?",
        ),
        (["run", "--exclude", "tag:slwo"], "--exclude 'tag:slwo' means no sync"),
        (
            ["extract", "--exclude", "zendesk.tikets"],
            "--exclude 'zendesk.tikets' means no stream — did you mean 'zendesk.tickets'?",
        ),
        (["held", "nope"], "selects no sync"),
        (["plan", "--select", "one,two"], "one word each: --select one --select two"),
        (["trace", "zendesk", "1"], "'zendesk' is not app.object"),
        (["trace", "zendesk.tikets", "1"], "did you mean 'tickets'?"),
        (["apps", "zendisk"], "did you mean 'zendesk'?"),
        (["apps", "new", "a" * 300], "an app's name has at most 60 letters"),
        (["apps", "new", "stripe"], "an app cannot be called 'stripe': that is taken"),
        (["sandbox", "zendisk"], "did you mean 'zendesk'?"),
        (["apply", "missing.plan"], "cannot read the plan missing.plan"),
    ],
)
def test_of_the_command_line(args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    import duckdb

    duckdb.connect(str(folder / "warehouse.duckdb")).close()
    monkeypatch.chdir(folder)
    done = run(*args)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert done.err.startswith("oploop: ")


def test_the_name_alone_shows_the_help_as_it_is_laid_out() -> None:
    done = run()
    assert (done.code, done.out) == (2, "")
    assert done.err == run("--help").out


def test_where_no_app_is_connected_yet_the_command_that_adds_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oploop.yml").write_text("name: acme\nwarehouse: {type: duckdb, database: w.duckdb}\n")
    assert "no syncs yet: oploop new sync MODEL APP.OBJECT drafts one" in run("plan").out
    assert run("trace", "zendesk.tickets", "1").err.endswith("— oploop connect APP adds one\n")
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "ticket_priority.yml").write_text(SYNC)
    assert run("plan").err.endswith("— oploop connect APP adds one\n")


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (errno.EACCES, 2, "oploop: acme-demo: Permission denied — mend its rights, or its folder's\n"),
        (errno.EROFS, 2, "oploop: acme-demo: Read-only file system — choose a place that can be written\n"),
        (errno.ENOSPC, 1, "oploop: acme-demo: No space left on device — make room, then do it again\n"),
        (errno.ENOENT, 1, "oploop: this is a defect of oploop: FileNotFoundError: "),
    ],
)
def test_what_the_system_does_not_allow_is_no_defect(
    number: int, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise OSError(number, os.strerror(number), "acme-demo")

    assert guarded(Cli(Out()), work) == code
    assert capsys.readouterr().err.startswith(says)


def test_where_no_sync_is_left_to_plan_those_that_are_off_are_named(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    import duckdb

    duckdb.connect(str(folder / "warehouse.duckdb")).close()
    assert run("plan", "--exclude", "ticket*", folder=folder).out == "no sync is left to plan\n"
    (folder / "syncs" / "ticket_priority.yml").write_text(SYNC + "enabled: false\n")
    said = "no sync is left to plan; not enabled: ticket_priority (--select names one)\n"
    assert run("plan", folder=folder).out == said


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("oploop.yml", "name: [", "oploop.yml:"),
        ("oploop.yml", "name: acme\naps: {}\n", "oploop.yml:2: unknown key 'aps'"),
        ("syncs/ticket_priority.yml", SYNC.replace("to: zendesk", "to: zendisk"), "syncs/ticket_priority.yml:2:"),
        (
            "syncs/ticket_priority.yml",
            SYNC.replace("to: zendesk.tickets", "to: zendesk.tikets"),
            "did you mean 'tickets'?",
        ),
    ],
)
def test_of_the_files(file: str, content: str, says: str, tmp_path: Path) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    (folder / file).write_text(content)
    before = sorted(p.name for p in folder.rglob("*"))
    done = process("run", folder=folder)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert {p.name for p in folder.rglob("*")} - set(before) <= {
        ".oploop",
        "state.sqlite",
        "state.sqlite-wal",
        "state.sqlite-shm",
        "warehouse.duckdb",
    }


def test_a_missing_variable_names_the_line(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    (folder / ".env").unlink()
    done = run("extract", folder=folder)
    assert done.code == 2
    assert "oploop.yml:8: environment variable ZENDESK_API_TOKEN is not set" in done.err


def test_json_errors_are_on_stdout_with_the_same_code(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    (folder / "oploop.yml").write_text("name: acme\naps: {}\n")
    done = run("plan", "-o", "json", folder=folder)
    assert done.code == 2
    error = done.json["error"]
    assert error["place"] == {"file": "oploop.yml", "line": 2}
    assert "apps" in error["mend"]


@pytest.mark.parametrize("words", [["-o", "json"], ["--output=json"], ["--output", "json"]])
def test_even_a_command_line_that_does_not_parse_answers_in_json(words: list[str]) -> None:
    done = run("plan", "--nope", *words)
    assert done.code == 2
    assert json.loads(done.out)["error"]["mend"] == "see oploop plan --help"


def test_no_project_says_what_to_do(tmp_path: Path) -> None:
    done = process("plan", folder=tmp_path)
    assert done.code == 2
    assert "oploop init" in done.err


def test_an_app_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "acme", NOWHERE)
    done = run("doctor", "-o", "json", folder=folder)
    check = next(c for c in done.json["checks"] if c["check"] == "zendesk")
    assert done.code in (1, 2)
    assert check["ok"] is False
    assert check["place"]["file"] == "oploop.yml"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = f"{sys.executable} -m oploop apps zendesk | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout.split("\n")[1] == "0"
    assert done.stderr == ""


def test_closed_output_is_no_defect(tmp_path: Path) -> None:
    code = f"{sys.executable} -m oploop apps >&- 2>&-"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# -- what `guarded` makes of errors --------------------------------------------------------------------------------------


def fails(error: BaseException, capsys: pytest.CaptureFixture[str], *, debug: bool = False) -> tuple[int, str]:
    def work() -> int:
        raise error

    code = guarded(Cli(Out(debug=debug)), work)
    return code, capsys.readouterr().err


def test_a_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    error = FixConfig("no such thing", mend="name another", place=Place("oploop.yml", 3))
    assert fails(error, capsys) == (2, "oploop: oploop.yml:3: no such thing — name another\n")


def test_what_can_be_done_later(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(RetryLater("busy"), capsys) == (1, "oploop: busy\n")


def test_a_defect_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(KeyError("x"), capsys)
    assert code == 1
    assert (
        said
        == "oploop: this is a defect of oploop: KeyError: 'x' — run it again with --debug and report what it shows\n"
    )


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(FixConfig("no such thing"), capsys, debug=True)
    assert code == 2
    assert said.startswith("Traceback")
    assert said.endswith("oploop: no such thing\n")


def test_of_errors_that_come_together_ours_counts(capsys: pytest.CaptureFixture[str]) -> None:
    group = BaseExceptionGroup("several", [KeyError("x"), BaseExceptionGroup("more", [FixConfig("mend this")])])
    assert fails(group, capsys) == (2, "oploop: mend this\n")


def test_an_interrupt_says_how_things_stand(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(KeyboardInterrupt(), capsys)
    assert code == 130
    assert said == "\noploop: interrupted; nothing was changed\n"


def test_an_interrupt_at_the_start_shows_no_traceback() -> None:
    code = """
import __future__, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if not name.startswith("oploop"):  # the first of others' modules that Python has not loaded for itself
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from oploop.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "\noploop: interrupted; nothing was begun\n")


def test_a_word_that_only_looks_like_another_is_told_so() -> None:
    other = unicodedata.normalize("NFD", "Priorität")
    assert did_you_mean(other, ["Priorität", "Status"]).startswith(
        "there is 'Priorität', which looks the same: copy it"
    )
    assert did_you_mean("Prioritat", ["Priorität"]) == "did you mean 'Priorität'?"
