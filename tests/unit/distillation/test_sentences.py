"""The generator: one stream for a seed, spans that stand in the text, truth that rules share where they can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from medfilip.distillation.grammar import Grammar, load_grammar
from medfilip.distillation.phrases import is_adjective, plural
from medfilip.distillation.sentences import BLOCK, Example, Generator
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.routing import disagreements
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology
from medfilip.reports.sentences import normal_text


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return list(Generator(3).stream(BLOCK))


def test_a_seed_gives_one_stream_and_blocks_can_be_drawn_apart(examples: list[Example]) -> None:
    again = Generator(3)
    assert list(again.block(0)) == examples
    second = list(again.block(1, 50))
    assert list(Generator(3).stream(BLOCK + 50))[BLOCK:] == second
    assert list(Generator(4).block(0, 50)) != examples[:50]


def test_the_fingerprint_of_the_grammar_is_the_same_in_every_process() -> None:
    told = {load_grammar().fingerprint}
    for seed in ("1", "2"):
        script = "from medfilip.distillation.grammar import load_grammar; print(load_grammar().fingerprint)"
        done = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True,
            text=True,
        )  # fmt: skip
        told.add(done.stdout.strip())
    assert len(told) == 1


def test_sentences_are_in_normal_form_and_spans_stand_in_them(examples: list[Example]) -> None:
    for example in examples:
        assert normal_text(example.text) == example.text
        for row in example.findings:
            Finding.from_row(row)
            assert row["evidence"][0]["slot"] == "mention"
            for span in row["evidence"]:
                words = example.text[span["start"] : span["end"]]
                assert words and words == words.strip(), example.text


def test_a_filled_slot_has_words_in_the_sentence(examples: list[Example]) -> None:
    for example in examples:
        for row in example.findings:
            said = {span["slot"] for span in row["evidence"]}
            for slot in ("severity", "size", "size_mm", "count", "chronicity", "position"):
                assert row[slot] is None or slot in said, (slot, example.text)
            assert not row["patterns"] or "pattern" in said, example.text


def test_every_phenomenon_and_kind_of_truth_is_drawn(examples: list[Example]) -> None:
    drawn = Counter(example.phenomenon for example in examples)
    assert {frames.phenomenon for frames in load_grammar().frames} <= drawn.keys()
    assert {"paraphrase", "plain", "anatomy in a state"} <= drawn.keys()
    assert {example.truth for example in examples} == {"exact", "rules", "beyond"}
    assert any(row["position"] for e in examples for row in e.findings)
    assert {row["hedge"] for e in examples for row in e.findings} >= {
        "probable",
        "possible",
        "versus",
        "cannot_exclude",
    }
    assert all(example.context for example in examples if example.phenomenon == "context")


@pytest.mark.parametrize("phenomenon", ["stated", "denied", "denied list", "possible", "unchanged", "change"])
def test_rules_agree_on_the_easy_frames(examples: list[Example], phenomenon: str) -> None:
    engine, ontology = LexiconEngine(), load_ontology()
    own = [e for e in examples if e.phenomenon == phenomenon and e.truth == "exact"]
    agreed = [not disagreements(engine.extract(e.text).findings, e.findings, ontology) for e in own]
    assert len(own) > 8 and sum(agreed) / len(own) > 0.9


def test_rules_do_not_read_the_paraphrases(examples: list[Example]) -> None:
    engine = LexiconEngine()
    own = [e for e in examples if e.phenomenon == "paraphrase"]
    read = [
        {r["category"] for r in engine.extract(e.text).findings} == {r["category"] for r in e.findings} for e in own
    ]
    assert sum(read) / len(own) < 0.3


def test_the_grammar_is_checked() -> None:
    grammar = load_grammar()
    frames = grammar.frames[0].model_copy(update={"frames": ("{0} and {1}",)})
    with pytest.raises(ValueError, match="does not fit its 1 states"):
        Grammar.model_validate(grammar.model_dump() | {"frames": [frames.model_dump()]})
    with pytest.raises(ValueError, match="no_such"):
        grammar.model_copy(update={"denied": ("no_such",)}).check(load_ontology())


def test_words_are_bent() -> None:
    assert [plural(word) for word in ("opacity", "lung base", "apex", "mass", "nodule")] == [
        "opacities", "lung bases", "apices", "masses", "nodules",
    ]  # fmt: skip
    assert is_adjective("hyperinflated") and not is_adjective("pleural effusion")
