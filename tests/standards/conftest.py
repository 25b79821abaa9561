from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medfilip.standards.source import part10

STANDARD = "MEDFILIP_DICOM_STANDARD"
"""Names a folder with the DICOM standard as `dicom-validator` keeps it (``pip install dicom-validator``; it downloads
an edition by itself); where it is set, every object is checked by that too."""


@pytest.fixture
def verified(needs_program: Callable[[str], str], tmp_path: Path) -> Callable[[Dataset], bytes]:
    """Return a function that fails on errors of dciodvfy (and dicom-validator, see `STANDARD`), or gives the file."""
    program = needs_program("dciodvfy")
    standard = os.environ.get(STANDARD)

    def verify(dataset: Dataset) -> bytes:
        file = tmp_path / "object.dcm"
        file.write_bytes(part10(dataset))
        said = subprocess.run([program, "-new", str(file)], capture_output=True, text=True)
        lines = (said.stderr + said.stdout).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        assert said.returncode == 0 and not errors, "\n".join(errors)
        assert lines, "it names at least the IOD it found"
        if standard:
            second = [needs_program("validate_iods"), str(file), "--standard-path", standard, "--edition", "local"]
            checked = subprocess.run(second, capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout + checked.stderr
        return file.read_bytes()

    return verify
