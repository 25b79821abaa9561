"""A sitting of a reviewer, typed at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.gold import Choice, read_gold
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.run import RunSpec, open_run
from medfilip.storage.schemas import REVIEW_QUEUE, SENTENCES
from medfilip.storage.shards import write_shard
from pipelines.review import review, written_findings

TEXTS = {
    1: "opacity at the left base, atelectasis versus pneumonia",
    2: "a tiny right apical pneumothorax",
    3: "no effusion",
}


@pytest.fixture
def extracted(tmp_path: Path) -> Location:
    """A finished run with a queue of three sentences."""
    rules = LexiconEngine()
    queue = [
        {
            "sentence_id": number, "reason": "doubt", "doubts": ["alternatives"], "kinds": ["category"],
            "rules": rules.extract(text).findings, "model": rules.extract("cardiomegaly").findings, "engine": "vllm",
            "count": 10 * number,
        }
        for number, text in TEXTS.items()
    ]  # fmt: skip
    sentences = [
        {"sentence_id": n, "text": text, "context": None, "section_group": "findings", "count": 10 * n}
        for n, text in TEXTS.items()
    ]
    spec = RunSpec("extract", {}, {}, {})
    with open_run(Location.parse(str(tmp_path / "runs")), spec) as run:
        shards = {
            "review_queue": [
                write_shard(run.location, "review_queue/a.parquet", REVIEW_QUEUE, REVIEW_QUEUE.from_rows(queue))
            ],
            "sentences": [write_shard(run.location, "sentences/a.parquet", SENTENCES, SENTENCES.from_rows(sentences))],
        }
        run.publish(shards)
        return run.location


def typed(*lines: str) -> Iterator[str]:
    yield from lines


def sit(run: Location, gold: Path, *lines: str) -> None:
    keys = typed(*lines)

    def ask(_: str) -> str:
        line = next(keys, None)
        if line is None:
            raise EOFError
        return line

    review(str(run), gold, reviewer="A", ask=ask)


def test_decisions_are_kept_in_the_order_of_their_worth_and_a_later_sitting_goes_on(
    extracted: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.jsonl"
    sit(extracted, gold, "r", "m")  # then the terminal is closed
    shown = capsys.readouterr().out
    assert shown.index(TEXTS[3]) < shown.index(TEXTS[2]) and "rules doubt it (alternatives)" in shown
    assert "2 decided, 1 left" in shown
    found = {item.sentence_id: item for item in read_gold(Location.parse(str(gold)))}
    assert found[3].choice is Choice.RULES and found[3].findings[0].certainty == "absent"
    assert found[2].choice is Choice.MODEL and found[2].findings[0].category == "cardiomegaly"
    sit(extracted, gold, "q")
    assert TEXTS[3] not in capsys.readouterr().out
    sit(extracted, gold, "n")
    assert "Nothing" not in capsys.readouterr().out
    sit(extracted, gold)
    assert "Nothing is left" in capsys.readouterr().out
    (last,) = [item for item in read_gold(Location.parse(str(gold))) if item.sentence_id == 1]
    assert last.findings == () and last.reviewer == "A"


def test_what_is_undone_is_decided_again(extracted: Location, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    sit(extracted, gold, "r", "u", "n", "s", "what?", "q")
    (item,) = read_gold(Location.parse(str(gold)))
    assert (item.sentence_id, item.findings) == (3, ())


def test_a_person_writes_findings_by_the_rules_of_a_reply(
    extracted: Location, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.jsonl"
    wrong = ("e", "cardiomegaly; yes", "")  # the sentence has no such words
    right = ("e", "effusion; no", "")
    sit(extracted, gold, *wrong, *right)
    assert "mention not in sentence" in capsys.readouterr().out
    (item,) = read_gold(Location.parse(str(gold)))
    assert item.choice is Choice.NEITHER and item.findings[0].category == "pleural_effusion"
    assert item.text[item.findings[0].evidence[0].start :].startswith("effusion")


def test_a_line_that_says_too_little_is_refused() -> None:
    with pytest.raises(MedfilipError) as caught:
        written_findings(["effusion"], "no effusion", ReplyReader(load_ontology()))
    assert caught.value.code is ErrorCode.GOLD_INVALID
    assert written_findings([], "no effusion", ReplyReader(load_ontology())) == []


def test_a_run_without_a_queue_says_how_to_get_one(tmp_path: Path) -> None:
    with open_run(Location.parse(str(tmp_path)), RunSpec("extract", {}, {}, {})) as run:
        run.publish({})
    with pytest.raises(MedfilipError, match="engine=auto"):
        review(str(run.location), tmp_path / "gold.jsonl")
