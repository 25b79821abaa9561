"""The training set: what stays survives the way back, what goes is counted under its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.dataset import (
    TEST,
    TRAIN,
    TRIMMED,
    VALIDATION,
    Reading,
    Row,
    RowWriter,
    balanced,
    reading_of,
    split_of,
    unique,
)
from medfilip.distillation.make import main, make_rows
from medfilip.distillation.row_file import read_rows, write_rows
from medfilip.distillation.sentences import Example
from medfilip.extraction.engine import SentenceResult
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import STUDENT_PROMPT, load_prompt
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology

ENGINE = LexiconEngine()


def writer() -> RowWriter:
    return RowWriter(load_ontology(), load_prompt(STUDENT_PROMPT))


def reading(text: str, of: str | None = None) -> Reading:
    return Reading(text, None, tuple(ENGINE.extract(of or text).findings), "rules")


def test_a_reading_becomes_the_reply_that_is_read_back_as_it() -> None:
    for text in (
        "small left pleural effusion, unchanged",
        "rll linear opacity",
        "bibasilar atelectasis",
        "normal chest",
    ):
        row = writer().row(reading(text))
        assert row is not None and row.split == split_of(text)
        read = ReplyReader(load_ontology()).read(row.reply, text)
        wanted = ENGINE.extract(text).findings
        assert not read.ungrounded
        for slot in ("category", "certainty", "laterality", "sites", "patterns", "change", "size"):
            assert [r[slot] for r in read.findings] == [r[slot] for r in wanted], text


def test_what_cannot_be_used_is_counted_with_its_reason() -> None:
    effusion = reading("small left pleural effusion")
    row = effusion.findings[0]
    cases = {
        "too_long": replace(effusion, text="a" * 601, findings=()),
        "too_many_findings": replace(effusion, findings=effusion.findings * 13),
        "category_unknown": replace(effusion, findings=({**row, "category": "other:thing"},)),
        "mention_missing": replace(effusion, findings=({**row, "evidence": []},)),
        "reply_changed": replace(effusion, findings=({**row, "category": "nodule"},)),
        "disagrees_category": replace(effusion, other=()),
        "disagrees_certainty": replace(effusion, other=({**row, "certainty": "uncertain"},)),
        "disagrees_side": replace(effusion, other=({**row, "laterality": "right"},)),
    }
    for reason, one in cases.items():
        tool = writer()
        found = tool.row(one)
        if reason == "reply_changed":
            # "pleural effusion" is no nodule, whatever a teacher says: the reader holds to the words.
            assert found is None and sum(tool.counts.values()) == 1
            continue
        assert found is None and tool.counts == Counter({reason: 1}), reason


def test_a_slot_without_words_is_taken_out_and_counted() -> None:
    one = reading("left pleural effusion")
    tool = writer()
    row = tool.row(replace(one, findings=({**one.findings[0], "change": "new"},)))
    assert row is not None and row.reply == '{"f":[["pleural effusion","yes","left"]]}'
    assert tool.counts == Counter({TRIMMED: 1, "kept": 1})


def test_whose_truth_a_sentence_gets() -> None:
    row = tuple(ENGINE.extract("small left pleural effusion").findings)
    exact = Example("small left pleural effusion", None, row, "stated", "exact")
    agreed = reading_of(exact, SentenceResult(list(row)))
    assert isinstance(agreed, Reading) and agreed.source == "generator" and agreed.other == row
    more = SentenceResult([*row, {**row[0], "category": "nodule"}])
    taken = reading_of(exact, more)
    assert isinstance(taken, Reading) and taken.source == "rules" and len(taken.findings) == 2
    assert reading_of(exact, replace(more, doubts=("many_findings",))) == "disagrees_category"
    plain = replace(exact, truth="rules", findings=())
    assert reading_of(plain, SentenceResult([], doubts=("unknown_words",))) == "doubted"
    beyond = reading_of(replace(exact, truth="beyond"), SentenceResult([]))
    assert isinstance(beyond, Reading) and beyond.other is None and beyond.findings == row


def test_duplicates_go_and_no_phenomenon_outweighs_the_rest() -> None:
    rows = [Row(f"text {n}", None, "{}", "a" if n < 80 else "b", "rules", TRAIN) for n in range(100)]
    counts: Counter[str] = Counter()
    assert list(unique([*rows, rows[0], replace(rows[1], context="x")], counts)) == [
        *rows,
        replace(rows[1], context="x"),
    ]
    kept = balanced(rows, 0.5, counts)
    assert Counter(row.phenomenon for row in kept) == Counter(a=50, b=20)
    assert counts == Counter(duplicate=1, over_share=30)


def test_splits_go_by_the_sentence() -> None:
    splits = Counter(split_of(f"sentence {number}") for number in range(5_000))
    assert splits[VALIDATION] > 20 and splits[TEST] > 20 and splits[TRAIN] > 4_800


def test_a_set_is_the_same_for_any_number_of_processes_and_survives_its_file(tmp_path: Path) -> None:
    rows, counts, facts = make_rows(4_000, seed=5)
    again, _, _ = make_rows(4_000, seed=5, processes=2)
    assert again == rows and counts["kept"] == len(rows) + counts["duplicate"] + counts["over_share"]
    write_rows(rows, tmp_path / "set.parquet", facts)
    assert read_rows(tmp_path / "set.parquet") == (rows, facts)
    assert all('"' not in row.text or row.reply for row in rows) and facts["synthetic"] == "true"
    with pytest.raises(MedfilipError) as caught:
        read_rows(tmp_path / "other.parquet")
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND


def test_the_command_tells_what_became_of_the_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "300", "--out", str(tmp_path / "set.parquet")]) == 0
    assert "kept" in capsys.readouterr().out
