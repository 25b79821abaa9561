from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medfilip.standards.source import part10


@pytest.fixture
def verified(needs_program: Callable[[str], str], tmp_path: Path) -> Callable[[Dataset], bytes]:
    """Return a function that fails on errors of dciodvfy, and gives the file otherwise."""
    program = needs_program("dciodvfy")

    def verify(dataset: Dataset) -> bytes:
        file = tmp_path / "object.dcm"
        file.write_bytes(part10(dataset))
        said = subprocess.run([program, "-new", str(file)], capture_output=True, text=True)
        lines = (said.stderr + said.stdout).splitlines()
        errors = [line for line in lines if line.startswith("Error")]
        assert said.returncode == 0 and not errors, "\n".join(errors)
        assert lines, "it names at least the IOD it found"
        return file.read_bytes()

    return verify
