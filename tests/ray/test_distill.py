"""Distillation on the cluster: from an extract run, gold and generated sentences to a published student, or none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_file
from medfilip.distillation.dataset import TEST
from medfilip.distillation.replying import StudentEngine
from medfilip.distillation.row_file import read_rows
from medfilip.extraction.gold import Choice, GoldSentence, append_gold
from medfilip.extraction.prompt import STUDENT_PROMPT, prompt_version
from medfilip.phantom.corpus import write_reports
from medfilip.storage.shards import read_dataset
from pipelines import ray_distill
from tests.ray.conftest import Ran, run_job

MICRO = (
    "student.vocabulary=400", "student.hidden_size=32", "student.layers=1", "student.heads=1",
    "student.intermediate_size=32", "max_steps=24", "batch_tokens=1024", "report_steps=12", "state_steps=12",
    "validation_rows=4", "exact_rows=1", "learning_rate=0.01",
)  # fmt: skip
OPEN = ("gate.valid=0", "gate.grounded=0", "gate.f1_ratio=0")


def write_gold(extracted: Ran, file: Path) -> set[str]:
    """Decide that some sentences state nothing; return their texts."""
    table = read_dataset(extracted.location, extracted.manifest, "sentences").slice(0, 30)
    for row in table.to_pylist():
        append_gold(
            file,
            GoldSentence(
                sentence_id=row["sentence_id"], text=row["text"], context=row["context"], findings=(),
                choice=Choice.NEITHER, decided_at=datetime.now(UTC),
            ),
        )  # fmt: skip
    return set(table["text"].to_pylist())


def no_training(*_given: Any, **_options: Any) -> Any:
    raise AssertionError("the student was trained again")


def distill(arguments: Sequence[str], *more: str) -> Ran:
    return Ran.of(run_job("distill", *arguments, *more))


def test_a_student_is_published_only_if_it_passes_the_gate(
    extracted: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = write_gold(extracted, tmp_path / "gold.jsonl")
    write_reports(tmp_path / "corpus", 20, seed=5)
    arguments = (
        f"findings={extracted.location}", f"gold={tmp_path / 'gold.jsonl'}", "gold_test_share=0.4", "synthetic=2000",
        f"phantom={tmp_path / 'corpus'}",
        "test_rows=8", "quiet=true", f"root={tmp_path / 'runs'}", *(f"train.{item}" for item in MICRO),
    )  # fmt: skip
    with pytest.raises(MedfilipError, match=r"below 0\.9\d+\. The student is not published") as caught:
        distill(arguments)
    assert caught.value.code is ErrorCode.QUALITY_TOO_LOW and "gate.valid" in (caught.value.fix or "")
    assert not list(tmp_path.glob("runs/distill-*/*/manifest.json")) and not list(tmp_path.glob("runs/*/*/model"))

    with monkeypatch.context() as patch:
        patch.setattr(ray_distill, "run_group", no_training)
        ran = distill(arguments, *OPEN)
    folder, manifest = Path(ran.location.path), ran.manifest
    rows, facts = read_rows(folder / "training_set.parquet")
    assert facts["synthetic"] == "false" and {row.source for row in rows if row.text in texts} == {"gold"}
    counts, rejected = manifest.counts, manifest.rejected
    sources = ("gold", "phantom", "lexicon", "generator", "rules")
    assert all(counts[f"from_{name}"] for name in sources)
    assert sum(counts[f"from_{name}"] for name in sources) == len(rows)
    assert counts["training_steps"] == 24 and counts["longest_row_tokens"] > 0 and rejected["gold_decides"] > 0
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [12, 24]
    for file in manifest.files:
        assert sha256_file(folder / file.path) == file.sha256
    assert not (folder / "staging").exists()

    scores = json.loads((folder / "quality.json").read_text())
    held_out = [row for row in rows if row.split == TEST]
    assert scores["gold"]["student"]["sentences"] == sum(row.source == "gold" for row in held_out) > 0
    assert scores["teacher"]["other"]["f1"] == 1 and scores["gold"]["other"]["engine"] == "rules"
    assert manifest.metrics["f1_against_gold"] == scores["gold"]["student"]["f1"]
    assert manifest.metrics["f1_of_rules_against_gold"] == scores["gold"]["other"]["f1"]

    with pytest.raises(MedfilipError, match=r"below 0\.9\d+\."):
        distill(arguments)  # it is finished, yet not as good as now asked for
    loads_as_a_student(folder / "model")


def loads_as_a_student(model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(model).config.vocab_size == len(AutoTokenizer.from_pretrained(model))
    assert prompt_version(str(model)) == STUDENT_PROMPT
    facts = json.loads((model / "medfilip.json").read_text())
    assert facts["fingerprint"] in (model / "README.md").read_text() and "f1_against_teacher" in facts["metrics"]
    assert (StudentEngine.load(model).extract("small effusion").output_tokens or 0) > 0
