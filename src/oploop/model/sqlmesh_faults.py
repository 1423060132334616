"""What is wrong with a model, in one line: its file and line, SQLMesh's or the warehouse's reason, and a mend."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from sqlglot import exp
from sqlglot.errors import ParseError
from sqlmesh.core.linter.rules.builtin import AmbiguousOrInvalidColumn
from sqlmesh.utils import yaml
from sqlmesh.utils.errors import NodeAuditsErrors

from oploop.errors import FixConfig, OploopError, did_you_mean, nearest
from oploop.model.base import UnitTestResult
from oploop.model.places import line_of, place_of, read
from oploop.records import DIALECT
from oploop.warehouse.base import Warehouse

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FILE = re.compile(r"(?:from file|at) '([^']+)'")
_LINE = re.compile(r"[Ll]ine:? (\d+)")
_COLUMN = re.compile(r"""Column '?"?([^'"]+(?:"\."[^'"]+)*)"?'? could not be resolved|Unknown column: "?(\w+)""")
_QUOTED = re.compile(r"'(@?\w+)'")


def display(fqn: str) -> str:
    """SQLMesh's `"catalog"."schema"."name"` as a user writes it."""
    table = exp.to_table(fqn, dialect=DIALECT)
    return f"{table.db}.{table.name}" if table.db else str(table.name)


def from_loading(error: Exception, root: Path) -> OploopError:
    """SQLMesh's refusal to load the project."""
    cause = next((c for c in _causes(error) if isinstance(c, OploopError)), None)
    text = one_line(error)
    found = _FILE.search(text)
    location = getattr(error, "location", None) or (found.group(1) if found else None)
    path = Path(location) if location else None
    if cause is not None:
        file, line = (Path(cause.place.file), cause.place.line) if cause.place else (path, line_of(path, "@field"))
        cause.place = place_of(file, root, line)
        return cause
    parse = next((c for c in _causes(error) if isinstance(c, ParseError)), None)
    if parse is not None and parse.errors:
        first = parse.errors[0]
        text = f"{first['description'].rstrip('.')} near {first['highlight']!r}"
        return FixConfig(text, mend="correct the SQL", place=place_of(path, root, first["line"]))
    text = re.sub(r"^.*?Failed to load model from file '[^']+': *", "", text)
    text = re.sub(r" ?'?at '?" + re.escape(str(path)) + "'?", "", text).strip() if path else text
    text = re.split(r" ?(?:Example:|Learn more at)", text)[0]  # several lines of SQLMesh's own manual
    found_line = _LINE.search(text)
    line = int(found_line.group(1)) if found_line else _line_of_any(path, _QUOTED.findall(text))
    lacking = re.fullmatch(r"Audit '(\w+)' is undefined\.?", text)
    mend = f"write audits/{lacking[1]}.sql, or correct the name" if lacking else None
    return FixConfig(text, mend=mend, place=place_of(path, root, line))


def check_names(models: Iterable[Any], known: dict[str, Any], warehouse: Warehouse, root: Path) -> None:
    """Raise FixConfig for the first model that names a table or a column that does not exist.

    `known`: all models by SQLMesh's name, raw tables as external ones.
    """
    for model in models:
        for fqn in sorted(model.depends_on - set(known)):
            raise _missing_table(model, display(fqn), known, warehouse, root)
    for model in models:
        if model.is_sql and (error := model.violated_rules_for_query.get(AmbiguousOrInvalidColumn)):
            raise _bad_column(model, one_line(error), known, root)


