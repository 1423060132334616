"""Each mistake is one line with file, line and mend; nothing but FixConfig is ever raised."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oploop.errors import FixConfig
from oploop.project import FieldsLock, Locked, load_project, read_fields_lock, write_fields_lock
from oploop.project.yaml import parse_yaml
from tests.unit.project.conftest import OPLOOP, SYNC, Write


def mistake(root: Path) -> str:
    with pytest.raises(FixConfig) as found:
        load_project(root, {})
    said = str(found.value)
    assert "\n" not in said
    assert found.value.place is not None
    assert found.value.mend
    return said


#: (what is appended to `name: acme` from line 2 on, line, what is said, mend)
YAML_TRAPS = [
    ("apps:\n\tstripe: {}", 3, "a tab stands", "indent with spaces"),
    ("x: a: b", 2, "a colon and a space", 'quote this: "a: b"'),
    ("x: @here", 2, "a value starts with @", '"@here"'),
    ("x: %a", 2, "a value starts with %", '"%a"'),
    ("x: `a`", 2, "a value starts with `", '"`a`"'),
    ("x: {{ a }}", 2, "a value starts with {{", '"{{ a }}"'),
    ("x: {{ a }} b", 2, "a value starts with {{", '"{{ a }} b"'),
    ("x: *all", 2, "a value starts with *", '"*all"'),
    ("x: */15 * * * *", 2, "a value starts with *", '"*/15 * * * *"'),
    ("x: !important", 2, "a value starts with !", '"!important"'),
    ("x: 'a' = b", 2, "text follows a quoted value", "one pair of quotes"),
    ('x: "a', 2, "a quote is not closed", "close the quote"),
    ('x: "\\d+"', 2, "a quote is not closed, or the text in it is broken", "in double quotes write"),
    ("x: [a, b", 2, "a bracket is not closed", "close it"),
    ("x: {a: b", 2, "a bracket is not closed", "close it"),
    ("x: - a", 2, "a list begins behind its key", "[a, b]"),
    ("x: 1\n  y: 2", 3, "the indentation does not fit", "indent this line"),
    ("x:\n    a: 1\n  b: 2", 4, "indentation does not fit", "indent this line"),
    ("x:y\nz: 1", 2, "no `key: value`", "a colon and a space"),
    ("name: again", 2, "key 'name' stands twice (first in line 1)", "remove one"),
    ("x: {<<: {a: 1}}", 2, "merge keys", "write the keys out"),
    ("---\nb: 1", 2, "second document", "remove the `---`"),
    ('x: "\\ud800"', 2, "a character that UTF-8 has not", "remove that escape"),
    ('x: "a\\0b"', 2, "NUL", "remove that escape"),
    ("x: a\x07b", 2, "control character", "remove it"),
]


@pytest.mark.parametrize(("text", "line", "what", "mend"), YAML_TRAPS, ids=[t[0][:20] for t in YAML_TRAPS])
def test_what_yaml_makes_easy_is_named(write: Write, text: str, line: int, what: str, mend: str) -> None:
    said = mistake(write(f"name: acme\n{text}\n"))
    assert said.startswith(f"oploop.yml:{line}: ")
    assert what in said
    assert mend in said.split(" — ")[1]


@pytest.mark.parametrize(
    ("value", "line", "what"),
    [
        ("{changes: 400}", 2, "changes must be a time span"),
        ("{changes: 1h}", 2, "changes is shorter than a day"),
        ("\n  runs: 30d\n  hold: 3d", 4, "unknown key 'hold' in retention"),
        ("400d", 2, "retention"),
    ],
)
def test_a_retention_that_is_none(write: Write, value: str, line: int, what: str) -> None:
    said = mistake(write(f"name: acme\nretention: {value}\n"))
    assert said.startswith(f"oploop.yml:{line}: ")
    assert what in said


@pytest.mark.parametrize("trap", ["@", "`", "*", "!", "%", "x: "])
@pytest.mark.parametrize("key", ["api_key", "api_token", "password", "dsn"])
def test_a_secret_is_not_shown_where_the_yaml_breaks(write: Write, trap: str, key: str) -> None:
    said = mistake(write(f"name: acme\napps:\n  stripe:\n    {key}: {trap}hunter2hunter2\n"))
    assert said.startswith("oploop.yml:4: ")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "oploop.yml: the file is empty"),
        (b"# only a comment\n", "oploop.yml: the file is empty"),
        (b"- a\n- b\n", "oploop.yml:1: the file holds a list where a map belongs"),
        (b"just words\n", "oploop.yml:1: the file holds a text where a map belongs"),
        (b"name: acme\nowner: M\xfcller\n", "oploop.yml:2: the file is not UTF-8"),
        ("name: acme\n".encode("utf-16"), "oploop.yml:1: the file is not UTF-8"),
    ],
)
def test_files_that_are_no_config(write: Write, content: bytes, said: str) -> None:
    root = write()
    (root / "oploop.yml").write_bytes(content)
    assert mistake(root).startswith(said)


def test_a_byte_order_mark_is_no_mistake(write: Write) -> None:
    root = write()
    (root / "oploop.yml").write_bytes(b"\xef\xbb\xbfname: acme\r\n")
    assert load_project(root, {}).name == "acme"


#: (oploop.yml, line, what, mend)
CONFIG = [
    ("nam: acme", 1, "unknown key 'nam' in oploop.yml", "did you mean 'name'?"),
    ("apps: {}", 1, "oploop.yml has no 'name'", "add `name: ...`"),
    ("name: 12", 1, "name is a number", "quote this"),
    ("name: a/b", 1, "no project's name", "use letters"),
    ("name: a\nwarehouse: {databse: x}", 2, "unknown key 'databse' in warehouse", "did you mean 'database'?"),
    ("name: a\nwarehouse: {type: duckdv}", 2, "type cannot be 'duckdv'", "did you mean 'duckdb'?"),
    ("name: a\nwarehouse: {database: 'md:prod'}", 2, "warehouse.database is no file", "write `database:"),
    ("name: a\nwarehouse: {database: ':memory:'}", 2, "warehouse.database is no file", "write `database:"),
    ("name: a\nwarehouse: {database: '${W}'}", 2, "environment variable W is not set", "export W=..."),
    (f"name: a\nwarehouse: {{database: {'a' * 300}}}", 2, "a name of more than 255 bytes", "write `database:"),
    (f"name: a\nmodels: {{project: {'a' * 300}}}", 2, "models.project is no folder", "make the folder"),
    ("name: a\nwarehouse: {type: postgres}", 2, "warehouse has no 'dsn'", "add `dsn: ${WAREHOUSE_DSN}`"),
    ("name: a\nwarehouse: {type: postgres, dsn: x, database: y}", 2, "warehouse.database is for", "in dsn"),
    ("name: a\nwarehouse: {dsn: '${W}'}", 2, "warehouse.dsn is for a server", "add `type: postgres`"),
    ("name: a\nwarehouse: w.duckdb", 2, "warehouse holds a text where a map belongs", "write `warehouse:`"),
    ("name: a\nmodels: {engine: sqlmsh}", 2, "engine cannot be 'sqlmsh'", "did you mean 'sqlmesh'?"),
    ("name: a\nmodels: {engine: sqlmesh, project: ./gone}", 2, "models.project is no folder", "make the folder"),
    ("name: a\napps: [stripe]", 2, "apps holds a list where a map belongs", "write `apps:`"),
    ("name: a\napps: {My-App: {}}", 2, "'My-App' cannot be a name in apps", "use small letters"),
    (
        "name: a\napps:\n  x: {read: {t: {sinse: 2025-01-01}}}",
        3,
        "unknown key 'sinse' in stream t",
        "did you mean 'since'?",
    ),
    ("name: a\napps:\n  x: {read: {t: {since: yesterday}}}", 3, "since is no date", "2025-01-31"),
    ("name: a\napps:\n  x: {read: {t: {since: 2025}}}", 3, "since is no date", "2025-01-31"),
    ("name: a\napps:\n  x: {read: {t: {every: 60}}}", 3, "every must be a time span", "every: 1h"),
    ("name: a\napps:\n  x: {read: {t: {every: 0s}}}", 3, "every must be more than 0", "leave it out"),
    ("name: a\napps:\n  x: {read: 5}", 3, "read holds a number", "[customers, charges]"),
    ("name: a\napps:\n  x:\n    read:\n      - t\n      - t", 6, "stream 't' stands twice", "remove one"),
    ("name: a\napps:\n  x: {budget: {share: 0.5}}", 3, "share must be a percentage", "share: 20%"),
    ("name: a\napps:\n  x: {budget: {share: 120%}}", 3, "share must be a percentage", "share: 20%"),
    ("name: a\napps:\n  x: {budget: {share: 0%}}", 3, "0% would let nothing through", "share: 50%"),
    ("name: a\nenvironments: {prod: {delivers: true}}", 2, "unknown key 'delivers' in environment prod", "description"),
]


@pytest.mark.parametrize(("text", "line", "what", "mend"), CONFIG, ids=[c[2][:40] for c in CONFIG])
def test_mistakes_in_oploop_yml(write: Write, text: str, line: int, what: str, mend: str) -> None:
    said = mistake(write(text + "\n"))
    assert said.startswith(f"oploop.yml:{line}: ")
    assert what in said
    assert mend in said.split(" — ")[1]


#: (what of SYNC, becomes what, line, what is said, mend)
SYNCS = [
    ("to: zendesk.tickets", "to: zendsk.tickets", 2, "no app 'zendsk'", "did you mean 'zendesk'?"),
    ("to: zendesk.tickets", "to: tickets", 2, "'tickets' is not app.object", "to: zendesk.tickets"),
    ("model: mart.ticket_priority", "modle: mart.ticket_priority", 1, "unknown key 'modle'", "did you mean 'model'?"),
    ("to: zendesk.tickets", "too: zendesk.tickets", 2, "unknown key 'too'", "did you mean 'to'?"),
    ("to: zendesk.tickets\n", "", 1, "the sync has no 'to'", "add `to: ...`"),
    ("model: mart.ticket_priority\n", "", 1, "the sync has no 'model'", "add `model: ...`"),
    ("model: mart.ticket_priority", "model: select 1", 1, "no model's name", "model: mart."),
    ("key: {id: ticket_id}\n", "", 1, "the sync has no key", "add `key:"),
    ("key: {id: ticket_id}", "key: {}", 3, "the sync has no key", "add `key:"),
    ("key: {id: ticket_id}", "key: 5", 3, "key holds a number", "write `key:"),
    ("key: {id: ticket_id}", "key: [id, id]", 3, "'id' stands twice in key", "remove one"),
    ("fields:\n  priority: priority\n", "", 1, "maps no field", "add `fields:"),
    ("priority: priority", "priority: 5", 5, "mapped to a number, not to a column", "write {value: 5}"),
    ("priority: priority", "priority:", 5, "field 'priority' is empty", "give it a value"),
    ("priority: priority", "priority: {colum: p}", 5, "unknown key 'colum' in field 'priority'", "did you mean 'column'?"),
    ("priority: priority", "priority: {column: p, value: 1}", 5, "has column and value", "keep one"),
    ("priority: priority", "priority: {column: p, value: null}", 5, "has column and value", "keep one"),
    ("priority: priority", "priority: {set: [a], add: [b]}", 5, "has set and add/remove", "keep one"),
    ("priority: priority", "priority: {if_empty: true}", 5, "has no source", "add one of column"),
    ("priority: priority", "priority: {ref: zendesk.users, by: email}", 5, "has no source", "looked up"),
    ("priority: priority", "priority: {ref: zendesk.users, column: p}", 5, "needs ref and by together", "by: its_field"),
    ("priority: priority", "priority: {ref: zendesc.users, by: a, column: p}", 5, "no app 'zendesc'", "'zendesk'?"),
    ("priority: priority", "priority: {column: p, on_miss: hold}", 5, "on_miss without ref", "remove on_miss"),
    ("priority: priority", "priority: {set: [a], map: {a: b}}", 5, "ref and map do not fit set", "use column"),
    ("priority: priority", "priority: {column: p, map: [a]}", 5, "map holds a list", "write `map:"),
    ("priority: priority", "priority: {add: {a: b}}", 5, "add holds a map where a list belongs", "write `add: [a, b]`"),
    ("priority: priority", "priority: {column: p, if_empty: yes}", 5, "if_empty is neither", "write true (in YAML 1.2 'yes' is a word)"),
    ("priority: priority", "priority: {column: p, only: update}", 5, "only cannot be 'update'", "create"),
    ("fields:\n  priority: priority", "fields: [a, b, a]", 4, "field 'a' is mapped twice", "remove one"),
]  # fmt: skip
SYNC_KEYS = [
    ("mode: upsrt", "mode cannot be 'upsrt'", "did you mean 'upsert'?"),
    ("mode: 5", "mode cannot be a number", "use one of create"),
    ("enabled: no", "enabled is neither true nor false", "write false (in YAML 1.2 'no' is a word)"),
    ("limits: {changes: 0.2}", "changes is neither a share nor a count", "changes: 20%"),
    ("limits: {changes: [20%, 30%]}", "changes has two of a kind", "[20%, 10000]"),
    ("limits: {changes: []}", "changes is empty", "[20%, 10000]"),
    ("limits: {held: -1}", "held must be a whole number", "held: 100"),
    ("limits: {chnges: 1}", "unknown key 'chnges' in limits", "did you mean 'changes'?"),
    ("limits: 20%", "limits holds a text", "write `limits: {changes"),
    ("checks: {sq: a}", "unknown key 'sq' in a check", "did you mean 'sql'?"),
    ("checks: {stop: true}", "a check has no 'sql'", "add `sql: ...`"),
    ("checks: 5", "checks holds a number", "- score between"),
    ("checks: [a >]", "no SQL expression", "like `score between 0 and 100`"),
    ("where: a; b", "more than one statement", "without a semicolon"),
    ("when: hourly", "when cannot be 'hourly'", "cron time"),
    ('when: "99 * * * *"', "when cannot be '99 * * * *'", "cron time"),
    ("order_by: a; b", "order_by cannot be", "order_by: spend desc"),
    ("max_read_age: 1 hour", "max_read_age must be a time span", "max_read_age: 1h"),
    ("canary: -1", "canary must be a whole number", "canary: 100"),
    ("tags: [{a: b}]", "an item of tags holds a map", "quote this"),
    ("tags: [true]", "an item of tags is true (a truth value)", "quote this"),
    ("owner: {a: b}", "owner holds a map where text belongs", "in quotes"),
    ("owner:", "owner is empty", "remove the line"),
    ("on_leave: [keep]", "on_leave cannot be a list", "use one of keep"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "mend"), SYNCS, ids=[f"{s[3][:30]} {s[1][-12:]}" for s in SYNCS]
)
def test_mistakes_in_a_sync(write: Write, old: str, new: str, line: int, what: str, mend: str) -> None:
    assert old in SYNC
    said = mistake(write(one=SYNC.replace(old, new)))
    assert said.startswith(f"syncs/one.yml:{line}: ")
    assert what in said
    assert mend in said.split(" — ")[1]


def test_a_variable_that_is_no_text_is_named(write: Write) -> None:
    root = write("name: a\nwarehouse: {database: '${W}'}\n")
    with pytest.raises(FixConfig, match=r"oploop.yml:2: environment variable W is no UTF-8 text — set it again"):
        load_project(root, {"W": os.fsdecode(b"caf\xe9.duckdb")})


def test_a_block_whose_name_is_misspelled_is_pointed_at_and_not_the_sync_that_is_right(write: Write) -> None:
    said = mistake(write("name: a\napps:\n  stripe: {}\n  zendeks: {subdomain: a}\n", one=SYNC))
    assert said == "oploop.yml:4: there is no app of type 'zendeks' — did you mean 'zendesk', which a sync names?"
    own = mistake(write("name: a\napps:\n  zendeks: {type: zendesk, subdomain: a}\n", one=SYNC))
    assert own.startswith("syncs/one.yml:2: there is no app 'zendesk' in oploop.yml")


@pytest.mark.parametrize(("text", "what", "mend"), SYNC_KEYS, ids=[k[0] for k in SYNC_KEYS])
def test_mistakes_in_a_syncs_keys(write: Write, text: str, what: str, mend: str) -> None:
    said = mistake(write(one=f"{SYNC}{text}\n"))
    assert said.startswith("syncs/one.yml:6: ")
    assert what in said
    assert mend in said.split(" — ")[1]


def test_a_name_that_no_sync_can_have(write: Write) -> None:
    root = write(one=SYNC)
    (root / "syncs/one.yml").rename(root / "syncs/a b.yml")
    assert "'a b' cannot be a sync's name — rename the file" in mistake(root)


def test_a_folder_where_the_file_belongs(write: Write) -> None:
    root = write()
    (root / "oploop.yml").unlink()
    (root / "oploop.yml").mkdir()
    with pytest.raises(FixConfig, match=r"no oploop\.yml"):
        load_project(root, {})


def test_anchors_work_but_cannot_grow_without_bound() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\n", "f.yml") == {"a": [1, 2], "b": [1, 2]}
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    with pytest.raises(FixConfig, match="use fewer anchors"):
        parse_yaml(bomb, "f.yml")
    with pytest.raises(FixConfig, match="deep"):
        parse_yaml("a: " + "[" * 300 + "]" * 300, "f.yml")
    with pytest.raises(FixConfig, match=r"f\.yml:1: .*anchor"):
        parse_yaml("a: &x [*x]", "f.yml")


def read_or_explained(call: Callable[[], object]) -> FixConfig | None:
    """Runs `call`; what it raises must be a FixConfig of one line."""
    try:
        call()
    except FixConfig as e:
        said = e
    else:
        return None
    assert "\n" not in str(said)
    assert said.mend
    return said


ALPHABET = st.sampled_from(
    [*"ab:-#[]{}&*!|>'\"%@`,?\\ \n\t0~<$.", "é", "\u2028", "\x85", "\ue000", "\x00", "- ", ": ", "${A}", "---\n"]
)
ANY_TEXT = st.lists(ALPHABET, max_size=40).map("".join) | st.text(max_size=60)


@given(ANY_TEXT)
@settings(max_examples=600, deadline=None)
@example("%YAML x")
@example("%YAML 1.1\n---\na: no")
@example("%TAG ! !\n---\n!")
@example('"\\x')
@example('"\\U7fffffff"')
@example('a: "\\ud800"')
@example("? a\n: b")
@example("a: 1" + "0" * 5000)
@example("a: 1e999")
@example("&a *a")
@example("[" * 2000)
@example("{" * 2000)
@example("- " * 2000)
@example("? " * 2000)
def test_any_text_is_read_or_explained(text: str) -> None:
    read_or_explained(lambda: parse_yaml(text, "f.yml"))


@given(where=st.sampled_from(["oploop.yml", "syncs/one.yml", ".env", "fields.lock"]), text=ANY_TEXT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_any_file_is_read_or_explained(write: Write, where: str, text: str) -> None:
    root = write(OPLOOP + "warehouse: {database: '${W}'}\n", one=SYNC)
    (root / where).write_bytes(text.encode("utf-8", "surrogatepass"))
    read_or_explained(lambda: load_project(root, {}))
    read_or_explained(lambda: read_fields_lock(root))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["a", "20%", "1h", "models", "a b", "", "x.y", "zendesk.t", "'"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["sql", "column", "value", "a", "changes", "add", "ref", "by"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = [
    "model",
    "to",
    "owner",
    "tags",
    "enabled",
    "mode",
    "key",
    "fields",
    "where",
    "on_null",
    "limits",
    "checks",
    "explain",
    "when",
    "order_by",
    "max_read_age",
    "canary",
]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_under_any_key_is_read_or_explained(write: Write, values: dict[str, object]) -> None:
    sync = {"model": "m", "to": "zendesk.t", "key": "id", "fields": ["a"], **values}
    root = write(one=json.dumps(sync, ensure_ascii=False))
    said = read_or_explained(lambda: load_project(root, {}))
    assert said is None or (said.place is not None and said.place.file == "syncs/one.yml")


TITLE = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=8)


ID = TITLE.filter(str.strip)
ENTRY = st.builds(Locked, ID, st.none() | ID)


@given(st.dictionaries(TITLE, st.dictionaries(TITLE, ENTRY, min_size=1, max_size=3), max_size=3))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_fields_lock_comes_back(tmp_path: Path, mapping: FieldsLock) -> None:
    write_fields_lock(tmp_path, mapping)
    assert read_fields_lock(tmp_path) == mapping


def test_a_title_that_no_file_can_hold_does_not_break_the_lock(tmp_path: Path) -> None:
    write_fields_lock(tmp_path, {"zendesk.tickets": {"a\x00\ud800": Locked("1")}})
    assert read_fields_lock(tmp_path) == {"zendesk.tickets": {"a\ufffd\ufffd": Locked("1")}}
