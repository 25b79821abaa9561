"""Sentences: boundaries, the normal form, and the way back to the report's own characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import normal_form, normal_text, report_sentences, sentence_id, split_sentences


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text, 0, len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No effusion. Heart normal.", ["No effusion.", "Heart normal."]),
        ("A 2.5 cm mass. Seen by Dr. Smith today.", ["A 2.5 cm mass.", "Seen by Dr. Smith today."]),
        ("1. Nodule\n2. Effusion", ["1. Nodule", "2. Effusion"]),
        ("Lungs are clear.The heart is big.", ["Lungs are clear.", "The heart is big."]),
        ("No effusion\nor pneumothorax.", ["No effusion\nor pneumothorax."]),
        ("1. Effusion 2. Edema 3. Nodule", ["1. Effusion", "2. Edema", "3. Nodule"]),
        ("No pneumothorax. heart size is normal.", ["No pneumothorax.", "heart size is normal."]),
        ("Atelectasis vs. pneumonia.", ["Atelectasis vs. pneumonia."]),
        ("...", []),
        ("", []),
    ],
)
def test_boundaries(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@given(st.text(alphabet="aZ .\n1)-é", max_size=120))
def test_no_letter_is_lost(text: str) -> None:
    kept = "".join(character for part in split(text) for character in part if character.isalnum())
    pieces = [part for part in split(text) if any(character.isalnum() for character in part)]
    assert kept == "".join(character for character in text if character.isalnum())
    assert pieces == split(text)


@given(st.text(max_size=80))
def test_every_normal_character_knows_where_it_came_from(raw: str) -> None:
    normal, offsets = normal_form(raw)
    assert len(normal) == len(offsets)
    assert offsets == sorted(offsets)
    for character, offset in zip(normal, offsets, strict=True):
        origin = raw[offset]
        assert (character == " " and origin.isspace()) or character in (origin, origin.lower())


@given(st.text(max_size=80) | st.text(alphabet="aZ .,1)(-\n*", max_size=30))
def test_the_fast_way_gives_the_same_normal_form(raw: str) -> None:
    assert normal_text(raw) == normal_form(raw)[0]


def test_a_heading_with_a_side_holds_until_the_next_one() -> None:
    text = "FINDINGS: LEFT LUNG: Clear. No effusion. HEART: Big. It is bigger."
    sentences = report_sentences(text, split_sections(text))
    assert [(s.text, s.context) for s in sentences] == [
        ("left lung: clear", None),
        ("no effusion", "left lung:"),
        ("heart: big", None),
        ("it is bigger", "heart: big"),
    ]


def test_equal_sentences_share_an_id_and_keep_their_own_spans() -> None:
    text = "FINDINGS: No  Pneumothorax.\nIMPRESSION: 1. no pneumothorax"
    first, second = report_sentences(text, split_sections(text))
    assert first.sentence_id == second.sentence_id == sentence_id("no pneumothorax", None)
    assert (text[first.start : first.end], text[second.start : second.end]) == (
        "No  Pneumothorax.",
        "1. no pneumothorax",
    )
    assert (first.position, second.position) == (0, 1)


def test_a_sentence_that_leans_on_the_last_one_is_keyed_with_it() -> None:
    sentences = [
        report_sentences(text, split_sections(text))[1] for text in ("Mass. This is new.", "Nodule. This is new.")
    ]
    assert [sentence.context for sentence in sentences] == ["mass", "nodule"]
    assert sentences[0].sentence_id != sentences[1].sentence_id


def test_history_and_comparison_yield_no_sentences() -> None:
    text = "INDICATION: Pneumonia.\nCOMPARISON: Effusion in May.\nFINDINGS: Clear."
    assert [sentence.text for sentence in report_sentences(text, split_sections(text))] == ["clear"]
