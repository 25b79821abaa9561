"""Sections: headers of every habit, and text that never disappears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.reports.sections import join_sections, split_sections


def named(text: str) -> list[tuple[str, str]]:
    return [(section.name, text[section.start : section.end]) for section in split_sections(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FINDINGS: Clear.\nIMPRESSION: Normal.", [("findings", "Clear."), ("impression", "Normal.")]),
        ("Findings: Clear. IMPRESSION: Normal.", [("findings", "Clear."), ("impression", "Normal.")]),
        ("History: cough\n\nConclusion:\n1. Normal.", [("indication", "cough"), ("impression", "1. Normal.")]),
        ("The lungs are clear.", [("findings", "The lungs are clear.")]),
        ("EXAM: Two views. The lungs are clear.", [("technique", "Two views."), ("findings", "The lungs are clear.")]),
        ("FINDINGS:\nIMPRESSION: Normal.", [("impression", "Normal.")]),
        ("The impression: of a mass is false.", [("findings", "The impression: of a mass is false.")]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_headers(text: str, expected: list[tuple[str, str]]) -> None:
    assert named(text) == expected


@given(st.text(alphabet="aA :\n.IMPRESSIONfindings", max_size=200))
def test_spans_are_ordered_disjoint_and_trimmed(text: str) -> None:
    last = 0
    for section in split_sections(text):
        assert last <= section.start < section.end <= len(text)
        body = text[section.start : section.end]
        assert body == body.strip()
        last = section.end


def test_joined_parts_split_again_the_same_way() -> None:
    text, sections = join_sections({"indication": "cough", "findings": " Clear. ", "impression": None})
    assert split_sections(text) == sections
    assert named(text) == [("indication", "cough"), ("findings", "Clear.")]