def _missing_table(model: Any, name: str, known: dict[str, Any], warehouse: Warehouse, root: Path) -> FixConfig:
    schema = name.partition(".")[0]
    tables = {t for t in warehouse.tables() if not t.startswith(("sqlmesh", "oploop")) and "__all" not in t}
    tables |= {m.name for m in known.values() if not m.kind.is_external}
    place = place_of(model._path, root, line_of(model._path, name))
    siblings = [t for t in tables if t.startswith(f"{schema}.")]  # all alike by what they begin with
    bare = nearest(name.removeprefix(f"{schema}."), [t.removeprefix(f"{schema}.") for t in siblings])
    if schema.startswith("raw_") and bare is None and (siblings or nearest(name, tables) is None):
        mend = f"oploop extract reads it, if `read` of {schema.removeprefix('raw_')} in oploop.yml names it"
    else:
        mend = did_you_mean(name, [f"{schema}.{bare}"] if bare else tables)
    return FixConfig(f"model {model.name} reads {name}, which does not exist", mend=mend, place=place)


def _bad_column(model: Any, reason: str, known: dict[str, Any], root: Path) -> FixConfig:
    told = _LINE.search(reason)
    found = _COLUMN.search(reason)
    if found is None:
        return FixConfig(f"model {model.name}: {reason}", place=place_of(model._path, root, None))
    column = (found.group(1) or found.group(2)).split('"')[-1].split(".")[-1]
    line = _file_line(model, int(told.group(1)), column) if told else None
    place = place_of(model._path, root, line or line_of(model._path, column))
    columns = {c: display(fqn) for fqn in model.depends_on for c in (known[fqn].columns_to_types or {})}
    near = nearest(column, columns)
    mend = f"did you mean {near!r} of {columns[near]}?" if near else did_you_mean(column, columns)
    return FixConfig(f"model {model.name} reads column {column!r}, which does not exist", mend=mend, place=place)


def failure(error: BaseException) -> str:
    """Why a model failed while it was built."""
    if isinstance(error, NodeAuditsErrors):
        return "; ".join(f"{e.audit_name}: {rows(e.count)}" for e in error.errors)
    deepest = [*_causes(error)][-1]
    return one_line(deepest) or type(deepest).__name__


def failed_test(test: Any, error: object, root: Path) -> UnitTestResult:
    """A unit test that failed: what was expected and what came, and where the test stands."""
    text = _ANSI.sub("", str(error))
    message = (_moved(text) or _lists_of_rows(text) or one_line(error)) + _unnamed(text, test.body)
    place = place_of(test.path, root, line_of(test.path, test.test_name))
    return UnitTestResult(test.test_name, False, message, place)


def tests_of_nothing(context: Any, root: Path) -> list[UnitTestResult]:
    """Unit tests of no model, which SQLMesh passes over, and what is no test at all."""
    found = []
    names = [m.name for m in context.models.values() if not m.kind.is_external]
    for test in context.select_tests():
        model = test.body.get("model")
        if not isinstance(model, str):
            said = "it names no model (`model: ...`)"
        elif not test.body.get("outputs"):
            said = "it has no `outputs`"
        elif context.get_model(model) is None:
            said = f"there is no model {model!r} ({did_you_mean(model, names)})"
        else:
            continue
        place = place_of(test.path, root, line_of(test.path, test.test_name))
        found.append(UnitTestResult(test.test_name, False, said, place))
    return found


def bad_test_file(root: Path) -> FixConfig | None:
    """What is wrong with a file of unit tests that cannot be read at all."""
    folder = root / "tests"
    for path in sorted([*folder.glob("**/test*.yaml"), *folder.glob("**/test*.yml")]):
        try:
            content = yaml.load(path, raise_if_empty=False)
        except MarkedYAMLError as e:
            line = e.problem_mark.line + 1 if e.problem_mark is not None else None
            return FixConfig(one_line(e.problem or e), mend="correct the YAML", place=place_of(path, root, line))
        except UnicodeDecodeError:
            return FixConfig("the file is not UTF-8", mend="save it as UTF-8", place=place_of(path, root, None))
        if not isinstance(content, dict) or not content or not all(isinstance(body, dict) for body in content.values()):
            mend = "write `test_name: {model: ..., inputs: ..., outputs: ...}`, or remove the file"
            return FixConfig("what it holds is no unit test", mend=mend, place=place_of(path, root, None))
    return None


