from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from medfilip.answers import SlotChoice
from medfilip.findings.ontology import load_ontology
from medfilip.standards.codes import (
    ABSENT_IN_DICOM,
    PRESENT,
    UNDETERMINED,
    Concept,
    finding_concepts,
    load_codes,
    place_concepts,
    severity_concept,
    shortened,
)
from medfilip.standards.source import is_uid
from tests.support.diagnoses import finding

CODES = load_codes()
SNOMED = {**CODES.findings, **CODES.sites, **CODES.severities, **CODES.sides}


@pytest.mark.parametrize("name", SNOMED)
def test_public_codes_are_those_of_dicom(name: str) -> None:
    """pydicom's dictionary is made from the standard, and knows nothing of ours."""
    code, meaning = SNOMED[name]
    meanings = {told[0] for group in concepts["SCT"].values() for known, told in group.items() if known == code}
    assert meaning in meanings


@pytest.mark.parametrize("concept", [PRESENT, ABSENT_IN_DICOM, UNDETERMINED])
def test_decisions_are_the_context_group_of_dicom(concept: Concept) -> None:
    group = next(told for told in concepts["SCT"][concept.meaning].items() if told[0] == concept.code)
    assert 240 in group[1][1], "CID 240, Present-Absent-Undetermined"


SLOT_VALUES = {"site": "lower_lobe", "laterality": "left", "severity": "mild"}


def test_ids_are_those_of_the_ontology() -> None:
    ontology = load_ontology()
    assert CODES.findings.keys() <= ontology.categories.keys()
    assert CODES.sites.keys() <= ontology.sites.keys()
    assert CODES.severities.keys() <= ontology.severities.keys()
    assert is_uid(CODES.scheme.uid) and CODES.scheme.designator.startswith("99") and len(CODES.scheme.designator) <= 16


def test_every_category_and_slot_has_a_code() -> None:
    ontology = load_ontology()
    seen: dict[tuple[str, str], str] = {}
    for category in ontology.categories:
        for concept in finding_concepts(finding(category, category=category)):
            assert concept.meaning and seen.setdefault((concept.scheme, concept.code), category) == category
    for site in ontology.sites:
        place, side = place_concepts(finding(site=SlotChoice(value=site, share=1, choices=1)))
        assert place and side is None
    for severity in ontology.severities:
        assert severity_concept(finding(severity=SlotChoice(value=severity, share=1, choices=1))).code


def test_a_side_in_a_site_is_told_apart_and_does_not_win() -> None:
    both = finding(
        site=SlotChoice(value="right_lower_lobe", share=1, choices=1),
        laterality=SlotChoice(value="left", share=1, choices=1),
    )
    site, side = place_concepts(both)
    assert site and side and (site.code, side.meaning) == ("90572001", "Left")
    assert place_concepts(finding()) == (None, None)


def test_long_texts_are_cut_where_it_shows() -> None:
    assert shortened("a" * 64) == "a" * 64
    assert shortened("a\\b") == "a/b"
    assert shortened("a" * 65) == "a" * 61 + "…"
    for text in ("ä" * 40, "a" + "ä" * 40, "山" * 30):
        assert len(shortened(text).encode()) <= 64 and shortened(text).endswith("…")


def test_what_is_not_settled_has_no_code() -> None:
    unsure = {name: SlotChoice(value=value, share=0.49, choices=3) for name, value in SLOT_VALUES.items()}
    assert place_concepts(finding(**unsure)) == (None, None) and severity_concept(finding(**unsure)) is None
    sure = {name: SlotChoice(value=value, share=0.5, choices=3) for name, value in SLOT_VALUES.items()}
    assert None not in place_concepts(finding(**sure)) and severity_concept(finding(**sure)) is not None
