"""Training texts: deterministic, distinct, faithful to the finding's own slots, and cut only between phrases."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import DEFAULT_VARIANTS, canonical_texts, finding_phrase, fit_text, training_texts
from medfilip.knowledge.knowledge import load_knowledge

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()
MODES = ("conditioned", "category", "none")
UNCERTAIN = ("possible", "may represent", "suspected", "questionable", "probable", "cannot exclude")


def texts(mode="conditioned", variants=DEFAULT_VARIANTS, told=(), **finding):
    finding = {"certainty": "present", **finding}
    return training_texts(finding, KNOWLEDGE, ONTOLOGY, mode=mode, variants=variants, told=told)


findings = st.fixed_dictionaries(
    {
        "category": st.sampled_from([*ONTOLOGY.categories, "other:rounded thing"]),
        "certainty": st.sampled_from(["present", "absent", "uncertain"]),
        "hedge": st.sampled_from([None, "probable", "possible", "versus", "cannot_exclude"]),
        "severity": st.sampled_from([None, *ONTOLOGY.severities]),
        "size": st.sampled_from([None, *ONTOLOGY.sizes]),
        "laterality": st.sampled_from([None, "left", "right", "bilateral"]),
        "sites": st.lists(st.sampled_from(list(ONTOLOGY.sites)), max_size=2, unique=True),
        "patterns": st.lists(st.sampled_from(list(ONTOLOGY.patterns)), max_size=2, unique=True),
    }
)


def test_slots_stand_in_one_order_before_the_attributes():
    variants = texts(category="pleural_effusion", severity="moderate", laterality="left", sites=["lower_lung"])
    clause = "moderate left pleural effusion in the lower lung"
    assert clause in variants and variants[0].startswith(f"{clause}. ")
    assert all(variant == clause or variant.startswith(f"{clause}. ") for variant in variants)
    assert "fluid reaching the mid lung" in variants[0], "the canonical text has all attributes"


def test_attributes_follow_the_findings_own_severity_site_and_pattern():
    mild, severe = texts(category="pneumothorax", severity="mild"), texts(category="pneumothorax", severity="severe")
    assert any("thin rim of air" in text for text in mild)
    assert not any("thin rim of air" in text for text in severe)
    assert "behind the heart" in texts(category="consolidation", sites=["retrocardiac"])[0]
    assert "behind the heart" not in texts(category="consolidation", sites=["upper_lobe"])[0]
    assert "several separate patches" in texts(category="consolidation", patterns=["patchy"])[0]


def test_absent_texts_deny_what_would_be_seen_and_never_tell_it():
    absent = texts(category="nodule", certainty="absent")
    assert absent[0] == "no nodule. no small round spot"
    assert {"no nodule", "no evidence of nodule"} <= set(absent)
    assert not any(text in line for line in absent for text in KNOWLEDGE.entry("nodule").descriptions)


def test_no_denied_property_reads_as_a_lesion_of_another_kind():
    for category in KNOWLEDGE.entries:
        _, _, denied = texts(category=category, certainty="absent")[0].partition(". ")
        assert denied, category
        for phrase in denied.split(", "):
            last = phrase.split()[-1]
            assert len(phrase.split()) > 4 or last not in ("edge", "edges", "margin", "border", "outline"), category


def test_what_many_categories_share_is_not_denied():
    assert not any("metal density" in text for text in texts(category="pacemaker", certainty="absent"))
    assert "metal density" in texts(category="pacemaker")[0]


def test_a_denied_degree_leaves_room_for_another():
    assert texts(category="cardiomegaly", certainty="absent", severity="severe")[0] == (
        "no severe cardiomegaly. no globular heart"
    )


def test_a_denial_on_one_side_says_nothing_of_the_other():
    variants = texts(category="pneumothorax", certainty="absent", laterality="left", sites=["lung_apex"])
    assert all(". in the left lung apex no " in text for text in variants if ". " in text)
    assert ". on the right no " in texts(category="pneumothorax", certainty="absent", laterality="right")[0]


@given(finding=findings)
def test_every_phrase_of_an_absent_text_is_denied(finding):
    for mode in MODES:
        for text in training_texts(finding | {"certainty": "absent"}, KNOWLEDGE, ONTOLOGY, mode=mode):
            clause, _, details = text.partition(". ")
            assert clause.startswith("no ")
            phrases = details.split(", ") if details else []
            assert all(phrase.startswith("no ") for phrase in phrases[1:])
            assert not phrases or (phrases[0].startswith(("no ", "in the ", "on the ")) and "no " in phrases[0])


def test_uncertain_forms_follow_the_hedge():
    assert all(text.startswith(UNCERTAIN) for text in texts(category="nodule", certainty="uncertain"))
    assert texts(category="nodule", certainty="uncertain", hedge="probable")[0].startswith("probable nodule. ")
    assert texts(category="mass", certainty="uncertain", hedge="cannot_exclude")[1] == "cannot exclude mass"


def test_the_faithful_mode_has_one_description_whatever_the_finding():
    description = KNOWLEDGE.entry("pleural_effusion").descriptions[0]
    mild = texts("category", category="pleural_effusion", severity="mild", laterality="left", sites=["lung_base"])
    assert mild == [f"mild left lung base pleural effusion. {description}"]
    assert texts("category", category="pleural_effusion", severity="severe") == [
        f"severe pleural effusion. {description}"
    ]
    assert texts("category", category="nodule", certainty="absent") == ["no nodule"]


def test_without_injection_there_are_clauses_only():
    for certainty in ("present", "absent", "uncertain"):
        assert not any(". " in text for text in texts("none", category="nodule", certainty=certainty))


@pytest.mark.parametrize("category", ["thrombosis", "other:rounded thing"])
def test_a_category_without_entry_gets_plain_texts(category):
    assert len(texts(category=category, laterality="right")) == 1


def test_an_implied_site_is_not_repeated():
    assert finding_phrase({"category": "cardiomegaly", "sites": ["heart"]}, ONTOLOGY) == "cardiomegaly"


def test_a_size_is_told_when_there_is_no_severity():
    assert (
        finding_phrase({"category": "nodule", "size": "small", "patterns": ["focal"]}, ONTOLOGY) == "small focal nodule"
    )


@given(finding=findings, mode=st.sampled_from(MODES), variants=st.integers(1, 12))
def test_variants_are_distinct_bounded_and_lead_with_the_canonical_text(finding, mode, variants):
    written = training_texts(finding, KNOWLEDGE, ONTOLOGY, mode=mode, variants=variants)
    assert written == training_texts(dict(finding), KNOWLEDGE, ONTOLOGY, mode=mode, variants=variants)
    assert len(written) == len(set(written)) and 1 <= len(written) <= variants
    assert written[0] == canonical_texts(finding, KNOWLEDGE, ONTOLOGY, mode=mode)[0]
    assert all(ONTOLOGY.label(finding["category"]) in text.partition(". ")[0] for text in written)
    assert all(len(text.split()) <= 70 for text in written)


def test_more_variants_drop_other_attributes():
    many = texts(category="consolidation", severity="moderate", variants=16)
    assert len(many) == 16
    assert len(texts(category="consolidation", severity="moderate", variants=16, certainty="uncertain")) == 16
    dropped = [text for text in many if "air bronchograms" not in text and "." in text]
    assert dropped and any("air bronchograms" in text for text in many)


def test_an_empty_slot_is_the_same_however_it_is_empty():
    assert texts(category="edema", sites=[], patterns=(), severity=None) == texts(category="edema")


def test_texts_are_the_same_in_another_process():
    code = (
        "from tests.unit.knowledge.test_inject import texts\n"
        "print(texts(category='edema', severity='severe', variants=16))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert found.stdout.strip() == str(texts(category="edema", severity="severe", variants=16))


def test_image_specific_phrases_are_one_more_variant_of_what_is_there():
    told = ("fluid up to the fourth rib",)
    assert texts(category="pleural_effusion", told=told)[1] == "pleural effusion. fluid up to the fourth rib"
    assert texts(category="pleural_effusion", certainty="absent", told=told) == texts(
        category="pleural_effusion", certainty="absent"
    )


def words(text):
    return len(text.split())


@given(finding=findings, mode=st.sampled_from(MODES), limit=st.integers(1, 40))
def test_a_text_is_cut_between_phrases_and_cutting_again_changes_nothing(finding, mode, limit):
    for text in training_texts(finding, KNOWLEDGE, ONTOLOGY, mode=mode):
        fitted = fit_text(text, words, limit)
        assert fit_text(fitted, words, limit) == fitted
        assert text.startswith(fitted) and fitted
        assert words(fitted) <= limit
        clause = text.partition(". ")[0]
        if words(clause) <= limit:
            assert fitted.startswith(clause)
            assert text == fitted or text[len(fitted) :].startswith((", ", ". "))
        if words(text) <= limit:
            assert fitted == text


@given(text=st.text(alphabet="ab ,.", max_size=60), limit=st.integers(0, 30))
def test_any_text_can_be_cut_by_any_measure(text, limit):
    for measure in (len, words):
        fitted = fit_text(text, measure, limit)
        assert fit_text(fitted, measure, limit) == fitted and text.startswith(fitted)
        assert measure(fitted) <= limit or " " not in fitted
