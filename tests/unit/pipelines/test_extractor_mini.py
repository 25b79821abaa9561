"""The small extractor is made by its command: here a much smaller one, from sentences to a folder that loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.replying import StudentEngine
from medfilip.distillation.shipped import SHIPPED, verify_student
from pipelines.cli import app
from pipelines.extractor_mini import ExtractorMiniSettings, make_extractor_mini

TINY = (
    "sentences=2000", "tested=2", "train.student.vocabulary=400", "train.student.hidden_size=32",
    "train.student.layers=1", "train.student.heads=1", "train.student.intermediate_size=32", "train.max_steps=4",
    "train.batch_tokens=1024", "train.report_steps=2", "train.validation_rows=2", "train.exact_rows=1",
)  # fmt: skip
OPEN = ("gate.valid=0", "gate.grounded=0", "gate.f1_ratio=0")


def make(place: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["make-extractor-mini", "--root", str(place), *arguments])
    return result.exit_code, result.output


def test_the_command_makes_a_student_that_loads_and_makes_it_once(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    code, told = make(tmp_path / "root", "--out", str(tmp_path / "out"), *TINY, *OPEN)
    assert code == 0, told
    assert "at most 4 steps of 1,024 tokens" in told and re.search(r"pace +\d+\.\d\d s a step: .* for 0", told)
    verify_student(tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "medfilip.json").read_text())
    assert facts["settings"]["learning_rate"] == ExtractorMiniSettings().train.learning_rate, "what is not said stays"
    assert facts["data"]["synthetic"] == "true" and "held-out synthetic category_f1" in facts["metrics"]
    assert (StudentEngine.load(tmp_path / "out").extract("small effusion").output_tokens or 0) > 0

    code, told = make(tmp_path / "root", "--out", str(tmp_path / "second"), *TINY)
    assert code == 1 and "below 0.9" in " ".join(told.split()) and not (tmp_path / "second").exists()
    assert "drawn" not in told and "training" not in told, "what is done is done"


def test_another_model_is_not_written_into_the_package(tmp_path: Path) -> None:
    before = (SHIPPED / "hashes.json").read_bytes()
    with pytest.raises(MedfilipError, match="another model") as caught:
        make_extractor_mini(tmp_path, settings=ExtractorMiniSettings(sentences=2_000))
    assert caught.value.code is ErrorCode.CONFIG_INVALID and not list(tmp_path.iterdir())
    assert (SHIPPED / "hashes.json").read_bytes() == before
