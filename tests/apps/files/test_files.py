"""Reading and exporting: what changes, what is gone, what is broken, what stands in a file afterwards, on each kind of store."""

from __future__ import annotations

import gzip
import itertools
import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import orjson
import pytest
from fsspec.registry import _registry
from ulid import ULID

from oploop import loop
from oploop.apps.files import FilesApp, FilesConfig
from oploop.apps.storage import Store
from oploop.apps.transport import LostAnswer
from oploop.errors import FixConfig, FixData
from oploop.loop import Options
from oploop.project import load_project
from oploop.records import Change, Cursor, Op, Outcome, ReadOptions, Step
from oploop.runtime import Runtime
from oploop.workspace import Workspace
from tests.apps.files.boxes import FilesBox, encoded
from tests.apps.files.sftp import PASSWORD, USER, serving

GONE_SAYS = "listed, and not there when it was to be read (gone since, or a link that leads nowhere); it is read once it is there"
_numbers = itertools.count(1)


@pytest.fixture
def local() -> FilesBox:
    return FilesBox(mkdtemp(prefix="oploop-files-"))


def app(box: FilesBox, **more: Any) -> FilesApp:
    return FilesApp("drop", FilesConfig.model_validate(box.block(**more)), Runtime())


async def read(
    files: FilesApp, stream: str, cursor: Cursor | None = None, **options: Any
) -> tuple[list[dict[str, Any]], Cursor]:
    rows: list[dict[str, Any]] = []
    async for batch in files.read(stream, cursor, ReadOptions(**options)):
        rows += batch.table.to_pylist()
    assert batch.complete
    assert batch.cursor is not None
    return rows, orjson.loads(orjson.dumps(batch.cursor))


def later(box: FilesBox, name: str, seconds: int) -> None:
    """Set a local file's time, as if it had been written then."""
    at = 1_760_000_000 + seconds
    os.utime(f"{box.path}/{name}", (at, at))


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_each_file_is_read_once_and_rows_of_a_changed_one_take_the_old_ones_place(local: FilesBox) -> None:
    for name, count in (("rows/a.jsonl", 3), ("rows/deep/er/b.jsonl", 2)):
        local.put(name, encoded(name, [{"n": i} for i in range(count)]))
    local.put("rows/.hidden.jsonl", b"{")
    local.put("rows/_SUCCESS.jsonl", b"")
    files = app(local)
    rows, cursor = await read(files, "rows")
    assert [(r["_file"], r["_row"], r["n"]) for r in rows] == [
        ("rows/a.jsonl", 1, 0), ("rows/a.jsonl", 2, 1), ("rows/a.jsonl", 3, 2),
        ("rows/deep/er/b.jsonl", 1, 0), ("rows/deep/er/b.jsonl", 2, 1),
    ]  # fmt: skip
    assert (await read(files, "rows", cursor))[0] == []
    local.put("rows/a.jsonl", b'{"n": "many"}\n\n')
    local.fs.rm(f"{local.path}/rows/deep", recursive=True)
    rows, after = await read(files, "rows", cursor)
    assert [(r["_row"], r.get("n"), r["_deleted"]) for r in rows] == [
        (1, '"many"', False),  # a column that holds now a number and now a text is JSON
        (2, None, True),
        (3, None, True),
    ]
    assert list(after["files"]) == ["rows/a.jsonl"], "a file that is gone is forgotten, and its rows are kept"
    deleting = app(local, streams={"rows": {"files": "rows/**/*.jsonl", "on_gone": "delete"}})
    _, cursor = await read(deleting, "rows")
    local.fs.rm(f"{local.path}/rows/a.jsonl")
    rows, _ = await read(deleting, "rows", cursor)
    assert [(r["_file"], r["_row"], r["_deleted"]) for r in rows] == [("rows/a.jsonl", 1, True)]


