"""Streams and objects as a file beside the app says them."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

from oploop.apps.declared import FILE, Declared, declared
from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Condition,
    Deletes,
    Field,
    FieldType,
    JsonPath,
    Op,
    Operation,
    Pace,
    Replay,
)

BOOKS = """
[streams.books]
description = "the books"
lag = 1.0
columns.integer = "id stock"
columns.text = "title"
columns.json = "facts"

[objects.books]
description = "books on their shelves"
update = {replay = "safe"}
[objects.books.fields]
id = {type = "integer", key = true, read_only = true}
title = "text"
isbn = {column = "facts", path = "numbers isbn", canonical = "lower"}
note = {column = ""}
[objects.books.read_only]
integer = "stock"
[objects.books.dynamic]
"facts." = "json"
"""


def test_a_stream_and_an_object_are_as_they_are_said() -> None:
    said = Declared(BOOKS)
    stream, books = said.streams["books"], said.objects["books"]
    assert (stream.primary_key, stream.incremental, stream.deletes, stream.lag) == (("id",), True, Deletes.MARKED, 1.0)
    integer, text, json = ColumnType.INTEGER, ColumnType.TEXT, ColumnType.JSON
    assert stream.columns == {"id": integer, "stock": integer, "title": text, "facts": json}
    assert books.stream == "books"
    assert books.operations == {Op.UPDATE: Operation(replay=Replay.SAFE)}
    assert books.fields == {
        "id": Field("id", FieldType.INTEGER, source=Column("id"), key=True, read_only=True),
        "title": Field("title", FieldType.TEXT, source=Column("title")),
        "isbn": Field("isbn", FieldType.TEXT, source=JsonPath("facts", ("numbers", "isbn")), canonical=Canonical.LOWER),
        "note": Field("note", FieldType.TEXT),
        "stock": Field("stock", FieldType.INTEGER, source=Column("stock"), read_only=True),
    }
    assert books.dynamic == {"facts.": Field("facts.", FieldType.JSON, source=JsonPath("facts", ()))}


def test_what_is_like_another_says_only_what_is_otherwise() -> None:
    said = Declared(
        BOOKS
        + """
[streams._listed]
whole = true
columns.text = "id"
[streams.shelves]
like = "_listed"
description = "shelves"
columns.text = "room title"
columns.integer = "length stock"
columns.json = "facts"
[operations.many]
batch = 100
replay = "safe"
[objects.shelves]
like = "books"
create = {like = "many", keys = "id", pace = {field = "room", calls = 1, window = 1.0}}
update = {like = "many", condition = {stamp = "at", operation = {in_flight = 9}}}
remove = {like = "many", large = {batch = 5000, calls = 9}, large_from = 400}
fields.room = {required = true}
"""
    )
    assert list(said.streams) == ["books", "shelves"]  # a pattern is none
    shelves = said.streams["shelves"]
    assert (shelves.deletes, shelves.incremental) == (Deletes.ABSENCE, False)
    assert list(shelves.columns) == ["id", "room", "title", "length", "stock", "facts"]
    made = said.objects["shelves"]
    assert made.stream == "shelves"
    assert list(made.fields) == ["id", "title", "isbn", "note", "room", "stock"]
    many = Operation(batch=100, replay=Replay.SAFE)
    assert made.operations[Op.REMOVE] == replace(many, large=Operation(batch=5000, calls=9), large_from=400)
    assert made.operations[Op.CREATE] == Operation(
        batch=100, replay=Replay.SAFE, keys=("id",), pace=Pace("room", 1, 1.0)
    )
    assert made.operations[Op.UPDATE].condition == Condition("at", Operation(in_flight=9))


def test_a_pattern_is_made_into_what_the_account_has() -> None:
    said = Declared(BOOKS)
    assert said.stream("books", "crates", "crates of books").description == "crates of books"
    blind = said.object("books", "crates", stream="")
    assert (blind.name, blind.stream, blind.fields["id"].source) == ("crates", None, None)
    assert blind.dynamic["facts."].source is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("[streams.a]\ncolumns.texts = 'id'", "streams.a.columns.texts"),
        ("[streams.a]\ncolumns.text = 'name'", "streams.a: key 'id' is none of its columns"),
        ("[streams.a]\nlike = 'b'", "streams.a: there is no 'b'"),
        ("[objects.a]\nupdate = 'quickly'", "objects.a.update: there is no 'quickly'"),
        ("[objects.a]\nupdate = 3", "objects.a.update: name one of operations"),
        ("[objects.a]\nupdate = {bach = 3}", "objects.a.update.bach: there is no such key"),
        ("[objects.a]\nupdate = {batch = 0}", "objects.a.update: Value error, batch must be 1 or more"),
        (
            "[objects.a]\nupdate = {condition = {operation = {like = 'quickly'}}}",
            "objects.a.update.condition.operation.like: there is no such key",
        ),
        ("[objects.a.fields]\nid = {kee = true}", "objects.a.fields.id.kee: there is no such key"),
        (
            "[streams.a]\ncolumns.text = 'id state'\n[objects.a]\nupdate = {}\n[objects.a.fields]\nstate = {}\nstatuss = {}",
            "objects.a.fields.statuss: the stream a has no column 'statuss'",
        ),
        ("[object.a]", "wrongly_said: object: there is no such key"),
        ("[objects.a", "table declaration"),
    ],
)
def test_a_mistake_is_told_with_its_place(more: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wrongly_said"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / FILE).write_text(more)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    with pytest.raises(ValueError) as e:
        declared(package.name)
    assert str(e.value).startswith("app.toml of wrongly_said: ")
    assert why in str(e.value)


def test_every_file_of_ours_is_one_that_is_read() -> None:
    """A file that no app reads says nothing."""
    packages = {p.value.partition(":")[0] for p in entry_points(group="oploop.apps")}
    found = [p for p in sorted(packages) if p.startswith("oploop.apps.") and files(p).joinpath(FILE).is_file()]
    assert found
    for package in found:
        said = tomllib.loads(files(package).joinpath(FILE).read_text(encoding="utf-8"))
        assert said["streams"].keys() >= declared(package).streams.keys()
