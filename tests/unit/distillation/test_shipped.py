"""The student that comes with the package: pinned by hashes, honest about itself, and good on other sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.distillation.card import CARD, FACTS, add_metrics
from medfilip.distillation.dataset import Row
from medfilip.distillation.quality import Gate, Gold, measure, read_with_rules, require_quality
from medfilip.distillation.replying import StudentEngine
from medfilip.distillation.shipped import SHIPPED, shipped_student, verify_student, weight_hashes
from medfilip.extraction.prompt import STUDENT_PROMPT, prompt_version
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology
from medfilip.model import checkpoint
from pipelines.llm_settings import VllmSettings
from pipelines.vllm_plan import vllm_fingerprint

SENTENCES = 240


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "mini"))


def test_it_is_whole_and_says_what_it_is() -> None:
    assert shipped_student() == SHIPPED and prompt_version(str(SHIPPED)) == STUDENT_PROMPT
    facts = json.loads((SHIPPED / FACTS).read_text())
    assert facts["data"]["synthetic"] == "true"
    card = (SHIPPED / CARD).read_text()
    assert "Research use only" in card and "synthetic sentences alone" in card
    assert facts["fingerprint"] in card and "challenge category_f1" in card


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_a_changed_file_is_refused(copied: Path, file: str) -> None:
    with (copied / file).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(MedfilipError, match=file) as caught:
        verify_student(copied)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID
    with pytest.raises(MedfilipError, match=file):
        vllm_fingerprint(VllmSettings(model=str(copied)))
    with pytest.raises(MedfilipError, match=file):
        StudentEngine.load(copied, copying=False)


def test_it_is_hashed_once_and_again_when_it_changes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(file: Path) -> str:
        hashed.append(file.name)
        return sha256_file(file)

    monkeypatch.setattr(checkpoint, "sha256_file", counted)
    verify_student(copied)
    first = len(hashed)
    model = verify_student(copied)["model.safetensors"]
    assert first == len(hashed) and weight_hashes(copied) == [["model.safetensors", model]]
    (copied / "model.safetensors").write_bytes(b"other")
    with pytest.raises(MedfilipError, match=r"model\.safetensors"):
        verify_student(copied)
    assert hashed[first:] == ["model.safetensors"]


def test_a_file_that_nobody_listed_is_refused(copied: Path) -> None:
    (copied / "adapter_config.json").write_text("{}")
    with pytest.raises(MedfilipError, match=r"adapter_config\.json .* not listed") as caught:
        StudentEngine.load(copied)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID


def test_scores_are_added_without_another_fingerprint(copied: Path) -> None:
    before = json.loads((copied / FACTS).read_text())["fingerprint"]
    assert add_metrics(copied, {"here f1": 0.5}) == before
    verify_student(copied)
    assert "| here f1 | 0.5 |" in (copied / CARD).read_text()


def test_it_passes_its_gate_on_sentences_of_another_seed(rows: list[Row]) -> None:
    pytest.importorskip("llguidance")
    reader = ReplyReader(load_ontology())
    gold = [
        Gold(((row.text, row.context),), tuple(reader.read(row.reply, row.text).findings), row.phenomenon)
        for row in rows[:SENTENCES]
    ]
    engine = StudentEngine.load(SHIPPED, batch_size=64)
    student = measure("student", engine.extract_many, gold, resamples=10)
    require_quality(student, measure("rules", read_with_rules, gold, resamples=10), Gate(valid=0.999, grounded=0.999))
    assert student.category_f1 > 0.95
