"""Confidence: follows the signs of a finding, and stays a probability."""

from __future__ import annotations

from medfilip.extraction.confidence import load_confidence
from medfilip.extraction.lexicon import LexiconEngine

ENGINE = LexiconEngine()


def confidence(sentence: str) -> float:
    return float(ENGINE.extract(sentence).findings[0]["confidence"])


def test_a_denial_is_surer_than_a_statement_and_a_hedge_less_sure() -> None:
    assert 1 > confidence("no pleural effusion") > confidence("pleural effusion") > confidence("possible pneumonia") > 0


def test_a_removed_word_lowers_it() -> None:
    assert confidence("left xxxx atelectasis") < confidence("left basilar atelectasis")


def test_every_weight_names_a_sign_that_can_occur() -> None:
    kinds = {name.split("=")[0] for name in load_confidence().weights}
    assert kinds == {"certainty", "alignment", "hedge", "group", "doubt"}