async def test_of_rows_with_a_key_those_of_the_file_modified_last_win(local: FilesBox) -> None:
    for name, note, at in (("people/z-old.csv", "old", 10), ("people/a-new.csv", "new", 20)):
        local.put(name, encoded(name, [{"id": 1, "note": note}]))
        later(local, name, at)
    rows, cursor = await read(app(local), "people")
    assert [(r["note"], r["id"], r["_file"]) for r in rows] == [
        ("old", 1, "people/z-old.csv"),
        ("new", 1, "people/a-new.csv"),
    ]
    assert rows[0]["_version"] < rows[1]["_version"]
    local.put("people/late.csv", b"id,note\n1,late\n")
    later(local, "people/late.csv", 15)
    [row], _ = await read(app(local), "people", cursor)
    assert row["_version"] < rows[1]["_version"], "an older file that comes late changes nothing newer"
    rows, _ = await read(app(local), "people", since=datetime.fromtimestamp(1_760_000_018, UTC))
    assert [r["note"] for r in rows] == ["new"]


async def test_csv_is_text_but_for_what_is_declared(local: FilesBox) -> None:
    text = '\ufeffid;zip;"a ""b""";when;ok;more\n1;01234;"x;\ny";2026-01-02T03:04:05+01:00;true;"{""k"": [1]}"\nno;;"";soon;;{\n'
    local.put("people/p.csv.gz", gzip.compress(text.encode()))
    spec = {
        "files": "people/*.csv.gz",
        "delimiter": ";",
        "columns": {"id": "integer", "when": "timestamp", "ok": "boolean", "more": "json", "gone": "number"},
    }
    rows, _ = await read(app(local, streams={"p": spec}), "p")
    values = [{k: v for k, v in r.items() if not k.startswith("_")} for r in rows]
    when = datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert values == [
        {"id": 1, "zip": "01234", 'a "b"': "x;\ny", "when": when, "ok": True, "more": '{"k": [1]}', "gone": None},
        {"id": None, "zip": None, 'a "b"': "", "when": None, "ok": None, "more": None, "gone": None},
    ]
    assert orjson.loads(rows[1]["_raw"])["id"] == "no"
    rows, _ = await read(app(local, streams={"p": spec}), "p", exclude=frozenset({"zip"}))
    assert "zip" not in rows[0]
    assert "zip" not in orjson.loads(rows[0]["_raw"])


@pytest.mark.parametrize("value", ["1e400", "-1e400", "nan", "inf", "1e300", "20000-01-01", "infinity", "soon"])
async def test_what_no_double_and_no_calendar_holds_is_null_and_stays_in_raw(local: FilesBox, value: str) -> None:
    columns = {"n": "number", "u": "unix", "m": "unix_ms", "t": "timestamp", "d": "date"}
    local.put("p.csv", f"{','.join(columns)}\n{','.join([value] * 5)}\n2.5,2,2000,9999-12-31,9999-12-31\n".encode())
    (bad, good), _ = await read(app(local, streams={"p": {"files": "*.csv", "columns": columns}}), "p")
    assert [bad[c] for c in columns] == [1e300 if value == "1e300" else None, None, None, None, None]
    assert orjson.loads(bad["_raw"]) == dict.fromkeys(columns, value)
    two = datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert [good[c] for c in columns] == [2.5, two, two, datetime(9999, 12, 31, tzinfo=UTC), date(9999, 12, 31)]


