"""Phantom files read by another implementation of the standard: dcmtk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import StudyOptions, make_study


@pytest.mark.parametrize("index", range(4))
def test_dcmtk_reads_what_we_write(index: int, needs_program: Callable[[str], str], tmp_path: Path) -> None:
    program = needs_program("dcmdump")
    file = tmp_path / "phantom.dcm"
    study = make_study(11, index, options=StudyOptions(size=128, lateral=1.0))
    for number, image in enumerate(study.images):
        file.write_bytes(dicom_bytes(study, number))
        wanted = ("StudyInstanceUID", "BodyPartExamined", "ViewPosition", "PatientOrientation")
        result = subprocess.run(
            [program, *(part for one in wanted for part in ("+P", one)), str(file)], capture_output=True
        )
        assert result.returncode == 0
        assert not result.stderr, "no warning and no error"
        assert study.study_uid.encode() in result.stdout and b"[CHEST]" in result.stdout
        assert f"[{image.view}]".encode() in result.stdout
        assert (b"[P\\F]" if image.view == "LL" else b"[L\\F]") in result.stdout
