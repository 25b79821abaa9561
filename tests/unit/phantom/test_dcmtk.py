"""Phantom files read by another implementation of the standard: dcmtk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study


@pytest.mark.parametrize("index", range(4))
def test_dcmtk_reads_what_we_write(index: int, needs_program: Callable[[str], str], tmp_path: Path) -> None:
    program = needs_program("dcmdump")
    file = tmp_path / "phantom.dcm"
    study = make_study(11, index, size=128)
    file.write_bytes(dicom_bytes(study))
    result = subprocess.run(
        [program, "+P", "StudyInstanceUID", "+P", "BodyPartExamined", str(file)], capture_output=True
    )
    assert result.returncode == 0
    assert not result.stderr, "no warning and no error"
    assert study.study_uid.encode() in result.stdout and b"[CHEST]" in result.stdout
