"""Doubts: what makes the rules say that they cannot settle a sentence."""

from __future__ import annotations

import pytest

from medfilip.extraction.doubt import Doubt
from medfilip.extraction.lexicon import LexiconEngine

ENGINE = LexiconEngine()


@pytest.mark.parametrize(
    ("sentence", "context", "expected"),
    [
        ("small left pleural effusion", None, ()),
        ("no pneumothorax", None, ()),
        ("left base xxxx atelectasis", None, (Doubt.PLACEHOLDER,)),
        ("left base ___ atelectasis", None, (Doubt.PLACEHOLDER,)),
        ("this may represent pneumonia", "opacity in the left base", (Doubt.LEANS_ON_CONTEXT,)),
        ("atelectasis versus pneumonia", None, (Doubt.ALTERNATIVES,)),
        ("gloomy rumpled wobbling opacity", None, (Doubt.UNKNOWN_WORDS,)),
        ("rumpled appearance of the left lung", None, (Doubt.PLACE_WITHOUT_FINDING,)),
        ("suspicious shadow", None, (Doubt.ABNORMAL_WITHOUT_FINDING,)),
        ("ct is recommended to evaluate the left wobble", None, ()),
    ],
)
def test_doubts(sentence: str, context: str | None, expected: tuple[Doubt, ...]) -> None:
    assert ENGINE.extract(sentence, context).doubts == expected
