"""dbt as a process: the user's own command, on one target, with its artifacts beside our state."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from oploop.errors import FixConfig, OploopError
from oploop.model import dbt_artifacts, dbt_faults
from oploop.model.dbt_artifacts import Event, Result
from oploop.project import ModelsBlock
from oploop.project.dbt import Manifest, read_manifest
from oploop.runtime import interrupted_at_once

#: Folders that dbt fills itself; of others, and of hidden ones, the files of these kinds count.
_DBTS_OWN = {"target", "logs", "dbt_packages"}
_KINDS = {".sql", ".yml", ".yaml", ".py", ".csv", ".md"}
_ENV_VAR = re.compile(r"env_var\(\s*['\"](\w+)")
_END = 10.0  #: seconds that dbt has to end when we end
_VERSION = 20.0  #: seconds that it has to say its version


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a call. `results`: by dbt's id, as in run_results.json; `said`: dbt's own error, else empty."""

    code: int
    results: Mapping[str, Result]
    said: str
    events: tuple[Event, ...] = ()


class Dbt:
    """One environment of a dbt project. What dbt writes goes into `state_dir/dbt/ENVIRONMENT`, apart from the user's target/."""

    def __init__(self, block: ModelsBlock, environment: str, root: Path, state_dir: Path) -> None:
        self.block, self.environment, self.root = block, environment, root
        self.folder = state_dir / "dbt" / environment
        self._state_dir = state_dir
        self._manifest: tuple[str, Manifest] | None = None

    def manifest(self) -> Manifest:
        """The project as its files stand now; dbt parses them if they have changed. Needs no database.

        FixConfig for what dbt refuses, with file and line.
        """
        stands = self.fingerprint()
        if self._manifest is not None and self._manifest[0] == stands:
            return self._manifest[1]
        known = (self.folder / "manifest.json").is_file() and self.noted("parsed") == stands
        if not known:
            self._parse(stands)
        try:
            found = self._read()
        except FixConfig:
            if not known:
                raise
            self._parse(stands)  # a dbt that was ended while it wrote left a part of it
            found = self._read()
        self._manifest = stands, found
        return found

    def _parse(self, stands: str) -> None:
        self.call("parse")
        self.note(parsed=stands)

    def _read(self) -> Manifest:
        try:
            found = read_manifest(self.folder / "manifest.json", mend="remove it")
        except FixConfig as e:
            raise FixConfig(f"what dbt wrote {e.message}: {e.place}", mend=e.mend, place=self.block.place) from None
        try:
            dbt_artifacts.check_version(found)
        except FixConfig as e:
            raise e.at(self.block.place) from None
        return found

    def call(self, *words: str, progress: Callable[[str], None] = lambda _: None) -> Ran:
        """Run dbt to its end. Raises FixConfig or StopRun where it came to no results; what failed of them is in these."""
        self._make_folder()
        results = self.folder / "run_results.json"
        results.unlink(missing_ok=True)
        events: list[Event] = []
        plain: list[str] = []
        with interrupted_at_once(), self._started(*words) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = dbt_artifacts.event(line)
                if event is None:
                    plain.append(line)
                    continue
                events.append(event)
                if event.name == "LogStartLine":
                    progress(event.node)
            code = process.wait()
        by_id = dbt_artifacts.results(results)
        said = dbt_artifacts.said(events, plain) if code else ""
        if code and not any(r.bad or r.status in ("partial success", "skipped") for r in by_id.values()):
            raise self._refused(words[0], code, said, events).at(self.block.place)
        return Ran(code, by_id, said, tuple(events))

    def _refused(self, word: str, code: int, said: str, events: list[Event]) -> OploopError:
        """Why a call came to no results. dbt-core 1.x says which it is; what does not is asked, since it may be another dbt."""
        told = next((e.version for e in events if e.name == "MainReportVersion"), "") or self._version()
        known = {f.stem for f in _files(self.block.path) if f.suffix in (".sql", ".csv", ".py")}
        said = said or f"dbt {word} ended with code {code}"
        return dbt_artifacts.other_make(told) or dbt_faults.refusal(
            said, self.block.path, self.root, self.environment, known
        )

    def _version(self) -> str:
        """What `dbt --version` prints; empty where it does not say in time."""
        words = [*self.block.command, "--version"]
        try:
            return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_VERSION).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""

    @contextmanager
    def _started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """The process; it ends when we are interrupted."""
        command = [*self.block.command, "--log-format", "json", "--no-use-colors", *words]
        command += ["--target", self.block.target(self.environment), "--target-path", str(self.folder)]
        command += ["--profiles-dir", str(self.block.profiles)] if self.block.profiles is not None else []
        try:
            process = subprocess.Popen(
                command,
                cwd=self.block.path,
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as e:
            raise self._missing(e) from None
        with process:
            try:
                yield process
            except BaseException:
                process.terminate()
                try:
                    process.wait(_END)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise

    def _missing(self, e: OSError) -> FixConfig:
        name = self.block.command[0]
        where = "there is no such file" if "/" in name else "it is not on the PATH"
        return FixConfig(
            f"dbt cannot be started: {name}: {where if isinstance(e, FileNotFoundError) else e.strerror}",
            mend="install it (dbt-core and its adapter, best in an environment of its own), and name it: "
            "`models: {engine: dbt, command: ../dbt-env/bin/dbt}`",
            place=self.block.place,
        )

    def _variables(self) -> dict[str, str]:
        """The process's environment, with what dbt's files ask for and only `.env` has; dbt sends nobody word of us."""
        asked = {n: v for n in self._asked_for() if (v := self._variable(n)) is not None}
        own = {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DBT_LOG_PATH": str(self.folder.parent / "logs")}
        return {**asked, **os.environ, **own}

    def _variable(self, name: str) -> str | None:
        return self.block.variables.get(name) if self.block.variables is not None else os.environ.get(name)

    def _asked_for(self) -> list[str]:
        """The variables that the project's and the profile's own file name."""
        files = [self.block.path / "dbt_project.yml", self._profile()]
        texts = [f.read_text(encoding="utf-8", errors="replace") for f in files if f is not None and f.is_file()]
        return sorted({name for text in texts for name in _ENV_VAR.findall(text)})

    def _profile(self) -> Path | None:
        """Where dbt looks for profiles.yml: as told, in the project, in the user's folder."""
        told = self.block.profiles or os.environ.get("DBT_PROFILES_DIR")
        folders = [self.block.path / told] if told else [self.block.path, Path.home() / ".dbt"]
        return next((f / "profiles.yml" for f in folders if (f / "profiles.yml").is_file()), None)

    # -- what is remembered --------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """What a parsed project depends on: its files, its profile, the target, and the variables that it asks for."""
        return self._seen(_files(self.block.path))

    def place(self) -> str:
        """What a target's place depends on: the profile, the target, and the variables that are asked for."""
        return self._seen([])

    def _seen(self, files: list[Path]) -> str:
        profile = self._profile()
        seen = hashlib.sha256(repr((self.block.command, self.block.target(self.environment))).encode())
        program = shutil.which(self.block.command[0])  # another dbt may stand there by now
        files = [*files, *([Path(program)] if program else [])]
        for f in [*files, self.block.path / "dbt_project.yml", *([profile] if profile is not None else [])]:
            seen.update(f"{f}\0{f.stat().st_mtime_ns}\0{f.stat().st_size}\n".encode())
        for name in self._asked_for():
            seen.update(f"{name}={self._variable(name)}\n".encode())
        return seen.hexdigest()

    def noted(self, what: str) -> str:
        """What was kept by `note`; empty if nothing was."""
        try:
            return str(orjson.loads((self.folder / "oploop.json").read_bytes()).get(what, ""))
        except (OSError, ValueError, AttributeError):
            return ""

    def note(self, **what: str) -> None:
        """Keep what a call was made for, so that the next command need not make it again."""
        known = {k: self.noted(k) for k in ("parsed", "proved")} | what
        (self.folder / "oploop.json").write_bytes(orjson.dumps(known))

    def _make_folder(self) -> None:
        self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)


def _files(root: Path) -> list[Path]:
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(
            n for n in inner if n not in _DBTS_OWN and n[0] != "." and not Path(folder, n, "pyvenv.cfg").exists()
        )
        found += [Path(folder, n) for n in sorted(names) if Path(n).suffix in _KINDS and n[0] != "."]
    return [f for f in found if f.is_file()]


__all__ = ["Dbt", "Ran"]
