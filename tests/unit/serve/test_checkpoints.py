"""Finding checkpoints: a folder, a run, a demo; never an unfinished one."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.manifest import Manifest, Shard
from serve.checkpoints import find_checkpoint


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


def test_a_checkpoint_a_run_and_a_demo(tiny_checkpoint: Path, tmp_path: Path) -> None:
    new = make_run(tmp_path / "runs" / "a" / "2", tiny_checkpoint, day=2)
    make_run(tmp_path / "runs" / "b" / "1", tiny_checkpoint, day=1)
    shutil.copytree(tiny_checkpoint, tmp_path / "runs" / "c" / "unfinished")
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "manifest.json").write_text("{}")
    assert find_checkpoint(str(tiny_checkpoint)) == tiny_checkpoint
    assert find_checkpoint(str(new.parent)) == new
    assert find_checkpoint(str(tmp_path)) == new


def test_what_is_no_checkpoint_says_so(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(MedfilipError, match="no finished checkpoint"):
        find_checkpoint(str(tmp_path / "nothing"))
    with pytest.raises(MedfilipError) as caught:
        find_checkpoint("s3://bucket/checkpoint")
    assert caught.value.code == ErrorCode.URI_NOT_ALLOWED
    make_run(tmp_path, tiny_checkpoint, day=1, name="../outside")
    with pytest.raises(MedfilipError, match="no finished checkpoint"):
        find_checkpoint(str(tmp_path))