async def test_encodings_empty_files_and_parquet_types(local: FilesBox) -> None:
    local.put("people/l.csv", "id,name\n1,Müller\n".encode("latin-1"))
    local.put("people/empty.csv", b"")
    spec = {"files": "people/*.csv", "encoding": "latin1", "key": ["id"]}
    rows, _ = await read(app(local, streams={"p": spec}), "p")
    assert [(r["id"], r["name"]) for r in rows] == [("1", "Müller")]
    at = datetime(2026, 1, 2, tzinfo=UTC)
    facts = [{"n": 1, "x": 0.5, "day": date(2026, 1, 2), "at": at, "l": [{"a": 1}], "b": b"\x00"}]
    local.put("facts/f.parquet", encoded("f.parquet", facts))
    [row], _ = await read(app(local), "facts")
    assert {k: row[k] for k in ("n", "x", "day", "at", "l", "_row")} == {
        "n": 1, "x": 0.5, "day": date(2026, 1, 2), "at": at, "l": '[{"a":1}]', "_row": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("people/p.csv", b"id,a\n1,2,3\n", "people/p.csv is no csv file: .*Expected 2 columns, got 3"),
        ("people/p.csv", b"name\nx\n", "people/p.csv has no column 'id', which is the key"),
        ("people/p.csv", b"id,a\n1,2\nx,3\n", "people/p.csv: row 2 has no 'id', which is the key"),
        ("rows/r.jsonl", b'{"a": 1}\n[1]\n', "rows/r.jsonl:2 is no JSON object"),
        ("rows/r.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-9], "rows/r.jsonl.gz is damaged or cut off"),
        ("facts/f.parquet", b"PAR1 and then nothing", "facts/f.parquet is no parquet file"),
    ],
)
async def test_what_is_broken_is_said_with_its_file(local: FilesBox, name: str, data: bytes, says: str) -> None:
    local.put(name, data)
    with pytest.raises(FixData, match=says):
        await read(app(local), {"people": "people", "rows": "rows", "facts": "facts"}[name.split("/")[0]])


async def test_the_position_is_kept_on_the_way(local: FilesBox) -> None:
    for i in range(45):
        local.put(f"rows/{i:02}.jsonl", b'{"n": 1}\n')
    cursors = [b.cursor async for b in app(local).read("rows", None, ReadOptions()) if b.cursor is not None]
    assert [len(c["files"]) for c in cursors] == [20, 40, 45]
    rows, _ = await read(app(local), "rows", cursors[1])
    assert len(rows) == 5


async def test_a_file_that_goes_while_it_is_read_leaves_its_rows_and_is_noted(local: FilesBox) -> None:
    local.put("rows/a.jsonl", b'{"n": 1}\n')
    files = app(local)
    _, cursor = await read(files, "rows")
    local.put("rows/a.jsonl", b'{"n": 2}\n{"n": 3}\n')
    listed = files.store.files()
    data = local.fs.cat_file(f"{local.path}/rows/a.jsonl")
    local.fs.rm(f"{local.path}/rows/a.jsonl")
    files.store.files = lambda wanted=None: listed  # type: ignore[method-assign,assignment,misc]
    rows, cursor = await read(files, "rows", cursor)
    assert rows == []
    assert files.notes == [f"rows/a.jsonl: {GONE_SAYS}"]
    local.put("rows/a.jsonl", data)
    rows, _ = await read(app(local), "rows", cursor)
    assert [r["n"] for r in rows] == [2, 3]


