"""Quality: shares and F1 of what an engine reads, the gate, gold files, and how familiar sentences look."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.coverage import compare
from medfilip.distillation.quality import Gate, Gold, measure, read_gold, read_with_rules, require_quality
from medfilip.extraction.engine import SentenceResult
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology
from tests.challenge.gold import gold_lines

GOLD = [
    Gold((("small left effusion", None),), tuple(read_with_rules([("small left effusion", None)])[0].findings), "easy"),
    Gold((("no pneumothorax", None), ("edema", None)), ({"category": "pneumothorax", "certainty": "absent"},
                                                        {"category": "edema", "certainty": "present"}), "two"),
]  # fmt: skip


def replying(*replies: str) -> list[SentenceResult]:
    reader, asked = ReplyReader(load_ontology()), [sentence for item in GOLD for sentence in item.sentences]
    return [reader.read(reply, text) for reply, (text, _) in zip(replies, asked, strict=True)]


def test_rules_read_their_own_gold_perfectly() -> None:
    quality = measure("rules", read_with_rules, GOLD, resamples=20)
    assert (quality.valid, quality.grounded, quality.f1, quality.category_f1) == (1.0, 1.0, 1.0, 1.0)
    assert quality.phenomena == {"easy": 1.0, "two": 1.0} and quality.sentences == 3


def test_what_is_wrong_lowers_the_number_it_concerns() -> None:
    right, wrong = '{"f":[["effusion","yes","small","left"]]}', '{"f":[["effusion","maybe"],["nodule","yes"]]}'
    rest = ('{"f":[["pneumothorax","no"]]}', '{"f":[["edema","yes"]]}')

    def read(*replies: str) -> object:
        return lambda _: replying(*replies)

    best = measure("student", read(right, *rest), GOLD, resamples=20)  # type: ignore[arg-type]
    assert best.f1 == best.valid == best.grounded == best.kept == 1.0
    worse = measure("student", read(wrong, rest[0], "{"), GOLD, resamples=20)  # type: ignore[arg-type]
    assert worse.valid == pytest.approx(2 / 3) and worse.grounded == pytest.approx(2 / 3)
    assert worse.f1 == pytest.approx(0.4) and worse.category_f1 == pytest.approx(0.8)
    require_quality(best, best, Gate())
    for changed, name in (({"valid": 0.9}, "valid"), ({"grounded": 0.9}, "grounded"), ({"f1": 0.89}, "F1 over that")):
        with pytest.raises(MedfilipError, match=name) as caught:
            require_quality(best.model_copy(update=changed), best, Gate())
        assert caught.value.code is ErrorCode.QUALITY_TOO_LOW


def test_gold_is_read_from_lines_and_from_a_training_set(tmp_path: Path, data: Path) -> None:
    lines = list(gold_lines())
    file = tmp_path / "gold.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:20]))
    gold = read_gold(file)
    assert len(gold) == 20 and len(lines) >= 400
    assert measure("rules", read_with_rules, gold, resamples=10).f1 > 0.8
    held_out: Sequence[Gold] = read_gold(data)
    assert held_out and all(item.sentences[0][0] for item in held_out)
    file.write_text("{}\n")
    with pytest.raises(MedfilipError, match="Line 1"):
        read_gold(file)
    with pytest.raises(MedfilipError):
        read_gold(tmp_path / "none.jsonl")


def test_familiar_sentences_are_told_from_strange_ones() -> None:
    synthetic = ["no pleural effusion", "small left nodule, unchanged", "8 mm nodule"]
    coverage, missing = compare(synthetic, ["no pleural effusions", "purple elephants", "5 mm nodule"])
    assert coverage.covered[1] == pytest.approx(6 / 8) and coverage.familiar == pytest.approx(2 / 3)
    assert {group for group, _ in missing[1]} == {"purple", "elephant"}
    assert coverage.synthetic.rates["negation"] == pytest.approx(1 / 3) and coverage.given.rates["measure"] > 0