def whole_tables() -> AbstractContextManager[None]:
    """While it is open, SQLMesh's tables of differences (pandas writes them) are neither cut nor wrapped."""
    import pandas  # type: ignore[import-untyped]

    cuts = ("display.max_columns", "display.max_rows", "display.max_colwidth")
    whole: AbstractContextManager[None] = pandas.option_context(
        "display.expand_frame_repr", False, *(word for cut in cuts for word in (cut, None))
    )
    return whole


def _moved(text: str) -> str:
    """SQLMesh's table of the values that differ, two columns each (exp, act), as a sentence; empty if it is none."""
    title, _, table = text.partition("\n\n")
    lines = table.splitlines()
    if not title.endswith("(exp: expected, act: actual)") or len(lines) < 3 or len(lines[1].split()) % 2:
        return ""
    said = []
    for line in lines[2:]:
        row, n = _cells(line, lines[1]), int(line.split()[0]) + 1
        pairs = zip(_cells(lines[0], lines[1])[::2], row[::2], row[1::2], strict=True)
        said += [f"row {n}: {name} should be {wanted}, is {got}" for name, wanted, got in pairs if wanted != got]
    return _some(said)


def _unnamed(text: str, body: dict[str, Any]) -> str:
    """What helps where a column differs that the test's outputs do not name: a new one of the model's, most often."""
    _, _, table = text.partition("\n\n")
    lines, outputs = table.splitlines(), str(body.get("outputs"))
    if not _moved(text):
        return ""
    new = [
        c
        for c in dict.fromkeys(_cells(lines[0], lines[1])[::2])
        if not re.search(rf"\b{re.escape(c)}\b", outputs, re.I)
    ]
    return f" (the test does not name {', '.join(new)}: `partial: true` under `outputs` leaves it out)" if new else ""


def _lists_of_rows(text: str) -> str:
    """SQLMesh's lists of rows that are missing or too many, as a sentence; empty if they are none."""
    said = []
    for title, table in re.findall(r"(Missing|Unexpected) rows:\n\n(.*?)(?:\n\n|$)", text, re.DOTALL):
        head, *lines = table.splitlines()
        for line in lines:
            row = ", ".join(f"{n} {v}" for n, v in zip(head.split(), _cells(line, head), strict=True))
            said.append(f"{'no row with' if title == 'Missing' else 'a row too many:'} {row}")
    return _some(said)


def _some(said: list[str]) -> str:
    more = len(said) - 3
    return "; ".join(said[:3]) + (f"; and {more} more" if more > 0 else "")


def _cells(line: str, head: str) -> list[str]:
    """The cells of a line of a table whose columns end where the words of `head` end; without the row's number."""
    ends = [m.end() for m in re.finditer(r"\S+", head)]
    line = re.sub(r"^\d+", lambda m: " " * len(m[0]), line)
    return [line[a:b].strip() for a, b in pairwise([0, *ends])]


def rows(count: int) -> str:
    return f"{count:,} row fails" if count == 1 else f"{count:,} rows fail"


def one_line(error: object) -> str:
    """A message without colours, the statement that it repeats, and line ends."""
    text = _ANSI.sub("", str(error))
    for end in ("\n\nLINE ", "\nLINE "):
        text = text.split(end)[0]
    return " ".join(text.split())[:400]


def _causes(error: BaseException) -> Iterable[BaseException]:
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _line_of_any(path: Path | None, words: Iterable[str]) -> int | None:
    return next((line for word in words if (line := line_of(path, word))), None)


def _file_line(model: Any, line: int, word: str) -> int | None:
    """The line of the model's file that is meant: SQLMesh counts from the file's begin, or, when the model comes from
    its cache, from the query's."""
    text = read(model._path)
    before = text.count("\n", 0, max(0, text.find(model.query_.sql.strip())))
    lines = text.splitlines()
    fits = (n for n in (line, before + line) if n <= len(lines) and word.lower() in lines[n - 1].lower())
    return next(fits, None)
