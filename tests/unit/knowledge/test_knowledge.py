"""The knowledge file: complete, consistent with the ontology, and refused with a clear error when it is not."""

from __future__ import annotations

import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import Attribute, load_knowledge
from medfilip.knowledge.reading import parse_knowledge

REQUIRED = (
    *("pleural_effusion", "consolidation", "nodule", "cardiomegaly", "pneumothorax", "atelectasis", "edema"),
    *("lung_opacity", "pneumonia", "emphysema", "hyperinflation", "hypoinflation", "pulmonary_fibrosis", "mass"),
    *("pleural_thickening", "fracture", "rib_fracture", "scoliosis", "hiatal_hernia", "vascular_congestion"),
)


def test_the_required_categories_have_entries_with_three_distinct_paraphrases():
    knowledge = load_knowledge()
    for category in REQUIRED:
        entry = knowledge.entry(category)
        assert entry is not None, category
        assert len(set(entry.descriptions)) >= 3
        assert entry.phrases({"category": category})


def test_a_category_without_entry_is_none():
    assert load_knowledge().entry("kyphosis") is None


def test_no_two_categories_share_a_description():
    descriptions = [text for entry in load_knowledge().entries.values() for text in entry.descriptions]
    assert len(descriptions) == len(set(descriptions))


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ({"severity": "severe", "sites": ["lung_apex"], "patterns": ["hazy"]}, True),
        ({"size": "large", "sites": ["lung_apex"], "patterns": ["hazy"]}, True),
        ({"severity": "mild", "sites": ["lung_apex"], "patterns": ["hazy"]}, False),
        ({"severity": "severe", "sites": ["lung_base"], "patterns": ["hazy"]}, False),
        ({"severity": "severe", "sites": ["lung_apex"], "patterns": None}, False),
    ],
)
def test_every_condition_of_an_attribute_must_hold(finding, expected):
    attribute = Attribute(text="text", severities=("severe",), sites=("lung_apex",), patterns=("hazy",))
    assert attribute.fits(finding) is expected


def test_a_conditioned_phrase_replaces_the_general_ones_of_its_axis():
    entry = load_knowledge().entry("pleural_effusion")
    assert entry is not None
    mild, severe = entry.phrases({"severity": "mild"}), entry.phrases({"severity": "severe"})
    assert "costophrenic angle just filled" in mild
    assert "fluid over most of the hemithorax" in severe
    assert "dependent at the lung base" not in mild + severe


VALID = """
version: 1
entries:
  nodule:
    review: unreviewed
    attributes: {density: [solid], shape: [{text: round, severities: [mild]}]}
    descriptions: [one, two, three]
"""


def test_the_fingerprint_follows_the_content():
    ontology = load_ontology()
    assert parse_knowledge(VALID, ontology).fingerprint == parse_knowledge(VALID, ontology).fingerprint
    changed = parse_knowledge(VALID.replace("solid", "dense"), ontology)
    assert changed.fingerprint != parse_knowledge(VALID, ontology).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  nodule:", "  nodul:", "category nodul"),
        ("[mild]", "[mildish]", "severity mildish"),
        ("severities: [mild]", "sites: [liver]", "site liver"),
        ("three]", "]", "descriptions"),
        ("density", "colour", "colour"),
    ],
)
def test_an_invalid_file_is_refused_by_name(old, new, named):
    with pytest.raises(MedfilipError, match=named) as caught:
        parse_knowledge(VALID.replace(old, new), load_ontology())
    assert caught.value.code == ErrorCode.CONFIG_INVALID
