"""Sections: headers of every habit, and text that never disappears."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.reports.sections import BODY_SECTIONS, join_sections, split_sections


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


MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough.

 COMPARISON:  ___.

 FINDINGS:

 The lungs are clear.

 IMPRESSION:

 No pneumonia.

 NOTIFICATION:  The pneumothorax was discussed with Dr. ___ by telephone at 5:12 pm.

 RECOMMENDATION(S):  CT if the nodule persists.
"""
NO_FINDINGS_HEADER = """WET READ: ___ ___ 5:05 PM
 No pneumothorax.
______________________________________________________________________________
                                 FINAL REPORT
 CHEST, PA AND LATERAL:

 HISTORY:  Cough.

 COMPARISON:  ___.

 Frontal and lateral views of the chest.  The lungs are clear.  Heart size is normal.

 IMPRESSION:  No acute process.
"""
INDIAN = """X-RAY CHEST PA VIEW

Both lung fields are clear.
Heart size is normal.

IMPRESSION: NORMAL STUDY

Dr. A. Example, MD Radiodiagnosis
Consultant Radiologist
"""


def bodies(text: str) -> list[tuple[str, str]]:
    return [pair for pair in named(text) if pair[0] in BODY_SECTIONS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIMIC, [("findings", "The lungs are clear."), ("impression", "No pneumonia.")]),
        (
            NO_FINDINGS_HEADER,
            [("findings", "The lungs are clear.  Heart size is normal."), ("impression", "No acute process.")],
        ),
        (
            INDIAN,
            [("findings", "Both lung fields are clear.\nHeart size is normal."), ("impression", "NORMAL STUDY")],
        ),
        (
            "INDICATION: Pain.\n\nCOMPARISON: ___.\n\nSmall left effusion is seen. Heart normal.\n\nIMPRESSION: "
            "Effusion.",
            [("findings", "Small left effusion is seen. Heart normal."), ("impression", "Effusion.")],
        ),
        (
            "Clinical details: ?pneumonia\nReport\nThe heart is not enlarged.\nReported by: Dr Example",
            [("findings", "The heart is not enlarged.")],
        ),
        (
            "EXAM: CHEST 2 VIEWS\nINDICATION: cough\nLUNGS: Clear.\nHeart: Normal.\nIMPRESSION\nNormal chest",
            [("findings", "LUNGS: Clear.\nHeart: Normal."), ("impression", "Normal chest")],
        ),
        (
            "FINDINGS:\nLEFT LUNG: Clear. Heart: normal.\nRIGHT LUNG: Nodule.\nIMPRESSION 1. Nodule.",
            [("findings", "LEFT LUNG: Clear. Heart: normal.\nRIGHT LUNG: Nodule."), ("impression", "1. Nodule.")],
        ),
        (
            "COMPARISON: None. The lungs are clear and the heart is normal. IMPRESSION: Normal.",
            [("findings", "The lungs are clear and the heart is normal."), ("impression", "Normal.")],
        ),
        (
            "Findings: Clear lungs. Impression: Normal chest. Electronically signed by Dr. Example 01/02/2010",
            [("findings", "Clear lungs."), ("impression", "Normal chest.")],
        ),
        ("**FINDINGS:** Clear.\n**IMPRESSION:** Normal.", [("findings", "Clear."), ("impression", "Normal.")]),
        ("FINDINGS AND IMPRESSION: Edema.", [("findings", "Edema.")]),
        ("PORTABLE AP CHEST RADIOGRAPH: The heart is enlarged.", [("findings", "The heart is enlarged.")]),
        ("CXR 12/3/10\nNo change.", [("findings", "No change.")]),
        ("Impression - normal chest", [("impression", "normal chest")]),
        (
            "ADDENDUM: There is a nodule.\n\nFINDINGS: Clear.",
            [("addendum", "There is a nodule."), ("findings", "Clear.")],
        ),
        ("WET READ: Left effusion.", [("impression", "Left effusion.")]),
        ("INDICATION: cough\nNo pneumonia.", [("findings", "No pneumonia.")]),
        ("Opinion: Old TB.", [("impression", "Old TB.")]),
        (
            "FINDINGS ARE THOSE OF EDEMA. HEART ENLARGED. IMPRESSION: EDEMA.",
            [("findings", "FINDINGS ARE THOSE OF EDEMA. HEART ENLARGED."), ("impression", "EDEMA.")],
        ),
    ],
)
def test_the_body_of_a_report_in_any_habit(text: str, expected: list[tuple[str, str]]) -> None:
    assert bodies(text) == expected


def test_what_is_not_about_this_examination_yields_no_body() -> None:
    assert dict(named(MIMIC))["indication"] == "___ year old woman with cough."
    other = [words for name, words in named(MIMIC) if name == "other"]
    assert [words.split()[0] for words in other] == ["The", "CT"]
    assert "No pneumothorax." in dict(named(NO_FINDINGS_HEADER))["other"]
    two = "INDICATION: Cough.\n\nHistory of heart failure and effusion.\n\nIMPRESSION: Normal."
    assert bodies(two) == [("impression", "Normal.")]
    wrapped = "COMPARISON: Radiograph from\nMay which showed clear lungs and a\nnormal heart.\nFINDINGS: Clear."
    assert bodies(wrapped) == [("findings", "Clear.")]


@given(
    st.lists(
        st.sampled_from(["FINDINGS:", "Lungs:", "IMPRESSION", "NOTE:", "COMPARISON:", "cough", "Clear.", "\n", "x ray"])
    )
)
def test_no_word_vanishes_but_headings(pieces: list[str]) -> None:
    text = " ".join(pieces)
    kept = "".join(words for _, words in named(text))
    assert kept.count("cough") == text.count("cough") and kept.count("Clear.") == text.count("Clear.")


def test_a_long_report_does_not_choke() -> None:
    assert len(split_sections("FINDINGS: " + "The heart is normal: a. " * 4000)) == 1
    assert split_sections(": " * 40_000) == []


def test_joined_parts_split_again_the_same_way() -> None:
    text, sections = join_sections({"indication": "cough", "findings": " Clear. ", "impression": None})
    assert split_sections(text) == sections
    assert named(text) == [("indication", "cough"), ("findings", "Clear.")]
