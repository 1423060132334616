"""What dbt says went wrong, in one line: the file and its line, dbt's or the warehouse's reason, and a mend."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from oploop.errors import FixConfig, OploopError, Place, StopRun, did_you_mean, nearest
from oploop.model.places import line_of, place_of

_FILE = re.compile(r"\(([^()\n]+\.(?:sql|ya?ml|py|csv))\)")
_YAML = re.compile(r"Error reading [^:\n]+: (\S+\.ya?ml)")
_LINE = re.compile(r"\bline (\d+)", re.IGNORECASE)
_KIND = re.compile(r"^([A-Z]\w+(?: \w+)? Error)\b(?: (?:in|reading) [^\n]*)?")
_MISSING = re.compile(r"depends on a (?:node|source) named '([^']+)'")
_NO_FOLDER = re.compile(r"'--profiles-dir': Path '([^']+)' does not exist")
_NO_PROFILE = re.compile(r"Could not find profile named '([^']+)'")
_TARGETS = re.compile(r"does not have a target named '([^']+)'.*?are:(.*)", re.DOTALL)
#: Where the reason ends, and the statement, what else it might be, or the parser's own account begin.
_END = re.compile(r"\n\s*(?:LINE \d|line \d|compiled code at|Candidate bindings|HINT|Raw Error|-----|> in macro|\n)")
#: What a person must mend in files or profile; all else (a server that is away, a lock) may pass.
_FILES = ("Compilation Error", "Parsing Error", "Runtime Error", "Dependency Error", "Usage Error", "Validation Error")


def refusal(said: str, project: Path, root: Path, environment: str, models: Collection[str]) -> OploopError:
    """What dbt said before it came to build anything, as an error."""
    text = said.removeprefix("Encountered an error:").strip()
    targets = _TARGETS.search(text)
    if targets is not None:
        known = ", ".join(re.findall(r"- (\S+)", targets.group(2)))
        return FixConfig(
            f"dbt's profile has no target {targets.group(1)!r} for environment {environment}",
            mend=f"add it to profiles.yml, or name one of {known} under models.targets: {{{environment}: ...}}",
        )
    profile = _profile(text)
    if profile is not None:
        return profile
    if "No such option" in text or "unrecognized arguments" in text:
        return FixConfig(f"this dbt is too old: {one_line(text)}", mend="use dbt-core 1.8 or newer")
    place, missing = _place(text, project, root), _MISSING.search(text)
    if missing is not None:
        file = _file(text, project)
        place = place_of(file, root, line_of(file, missing.group(1).rpartition(".")[2])) if file else place
        near = nearest(missing.group(1), models)
        mend = did_you_mean(missing.group(1), models) if near else "name one that is there"
        return FixConfig(f"dbt finds no {missing.group(1)!r}", mend=mend, place=place)
    kind = _KIND.match(text)
    reason = f"dbt: {_reason(text)}"
    if "Could not set lock" in text:
        return StopRun("dbt could not open the warehouse: another process has it", mend="let it finish, then run again")
    if (kind is not None and kind.group(1) in _FILES) or kind is None:
        return FixConfig(reason, place=place)
    return StopRun(reason, place=place)


def _profile(text: str) -> FixConfig | None:
    """That dbt finds no profile: there is no file at all, or none of that name is in it."""
    folder, named = _NO_FOLDER.search(text), _NO_PROFILE.search(text)
    if folder is not None:
        message = f"dbt finds no profiles.yml: there is no folder {folder.group(1)}"
        return FixConfig(message, mend="put one beside dbt_project.yml, or name its folder: models.profiles")
    if named is not None:
        mend = "the profile: of dbt_project.yml and the name in profiles.yml must be the same; it is looked for beside "
        mend += "dbt_project.yml, then in ~/.dbt, or where models.profiles says"
        return FixConfig(f"dbt finds no profile named {named.group(1)!r}", mend=mend)
    return None


def failure(message: str, project: Path, root: Path) -> str:
    """Why a model or a test failed while it was built: `models/a.sql:3: Binder Error: ...`."""
    place = _place(message, project, root)
    return (f"{place}: " if place else "") + _reason(message)


def _reason(text: str) -> str:
    """The message without the statement, and without what kind of error dbt takes it for where a file is named."""
    first, _, rest = text.partition("\n")
    body = rest if rest.strip() and _KIND.match(first) else text
    body = re.sub(r"^\s*Error reading [^:\n]+: \S+ - (?:\w+ Error)?", "", _END.split(body)[0])
    return one_line(body)


def _file(text: str, project: Path) -> Path | None:
    found = _FILE.search(text) or _YAML.search(text)
    if found is None:
        return None
    name = found.group(1)
    if (project / name).is_file():
        return project / name
    # of a YAML file dbt names what stands below the folder of models
    return next((p for p in sorted(project.rglob(Path(name).name)) if p.as_posix().endswith(f"/{name}")), None)


def _place(text: str, project: Path, root: Path) -> Place | None:
    file = _file(text, project)
    if file is None:
        return None
    told = _LINE.search(re.sub(r"LINE \d+:", "", text))
    return place_of(file, root, int(told.group(1)) if told else _marked(text, file))


def _marked(text: str, file: Path) -> int | None:
    """The line of the file with the word that the engine's mark stands under. The engine counts lines of the compiled
    statement, which are others."""
    found = re.search(r"\n *LINE \d+:([^\n]*)\n( *)\^", text)
    if found is None:
        return None
    before = found.start(1) - text.rfind("\n", 0, found.start(1)) - 1
    word = re.match(r'"?(\w+)', found.group(1)[max(0, len(found.group(2)) - before) :])
    return line_of(file, word.group(1)) if word else None


def one_line(text: str) -> str:
    """A message in one line of at most 400 characters, without colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:400]


__all__ = ["failure", "one_line", "refusal"]
