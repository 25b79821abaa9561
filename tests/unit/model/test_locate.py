"""Finding checkpoints: a folder, a run, a demo; never an unfinished one."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medfilip.core.errors import MedfilipError
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard


def make_run(folder: Path, checkpoint: Path, day: int, name: str = "checkpoint") -> Path:
    shutil.copytree(checkpoint, folder / name)
    moment = datetime(2026, 1, day, tzinfo=UTC)
    manifest = Manifest(
        job="pretrain", run_id="r", config_fingerprint="c", code_version="0", config={}, started_at=moment,
        finished_at=moment,
        files=tuple(Shard(path=f"{name}/{file.name}", rows=0, bytes=1, sha256="0") for file in checkpoint.iterdir()),
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.with_fingerprint().model_dump_json())
    return folder / name


def found(place: Path) -> Path:
    return local_copy(find_checkpoint(Location.parse(place)))


def test_a_checkpoint_a_run_and_a_demo(tiny_checkpoint: Path, tmp_path: Path) -> None:
    new = make_run(tmp_path / "runs" / "a" / "2", tiny_checkpoint, day=2)
    make_run(tmp_path / "runs" / "b" / "1", tiny_checkpoint, day=1)
    shutil.copytree(tiny_checkpoint, tmp_path / "runs" / "c" / "unfinished")
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "manifest.json").write_text("{}")
    assert found(tiny_checkpoint) == tiny_checkpoint
    assert found(new.parent) == new
    assert found(tmp_path) == new


def test_a_checkpoint_in_a_bucket_is_copied(tiny_checkpoint: Path, s3_bucket: str) -> None:
    place = Location.parse(f"{s3_bucket}/checkpoints/one")
    for file in tiny_checkpoint.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    copy = local_copy(find_checkpoint(place))
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in tiny_checkpoint.iterdir()
    }


def test_what_is_no_checkpoint_says_so(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(MedfilipError, match="no finished checkpoint"):
        found(tmp_path / "nothing")
    make_run(tmp_path, tiny_checkpoint, day=1, name="../outside")
    with pytest.raises(MedfilipError, match="no finished checkpoint"):
        found(tmp_path)
