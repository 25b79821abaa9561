"""Readings of engines: who is believed."""

from __future__ import annotations

from typing import Any

from medfilip.distillation.dataset import Reading
from medfilip.distillation.given import PLAIN, phenomenon_of, reading_of_row
from medfilip.extraction.engine import OK
from medfilip.extraction.lexicon import LexiconEngine

TEXT = "small left pleural effusion"
FOUND = LexiconEngine().extract(TEXT).findings


def row(engine: str, **changed: Any) -> dict[str, Any]:
    return {"engine": engine, "status": OK, "findings": FOUND, "doubts": [], "ungrounded": [], **changed}


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