async def test_a_link_that_leads_nowhere_is_told_once_tried_each_time_and_read_when_it_leads_somewhere(
    tmp_path: Path, local: FilesBox
) -> None:
    box = local
    box.put("rows/a.jsonl", b'{"n": 1}\n')
    target = tmp_path / "elsewhere"
    link = Path(box.path) / "rows" / "b.jsonl"
    link.symlink_to(target)
    first = app(box)
    rows, cursor = await read(first, "rows")
    assert ([r["n"] for r in rows], first.notes) == ([1], [f"rows/b.jsonl: {GONE_SAYS}"])
    again = app(box)
    rows, cursor = await read(again, "rows", cursor)
    assert (rows, again.notes) == ([], [])
    target.write_bytes(b'{"n": 2}\n')
    rows, cursor = await read(again, "rows", cursor)
    assert [r["n"] for r in rows] == [2]
    assert "missing" not in cursor
    target.unlink()
    rows, cursor = await read(again, "rows", cursor)
    assert (rows, again.notes) == ([], [f"rows/b.jsonl: {GONE_SAYS}"]), "its rows stay: nobody said that it has none"
    link.unlink()
    _, cursor = await read(again, "rows", cursor)
    assert "missing" not in cursor


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({}, "needs streams"),
        ({"streams": {"a": {"files": "*.dat"}}}, "does not tell the format"),
        (
            {"streams": {"a": {"files": "*.csv", "key": "id", "on_gone": "delete"}}},
            "needs rows that are known by their file",
        ),
        ({"streams": {"a": {"files": "*.csv", "encoding": "klingon"}}}, "'klingon' is no encoding"),
        ({"objects": {"a": {"path": "x.csv", "fields": {"id": "text"}}}}, "path must hold {step}"),
        ({"objects": {"a": {"path": "{nope}/{step}.csv", "fields": {"id": "text"}}}}, "none of the fields"),
        ({"objects": {"a": {"path": "../{step}.csv", "fields": {"id": "text"}}}}, "relative to url"),
        ({"objects": {"a": {"path": "{step}/x.csv", "fields": {"id": "text"}}}}, "into the file's name"),
    ],
)
def test_what_does_not_fit_together_is_refused(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FilesConfig.model_validate({"url": "x", **block})


async def test_a_root_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = FilesBox(str(tmp_path / "nowhere"))
    with pytest.raises(FixConfig, match=r"url: there is nothing at .*nowhere"):
        await app(missing).check()
    assert "nothing at" in (await app(missing, streams={}).check()).line
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as without the extra
    monkeypatch.delitem(_registry, "gs", raising=False)
    for url, says in (("s4://x", "s4"), ("gs://acme/x", r"pip install 'oploop\[gcs\]'")):
        with pytest.raises(FixConfig, match=says):
            await FilesApp("x", FilesConfig(url=url, streams=app(missing).config.streams), Runtime()).check()


# -- exporting ---------------------------------------------------------------------------------------------------------


def changes(count: int, op: Op = Op.CREATE) -> list[Change]:
    at = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
    made = []
    for i in range(count):
        fields = {"id": i, "email": None if i == 1 else f"ü{i}", "score": 0.5, "ok": i % 2 == 0, "at": at}
        fields |= {"day": date(2026, 1, 2), "tags": ["a"], "more": {"it's": i}}
        made.append(Change(i + 1, op, {"id": i}, fields))
    return made


async def test_a_step_is_a_file_and_the_same_one_when_it_is_sent_again(local: FilesBox) -> None:
    files, step_id = app(local), str(ULID())
    for kind in ("csv", "jsonl", "parquet"):
        step = Step(step_id, "my sync", kind, Op.CREATE, changes(3))
        for _ in range(2):
            receipts = await files.send(step)
            assert [r.outcome for r in receipts] == [Outcome.OK] * 3
    names = [f"out/csv/{step_id}-1-3.csv", f"out/jsonl/false/{step_id}-1-3.jsonl.gz"]
    names += [f"out/jsonl/true/{step_id}-1-3.jsonl.gz", f"out/parquet/my%20sync/{step_id}-1-3.parquet"]
    assert local.names() == names
    assert local.get(names[0])[1] == {
        "id": "1", "email": "", "score": "0.5", "ok": "false", "at": "2026-01-02 03:04:05.000600Z", "day": "2026-01-02",
        "tags": '["a"]', "more": '{"it\'s":1}', "_op": "create",
    }  # fmt: skip
    assert local.get(names[2]) == [
        {
            "id": i, "email": f"ü{i}", "score": 0.5, "ok": True, "at": "2026-01-02T03:04:05.000600Z", "day": "2026-01-02",
            "tags": ["a"], "more": {"it's": i}, "_op": "create",
        }
        for i in (0, 2)
    ]  # fmt: skip
    row = local.get(names[3])[2]
    assert (row["id"], row["at"], row["day"]) == (2, datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), date(2026, 1, 2))


