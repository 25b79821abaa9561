"""The grammar of copies: what it lets through stands in the sentence, and nothing true is kept out."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import lru_cache
from typing import Any

import pytest

from medfilip.distillation.dataset import Row
from medfilip.distillation.make import make_rows
from medfilip.extraction.copying import Copying, quotable
from medfilip.extraction.grounding import occurrences
from medfilip.extraction.prompt import PROMPT_VERSION, STUDENT_PROMPT, load_prompt
from medfilip.extraction.reply import ReplyReader
from medfilip.extraction.reply_format import MAX_FINDINGS, MAX_MENTION
from medfilip.findings.ontology import load_ontology
from pipelines.llm_task import ExtractionTask

llguidance = pytest.importorskip("llguidance")


@pytest.fixture(scope="module")
def copying() -> Copying:
    return Copying(load_ontology())


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return make_rows(1_500, seed=11)[0]


@lru_cache(maxsize=1)
def letters() -> Any:
    """Return a tokenizer of bytes: the hardest for a grammar, since nothing about words is known to it."""
    return llguidance.LLTokenizer("byte")


def matcher(grammar: str) -> Any:
    found = llguidance.LLMatcher(letters(), llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not found.is_error(), found.get_error()
    return found


def admits(grammar: str, reply: str) -> bool:
    state, tokens = matcher(grammar), letters().tokenize_str(reply)
    return state.validate_tokens(tokens) == len(tokens) and state.consume_tokens(tokens) and state.is_accepting()


def write_at_random(grammar: str, dice: random.Random, longest: int = 1_500) -> str:
    """Write what a model without any knowledge would: any byte that the grammar admits."""
    state, written = matcher(grammar), bytearray()
    while not state.is_stopped() and len(written) < longest:
        mask = state.compute_bitmask()
        open_ = [token for token in range(256) if mask[token // 8] >> token % 8 & 1]
        if not open_ or (state.is_accepting() and dice.random() < 0.5):
            break
        token = dice.choice(open_)
        assert state.consume_token(token)
        written.append(token)
    return written.decode()


def test_spans_are_whole_words_within_bounds() -> None:
    assert quotable("no effusion.", MAX_MENTION) == ["no", "no effusion", "effusion"]
    assert quotable('the "port" ends', 20) == ["the", "port", "ends"], "quotes would end a string of JSON"
    assert "2.1 x 2 cm" in quotable("a 2.1 x 2 cm nodule", 40)
    assert max(map(len, quotable("word " * 60, MAX_MENTION))) <= MAX_MENTION
    assert quotable("... ___", 40) == []


def test_a_sentence_without_words_has_the_empty_reply_alone(copying: Copying) -> None:
    assert admits(copying.grammar("..."), '{"f":[]}') and not admits(copying.grammar("..."), '{"f":[["a","no"]]}')


def test_true_replies_are_let_through(copying: Copying, rows: list[Row]) -> None:
    kept_out = Counter(row.phenomenon for row in rows if not admits(copying.grammar(row.text), row.reply))
    assert len(rows) > 1_000 and not kept_out


@pytest.mark.parametrize(
    "reply",
    [
        '{"f":[["effusions","no"]]}',
        '{"f":[["left","yes"]]}',
        '{"f":[["fusion","no"]]}',
        '{"f":[["effusion","no","right"]]}',
        '{"f":[["effusion","no","=no such category"]]}',
        '{"f":[["effusion","no","@at the carina"]]}',
        '{"f":[["effusion","no"]],"g":[]}',
        '{"f": [["effusion","no"]]}',
    ],
)
def test_what_is_not_there_cannot_be_written(copying: Copying, reply: str) -> None:
    grammar = copying.grammar("no left effusion")
    assert admits(grammar, '{"f":[["effusion","no","left"]]}') and not admits(grammar, reply)


def test_whatever_is_written_is_valid_and_grounded(copying: Copying, rows: list[Row]) -> None:
    dice, reader = random.Random(3), ReplyReader(load_ontology())
    written = 0
    for row in rows[:150]:
        reply = write_at_random(copying.grammar(row.text), dice)
        try:
            findings = json.loads(reply)["f"]
        except ValueError:
            continue  # the bound on length cut it
        written += len(findings)
        assert len(findings) <= MAX_FINDINGS
        read = reader.read(reply, row.text)
        assert read.status == "ok"
        assert not {note["reason"] for note in read.ungrounded} & {"mention_not_in_sentence", "empty_mention"}
        assert all(occurrences(item[0], row.text) for item in findings)
        assert not any(finding["category"].startswith("other:") for finding in read.findings)
    assert written > 100


def test_only_students_are_held_to_copies() -> None:
    assert load_prompt(STUDENT_PROMPT).copying and not load_prompt(PROMPT_VERSION).copying
    student, general = ExtractionTask(STUDENT_PROMPT), ExtractionTask(PROMPT_VERSION)
    assert student.copying and not general.copying
    assert "effusion" in student.decoding("no effusion")["grammar"]
    assert general.decoding("no effusion") == general.decoding("edema")
