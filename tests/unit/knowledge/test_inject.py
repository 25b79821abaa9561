"""Training texts: deterministic, distinct, faithful to the finding's own slots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import finding_phrase, training_texts
from medfilip.knowledge.knowledge import load_knowledge

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()


def texts(**finding):
    return training_texts({"certainty": "present", **finding}, KNOWLEDGE, ONTOLOGY)


def test_slots_stand_in_one_order_before_the_attributes():
    variants = texts(category="pleural_effusion", severity="moderate", laterality="left", sites=["lower_lung"])
    assert variants[0] == "moderate left pleural effusion in the lower lung"
    assert all(variant.startswith(variants[0]) for variant in variants)
    assert any("fluid reaching the mid lung" in variant for variant in variants)


def test_attributes_follow_the_findings_own_severity():
    mild, severe = texts(category="pneumothorax", severity="mild"), texts(category="pneumothorax", severity="severe")
    assert any("thin rim of air" in text for text in mild)
    assert not any("thin rim of air" in text for text in severe)


def test_absent_and_uncertain_forms():
    absent = texts(category="nodule", certainty="absent")
    assert absent[:2] == ["no nodule", "no evidence of nodule"]
    assert all(text.startswith("no ") for text in absent)
    assert not any(description in text for text in absent for description in KNOWLEDGE.entry("nodule").descriptions)
    assert all(text.startswith("possible nodule") for text in texts(category="nodule", certainty="uncertain"))


@pytest.mark.parametrize("category", ["kyphosis", "other:rounded thing"])
def test_a_category_without_entry_gets_plain_texts(category):
    assert len(texts(category=category, laterality="right")) == 1


def test_an_implied_site_is_not_repeated():
    assert finding_phrase({"category": "cardiomegaly", "sites": ["heart"]}, ONTOLOGY) == "cardiomegaly"


def test_a_size_is_told_when_there_is_no_severity():
    assert (
        finding_phrase({"category": "nodule", "size": "small", "patterns": ["focal"]}, ONTOLOGY) == "small focal nodule"
    )


@given(
    category=st.sampled_from(list(ONTOLOGY.categories)),
    certainty=st.sampled_from(["present", "absent", "uncertain"]),
    severity=st.sampled_from([None, *ONTOLOGY.severities]),
    laterality=st.sampled_from([None, "left", "right", "bilateral"]),
    sites=st.lists(st.sampled_from(list(ONTOLOGY.sites)), max_size=2),
)
def test_variants_are_distinct_repeatable_and_name_the_category(category, certainty, severity, laterality, sites):
    finding = {
        "category": category,
        "certainty": certainty,
        "severity": severity,
        "laterality": laterality,
        "sites": sites,
    }
    variants = training_texts(finding, KNOWLEDGE, ONTOLOGY)
    assert variants == training_texts(finding, KNOWLEDGE, ONTOLOGY)
    assert len(variants) == len(set(variants)) >= 1
    assert all(ONTOLOGY.label(category) in variant for variant in variants)
