"""Readings of engines and people: who is believed, and how all sources become one training set."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from medfilip.distillation.dataset import TEST, TRAIN, Reading, Row, RowWriter, split_of
from medfilip.distillation.given import GOLD, PLAIN, Mixture, gold_rows, join, phenomenon_of, reading_of_row
from medfilip.extraction.engine import OK
from medfilip.extraction.gold import Choice, GoldSentence
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.prompt import STUDENT_PROMPT, load_prompt
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology

TEXT = "small left pleural effusion"
FOUND = LexiconEngine().extract(TEXT).findings
MIXTURE = Mixture(test_share=0.1, gold_test_share=0.2, phenomenon_share=1.0, gold_weight=3)


def row(engine: str, **changed: Any) -> dict[str, Any]:
    return {"engine": engine, "status": OK, "findings": FOUND, "doubts": [], "ungrounded": [], **changed}


def gold(text: str, *findings: dict[str, Any]) -> GoldSentence:
    stated = tuple(Finding.from_row(finding) for finding in findings)
    return GoldSentence(
        sentence_id=1, text=text, findings=stated, choice=Choice.NEITHER, decided_at=datetime(2026, 1, 1, tzinfo=UTC)
    )


def plain(text: str, source: str, reply: str = '{"f":[]}') -> Row:
    return Row(text, None, reply, PLAIN, source, TRAIN)


def test_who_is_believed() -> None:
    def read(given: dict[str, Any], others: dict[str, Any] | None = None) -> Reading | str:
        return reading_of_row(TEXT, None, given, others or {})

    assert read(row("vllm", status="reply_invalid")) == "not_read"
    assert read(row("lexicon", doubts=["alternatives"])) == "doubted"
    lost = {"mention": "nodule", "category": "nodule", "reason": "mention_not_in_sentence"}
    assert read(row("vllm", ungrounded=[lost])) == "ungrounded"
    harmless = read(row("vllm", ungrounded=[{**lost, "reason": "certainty_without_cue"}], doubts=None))
    assert isinstance(harmless, Reading) and harmless.source == "vllm" and harmless.other is None
    compared = read(row("vllm"), {"vllm": [], "lexicon": FOUND})
    assert isinstance(compared, Reading) and compared.other == tuple(FOUND)
    assert compared.phenomenon == "degree"


def test_a_sentence_is_an_example_of_the_rarest_that_it_shows() -> None:
    assert phenomenon_of("no new 4 mm nodule") == "measure"
    assert phenomenon_of("no pneumothorax") == "negation"
    assert phenomenon_of("nodule") == PLAIN


def test_gold_counts_before_every_other_reading() -> None:
    corrected = gold(TEXT)
    unsayable = gold("a nodule", {**FOUND[0], "evidence": []})
    writer = RowWriter(load_ontology(), load_prompt(STUDENT_PROMPT))
    reviewed = gold_rows([corrected, unsayable], writer)
    assert [one.reply for one in reviewed] == ['{"f":[]}'] and writer.counts["mention_missing"] == 1
    counts: Counter[str] = Counter()
    given = [plain(TEXT, "lexicon", "other"), plain("a nodule", "lexicon"), plain("twice", "lexicon")]
    rows = join([corrected, unsayable], reviewed, [*given, plain("twice", "generator")], MIXTURE, counts)
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
