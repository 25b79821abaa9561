"""How all sources become one training set, in however many parts they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfilip.distillation.dataset import TEST, TRAIN, Row, RowWriter, balanced, split_of, unique
from medfilip.distillation.given import GOLD, PLAIN, gold_rows
from medfilip.distillation.join import Mixture, Numbers, count_rows, in_splits, key_of, reviewed_rows, with_numbers
from medfilip.distillation.row_file import RowFileWriter, read_rows, rows_of, table_of
from medfilip.extraction.gold import Choice, GoldSentence
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import STUDENT_PROMPT, load_prompt
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology

TEXT = "small left pleural effusion"
FOUND = LexiconEngine().extract(TEXT).findings
MIXTURE = Mixture(test_share=0.1, gold_test_share=0.2, phenomenon_share=1.0, gold_weight=3)


def gold(text: str, *findings: dict[str, Any], context: str | None = None) -> GoldSentence:
    stated = tuple(Finding.from_row(finding) for finding in findings)
    return GoldSentence(
        sentence_id=1, text=text, context=context, findings=stated, choice=Choice.NEITHER,
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def plain(text: str, source: str, reply: str = '{"f":[]}') -> Row:
    return Row(text, None, reply, PLAIN, source, TRAIN)


def join(
    decided: Sequence[GoldSentence],
    reviewed: Sequence[Row],
    others: Sequence[Row],
    mixture: Mixture,
    counts: Counter[str],
    *,
    cuts: Sequence[int] = (),
) -> list[Row]:
    """Join rows that come in parts, cut at these places."""
    ends = [0, *cuts, len(others)]
    parts = [with_numbers(others[begin:end]) for begin, end in pairwise(ends)]
    first = reviewed_rows(decided, reviewed, mixture, counts)
    numbers = Numbers()
    for part in parts:
        numbers.add(part)
    kept = numbers.choose({key_of(one.text, one.context) for one in decided}, mixture.phenomenon_share, counts)
    return [*first, *(row for table in in_splits(parts, kept, decided, mixture) for row in rows_of(table))]


def join_objects(
    decided: Sequence[GoldSentence], others: Sequence[Row], mixture: Mixture, counts: Counter[str]
) -> list[Row]:
    """The same row by row, for what no person's decision became a row of."""
    stated = {(one.text, one.context or "") for one in decided}
    left = []
    for row in unique(others, counts):
        if (row.text, row.context or "") in stated:
            counts["gold_decides"] += 1
        else:
            left.append(row)
    texts = {one.text for one in decided}
    return [
        replace(row, split=split_of(row.text, mixture.gold_test_share if row.text in texts else mixture.test_share))
        for row in balanced(left, mixture.phenomenon_share, counts)
    ]


def test_gold_counts_before_every_other_reading() -> None:
    corrected = gold(TEXT)
    unsayable = gold("a nodule", {**FOUND[0], "evidence": []})
    writer = RowWriter(load_ontology(), load_prompt(STUDENT_PROMPT))
    reviewed = gold_rows([corrected, unsayable], writer)
    assert [one.reply for one in reviewed] == ['{"f":[]}'] and writer.counts["mention_missing"] == 1
    counts: Counter[str] = Counter()
    others = [plain(TEXT, "lexicon", "other"), plain("a nodule", "lexicon"), plain("twice", "lexicon")]
    rows = join([corrected, unsayable], reviewed, [*others, plain("twice", "generator")], MIXTURE, counts, cuts=[3])
    assert {one.source for one in rows if one.text == TEXT} == {GOLD}
    assert [one.source for one in rows if one.text == "twice"] == ["lexicon"]
    assert not [one for one in rows if one.text == "a nodule"]
    assert counts == Counter(gold_decides=2, duplicate=1, over_share=0)


def test_gold_is_repeated_in_training_alone_and_no_text_stands_on_both_sides() -> None:
    texts = [f"sentence {number}" for number in range(400)]
    decided = [gold(text) for text in texts]
    reviewed = [plain(text, GOLD) for text in texts]
    leaning = [replace(plain(text, "lexicon"), context="x") for text in texts]
    rows = join(decided, reviewed, leaning, replace(MIXTURE, phenomenon_share=0.5), Counter())
    splits: dict[str, set[str]] = {}
    for one in rows:
        splits.setdefault(one.text, set()).add(one.split)
    assert all(len(found) == 1 for found in splits.values())
    times = Counter(one.text for one in rows if one.source == GOLD)
    assert {times[text] for text in texts if splits[text] == {TRAIN}} == {3}
    held_out = [text for text in texts if splits[text] == {TEST}]
    assert {times[text] for text in held_out} == {1} and len(held_out) > 0.1 * len(texts)
    assert sum(one.source != GOLD for one in rows) == 200, "gold is not thinned out, the others are"
    assert [split_of(text, 0.2) == TEST for text in texts] == [text in held_out for text in texts]


@pytest.mark.parametrize("cuts", [(), (1, 1, 700), tuple(range(0, 2_000, 61))])
def test_numbers_choose_what_objects_would(cuts: tuple[int, ...]) -> None:
    dice = np.random.default_rng(4)
    others = [
        Row(
            f"s {dice.integers(1_200)}",
            [None, "before"][dice.integers(2)],
            f"{n}",
            f"p{dice.integers(4)}",
            "rules",
            TRAIN,
        )
        for n in range(2_000)
    ]
    decided = [gold(f"s {number}", context=[None, "before"][number % 2]) for number in range(90)]
    mixture, counts, expected_counts = replace(MIXTURE, phenomenon_share=0.22), Counter[str](), Counter[str]()
    expected = join_objects(decided, others, mixture, expected_counts)
    assert join(decided, [], others, mixture, counts, cuts=cuts) == expected
    assert counts == expected_counts and min(counts.values()) > 20


def test_a_file_is_the_same_in_whatever_pieces_its_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfilip.distillation.row_file._GROUP", 50)
    rows = [replace(plain(f"s {n}", "rules"), context=[None, "x"][n % 2], split=split_of(f"s {n}")) for n in range(333)]
    files = []
    for size in (1, 40, 120, 333):
        files.append(tmp_path / f"{size}.parquet")
        with RowFileWriter(files[-1], {"counts": "{}"}) as writer:
            for start in range(0, len(rows), size):
                writer.write(table_of(rows[start : start + size]))
    assert len({file.read_bytes() for file in files}) == 1 and read_rows(files[0]) == (rows, {"counts": "{}"})
    assert count_rows(table_of(rows)) == Counter(row.split for row in rows) + Counter(from_rules=333)
