"""Gold files: nothing decided is lost, the last decision counts, and what is no decision is named without its text."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.gold import Choice, GoldSentence, append_gold, most_worth_first, read_gold
from medfilip.findings.finding import Finding
from medfilip.storage.location import Location


def decision(number: int, category: str = "nodule", text: str = "a nodule") -> GoldSentence:
    return GoldSentence(
        sentence_id=number,
        text=text,
        findings=(Finding(category=category),),
        choice=Choice.RULES,
        decided_at=datetime.now(UTC),
    )


def test_the_last_decision_counts_and_nobody_else_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    for item in (decision(2), decision(1), decision(2, "mass")):
        append_gold(file, item)
    found = read_gold(Location.parse(str(file)))
    assert [(item.sentence_id, item.findings[0].category) for item in found] == [(1, "nodule"), (2, "mass")]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_line_that_a_kill_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    append_gold(file, decision(1))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:40])
    assert [item.sentence_id for item in read_gold(Location.parse(str(file)))] == [1]
    append_gold(file, decision(2))
    assert [item.sentence_id for item in read_gold(Location.parse(str(file)))] == [1, 2]


def test_a_line_that_is_no_decision_is_named_without_its_text(tmp_path: Path) -> None:
    file = tmp_path / "gold.jsonl"
    append_gold(file, decision(1))
    file.write_bytes(b'{"sentence_id": "CANARY"}\n' + file.read_bytes())
    with pytest.raises(MedfilipError, match="Line 1 of") as caught:
        read_gold(Location.parse(str(file)))
    assert caught.value.code is ErrorCode.GOLD_INVALID and "CANARY" not in str(caught.value)
    with pytest.raises(MedfilipError) as caught:
        read_gold(Location.parse(str(tmp_path / "none.jsonl")))
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND


def test_what_is_frequent_and_costly_comes_first() -> None:
    rows = [
        {"sentence_id": 1, "count": 5, "kinds": ["side"]},
        {"sentence_id": 2, "count": 2, "kinds": ["category"]},
        {"sentence_id": 3, "count": 2, "kinds": ["category", "side"]},
        {"sentence_id": 0, "count": 2, "kinds": ["category"]},
    ]
    assert [row["sentence_id"] for row in most_worth_first(rows)] == [3, 0, 2, 1]
