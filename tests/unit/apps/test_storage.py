"""Files wherever fsspec finds them: which fit a pattern, their bytes, and files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from oploop.apps import storage
from oploop.apps.policy import LostAnswer
from oploop.apps.storage import File, Store, matching
from oploop.errors import FixConfig, RetryLater


def test_patterns_stay_within_a_folder_unless_they_say_otherwise() -> None:
    one, deep = matching("in/*.csv"), matching("**/x?.csv")
    assert [one(n) for n in ("in/1.csv", "in/d/1.csv", "in/1.csv.gz", "in/.1.csv", "in/_1.csv")] == [True] + [False] * 4
    assert [deep(n) for n in ("x1.csv", "a/b/x2.csv", "a/x10.csv", "_tmp/x1.csv")] == [True, True, False, False]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "drop") if request.param == "local" else f"memory://box-{uuid4().hex}", "url")


def test_what_is_put_is_listed_and_read_and_its_mark_changes_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("b/2.txt", b"two")
    store.put("b/2.txt", b"three")
    store.put("1.txt", b"one")
    one, two = store.files()
    assert [(f.name, f.folder, f.size) for f in (one, two)] == [("1.txt", "", 3), ("b/2.txt", "b", 5)]
    for whole_up_to in (storage.WHOLE_UP_TO, 0):
        monkeypatch.setattr(storage, "WHOLE_UP_TO", whole_up_to)
        with store.opened(two) as source:
            assert source.read() == b"three"
    assert [f.name for f in store.files(matching("b/*"))] == ["b/2.txt"]
    store.put("1.txt", b"other")
    assert store.files()[0].mark != one.mark


def test_a_file_that_is_gone_is_not_found_and_one_that_cannot_be_read_is_for_later(tmp_path: Path) -> None:
    store = Store(str(tmp_path), "url")
    with pytest.raises(FileNotFoundError), store.opened(File(f"{tmp_path}/x", "x", 1, "m")):
        pass
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(RetryLater, match="cannot read folder at"),
        store.opened(File(f"{tmp_path}/folder", "folder", 1, "m")),
    ):
        pass


def test_a_file_that_cannot_be_put_is_told_by_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(LostAnswer, match="writing a/b at "):
        Store(str(tmp_path), "url").put("a/b", b"")

    class Closed(Store):
        def _put(self, path: str, data: bytes) -> None:
            raise PermissionError("closed")

    with pytest.raises(FixConfig, match=r"url: .* may not be written \(closed\)"):
        Closed(str(tmp_path), "url").put("x", b"")
    with pytest.raises(FixConfig, match="url: cannot write to s4://acme: ValueError: Protocol not known"):
        Store("s4://acme", "url").put("x", b"")
    with pytest.raises(FixConfig, match="url: cannot list s4://acme: ValueError: Protocol not known"):
        Store("s4://acme", "url").files()


def test_without_credentials_nothing_is_written_and_nothing_lost(tmp_path: Path) -> None:
    class NoCredentialsError(Exception):
        """As botocore names it."""

    class Bare(Store):
        def _put(self, path: str, data: bytes) -> None:
            raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(
        FixConfig, match=r"cannot write to .*: NoCredentialsError: .* — set options, or the credentials"
    ):
        Bare(str(tmp_path), "url").put("x", b"")


@pytest.mark.parametrize("whole_up_to", [2**20, 0], ids=["whole", "in parts"])
def test_a_file_that_is_closed_to_us_is_for_people_and_what_else_a_storage_says_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_up_to: int
) -> None:
    monkeypatch.setattr(storage, "WHOLE_UP_TO", whole_up_to)
    store, file = Store(str(tmp_path), "url"), File(f"{tmp_path}/x", "x", 1, "m")
    said: list[Exception] = [PermissionError("denied"), ConnectionError("cut"), RuntimeError("a storage's own")]

    def refuse(*_: object, **__: object) -> None:
        raise said[0]

    monkeypatch.setattr(store.open(), "cat_file", refuse)
    monkeypatch.setattr(store.open(), "open", refuse)
    with (
        pytest.raises(FixConfig, match=r"url: x at .* may not be read \(denied\) — check the rights, or move the file"),
        store.opened(file),
    ):
        pass
    for _ in said[1:]:
        said.pop(0)
        with pytest.raises(RetryLater, match=f"cannot read x at .*: {said[0]}"), store.opened(file):
            pass


def test_what_reads_a_file_has_its_own_mistakes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    with pytest.raises(ZeroDivisionError), Store(str(tmp_path), "url").opened(File(f"{tmp_path}/x", "x", 1, "m")):
        _ = 1 / 0


def test_no_half_written_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path), "url")
    store.put("x", b"old")

    def cut(fd: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(storage.os, "fsync", cut)
    with pytest.raises(LostAnswer, match="the disk is full"):
        store.put("x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [f.name for f in store.files(matching("**"))] == ["x"]