async def test_partitions_stay_below_the_root(local: FilesBox) -> None:
    spec = {"path": "p/{email}/{date}/{step}.csv", "fields": {"id": "integer", "email": "text"}}
    files = app(local, objects={"x": spec})
    step = Step("01JD8000000000000000000000", "s", "x", Op.CREATE, [
        Change(n, Op.CREATE, {"id": n}, {"id": n, "email": e}) for n, e in enumerate(["../up", "..", "", None, "a/b"], 1)
    ])  # fmt: skip
    await files.send(step)
    assert [n.split("/")[1] for n in local.names()] == ["%2E%2E", "..%2Fup", "__empty__", "__null__", "a%2Fb"]
    assert {n.split("/")[2] for n in local.names()} == {"2024-11-21"}, (
        "the step's own day, however late it is sent again"
    )


async def test_rows_are_parted_only_by_what_each_of_them_sends(local: FilesBox) -> None:
    spec = {"path": "p/{email}/{step}.csv", "fields": {"id": "integer", "email": "text", "score": "number"}}
    files = app(local, objects={"x": spec})
    changed = Change(1, Op.UPSERT, {"id": 1}, {"id": 1, "score": 2.5})  # its e-mail has not changed, and is not sent
    with pytest.raises(FixConfig, match="parts the files of x by 'email', which a row sends only when it changes"):
        await files.send(Step("s1", "s", "x", Op.UPSERT, [changed]))
    assert local.names() == []
    keyed = Change(1, Op.UPSERT, {"id": 1, "email": "a"}, {"id": 1, "email": "a", "score": 2.5})
    await files.send(Step("s2", "s", "x", Op.UPSERT, [keyed]))
    [name] = local.names()
    assert name.startswith("p/a/")


async def test_a_write_that_fails_is_not_known_to_be_done(local: FilesBox) -> None:
    local.put("out", b"a file where a folder must be")
    with pytest.raises(LostAnswer, match="writing out/csv/"):
        await app(local).send(Step("s1", "s", "csv", Op.CREATE, changes(1)))


# -- whole turns -------------------------------------------------------------------------------------------------------


async def test_appended_rows_and_changes_are_exported_once(local: FilesBox, tmp_path: Path) -> None:
    fields = {"id": "integer", "plan": "text", "since": "timestamp"}
    objects = {
        "events": {"path": "events/{step}.jsonl", "fields": fields},
        "changes": {"path": "changes/{step}.csv", "fields": fields},
    }
    (tmp_path / "syncs").mkdir()
    columns = "key: id\nfields: [plan, since]\nlimits: {removes: 9}\n"
    leaving = "on_leave: delete\nadopt: all\n"
    (tmp_path / "syncs/events.yml").write_text(f"model: main.m\nto: drop.events\nmode: append\n{columns}")
    (tmp_path / "syncs/changes.yml").write_text(f"model: main.m\nto: drop.changes\nmode: upsert\n{columns}{leaving}")
    block = {"type": "files", "url": local.root, "objects": objects}
    (tmp_path / "oploop.yml").write_bytes(
        orjson.dumps({"name": "a", "models": {"engine": "none"}, "apps": {"drop": block}})
    )

    async def turn(*sql: str) -> None:
        async with Workspace(load_project(tmp_path, {}), "prod", Runtime(), "test") as ws:
            for statement in sql:
                ws.warehouse.execute(statement)
            report = await loop.run(ws, Options(yes=True, first_run=True))
            assert report.status == "ok", [(s.sync, s.stopped, str(s.error)) for s in report.syncs]

    await turn(
        "CREATE TABLE main.m AS SELECT i AS id, 'free' AS plan, TIMESTAMPTZ '2026-01-01 00:00:00Z' AS since FROM range(3) t(i)"
    )
    assert local.dump("events") == [], "a first append marks what exists as seen"
    assert [(r["id"], r["plan"], r["since"], r["_op"]) for r in local.dump("changes")] == [
        (str(i), "free", "2026-01-01 00:00:00.000000Z", "upsert") for i in range(3)
    ]
    await turn("INSERT INTO main.m VALUES (7, 'pro', NULL)", "UPDATE main.m SET plan = 'team' WHERE id = 1")
    assert [(r["id"], r["plan"]) for r in local.dump("events")] == [(7, "pro")]
    assert sorted((r["id"], r["plan"], r["since"]) for r in local.dump("changes")) == [
        ("0", "free", "2026-01-01 00:00:00.000000Z"),
        ("1", "free", "2026-01-01 00:00:00.000000Z"),
        ("1", "team", ""),  # only what changed
        ("2", "free", "2026-01-01 00:00:00.000000Z"),
        ("7", "pro", ""),
    ]
    count = len(local.names())
    await turn()
    assert len(local.names()) == count, "nothing new, no file"
    await turn("DELETE FROM main.m WHERE id = 2")
    assert [r["id"] for r in local.dump("changes") if r["_op"] == "remove"] == ["2"]
    await turn()
    assert len(local.names()) == count + 1, "a row leaves once"


