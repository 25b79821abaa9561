"""Locations: the same small interface on a disk and on a real S3 API."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path) -> Location:
    if request.param == "file":
        return Location.parse(tmp_path / "folder")
    return Location.parse(f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}")


def test_round_trip_and_listing(folder: Location) -> None:
    folder.make_dir()
    (folder / "a/b.bin").write_bytes(b"one")
    (folder / "c.bin").write_bytes(b"three")
    (folder / "c.bin").write_bytes(b"two")
    assert (folder / "c.bin").read_bytes() == b"two"
    assert (folder / "c.bin").size() == 3
    files = [child.path.removeprefix(folder.path) for child in folder.children(recursive=True)]
    assert [name for name in files if name.endswith(".bin")] == ["/a/b.bin", "/c.bin"]
    assert [child.name for child in folder.children()] == ["a", "c.bin"]
    assert folder.is_dir() and (folder / "c.bin").exists() and not (folder / "d").exists()


def test_a_name_does_not_change_what_is_written(folder: Location) -> None:
    (folder / "table.csv.gz").write_bytes(b"as it is")
    assert (folder / "table.csv.gz").read_bytes() == b"as it is" and (folder / "table.csv.gz").size() == 8


def test_create_writes_only_once(folder: Location) -> None:
    folder.make_dir()
    (folder / "manifest.json").create(b"first")
    with pytest.raises(MedfilipError) as caught:
        (folder / "manifest.json").create(b"second")
    assert caught.value.code is ErrorCode.PUBLISH_RACE_LOST
    assert (folder / "manifest.json").read_bytes() == b"first"
    assert [child.name for child in folder.children()] == ["manifest.json"], "nothing temporary is left behind"


def test_an_object_met_again_after_its_answer_was_lost_is_no_lost_race(s3_bucket: str) -> None:
    # What the client's own second try sees: the first one had arrived, and only the answer to it had not.
    location = Location.parse(f"{s3_bucket}/{uuid.uuid4().hex}/manifest.json")
    location.create(b"mine")
    location.create(b"mine")
    assert location.read_bytes() == b"mine"


def test_what_could_not_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    (tmp_path / ".half.json.12ab34cd.tmp").write_bytes(b"{")  # of a process that was killed
    monkeypatch.setattr(os, "fsync", full)
    for write in (Location.write_bytes, Location.create):
        with pytest.raises(OSError, match="no space"):
            write(Location.parse(tmp_path / "new.bin"), b"data")
    assert Location.parse(tmp_path).children() == []
    assert [child.name for child in tmp_path.iterdir()] == [".half.json.12ab34cd.tmp"], "no room is kept by a half"


def test_missing_files_are_told(folder: Location) -> None:
    with pytest.raises(MedfilipError) as caught:
        (folder / "nothing").read_bytes()
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND
    assert folder.children() == []


def test_delete_is_idempotent(folder: Location) -> None:
    (folder / "a/b").write_bytes(b"x")
    (folder / "a").delete()
    (folder / "a").delete()
    assert not (folder / "a/b").exists()


@pytest.mark.parametrize("uri", ["http://host/x", "ftp://x", "s3://", "s3://bucket/../other", "gs://b/x"])
def test_foreign_schemes_and_escapes_are_refused(uri: str) -> None:
    with pytest.raises(MedfilipError) as caught:
        Location.parse(uri)
    assert caught.value.code is ErrorCode.URI_NOT_ALLOWED


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", ""])
def test_names_cannot_leave_their_folder(name: str) -> None:
    with pytest.raises(MedfilipError):
        Location.parse("/data") / name


def test_relative_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(Location.parse("runs")) == str(tmp_path / "runs")
    assert str(Location.parse("s3://bucket/a/")) == "s3://bucket/a"


def test_places_outside_the_allowed_prefixes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path)
    monkeypatch.setenv("MEDFILIP_ALLOWED_PREFIXES", f"{tmp_path}/in, s3://bucket/project")
    for allowed in (tmp_path / "in", tmp_path / "in/a/b", "s3://bucket/project", "s3://bucket/project/x"):
        Location.parse(allowed)
    for refused in (tmp_path, tmp_path / "inside", tmp_path / "in/link/x", "s3://bucket/projects", "s3://other/x"):
        with pytest.raises(MedfilipError) as caught:
            Location.parse(refused)
        assert caught.value.code is ErrorCode.URI_NOT_ALLOWED
    with pytest.raises(MedfilipError):
        Location.parse(f"{tmp_path}/in/../out")


@pytest.mark.parametrize("uri", ["s3://bucket/a#b", "s3://bucket/a?b=c"])
def test_keys_that_a_url_would_cut_are_refused(uri: str) -> None:
    with pytest.raises(MedfilipError):
        Location.parse(uri)