# -- other stores ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[FilesBox]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": "k", "secret": "s3cret", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
        box = FilesBox("s3://acme/drop", {**options, "skip_instance_cache": True})
        box.fs.mkdir("acme")
        yield box
    finally:
        server.stop()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FilesBox]:
    from gcp_storage_emulator.server import create_server

    # gcsfs asks by gRPC what kind of bucket it has, which the emulator does not speak
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # it serves one connection at a time, and waits for ever for one that is opened and not used
    monkeypatch.setattr("http.server.HTTPServer", ThreadingHTTPServer)
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="acme")
    server.start()
    try:
        host, port = server._api._httpd.server_address
        options = {"endpoint_url": f"http://{host}:{port}", "token": "anon", "skip_instance_cache": True}
        yield FilesBox("gs://acme/drop", options)
    finally:
        server.stop()


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[FilesBox]:
    with serving(tmp_path) as port:
        url = f"sftp://{USER}@127.0.0.1:{port}/drop"
        (tmp_path / "drop").mkdir()
        box = FilesBox(url, {"password": PASSWORD, "port": port, "skip_instance_cache": True})
        yield box
        box.fs.client.close()


@pytest.mark.parametrize("store", ["s3", "gcs", "sftp"])
async def test_it_is_the_same_on_each_store(store: str, request: pytest.FixtureRequest) -> None:
    box: FilesBox = request.getfixturevalue(store)
    box.put("people/a.csv", b"id,note\n1,one\n2,two\n")
    box.put("rows/b.jsonl.gz", gzip.compress(b'{"n": 1}\n'))
    files = app(box)
    assert "people 1, rows 1" in (await files.check()).line
    rows, cursor = await read(files, "people")
    assert [(r["id"], r["note"]) for r in rows] == [(1, "one"), (2, "two")]
    assert (await read(files, "people", cursor))[0] == []
    box.put("people/a.csv", b"id,note\n1,changed\n")
    if store == "sftp":  # whose times are in seconds
        box.put("people/a.csv", b"id,note\n1,changed again\n")
    rows, _ = await read(files, "people", cursor)
    assert [r["note"] for r in rows] == ["changed again" if store == "sftp" else "changed"]
    rows, _ = await read(files, "rows")
    assert [r["n"] for r in rows] == [1]
    step = Step(str(ULID()), "s", "csv", Op.CREATE, changes(3))
    for _ in range(2):
        await files.send(step)
    assert len(box.dump("out/csv")) == 3
    assert not [n for n in box.names() if ".part" in n]
    assert box.options.get("secret", PASSWORD) not in repr(files.config)


def test_a_store_without_credentials_says_where_to_put_them() -> None:
    class NoCredentialsError(Exception):
        pass

    error = Store("s3://acme/drop", "url").failure(NoCredentialsError("Unable to locate credentials"))
    assert str(error).endswith(
        "Unable to locate credentials — set options, or the credentials where the storage's own tools look for them"
    )
